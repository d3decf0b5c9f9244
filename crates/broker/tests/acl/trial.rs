//! All that a node does with Redis, once.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tickcast_broker::redis::{RedisBroker, RedisOptions, TlsFiles};
use tickcast_broker::{
    Broker as _, HistoryRequest, Inbound, PublishError, PublishItem, Published, ReadRequest,
    Retention,
};
use tickcast_protocol::{Position, Publication, Topic};

use crate::admin::Admin;

/// Long enough for a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

const GLANCE: Duration = Duration::from_millis(10);

/// One more than a script takes, so that the request is sent as several.
const MANY: usize = 65;

/// Two publications are kept, so that a third one pushes the first one out.
const HISTORY: Retention = Retention {
    value: true,
    history: 2,
    history_bytes: 1 << 20,
    history_age: Duration::from_secs(300),
};

const NO_HISTORY: Retention = Retention { history: 0, ..HISTORY };

/// Two nodes that work with the rights of one user.
pub(crate) struct Trial {
    pub(crate) admin: Arc<Admin>,
    pub(crate) user: String,
    secret: &'static str,
    /// Whether waiting is in vain once the user was denied something.
    pub(crate) stops_when_denied: bool,
}

impl Trial {
    pub(crate) fn new(admin: Arc<Admin>, user: String, secret: &'static str) -> Self {
        Self { admin, user, secret, stops_when_denied: false }
    }

    /// Does all the work; the error names the part that cannot be done. The nodes go on with what they do by themselves.
    pub(crate) async fn run(&self) -> Result<[Node; 2], String> {
        let (here, there) = (self.node(), self.node());
        let topic = |name| Topic::new(&format!("{}.{name}", self.user)).unwrap();
        let [plain, kept, lost] = ["plain", "kept", "lost"].map(topic);
        let topics = vec![plain.clone(), kept.clone(), lost.clone()];
        // What is wanted before there is a link is compared with it, so that no audit must be waited for.
        let _no_link_yet = there.broker.subscribe(topics.clone()).await;
        self.wait("the links", || here.is_up() && there.is_up()).await?;
        said("subscribe", there.broker.subscribe(topics.clone()).await)?;

        publish_in_every_way(&here, &plain, &kept).await?;
        here.publish(vec![item(&lost, NO_HISTORY)]).await?;
        self.admin.estrange(lost.as_str());
        here.publish(vec![item(&lost, NO_HISTORY)]).await?;
        self.publish_in_vain(&here, &topic("failed")).await?;
        let [(plain_last, _), (kept_last, history), (lost_last, _)] =
            [here.read(&plain).await?, here.read(&kept).await?, here.read(&lost).await?];
        assert_eq!((plain_last, lost_last), (MANY as u64 + 2, 2));
        assert_eq!(
            (kept_last, history),
            (5, 1),
            "the history begins anew after a publication without"
        );
        let arrived = || topics.iter().map(|topic| there.last_offset(topic));
        self.wait("the publications", || arrived().eq([plain_last, kept_last, lost_last])).await?;

        self.wait("a comparison", || there.broker.stats().link.unwrap().compared > 0).await?;
        there.broker.unsubscribe(topics).await;
        let channels = format!("*:c:{}.*", self.user);
        self.wait("an end of the subscriptions", || !self.admin.has_subscribers(&channels)).await?;
        Ok([here, there])
    }

    /// The key of what failed half-way is not remembered: the next attempt is a new publication.
    async fn publish_in_vain(&self, node: &Node, topic: &Topic) -> Result<(), String> {
        node.publish(vec![item(topic, HISTORY)]).await?;
        let history = self.admin.key("h", topic.as_str());
        self.admin.replace(&history);
        let with_key = vec![PublishItem { key: Some("key".to_owned()), ..item(topic, HISTORY) }];
        let failed = node.broker.publish(with_key.clone()).await;
        assert_eq!(failed, [Err(PublishError::OutcomeUnknown)]);
        self.admin.remove(&history);
        let published = node.publish(with_key).await?;
        if published[0].duplicate { Err("a key that is free again".to_owned()) } else { Ok(()) }
    }

