//! The faults one by one, around a memory broker.

use bytes::Bytes;
use tickcast_protocol::Publication;

use super::*;
use crate::{MemoryBroker, MemoryLimits, Retention};

const RETENTION: Retention = Retention {
    value: true,
    history: 10,
    history_bytes: 1 << 20,
    history_age: Duration::from_secs(300),
};

#[derive(Debug, Default)]
struct Recorder {
    offsets: Mutex<Vec<u64>>,
    epochs: Mutex<Vec<Epoch>>,
    links: Mutex<Vec<bool>>,
}

impl Inbound for Recorder {
    fn deliver(&self, publication: Arc<Publication>) {
        self.offsets.lock().push(publication.offset());
        self.epochs.lock().push(publication.epoch());
    }

    fn compare(&self, _topic: &Topic, _position: Position) {}

    fn suspect(&self, _topic: &Topic) {}

    fn link_changed(&self, up: bool) {
        self.links.lock().push(up);
    }
}

/// A faulty broker around a memory broker, subscribed to one topic.
async fn bench() -> (Arc<FaultyBroker>, Arc<Recorder>, Topic) {
    let recorder = Arc::new(Recorder::default());
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    let broker = FaultyBroker::new(inbound, |inbound| {
        Arc::new(MemoryBroker::new(MemoryLimits::default(), inbound))
    });
    let topic = Topic::new("t").unwrap();
    broker.subscribe(vec![topic.clone()]).await.unwrap();
    (Arc::new(broker), recorder, topic)
}

async fn publish(broker: &dyn Broker, key: Option<&str>) -> Result<Position, PublishError> {
    let (topic, data) = (Topic::new("t").unwrap(), Bytes::from_static(b"1"));
    let key = key.map(str::to_owned);
    let item = PublishItem { topic, data, key, retention: RETENTION };
    broker.publish(vec![item]).await.remove(0).map(|published| published.position)
}

async fn read(broker: &FaultyBroker, topic: &Topic, after: u64) -> Result<TopicState, ReadError> {
    let request = ReadRequest { create: true, history: HistoryRequest::After(after) };
    broker.read(topic, request).await.map(Option::unwrap)
}

fn offsets(state: &TopicState) -> Vec<u64> {
    state.history.iter().map(|publication| publication.offset()).collect()
}

