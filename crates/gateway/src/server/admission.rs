//! Who is let in: how many at once, and how fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::addresses::{Addresses, Block};
use super::peer::Peer;
use crate::config::Config;

/// Connections that may wait to be let in. Each is an open file, and what its client has sent lies in the kernel.
const WAITING_MAX: usize = 16_384;

/// Nobody waits longer than that on a node that keeps its pace: clients would not stay either.
const WAIT_MAX_SECONDS: usize = 10;

/// Connections per second and worker, unless `server.accept_rate` says otherwise.
const RATE_PER_WORKER: usize = 2_000;

/// For so long the node is not ready after a connection could not be accepted for want of open files.
const LACK_MS: u64 = 1000;

/// Part of a second whose share may come at once, and how many at least.
const BURST: f64 = 0.1;
const BURST_MIN: f64 = 16.0;

/// Seconds whose share comes together. Workers that were woken for each connection by itself would spend more on waking up
/// than on the handshakes.
const GRAIN: f64 = 0.01;

/// Open connections of the public listener against their bounds.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    max: AtomicUsize,
    waiting: AtomicUsize,
    addresses: Addresses,
    started: Instant,
    /// When a connection could last not be accepted for want of open files, in milliseconds since `started` and one
    /// more; 0 if never.
    lacked_files: AtomicU64,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            waiting: AtomicUsize::new(0),
            addresses: Addresses::default(),
            started: Instant::now(),
            lacked_files: AtomicU64::new(0),
        }
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        // Dropped at once, it takes back what it has counted.
        let place = Place { connections: Some(Arc::clone(self)), block: Block::NONE };
        (self.open.fetch_add(1, Relaxed) < self.max()).then_some(place)
    }

    /// Open connections now, those that wait too.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Client addresses whose connections are counted.
    pub(crate) fn addresses(&self) -> usize {
        self.addresses.len()
    }

    fn leave(&self, block: Block) {
        self.open.fetch_sub(1, Relaxed);
        if block != Block::NONE {
            self.addresses.leave(block);
        }
    }

    /// Changes the bound. Nobody who is in is sent away.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// The bound.
    pub(crate) fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    pub(crate) fn set_waiting(&self, count: usize) {
        self.waiting.store(count, Relaxed);
    }

    /// Connections that wait to be let in.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Connections beside those that wait and so many WebSockets: they serve requests, or are in their handshake.
    pub(crate) fn http(&self, websocket: u64) -> u64 {
        // The workers' numbers are those of their last turn, so the difference may be off for a moment.
        (self.open().saturating_sub(self.waiting()) as u64).saturating_sub(websocket)
    }

    /// A connection, whoever's, could not be accepted because the process may have no more open files.
    pub(crate) fn note_lack_of_files(&self) {
        if !self.is_out_of_files() {
            tracing::warn!(
                connections = self.open(),
                "no more open files: not every connection can be accepted, and this node is not ready; raise the limit or lower `server.max_connections`"
            );
        }
        self.lacked_files.store(1 + self.elapsed(), Relaxed);
    }

    /// Whether that has happened just now. While connections wait for a file it happens many times a second.
    pub(crate) fn is_out_of_files(&self) -> bool {
        is_recent(self.lacked_files.load(Relaxed), self.elapsed())
    }

    /// In milliseconds.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether a lack that was noted with `lacked` counts at a time.
fn is_recent(lacked: u64, now: u64) -> bool {
    lacked > 0 && now < lacked + LACK_MS
}

/// The place of one connection among those that may be open. It goes with the connection wherever that goes, from the
/// acceptor to a worker and from HTTP to WebSocket, so that the count is never a moment without it.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Option<Arc<Connections>>,
    /// The address that it counts for.
    block: Block,
}

impl Place {
    /// Counts the connection as one of this client's address. False if there are as many as may be, by the configuration;
    /// proxies that are trusted may have any number, and a connection counts once.
    pub(crate) fn claim(&mut self, client: Peer, config: &Config) -> bool {
        let max = config.limits.connections_per_address;
        let is_counted = self.block != Block::NONE;
        if max == 0 || is_counted || client.is_trusted(&config.server.trusted_proxies) {
            return true;
        }
        let Some(connections) = &self.connections else { return true };
        let block = Block::of(client);
        let is_admitted = connections.addresses.enter(block, max);
        if is_admitted {
            self.block = block;
        }
        is_admitted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(connections) = &self.connections {
            connections.leave(self.block);
        }
    }
}

