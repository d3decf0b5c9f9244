//! The bounded hand-over from the hub to one worker.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tickcast_protocol::{Publication, Topic};

use crate::log::TopicLog;

/// A worker's own number for a topic it has joined. The generation tells a later use of the same index apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalTopic {
    /// Index in the worker's table of topics.
    pub index: u32,
    /// Counts the uses of the index.
    pub generation: u32,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Item {
    /// The next publication of a joined topic. The log now starts after `floor`.
    Publication {
        /// The worker's number of the topic.
        local: LocalTopic,
        /// The publication, shared by all workers and connections.
        publication: Arc<Publication>,
        /// The hub's log keeps nothing at or before this offset.
        floor: u64,
    },
    /// The whole log of a joined topic: after joining, after a repair, a reset, or when the history was read.
    Log {
        /// The worker's number of the topic.
        local: LocalTopic,
        /// The log as it is now; later items continue it.
        log: Box<TopicLog>,
    },
    /// Publications got too old.
    Trim {
        /// The worker's number of the topic.
        local: LocalTopic,
        /// The hub's log keeps nothing at or before this offset.
        floor: u64,
    },
    /// The broker link came up or went down.
    Link {
        /// Whether it is up.
        up: bool,
    },
}

/// A bounded queue of [`Item`]s to one worker.
///
/// When it is full a topic's item is not queued; instead the topic is marked, and the worker asks for its whole log once
/// it has drained the queue ([`Hub::resync`](crate::Hub::resync)). So nothing waits, nothing grows, and nothing is lost
/// that the log still holds.
pub struct Inbox {
    capacity: usize,
    queue: Mutex<Queue>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Topics with an item that did not fit, each once: the hub marks them so. Empty whenever `items` is.
    stale: Vec<Topic>,
    /// The last change of the broker link that was not taken yet. It always fits.
    link: Option<bool>,
    overflows: u64,
}

impl Inbox {
    /// An inbox of at most `capacity` items, but at least one; `wake` is called when it stops being empty and must not
    /// block.
    pub fn new(capacity: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { capacity: capacity.max(1), queue: Mutex::default(), wake: Box::new(wake) }
    }

    /// Queues an item about a topic. False if the inbox is full: then the topic is marked, in the same instant, so that
    /// whoever takes the items that fill the inbox takes the mark as well.
    pub(crate) fn push(&self, topic: &Topic, item: Item) -> bool {
        let mut queue = self.queue.lock();
        if queue.items.len() >= self.capacity {
            queue.overflows += 1;
            queue.stale.push(topic.clone());
            return false;
        }
        let was_empty = queue.is_empty();
        queue.items.push_back(item);
        drop(queue);
        if was_empty {
            (self.wake)();
        }
        true
    }

    /// Notes that the broker link came up or went down. Only the last change before the worker looks counts.
    pub(crate) fn push_link(&self, up: bool) {
        let mut queue = self.queue.lock();
        let was_empty = queue.is_empty();
        queue.link = Some(up);
        drop(queue);
        if was_empty {
            (self.wake)();
        }
    }

    /// Takes everything queued into `items`, which must be empty and whose storage is reused, and the stale topics.
    pub fn take(&self, items: &mut VecDeque<Item>) -> Vec<Topic> {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.items, items);
        items.extend(queue.link.take().map(|up| Item::Link { up }));
        std::mem::take(&mut queue.stale)
    }

    /// Items waiting now.
    pub fn len(&self) -> usize {
        self.queue.lock().items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// How often an item did not fit.
    pub fn overflows(&self) -> u64 {
        self.queue.lock().overflows
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.link.is_none()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[test]
    fn what_does_not_fit_is_marked_in_the_same_step() {
        let (wakes, topic) = (Arc::new(AtomicU32::new(0)), Topic::new("t").unwrap());
        let counter = Arc::clone(&wakes);
        let inbox = Inbox::new(1, move || {
            counter.fetch_add(1, Relaxed);
        });
        let item = || Item::Trim { local: LocalTopic { index: 0, generation: 0 }, floor: 0 };
        assert!(inbox.push(&topic, item()));
        assert!(!inbox.push(&topic, item()));
        inbox.push_link(true);
        let mut items = VecDeque::new();
        let stale = inbox.take(&mut items);
        assert_eq!((items.len(), stale, wakes.load(Relaxed)), (2, vec![topic], 1));
        assert!(inbox.is_empty());
        inbox.push_link(false);
        assert_eq!((inbox.is_empty(), wakes.load(Relaxed)), (false, 2));
    }
}
