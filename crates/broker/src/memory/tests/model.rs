//! The memory broker against a model that keeps everything in plain lists and counts afresh at every question.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: [&str; 3] = ["k", "l", "m"];

#[derive(Debug, Clone)]
enum Step {
    Publish { topic: usize, key: Option<usize>, size: usize, retention: Retention },
    Read { topic: usize, create: bool, history: HistoryRequest },
    Subscribe(usize),
    Unsubscribe(usize),
    Advance(Duration),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let topic = || 0..TOPICS.len();
    let retention = (any::<bool>(), 0..5usize, 0..700usize, 0..40u64).prop_map(
        |(value, history, history_bytes, seconds)| {
            let history_age = Duration::from_secs(seconds);
            Retention { value, history, history_bytes, history_age }
        },
    );
    let history = prop_oneof![
        Just(HistoryRequest::None),
        (0..20u64).prop_map(HistoryRequest::After),
        (0..6usize).prop_map(HistoryRequest::Newest),
    ];
    let publish = (topic(), proptest::option::of(0..KEYS.len()), 1..60usize, retention)
        .prop_map(|(topic, key, size, retention)| Step::Publish { topic, key, size, retention });
    let read = (topic(), any::<bool>(), history).prop_map(|(topic, create, history)| Step::Read {
        topic,
        create,
        history,
    });
    let step = prop_oneof![
        10 => publish,
        4 => read,
        1 => topic().prop_map(Step::Subscribe),
        1 => topic().prop_map(Step::Unsubscribe),
        3 => (0..30u64).prop_map(|seconds| Step::Advance(Duration::from_secs(seconds))),
        1 => Just(Step::Sweep),
    ];
    vec(step, 1..120)
}

/// Seconds and bytes small enough that every bound is met in a hundred steps.
fn tight_limits() -> MemoryLimits {
    MemoryLimits {
        topics_max: 3,
        bytes_max: 900,
        idempotency_ttl: Duration::from_secs(60),
        idempotency_keys_max: 4,
        topic_ttl: Duration::from_secs(100),
        unpublished_ttl: Duration::from_secs(40),
    }
}

fn time_limits_only() -> MemoryLimits {
    MemoryLimits {
        topics_max: 1000,
        bytes_max: 1 << 30,
        idempotency_keys_max: 1000,
        ..tight_limits()
    }
}

/// Epochs are numbered here; `epochs` learns what the broker calls them.
#[derive(Default)]
struct Model {
    topics: HashMap<usize, ModelTopic>,
    subscribed: HashSet<usize>,
    keys: HashMap<(usize, usize), ModelKey>,
    deliveries: Vec<(String, u64)>,
    epochs: HashMap<u64, Epoch>,
    epochs_begun: u64,
}

/// Every publication of the epoch; `kept_from` is the offset at which the history begins.
struct ModelTopic {
    epoch: u64,
    used_at: Instant,
    publications: Vec<ModelPublication>,
    kept_from: usize,
}

struct ModelPublication {
    size: usize,
    cost: usize,
    at: Instant,
    retention: Retention,
}

struct ModelKey {
    at: Instant,
    size: usize,
    answer: ModelAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct ModelAnswer {
    epoch: u64,
    offset: usize,
    duplicate: bool,
}

impl ModelTopic {
    /// Moves the begin of the history up until the newest retention is met in every respect.
    fn settle(&mut self, room: usize, now: Instant) {
        let Some(newest) = self.publications.last() else { return };
        let Retention { history, history_bytes, history_age, .. } = newest.retention;
        while let Some(oldest) = self.history().first() {
            let bytes: usize = self.history().iter().map(|one| one.cost).sum();
            if self.history().len() <= history
                && bytes <= history_bytes.min(room)
                && now - oldest.at < history_age
            {
                break;
            }
            self.kept_from += 1;
        }
    }

    fn history(&self) -> &[ModelPublication] {
        &self.publications[self.kept_from - 1..]
    }

    fn value(&self) -> Option<&ModelPublication> {
        self.publications.last().filter(|newest| newest.retention.value)
    }

