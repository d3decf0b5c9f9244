//! A broker that fails on command: what publishers, subscribers and operators see of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tickcast_broker::testing::{Delivery, FaultyBroker, Hold, UNTIL_CLEARED};
use tickcast_broker::{
    BoxFuture, Broker, BrokerStats, MemoryBroker, MemoryLimits, PublishError, PublishItem,
    Published, ReadError, ReadRequest, Retention, TopicState, Unavailable,
};
use tickcast_protocol::Topic;

use crate::harness::{Node, within};

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// What another node publishes: the faults of this node's link do not concern it.
async fn publish_elsewhere(broker: &FaultyBroker, name: &str, data: u64) {
    let retention = Retention {
        value: true,
        history: 100,
        history_bytes: 1 << 20,
        history_age: Duration::from_secs(300),
    };
    let data = data.to_string().into();
    let item = PublishItem { topic: topic(name), data, key: None, retention };
    assert!(broker.inner().publish(vec![item]).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_topic_that_cannot_be_read_is_given_up_after_a_second() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let mut other = node.connect().await;
    other.subscribe(json!(["open"])).await;
    broker.hold_reads(Hold::Request);

    let mut socket = node.connect().await;
    let started = Instant::now();
    socket.command(&json!({"type": "subscribe", "id": 1, "topics": ["open", "held"]})).await;
    within("a read", broker.until_reads_held(1)).await;
    // Neither other topics nor other commands wait for it.
    node.publish_numbers("open", 1..=20).await;
    other.expect_numbers("open", 1..=20).await;
    socket.expect_quiet().await;
    let reply = socket.value().await;
    assert!(started.elapsed() >= Duration::from_millis(950), "{:?}", started.elapsed());
    assert_eq!(reply["topics"][0]["topic"], "open");
    assert_eq!(reply["errors"][0]["topic"], "held");
    assert_eq!(reply["errors"][0]["code"], "unavailable");
    socket.expect_numbers("open", 20..=20).await;

    broker.release_reads();
    node.publish("held", "1").await;
    socket.subscribe(json!(["held"])).await;
    socket.expect_numbers("held", 1..=1).await;
}

#[tokio::test]
async fn a_read_that_comes_late_loses_nothing_that_was_published_meanwhile() {
    for hold in [Hold::Request, Hold::Answer] {
        let (node, broker) = Node::with_faults(|_| {}).await;
        node.publish_numbers("a", 1..=1).await;
        broker.hold_reads(hold);
        let mut socket = node.connect().await;
        socket.command(&json!({"type": "subscribe", "id": 1, "topics": ["a"]})).await;
        within("a read", broker.until_reads_held(1)).await;
        node.publish_numbers("a", 2..=5).await;
        broker.release_reads();
        let offset = socket.value().await["topics"][0]["offset"].as_u64().expect("an offset");
        assert!((1..=5).contains(&offset), "{offset}");
        socket.expect_numbers("a", offset..=5).await;
        socket.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_broker_that_refuses_to_subscribe_is_asked_again() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    broker.fail_subscribes(2);
    broker.fail_reads(2);
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    node.publish_numbers("a", 1..=3).await;
    socket.expect_numbers("a", 1..=3).await;
    for (op, failed) in [("subscribe", 2.0), ("read", 2.0), ("publish", 0.0)] {
        let errors = format!("tickcast_broker_errors_total{{op=\"{op}\"}}");
        assert_eq!(node.metric(&errors).await, failed, "{op}");
    }
}

#[tokio::test]
async fn a_lost_delivery_is_brought_back_from_history_unseen() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let mut sockets = Vec::new();
    for mode in ["all", "all", "latest"] {
        let mut socket = node.connect().await;
        socket.subscribe(json!([{"topic": "a", "mode": mode}])).await;
        sockets.push(socket);
    }
    use Delivery::{Drop, Duplicate, Pass, Postpone};
    broker.script_deliveries(&topic("a"), [Pass, Drop, Drop, Pass, Duplicate, Postpone, Pass]);
    node.publish_numbers("a", 1..=10).await;
    sockets[0].expect_numbers("a", 1..=10).await;
    sockets[1].expect_numbers("a", 1..=10).await;
    let mut last = 0;
    while last < 10 {
        let update = sockets[2].update().await;
        assert!(update.offset > last, "{} after {last}", update.offset);
        last = update.offset;
    }
    for socket in &mut sockets {
        socket.expect_quiet().await;
    }
    assert!(node.metric("tickcast_sequence_gaps_total").await >= 1.0);
    assert!(node.metric("tickcast_sequence_gaps_repaired_total").await >= 1.0);
    let lost = node.metric(r#"tickcast_gap_notices_total{reason="lost"}"#).await;
    assert_eq!(lost, 0.0);
}

#[tokio::test]
async fn a_lost_delivery_that_nobody_can_bring_back_is_named() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let (mut all, mut latest) = (node.connect().await, node.connect().await);
    all.subscribe(json!(["a"])).await;
    latest.subscribe(json!([{"topic": "a", "mode": "latest"}])).await;
    broker.forget_history(&topic("a"));
    use Delivery::{Drop, Pass};
    broker.script_deliveries(&topic("a"), [Pass, Drop, Drop]);
    node.publish_numbers("a", 1..=4).await;
    all.expect_numbers("a", 1..=1).await;
    all.expect(json!({"type": "gap", "topic": "a", "from": 2, "to": 3, "reason": "lost"})).await;
    all.expect_numbers("a", 4..=4).await;
    // An offset that jumps says it all in mode `latest`.
    let first = latest.update().await;
    if first.offset == 1 {
        latest.expect_numbers("a", 4..=4).await;
    } else {
        assert_eq!(first.offset, 4);
    }
    latest.expect_quiet().await;
    assert_eq!(node.metric(r#"tickcast_gap_notices_total{reason="lost"}"#).await, 1.0);
    let skipped = r#"tickcast_deliveries_dropped_total{transport="websocket",reason="lost"}"#;
    assert_eq!(node.metric(skipped).await, 2.0);
}

#[tokio::test]
async fn a_broker_that_starts_anew_is_a_reset_and_then_the_current_value() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let (mut all, mut latest) = (node.connect().await, node.connect().await);
    let before = all.subscribe(json!(["a"])).await[0]["epoch"].take();
    latest.subscribe(json!([{"topic": "a", "mode": "latest"}])).await;
    node.publish_numbers("a", 1..=5).await;
    all.expect_numbers("a", 1..=5).await;

    let flipped = broker.flip_epoch(&topic("a"), 2).await.expect("the topic exists");
    let published = node.publish("a", "3").await;
    let epoch = flipped.epoch.to_string();
    assert_eq!((&published["epoch"], &published["offset"]), (&json!(epoch), &json!(3)));
    let reset = json!({"type": "reset", "topic": "a", "epoch": epoch, "offset": 3, "reason": "broker_restart"});
    all.expect(reset.clone()).await;
    all.expect_numbers("a", 3..=3).await;
    loop {
        let message = latest.value().await;
        if message == reset {
            break;
        }
        assert!(message["offset"].as_u64() <= Some(5), "before the reset: {message}");
    }
    latest.expect_numbers("a", 3..=3).await;

    // A place of the old epoch means nothing any more.
    let mut back = node.connect().await;
    let acknowledged = back.resume("a", before.as_str().expect("an epoch"), 3).await;
    assert_eq!(acknowledged["epoch"], epoch);
    let notice = back.value().await;
    assert_eq!((&notice["type"], &notice["reason"]), (&json!("reset"), &json!("unknown_epoch")));
    back.expect_numbers("a", 3..=3).await;
}

/// What `/readyz` answers: the status, and whether it says degraded.
async fn readiness(node: &Node, query: &str) -> (u16, Value) {
    let answer = node.admin(&format!("/readyz{query}")).await;
    (answer.status, answer.json()["degraded"].clone())
}

#[tokio::test]
async fn a_broker_that_is_down_is_said_to_everyone_and_ends_no_connection() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    assert_eq!(readiness(&node, "").await, (200, json!(false)));

    broker.link_down();
    socket.expect(json!({"type": "status", "broker": "down"})).await;
    assert_eq!(readiness(&node, "").await, (503, json!(false)));
    assert_eq!(readiness(&node, "?for=subscribe").await, (200, json!(true)));
    assert_eq!(node.get("/healthz", "").await.status, 200);
    assert_eq!(node.admin("/livez").await.status, 200);
    assert_eq!(node.metric(r#"tickcast_broker_up{broker="memory"}"#).await, 0.0);
    let answer = node.post("/v1/topics/a", "", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "broker_unavailable"));
    let answer = node.get("/v1/topics/a", "").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "broker_unavailable"));

    // What others publish meanwhile is missed, and brought back with the next publication that comes.
    publish_elsewhere(&broker, "a", 1).await;
    publish_elsewhere(&broker, "a", 2).await;
    broker.link_up();
    socket.expect(json!({"type": "status", "broker": "up"})).await;
    assert_eq!(readiness(&node, "").await, (200, json!(false)));
    node.publish("a", "3").await;
    socket.expect_numbers("a", 1..=3).await;
}

