//! The memory broker as a whole: tables here, threads below, the property test against a naive model in `model`.

mod model;

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};
use std::thread;

use bytes::Bytes;
use tickcast_protocol::Epoch;

use super::*;
use crate::testing::ManualClock;
use crate::{HistoryRequest, Retention};

const RETENTION: Retention = Retention {
    value: true,
    history: 100,
    history_bytes: 1 << 20,
    history_age: Duration::from_secs(300),
};

const NOTHING: Retention =
    Retention { value: false, history: 0, history_bytes: 0, history_age: Duration::ZERO };

/// Writes down what is delivered.
#[derive(Debug, Default)]
struct Recorder {
    delivered: Mutex<Vec<Arc<Publication>>>,
    links: Mutex<Vec<bool>>,
}

impl Inbound for Recorder {
    fn deliver(&self, publication: Arc<Publication>) {
        self.delivered.lock().push(publication);
    }

    fn compare(&self, _topic: &Topic, _position: Position) {}

    fn suspect(&self, _topic: &Topic) {}

    fn link_changed(&self, up: bool) {
        self.links.lock().push(up);
    }
}

/// A broker on a clock moved by hand, with its calls made synchronous.
struct Bench {
    broker: MemoryBroker,
    recorder: Arc<Recorder>,
    clock: ManualClock,
}

impl Bench {
    fn new(limits: MemoryLimits) -> Self {
        let (recorder, clock) = (Arc::new(Recorder::default()), ManualClock::default());
        let now = clock.clone();
        let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
        let broker = MemoryBroker::with_clock(limits, inbound, move || now.now());
        Self { broker, recorder, clock }
    }

    fn publish(&self, items: Vec<PublishItem>) -> Vec<Result<Published, PublishError>> {
        ready(self.broker.publish(items))
    }

    fn publish_one(&self, item: PublishItem) -> Result<Published, PublishError> {
        self.publish(vec![item]).remove(0)
    }

    fn read(&self, name: &str, create: bool) -> Result<Option<TopicState>, ReadError> {
        let request = ReadRequest { create, history: HistoryRequest::Newest(usize::MAX) };
        ready(self.broker.read(&topic(name), request))
    }

    fn position(&self, name: &str, create: bool) -> Option<Position> {
        self.read(name, create).unwrap().map(|state| state.position)
    }

    fn subscribe(&self, name: &str) {
        ready(self.broker.subscribe(vec![topic(name)])).unwrap();
    }

    fn unsubscribe(&self, name: &str) {
        ready(self.broker.unsubscribe(vec![topic(name)]));
    }

    fn sweep_all(&self) {
        (0..MemoryBroker::SWEEPS_PER_ROUND).for_each(|_| self.broker.sweep());
    }

    fn delivered(&self) -> Vec<(String, u64)> {
        let taken = std::mem::take(&mut *self.recorder.delivered.lock());
        taken.iter().map(|one| (one.topic().to_string(), one.offset())).collect()
    }
}