    fn bytes(&self) -> usize {
        let history = self.history().iter().map(|one| one.cost).sum();
        self.value().map_or(history, |value| value.cost.max(history))
    }

    /// The offsets and sizes that a read has to answer.
    fn select(&self, request: HistoryRequest) -> Vec<(u64, usize)> {
        let kept = (self.kept_from..).zip(self.history());
        let offsets = kept.map(|(offset, one)| (offset as u64, one.size));
        match request {
            HistoryRequest::None => Vec::new(),
            HistoryRequest::After(after) => offsets.filter(|(offset, _)| *offset > after).collect(),
            HistoryRequest::Newest(count) => {
                let skipped = self.history().len().saturating_sub(count);
                offsets.skip(skipped).collect()
            }
        }
    }
}

impl Model {
    fn expire(&mut self, limits: &MemoryLimits, now: Instant) {
        let Self { topics, subscribed, keys, .. } = self;
        keys.retain(|_, key| now - key.at < limits.idempotency_ttl);
        topics.retain(|name, topic| {
            let unpublished = topic.publications.is_empty();
            let ttl = if unpublished { limits.unpublished_ttl } else { limits.topic_ttl };
            subscribed.contains(name) || now - topic.used_at < ttl
        });
        topics.values_mut().for_each(|topic| topic.settle(usize::MAX, now));
    }

    /// The topic, created if need be and possible.
    fn topic(
        &mut self,
        topic: usize,
        (topics_max, unpublished_max): (usize, usize),
        now: Instant,
    ) -> Option<&mut ModelTopic> {
        if !self.topics.contains_key(&topic) {
            let unpublished = self.topics.values().filter(|one| one.publications.is_empty());
            if self.topics.len() >= topics_max || unpublished.count() >= unpublished_max {
                return None;
            }
            self.epochs_begun += 1;
            let epoch = self.epochs_begun;
            let fresh = ModelTopic { epoch, used_at: now, publications: vec![], kept_from: 1 };
            self.topics.insert(topic, fresh);
        }
        self.topics.get_mut(&topic)
    }

    fn publish(
        &mut self,
        (topic, key): (usize, Option<usize>),
        (size, retention): (usize, Retention),
        limits: &MemoryLimits,
        now: Instant,
    ) -> Result<ModelAnswer, PublishError> {
        if let Some(known) = key.and_then(|key| self.keys.get(&(topic, key))) {
            let again = ModelAnswer { duplicate: true, ..known.answer };
            let same = known.size == size;
            return if same { Ok(again) } else { Err(PublishError::IdempotencyConflict) };
        }
        if key.is_some() && self.keys.len() >= limits.idempotency_keys_max {
            return Err(PublishError::Full("idempotency_keys_max"));
        }
        let bytes = self.bytes();
        let found = self
            .topic(topic, (limits.topics_max, usize::MAX), now)
            .ok_or(PublishError::Full("topics_max"))?;
        let room = limits.bytes_max - (bytes - found.bytes());
        let offset = found.publications.len() + 1;
        let cost = cost_of(TOPICS[topic], &"7".repeat(size), offset as u64);
        let in_history = retention.history > 0
            && !retention.history_age.is_zero()
            && cost <= retention.history_bytes;
        if cost > room && (retention.value || in_history) {
            return Err(PublishError::Full("bytes_max"));
        }
        found.publications.push(ModelPublication { size, cost, at: now, retention });
        found.used_at = now;
        found.settle(room, now);
        let answer = ModelAnswer { epoch: found.epoch, offset, duplicate: false };
        if let Some(key) = key {
            self.keys.insert((topic, key), ModelKey { at: now, size, answer });
        }
        if self.subscribed.contains(&topic) {
            self.deliveries.push((TOPICS[topic].to_owned(), offset as u64));
        }
        Ok(answer)
    }

    fn bytes(&self) -> usize {
        self.topics.values().map(ModelTopic::bytes).sum()
    }