/// The places of a worker's WebSockets, as a number: each place by itself would cost every idle connection a pointer.
#[derive(Debug)]
pub(crate) struct Places {
    connections: Arc<Connections>,
    count: usize,
    /// The addresses that they count for, by the index of the connection. As long as none is counted, it is empty.
    blocks: Vec<Block>,
}

impl Places {
    pub(crate) fn new(connections: Arc<Connections>) -> Self {
        Self { connections, count: 0, blocks: Vec::new() }
    }

    /// Takes in that of the connection with this index. It counts as before.
    pub(crate) fn keep(&mut self, index: usize, mut place: Place) {
        self.count += usize::from(place.connections.take().is_some());
        if place.block != Block::NONE {
            if self.blocks.len() <= index {
                self.blocks.resize(index + 1, Block::NONE);
            }
            self.blocks[index] = place.block;
        }
    }

    /// Gives that of the connection with this index back.
    pub(crate) fn give_back(&mut self, index: usize) {
        debug_assert!(self.count > 0, "what was not kept cannot be given back");
        self.count -= 1;
        let block = self.blocks.get_mut(index);
        let block = block.map_or(Block::NONE, |block| std::mem::replace(block, Block::NONE));
        self.connections.leave(block);
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(self.count, Relaxed);
        for block in self.blocks.drain(..).filter(|block| *block != Block::NONE) {
            self.connections.addresses.leave(block);
        }
    }
}

/// Connections that are let in per second.
pub(super) fn rate(config: &Config, workers: usize) -> usize {
    match config.server.accept_rate {
        0 => RATE_PER_WORKER * workers.max(1),
        rate => rate,
    }
}

/// Connections that may wait at this rate.
pub(crate) fn waiting_max(config: &Config, workers: usize) -> usize {
    let patient = rate(config, workers).saturating_mul(WAIT_MAX_SECONDS);
    patient.min(WAITING_MAX)
}

/// Lets in so many per second on average, and a few at once.
#[derive(Debug)]
pub(super) struct Pace {
    /// Per second.
    rate: f64,
    /// Those that may come now, a part of one included.
    balance: f64,
    /// When the balance was that.
    at: Instant,
}

impl Pace {
    pub(super) fn new(rate: usize, now: Instant) -> Self {
        let mut pace = Self { rate: rate.max(1) as f64, balance: 0.0, at: now };
        pace.balance = pace.burst();
        pace
    }

    /// Goes on with another rate. What has come counts as before.
    pub(super) fn set_rate(&mut self, rate: usize, now: Instant) {
        self.refill(now);
        self.rate = rate.max(1) as f64;
        self.balance = self.balance.min(self.burst());
    }

    fn burst(&self) -> f64 {
        (self.rate * BURST).max(BURST_MIN)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.balance = (self.balance + elapsed * self.rate).min(self.burst());
        self.at = self.at.max(now);
    }