#[tokio::test]
async fn nobody_waits_longer_than_a_second_for_a_topic_while_the_broker_is_down() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let mut holder = node.connect().await;
    holder.subscribe(json!(["held"])).await;
    broker.link_down();
    let mut socket = node.connect().await;
    socket.expect(json!({"type": "status", "broker": "down"})).await;
    let reply = socket.ask(json!({"type": "subscribe", "topics": ["held", "new"]})).await;
    assert_eq!(reply["topics"][0]["topic"], "held", "the node knows it: {reply}");
    assert_eq!(reply["errors"][0]["code"], "unavailable");

    broker.link_up();
    // The status comes once to whoever was connected, and the topic can be had as soon as the node has tried again.
    socket.expect(json!({"type": "status", "broker": "up"})).await;
    within("subscription", async {
        let subscribe = json!({"type": "subscribe", "topics": ["new"]});
        while socket.ask(subscribe.clone()).await["errors"] != json!([]) {}
    })
    .await;
    node.publish("new", "1").await;
    socket.expect_numbers("new", 1..=1).await;
}

#[tokio::test]
async fn a_topic_that_cannot_be_subscribed_keeps_no_other_waiting() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    broker.fail_subscribes(UNTIL_CLEARED);
    let mut other = node.connect().await;
    let reply = other.ask(json!({"type": "subscribe", "topics": ["b"]})).await;
    assert_eq!(reply["errors"][0]["code"], "unavailable");
    broker.script_deliveries(&topic("a"), [Delivery::Drop]);
    node.publish_numbers("a", 1..=2).await;
    socket.expect_numbers("a", 1..=2).await;
}

