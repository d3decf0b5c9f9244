//! Lanes: topics are spread over a few of them, and each has one connection with one batch in flight.
//!
//! Two requests are ordered only if the second was sent after the first was answered. A topic always takes the same
//! lane, so its publications keep their order while other lanes are under way. A lane's next batch fills up while the
//! one before is in flight: small batches when little happens, large ones under load. When a lane's batch is full the
//! reader waits, so memory is bounded by two batches per lane however long the input is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// The default bounds of a gateway on one batch are 1,000 items and 1 MiB; half of the bytes is plenty to be efficient.
/// A single line of up to 1 MiB may stand in a batch alone.
const BATCH_ITEMS_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 512 << 10;

/// One publication, ready to be sent.
#[derive(Debug)]
pub(super) struct Item {
    /// The line it came from.
    pub(super) line: u64,
    lane: u64,
    json: Vec<u8>,
}

impl Item {
    /// An item of a topic that was checked, with a payload that is JSON on one line.
    pub(super) fn new(line: u64, topic: &str, key: &str, data: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        // A key may have any characters; as a JSON value it is quoted and escaped. Topics never need escaping.
        let key = serde_json::Value::from(key);
        let json =
            format!("{{\"topic\":\"{topic}\",\"key\":{key},\"data\":{data}}}\n").into_bytes();
        Self { line, lane: hasher.finish(), json }
    }
}

/// Items that travel together, in their order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    items: Vec<Item>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, item: Item) {
        self.bytes += item.json.len();
        self.items.push(item);
    }

    fn has_room_for(&self, item: &Item) -> bool {
        let fits =
            self.items.len() < BATCH_ITEMS_MAX && self.bytes + item.json.len() <= BATCH_BYTES_MAX;
        self.items.is_empty() || fits
    }

    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The line of the first item.
    pub(super) fn first_line(&self) -> u64 {
        self.items.first().map_or(0, |item| item.line)
    }

    /// The line of an item.
    pub(super) fn line(&self, at: usize) -> u64 {
        self.items.get(at).map_or(0, |item| item.line)
    }

    /// The first `count` items as NDJSON.
    pub(super) fn body(&self, count: usize) -> Bytes {
        let mut body = Vec::with_capacity(self.bytes);
        for item in self.items.iter().take(count) {
            body.extend_from_slice(&item.json);
        }
        Bytes::from(body)
    }

    /// Drops the items for which `is_done` says so.
    pub(super) fn drop_done(&mut self, mut is_done: impl FnMut(usize) -> bool) {
        let mut at = 0;
        self.items.retain(|_| {
            at += 1;
            !is_done(at - 1)
        });
        self.bytes = self.items.iter().map(|item| item.json.len()).sum();
    }
}

/// The batch that fills up, shared by the reader and the lane's task.
#[derive(Debug, Default)]
struct Lane {
    open: Mutex<Batch>,
    /// Signalled when the batch was taken, or nothing will be taken any more.
    room: Condvar,
    /// Signalled when there is something to take, or nothing will come any more.
    ready: Notify,
}

/// All lanes of a run.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Set once, by the reader at the end of the input or by a task that failed. Guards no data: a lane looks at it
    /// while it holds its own lock.
    closed: Mutex<bool>,
    closing: Condvar,
}

impl Lanes {
    /// That many lanes.
    pub(super) fn new(count: u16) -> Self {
        let lanes = (0..count.max(1)).map(|_| Lane::default()).collect();
        Self { lanes, closed: Mutex::new(false), closing: Condvar::new() }
    }

    /// The number of lanes.
    pub(super) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Adds an item to its lane, waiting for room if need be. `false` if the lanes are closed.
    pub(super) fn push(&self, item: Item) -> bool {
        // The remainder is below the number of lanes, which is small.
        let at = usize::try_from(item.lane % self.lanes.len() as u64).unwrap_or_default();
        let lane = &self.lanes[at];
        let mut open = lane.open.lock();
        lane.room.wait_while(&mut open, |open| !open.has_room_for(&item) && !self.is_closed());
        if self.is_closed() {
            return false;
        }
        open.push(item);
        lane.ready.notify_one();
        true
    }

    /// Waits until a lane has items and takes them; `None` when there will be no more.
    pub(super) async fn take(&self, lane: usize) -> Option<Batch> {
        let lane = &self.lanes[lane];
        loop {
            {
                let mut open = lane.open.lock();
                if open.len() > 0 {
                    lane.room.notify_one();
                    return Some(mem::take(&mut open));
                }
                if self.is_closed() {
                    return None;
                }
            }
            // A signal that came in between is kept by `Notify`, so none is missed.
            lane.ready.notified().await;
        }
    }

    /// No more items: what is there is still taken, and everyone who waits is woken.
    pub(super) fn close(&self) {
        *self.closed.lock() = true;
        self.closing.notify_all();
        for lane in &self.lanes {
            // Taking the lock once makes sure that nobody is between looking at `closed` and waiting.
            drop(lane.open.lock());
            lane.room.notify_all();
            lane.ready.notify_one();
        }
    }

    /// Waits until the time has come, or the lanes are closed.
    pub(super) fn wait_until(&self, time: Instant) {
        let mut closed = self.closed.lock();
        while !*closed && !self.closing.wait_until(&mut closed, time).timed_out() {}
    }

    fn is_closed(&self) -> bool {
        *self.closed.lock()
    }
}