    /// Whether the next may come now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.balance >= 1.0
    }

    /// When it is time to look again, once the next may not come yet: then the next few may.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.refill(now);
        let few = (self.rate * GRAIN).clamp(1.0, self.burst());
        now + Duration::from_secs_f64((few - self.balance).max(0.0) / self.rate)
    }

    /// One has come.
    pub(super) fn spend(&mut self) {
        self.balance -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many come in the time after `start`, if as many as may do.
    fn let_in(pace: &mut Pace, start: Instant, time: Duration) -> usize {
        let (mut now, mut count) = (start, 0);
        loop {
            if pace.is_due(now) {
                pace.spend();
                count += 1;
                continue;
            }
            now = pace.next(now);
            if now > start + time {
                return count;
            }
        }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        assert_eq!(let_in(&mut pace, start, Duration::ZERO), 100);
        assert_eq!(let_in(&mut pace, start, Duration::from_millis(500)), 500);
        // A long rest saves up no more than a burst.
        let later = start + Duration::from_secs(60);
        assert_eq!(let_in(&mut pace, later, Duration::ZERO), 100);

        let mut slow = Pace::new(2, start);
        assert_eq!(let_in(&mut slow, start, Duration::ZERO), 16);
        assert_eq!(slow.next(start), start + Duration::from_millis(500));
    }

    #[test]
    fn the_rate_can_change_on_the_way() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        assert_eq!(let_in(&mut pace, start, Duration::ZERO), 100);
        pace.set_rate(10, start);
        assert_eq!(pace.next(start), start + Duration::from_millis(100));
        let later = start + Duration::from_secs(60);
        pace.set_rate(10, later);
        assert_eq!(let_in(&mut pace, later, Duration::ZERO), 16, "the burst of the new rate");
    }

    #[test]
    fn who_would_wait_too_long_need_not_begin() {
        let mut config = Config::default();
        assert_eq!((rate(&config, 4), waiting_max(&config, 4)), (8_000, WAITING_MAX));
        config.server.accept_rate = 20;
        assert_eq!((rate(&config, 4), waiting_max(&config, 4)), (20, 200));
    }

    #[test]
    fn as_many_places_as_may_be_taken() {
        let connections = Arc::new(Connections::new(2));
        let first = connections.enter().unwrap();
        let second = connections.enter();
        assert!(second.is_some() && connections.enter().is_none());
        drop(first);
        assert_eq!(connections.open(), 1);
        assert_eq!((connections.http(0), connections.http(1), connections.http(2)), (1, 0, 0));
        connections.set_waiting(1);
        assert_eq!(connections.http(0), 0, "who waits is no request");
        connections.set_waiting(0);
        let mut kept = Places::new(Arc::clone(&connections));
        kept.keep(0, connections.enter().unwrap());
        kept.keep(1, second.unwrap());
        assert_eq!(connections.open(), 2);
        kept.give_back(0);
        assert_eq!(connections.open(), 1);
        connections.set_max(1);
        assert!(connections.enter().is_none());
        drop(kept);
        assert!(connections.enter().is_some());
        assert_eq!(connections.open(), 0);
    }

    #[test]
    fn a_place_counts_for_its_address_wherever_it_goes() {
        let mut config = Config::default();
        config.limits.connections_per_address = 2;
        config.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let peer = |text: &str| Peer::from(text.parse::<std::net::IpAddr>().unwrap());
        let (client, other) = (peer("192.0.2.7"), peer("192.0.2.8"));
        let connections = Arc::new(Connections::new(100));
        let enter = |client: Peer| {
            let mut place = connections.enter().unwrap();
            place.claim(client, &config).then_some(place)
        };
        let mut first = enter(client).unwrap();
        assert!(first.claim(client, &config), "it counts once");
        let second = enter(client).unwrap();
        assert!(enter(client).is_none() && enter(other).is_some());
        assert_eq!((connections.open(), connections.addresses()), (2, 1));
        let mut kept = Places::new(Arc::clone(&connections));
        kept.keep(5, first);
        kept.keep(0, connections.enter().unwrap());
        assert!(enter(client).is_none());
        kept.give_back(5);
        let third = enter(client).unwrap();
        kept.keep(5, third);
        assert!(enter(client).is_none());
        kept.give_back(0);
        drop((kept, second));
        assert_eq!((connections.open(), connections.addresses()), (0, 0));

        let proxies: Vec<_> = (0..5).filter_map(|_| enter(peer("10.1.2.3"))).collect();
        assert_eq!((proxies.len(), connections.addresses()), (5, 0));
        config.limits.connections_per_address = 0;
        let mut place = connections.enter().unwrap();
        assert!(place.claim(client, &config) && connections.addresses() == 0);
    }

    #[test]
    fn a_lack_of_files_passes() {
        let connections = Connections::new(1);
        assert!(!connections.is_out_of_files());
        connections.note_lack_of_files();
        assert!(connections.is_out_of_files());
        for (lacked, now, counts) in
            [(0, 0, false), (1, 0, true), (501, 1500, true), (501, 1501, false)]
        {
            assert_eq!(is_recent(lacked, now), counts, "{lacked} at {now}");
        }
    }
}