#[tokio::test]
async fn a_publication_that_was_never_sent_is_said_to_be_so() {
    let (node, broker) = Node::with_faults(|config| config.websocket.publish = true).await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    broker.fail_publishes(3);
    let answer = node.post("/v1/topics/a", "Idempotency-Key: k\r\n", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "broker_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let answer = node.post("/v1/publish", "", r#"[{"topic":"a","data":1}]"#).await;
    assert_eq!(answer.status, 207);
    assert_eq!(answer.json()["results"][0]["error"]["code"], "broker_unavailable");
    let reply = socket.ask(json!({"type": "publish", "topic": "a", "data": 1})).await;
    assert_eq!(reply["code"], "broker_unavailable");
    let failed = node.metric(r#"tickcast_broker_errors_total{op="publish"}"#).await;
    assert_eq!(failed, 3.0);

    assert_eq!(node.post("/v1/topics/a", "Idempotency-Key: k\r\n", "1").await.json()["offset"], 1);
    socket.expect_numbers("a", 1..=1).await;
    socket.expect_quiet().await;
}

#[tokio::test]
async fn an_answer_that_was_lost_can_be_asked_for_again() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    broker.lose_answers(1);
    let started = Instant::now();
    let answer = node.post("/v1/topics/a", "Idempotency-Key: k\r\n", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "outcome_unknown"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let answer = node.post("/v1/topics/a", "Idempotency-Key: k\r\n", "1").await;
    assert_eq!((answer.status, &answer.json()["offset"]), (200, &json!(1)));
    assert_eq!(answer.header("idempotency-replayed"), Some("true"));
    node.publish("a", "2").await;
    socket.expect_numbers("a", 1..=2).await;
    socket.expect_quiet().await;
    assert_eq!(node.metric(r#"tickcast_publications_total{result="outcome_unknown"}"#).await, 1.0);
}

/// A broker that takes publications and never answers.
#[derive(Debug)]
struct Silent(MemoryBroker);

impl Broker for Silent {
    fn publish(&self, _: Vec<PublishItem>) -> BoxFuture<'_, Vec<Result<Published, PublishError>>> {
        Box::pin(std::future::pending())
    }

    fn read<'a>(
        &'a self,
        _: &'a Topic,
        _: ReadRequest,
    ) -> BoxFuture<'a, Result<Option<TopicState>, ReadError>> {
        Box::pin(std::future::pending())
    }

    fn subscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, Result<(), Unavailable>> {
        self.0.subscribe(topics)
    }

    fn unsubscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, ()> {
        self.0.unsubscribe(topics)
    }

    fn stats(&self) -> BrokerStats {
        self.0.stats()
    }
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_not_waited_for_longer_than_a_second() {
    let silent =
        |inbound| Arc::new(Silent(MemoryBroker::new(MemoryLimits::default(), inbound))) as _;
    let node = Node::on(|_| {}, silent).await;
    let started = Instant::now();
    let publish = async || node.post("/v1/topics/a", "", "1").await;
    let (first, second, read) = tokio::join!(publish(), publish(), node.get("/v1/topics/a", ""));
    for answer in [first, second] {
        assert_eq!((answer.status, answer.problem().as_str()), (503, "outcome_unknown"));
    }
    assert_eq!((read.status, read.problem().as_str()), (503, "broker_unavailable"));
    let elapsed = started.elapsed();
    assert!(
        elapsed >= Duration::from_millis(950) && elapsed < Duration::from_secs(5),
        "{elapsed:?}"
    );
}

#[tokio::test]
async fn a_broker_that_is_down_from_time_to_time_loses_nothing() {
    let (node, broker) = Node::with_faults(|_| {}).await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    for round in 1..=20 {
        broker.link_down();
        publish_elsewhere(&broker, "a", 2 * round - 1).await;
        broker.link_up();
        node.publish("a", &(2 * round).to_string()).await;
    }
    let mut next = 1;
    while next <= 40 {
        let message = socket.value().await;
        if message["type"] != "status" {
            assert_eq!((&message["offset"], &message["data"]), (&json!(next), &json!(next)));
            next += 1;
        }
    }
    broker.fail_reads(UNTIL_CLEARED);
    broker.clear();
    socket.expect_quiet().await;
}