/// The result of a future that must be ready when first polled, as the memory broker promises.
fn ready<T>(mut future: BoxFuture<'_, T>) -> T {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the memory broker never waits"),
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn item(name: &str, data: &str) -> PublishItem {
    let data = Bytes::copy_from_slice(data.as_bytes());
    PublishItem { topic: topic(name), data, key: None, retention: RETENTION }
}

fn keyed(name: &str, data: &str, key: &str) -> PublishItem {
    PublishItem { key: Some(key.to_owned()), ..item(name, data) }
}

fn cost_of(name: &str, data: &str, offset: u64) -> usize {
    let position = Position { epoch: Epoch::new(1), offset };
    Publication::new(topic(name), position, wall_clock_ms(), data.as_bytes()).cost()
}

#[test]
fn the_link_is_up_from_the_start() {
    let bench = Bench::new(MemoryLimits::default());
    assert_eq!(*bench.recorder.links.lock(), [true]);
}

#[test]
fn only_subscribed_topics_are_delivered() {
    let bench = Bench::new(MemoryLimits::default());
    let batch = || vec![item("a", "1"), item("b", "2"), item("a", "3")];
    bench.subscribe("a");
    bench.subscribe("a");
    let answers = bench.publish(batch());
    let offsets: Vec<_> = answers.iter().map(|answer| answer.unwrap().position.offset).collect();
    assert_eq!(offsets, [1, 1, 2]);
    assert_eq!(bench.delivered(), [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    assert_eq!(bench.broker.stats().subscriptions, 1);
    bench.unsubscribe("a");
    bench.unsubscribe("a");
    bench.publish(batch());
    assert_eq!(bench.delivered(), []);
    assert_eq!(bench.broker.stats().subscriptions, 0);
}

#[test]
fn a_read_creates_an_epoch_only_if_asked() {
    let bench = Bench::new(MemoryLimits::default());
    assert_eq!(bench.position("a", false), None);
    let created = bench.position("a", true).unwrap();
    assert_eq!(created.offset, 0);
    assert!(created.epoch.number() < 1 << 40);
    assert_eq!(bench.position("a", false), Some(created));
    let published = bench.publish_one(item("a", "1")).unwrap();
    assert_eq!(published.position, Position { offset: 1, ..created });
    let state = bench.read("a", true).unwrap().unwrap();
    assert_eq!(state.value.unwrap().data(), b"1");
    assert_eq!(state.history.len(), 1);
}

#[test]
fn a_retry_gets_the_first_answer_and_no_second_delivery() {
    let bench = Bench::new(MemoryLimits::default());
    bench.subscribe("a");
    let batch = vec![keyed("a", "1", "k"), keyed("a", "1", "k"), keyed("a", "2", "k")];
    let answers = bench.publish(batch);
    let first = answers[0].unwrap();
    assert!(!first.duplicate);
    assert_eq!(answers[1], Ok(Published { duplicate: true, ..first }));
    assert_eq!(answers[2], Err(PublishError::IdempotencyConflict));
    assert_eq!(bench.publish_one(keyed("a", "1", "k")), answers[1]);
    assert_eq!(bench.delivered(), [("a".to_owned(), 1)]);
    let elsewhere = bench.publish_one(keyed("b", "2", "k")).unwrap();
    assert!(!elsewhere.duplicate, "the key is scoped to the topic");
    assert_eq!(bench.broker.stats().keys, 2);
}

#[test]
fn topics_expire_unless_subscribed() {
    let limits = MemoryLimits::default();
    let (published, unpublished) = (limits.topic_ttl, limits.unpublished_ttl);
    let second = Duration::from_secs(1);
    // (published?, subscribed?, sweep before looking?, time passed, survives?)
    let table = [
        (false, false, false, unpublished - second, true),
        (false, false, false, unpublished, false),
        (false, false, true, unpublished, false),
        (false, true, true, unpublished, true),
        (true, false, true, published - second, true),
        (true, false, false, published, false),
        (true, false, true, published, false),
        (true, true, true, published, true),
    ];
    for row @ (publish, subscribe, sweep, passed, survives) in table {
        let bench = Bench::new(limits);
        let before = bench.position("a", true).unwrap();
        if publish {
            bench.publish_one(item("a", "1")).unwrap();
        }
        if subscribe {
            bench.subscribe("a");
        }
        bench.clock.advance(passed);
        if sweep {
            bench.sweep_all();
            assert_eq!(bench.broker.stats().topics, usize::from(survives), "{row:?}");
        }
        assert_eq!(bench.position("a", false).is_some(), survives, "{row:?}");
        let after = bench.publish_one(item("a", "2")).unwrap().position;
        assert_eq!(after.epoch == before.epoch, survives, "{row:?}");
    }
}

#[test]
fn leaving_a_topic_starts_its_time_to_live() {
    let limits = MemoryLimits::default();
    let bench = Bench::new(limits);
    bench.subscribe("a");
    let position = bench.position("a", true);
    bench.clock.advance(2 * limits.unpublished_ttl);
    bench.unsubscribe("a");
    bench.clock.advance(limits.unpublished_ttl - Duration::from_secs(1));
    bench.sweep_all();
    assert_eq!(bench.position("a", false), position);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.position("a", false), None);
}

#[test]
fn history_is_too_old_for_readers_before_it_is_swept() {
    let bench = Bench::new(MemoryLimits::default());
    for _ in 0..3 {
        bench.publish_one(item("a", "1")).unwrap();
        bench.clock.advance(Duration::from_secs(100));
    }
    assert_eq!(bench.read("a", false).unwrap().unwrap().history.len(), 2);
    bench.clock.advance(RETENTION.history_age);
    bench.sweep_all();
    assert_eq!(bench.broker.stats().bytes, cost_of("a", "1", 1), "the value stays");
    let state = bench.read("a", false).unwrap().unwrap();
    assert_eq!((state.history.len(), state.value.unwrap().offset()), (0, 3));
}

#[test]
fn at_topics_max_known_topics_go_on() {
    let bench = Bench::new(MemoryLimits { topics_max: 1, ..MemoryLimits::default() });
    bench.publish_one(item("a", "1")).unwrap();
    assert_eq!(bench.publish_one(item("b", "1")), Err(PublishError::Full("topics_max")));
    assert_eq!(bench.read("b", true).unwrap_err(), ReadError::Full("topics_max"));
    assert_eq!(bench.position("b", false), None);
    assert!(bench.publish_one(item("a", "1")).is_ok());
    assert!(bench.read("a", true).is_ok());
}

#[test]
fn topics_that_are_only_read_leave_room_for_publishers() {
    let limits = MemoryLimits { topics_max: 10, ..MemoryLimits::default() };
    let bench = Bench::new(limits);
    let full = ReadError::Full("topics_max");
    let name = |number: usize| format!("read{number}");
    (0..5).for_each(|number| assert!(bench.read(&name(number), true).is_ok()));
    bench.subscribe(&name(0));
    for number in 5..100 {
        assert_eq!(bench.read(&name(number), true).unwrap_err(), full, "below the bound for all");
    }
    assert_eq!(bench.broker.stats().topics, 5);
    for number in 0..5 {
        assert!(bench.read(&name(number), true).is_ok(), "those that are there go on");
        assert!(bench.publish_one(item(&format!("new{number}"), "1")).is_ok());
    }
    assert_eq!(bench.publish_one(item("more", "1")), Err(PublishError::Full("topics_max")));
    // The first publication makes it one of the publishers', and leaves its room to another reader once there is any.
    assert!(bench.publish_one(item(&name(0), "1")).is_ok());
    assert_eq!(bench.read(&name(5), true).unwrap_err(), full, "there are ten");
    bench.clock.advance(limits.unpublished_ttl);
    bench.sweep_all();
    assert_eq!(bench.broker.stats().topics, 6, "the first to go are those that were only read");
    assert!((5..9).all(|number| bench.read(&name(number), true).is_ok()));
    assert_eq!(bench.read(&name(9), true).unwrap_err(), full);
    // A publication that has no room for its bytes leaves a topic, unpublished.
    let tight = Bench::new(MemoryLimits { topics_max: 4, bytes_max: 1, ..limits });
    assert_eq!(tight.publish_one(item("a", "1")), Err(PublishError::Full("bytes_max")));
    assert!(tight.read("b", true).is_ok());
    assert_eq!(tight.read("c", true).unwrap_err(), full);
}

#[test]
fn at_bytes_max_a_publication_pushes_out_its_own_history_only() {
    let cost = cost_of("a", "1", 1);
    let bench = Bench::new(MemoryLimits { bytes_max: 4 * cost, ..MemoryLimits::default() });
    let history = |name| bench.read(name, false).unwrap().unwrap().history.len();
    let full = Err(PublishError::Full("bytes_max"));
    (0..9).for_each(|_| assert!(bench.publish_one(item("a", "1")).is_ok()));
    assert_eq!((history("a"), bench.broker.stats().bytes), (4, 4 * cost));
    assert_eq!(bench.publish_one(item("b", "1")), full, "others never pay");
    assert_eq!(history("a"), 4);
    let unretained = PublishItem { retention: NOTHING, ..item("b", "1") };
    assert!(bench.publish_one(unretained).is_ok(), "what is not kept needs no room");
    let two = |data: &str| bench.publish_one(item("a", &data.repeat(1 + cost / 2)));
    assert!(two("1").is_ok());
    assert_eq!(history("a"), 3, "a larger one pushes out several");
    let state = bench.read("a", false).unwrap().unwrap();
    assert_eq!(bench.publish_one(item("a", &"1".repeat(4 * cost))), full);
    assert_eq!(bench.position("a", false), Some(state.position), "a refusal changes nothing");
    assert_eq!(history("a"), 3);
}

#[test]
fn every_node_thread_sees_one_order_per_topic() {
    const THREADS: usize = 4;
    const TOPICS: usize = 8;
    const ROUNDS: usize = 2_000;
    let bench = Bench::new(MemoryLimits::default());
    let names: Vec<_> = (0..TOPICS).map(|n| format!("t{n}")).collect();
    names.iter().for_each(|name| bench.subscribe(name));
    let write = |writer: usize| {
        for round in 0..ROUNDS {
            let name = &names[(round + writer % 2) % TOPICS];
            // Every other publication has a key that another writer uses too: one of them wins.
            let key = round.is_multiple_of(2).then(|| round.to_string());
            assert!(bench.publish_one(PublishItem { key, ..item(name, "1") }).is_ok());
            if round.is_multiple_of(64) {
                bench.broker.sweep();
            }
        }
    };
    thread::scope(|scope| {
        for writer in 0..THREADS {
            scope.spawn(move || write(writer));
        }
    });
    let mut next: HashMap<String, u64> = HashMap::new();
    for (name, offset) in bench.delivered() {
        let last = next.entry(name).or_default();
        assert_eq!(offset, *last + 1);
        *last = offset;
    }
    for name in &names {
        assert_eq!(bench.position(name, false).unwrap().offset, next[name]);
    }
    let keyless = (THREADS * ROUNDS / 2) as u64;
    let keys = bench.broker.stats().keys as u64;
    assert_eq!(keys, (2 * ROUNDS / 2) as u64);
    assert_eq!(next.values().sum::<u64>(), keyless + keys);
}