#[tokio::test]
async fn deliveries_follow_the_script() {
    use Delivery::{Drop, Duplicate, Pass, Postpone};
    let table: &[(&[Delivery], &[u64])] = &[
        (&[], &[1, 2, 3, 4]),
        (&[Drop, Drop], &[3, 4]),
        (&[Pass, Duplicate], &[1, 2, 2, 3, 4]),
        (&[Postpone], &[2, 1, 3, 4]),
        (&[Postpone, Postpone], &[3, 1, 2, 4]),
        (&[Postpone, Drop, Pass], &[3, 1, 4]),
    ];
    for (script, expected) in table {
        let (broker, recorder, topic) = bench().await;
        broker.script_deliveries(&topic, script.iter().copied());
        for _ in 0..4 {
            publish(&*broker, None).await.unwrap();
        }
        assert_eq!(*recorder.offsets.lock(), *expected, "{script:?}");
        assert_eq!(offsets(&read(&broker, &topic, 0).await.unwrap()), [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn calls_fail_as_often_as_told() {
    let (broker, recorder, topic) = bench().await;
    broker.fail_publishes(1);
    assert_eq!(publish(&*broker, Some("k")).await, Err(PublishError::Unavailable));
    broker.lose_answers(1);
    assert_eq!(publish(&*broker, Some("k")).await, Err(PublishError::OutcomeUnknown));
    assert_eq!(*recorder.offsets.lock(), [1], "published, though the answer was lost");
    assert_eq!(publish(&*broker, Some("k")).await.unwrap().offset, 1);
    assert_eq!(*recorder.offsets.lock(), [1], "the retry was recognized");

    broker.fail_reads(2);
    assert!(read(&broker, &topic, 0).await.is_err());
    assert!(read(&broker, &topic, 0).await.is_err());
    assert!(read(&broker, &topic, 0).await.is_ok());
    broker.fail_subscribes(UNTIL_CLEARED);
    for _ in 0..3 {
        assert_eq!(broker.subscribe(vec![topic.clone()]).await, Err(Unavailable));
    }
    broker.clear();
    assert_eq!(broker.subscribe(vec![topic]).await, Ok(()));
}

#[tokio::test]
async fn a_held_read_answers_fresh_or_stale() {
    for (hold, expected) in [(Hold::Request, 1), (Hold::Answer, 0)] {
        let (broker, _, topic) = bench().await;
        broker.hold_reads(hold);
        let reader = Arc::clone(&broker);
        let read = tokio::spawn(async move { read(&reader, &topic, 0).await });
        broker.until_reads_held(1).await;
        publish(&*broker, None).await.unwrap();
        assert!(!read.is_finished());
        broker.release_reads();
        assert_eq!(read.await.unwrap().unwrap().position.offset, expected, "{hold:?}");
    }
}

#[tokio::test]
async fn a_link_that_is_down_loses_what_others_publish() {
    let (broker, recorder, topic) = bench().await;
    publish(&*broker, None).await.unwrap();
    broker.link_down();
    assert_eq!(publish(&*broker, None).await, Err(PublishError::Unavailable));
    assert!(read(&broker, &topic, 0).await.is_err());
    publish(&**broker.inner(), None).await.unwrap();
    broker.link_up();
    publish(&*broker, None).await.unwrap();
    assert_eq!(*recorder.offsets.lock(), [1, 3]);
    assert_eq!(*recorder.links.lock(), [true, false, true]);
    assert_eq!(offsets(&read(&broker, &topic, 1).await.unwrap()), [2, 3]);
    broker.forget_history(&topic);
    let state = read(&broker, &topic, 1).await.unwrap();
    assert_eq!((offsets(&state), state.value.unwrap().offset()), (vec![], 3));
}

#[tokio::test]
async fn a_flipped_epoch_looks_like_a_failover() {
    // (offset it restarts from, is there a value?, its history)
    for (start, value, history) in
        [(0, None, vec![]), (2, Some(2), vec![1, 2]), (9, Some(9), vec![7, 8, 9])]
    {
        let (broker, recorder, topic) = bench().await;
        for _ in 0..2 {
            publish(&*broker, None).await.unwrap();
        }
        let old = publish(&*broker, Some("k")).await.unwrap();
        recorder.offsets.lock().clear();

        let flipped = broker.flip_epoch(&topic, start).await.unwrap();
        assert_ne!(flipped.epoch, old.epoch);
        let state = read(&broker, &topic, 0).await.unwrap();
        assert_eq!(state.position, flipped);
        assert_eq!(state.value.as_ref().map(|value| value.offset()), value);
        assert_eq!(offsets(&state), history);

        let next = Position { offset: start + 1, ..flipped };
        assert_eq!(publish(&*broker, None).await, Ok(next));
        assert_eq!(*recorder.offsets.lock(), [next.offset]);
        assert_eq!(recorder.epochs.lock().last(), Some(&next.epoch));
        assert_eq!(offsets(&read(&broker, &topic, start).await.unwrap()), [next.offset]);
        assert_eq!(publish(&*broker, Some("k")).await, Ok(old), "a retry gets its first answer");

        let again = broker.flip_epoch(&topic, 0).await.unwrap();
        assert_ne!(again.epoch, flipped.epoch);
        assert_eq!(publish(&*broker, None).await, Ok(Position { offset: 1, ..again }));
    }
}

#[tokio::test]
async fn a_topic_that_does_not_exist_cannot_flip() {
    let (broker, _, topic) = bench().await;
    assert_eq!(broker.flip_epoch(&topic, 5).await, None);
}