    fn node(&self) -> Node {
        let options = RedisOptions {
            url: self.admin.url(&self.user, self.secret).parse().unwrap(),
            tls: TlsFiles::default(),
            prefix: "tickcast".to_owned(),
            topic_ttl: Duration::from_secs(600),
            unpublished_ttl: Duration::from_secs(600),
            idempotency_ttl: Duration::from_secs(300),
        };
        let seen = Arc::<Seen>::default();
        Node { broker: RedisBroker::start(options, Arc::<Seen>::clone(&seen)).unwrap(), seen }
    }

    async fn wait(&self, what: &str, condition: impl Fn() -> bool) -> Result<(), String> {
        let in_vain = || self.stops_when_denied && !self.admin.denied_to(&self.user).is_empty();
        eventually(what, || condition() || in_vain()).await;
        if condition() { Ok(()) } else { Err(what.to_owned()) }
    }
}

/// Singly and together, in one script and in several, with a key and again, with history and without.
async fn publish_in_every_way(node: &Node, plain: &Topic, kept: &Topic) -> Result<(), String> {
    node.publish(vec![item(plain, NO_HISTORY)]).await?;
    node.publish(vec![item(plain, NO_HISTORY); MANY]).await?;
    let with_key = PublishItem { key: Some("key".to_owned()), ..item(plain, NO_HISTORY) };
    let first = node.publish(vec![with_key.clone()]).await?;
    let again = node.publish(vec![with_key]).await?;
    assert_eq!((again[0].duplicate, again[0].position), (true, first[0].position));
    node.publish(vec![item(kept, HISTORY); 3]).await?;
    let (_, history) = node.read(kept).await?;
    assert_eq!(history, 2);
    node.publish(vec![item(kept, NO_HISTORY)]).await?;
    node.publish(vec![item(kept, HISTORY)]).await?;
    Ok(())
}

fn item(topic: &Topic, retention: Retention) -> PublishItem {
    PublishItem { topic: topic.clone(), data: Bytes::from_static(b"1"), key: None, retention }
}

fn said<T, E: Debug>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error:?}"))
}

/// A node without clients.
#[derive(Debug)]
pub(crate) struct Node {
    broker: Arc<RedisBroker>,
    seen: Arc<Seen>,
}

impl Node {
    fn is_up(&self) -> bool {
        self.seen.is_up.load(Relaxed)
    }

    fn last_offset(&self, topic: &Topic) -> u64 {
        self.seen.last.lock().unwrap().get(topic).copied().unwrap_or_default()
    }

    async fn publish(&self, items: Vec<PublishItem>) -> Result<Vec<Published>, String> {
        let results = self.broker.publish(items).await;
        results.into_iter().map(|result| said("publish", result)).collect()
    }

    /// The last offset, and how many publications are kept. Each part of the history can be asked for.
    async fn read(&self, topic: &Topic) -> Result<(u64, usize), String> {
        let mut found = (0, 0);
        for history in [HistoryRequest::None, HistoryRequest::Newest(9), HistoryRequest::After(0)] {
            let request = ReadRequest { create: true, history };
            let state = said("read", self.broker.read(topic, request).await)?;
            found = state.map_or((0, 0), |state| (state.position.offset, state.history.len()));
        }
        Ok(found)
    }
}

/// What a node got to see.
#[derive(Debug, Default)]
struct Seen {
    is_up: AtomicBool,
    last: Mutex<HashMap<Topic, u64>>,
}

impl Inbound for Seen {
    fn deliver(&self, publication: Arc<Publication>) {
        let (topic, offset) = (publication.topic().clone(), publication.offset());
        self.last.lock().unwrap().insert(topic, offset);
    }

    fn compare(&self, _: &Topic, _: Position) {}

    fn suspect(&self, _: &Topic) {}

    fn link_changed(&self, up: bool) {
        self.is_up.store(up, Relaxed);
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(GLANCE).await;
    }
}