    /// Is the position in this epoch? The first look decides.
    fn names_epoch(&mut self, number: u64, position: Position) -> bool {
        *self.epochs.entry(number).or_insert(position.epoch) == position.epoch
    }
}

/// Does one step on both sides and compares what they answer.
fn step(bench: &Bench, model: &mut Model, limits: &MemoryLimits, step: &Step) {
    let now = bench.clock.now();
    model.expire(limits, now);
    match *step {
        Step::Publish { topic, key, size, retention } => {
            let key_text = key.map(|key| KEYS[key].to_owned());
            let item = item(TOPICS[topic], &"7".repeat(size));
            let answer = bench.publish_one(PublishItem { key: key_text, retention, ..item });
            let expected = model.publish((topic, key), (size, retention), limits, now);
            assert_eq!(
                answer.map(|published| (published.position.offset, published.duplicate)),
                expected.map(|answer| (answer.offset as u64, answer.duplicate))
            );
            if let (Ok(published), Ok(expected)) = (answer, expected) {
                assert!(model.names_epoch(expected.epoch, published.position));
            }
        }
        Step::Read { topic, create, history } => {
            let request = ReadRequest { create, history };
            let answer = ready(bench.broker.read(&super::topic(TOPICS[topic]), request));
            let room =
                if create { (limits.topics_max, (limits.topics_max / 2).max(1)) } else { (0, 0) };
            compare_read(model, answer, (topic, request), room, now);
        }
        Step::Subscribe(topic) => {
            bench.subscribe(TOPICS[topic]);
            model.subscribed.insert(topic);
        }
        Step::Unsubscribe(topic) => {
            bench.unsubscribe(TOPICS[topic]);
            if model.subscribed.remove(&topic)
                && let Some(topic) = model.topics.get_mut(&topic)
            {
                topic.used_at = now;
            }
        }
        Step::Advance(by) => bench.clock.advance(by),
        Step::Sweep => bench.broker.sweep(),
    }
    assert_eq!(bench.delivered(), std::mem::take(&mut model.deliveries));
}

fn compare_read(
    model: &mut Model,
    answer: Result<Option<TopicState>, ReadError>,
    (topic, request): (usize, ReadRequest),
    room: (usize, usize),
    now: Instant,
) {
    let Some(expected) = model.topic(topic, room, now) else {
        match answer {
            Ok(None) => assert!(!request.create),
            Err(ReadError::Full(_)) => assert!(request.create),
            other => panic!("there is no such topic, but {other:?}"),
        }
        return;
    };
    if request.create {
        expected.used_at = now;
    }
    let state = answer.unwrap().unwrap();
    let place = |one: Arc<Publication>| (one.offset(), one.data().len());
    let last = expected.publications.len() as u64;
    assert_eq!(state.position.offset, last);
    assert_eq!(state.value.map(place), expected.value().map(|value| (last, value.size)));
    let history: Vec<_> = state.history.into_iter().map(place).collect();
    assert_eq!(history, expected.select(request.history));
    let epoch = expected.epoch;
    assert!(model.names_epoch(epoch, state.position));
}

/// Runs the steps, then lets everything expire. `exact`: sweep whenever time has passed, so that the counters hold
/// nothing that has expired and can be compared too.
fn run(limits: &MemoryLimits, steps: &[Step], exact: bool) {
    let (bench, mut model) = (Bench::new(*limits), Model::default());
    for one in steps {
        step(&bench, &mut model, limits, one);
        if exact {
            bench.sweep_all();
            model.expire(limits, bench.clock.now());
            let expected = BrokerStats {
                topics: model.topics.len(),
                subscriptions: model.subscribed.len(),
                bytes: model.bytes(),
                keys: model.keys.len(),
                link: None,
            };
            assert_eq!(bench.broker.stats(), expected);
        }
    }
    let distinct: HashSet<_> = model.epochs.values().collect();
    assert_eq!(distinct.len(), model.epochs.len(), "no epoch comes twice");

    TOPICS.iter().for_each(|topic| bench.unsubscribe(topic));
    bench.clock.advance(Duration::from_secs(1000));
    bench.sweep_all();
    assert_eq!(bench.broker.stats(), BrokerStats::default());
}

proptest! {
    #[test]
    fn at_the_bounds(steps in steps()) {
        run(&tight_limits(), &steps, true);
    }

    #[test]
    fn expired_but_not_swept(steps in steps()) {
        run(&time_limits_only(), &steps, false);
    }
}
