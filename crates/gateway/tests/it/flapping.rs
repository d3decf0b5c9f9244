//! Clients that come and go, and ask and take back: what that costs the broker.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::exposition;
use crate::harness::{Opcode, Raw, Socket, frame, until};
use crate::program::Program;
use crate::redis::Redis;

const TOPICS: &str = "tickcast_topics";

async fn metric(program: &Program, series: &str) -> f64 {
    let text = Raw::connect(program.admin).await.get("/metrics", "").await.text();
    exposition::value(&text, series).unwrap_or_else(|| panic!("there is no {series}"))
}

/// Calls of these commands so far.
fn calls(redis: &Redis, commands: &[&str]) -> u64 {
    let stats: String = redis.ask(&["INFO", "commandstats"]);
    let count = |command: &&str| {
        let head = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&head));
        line.and_then(|line| line.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    commands.iter().map(count).sum()
}

const INTEREST: [&str; 4] = ["subscribe", "ssubscribe", "unsubscribe", "sunsubscribe"];
const SCRIPTS: [&str; 4] = ["evalsha", "evalsha_ro", "eval", "fcall"];

#[tokio::test]
async fn a_subscription_that_comes_and_goes_is_no_matter_of_redis() {
    const FLAPS: u64 = 2000;
    let redis = Redis::start(&[]);
    let program =
        Program::serve(&[("broker.redis.url", &redis.url()), ("limits.commands_per_second", "0")]);
    let is_ready =
        async || Raw::connect(program.admin).await.get("/readyz", "").await.status == 200;
    until("ready", is_ready).await;
    let mut socket = Raw::connect(program.address).await;
    socket.upgrade().await;
    let subscribe = frame(true, Opcode::Text, r#"{"type":"subscribe","topics":["a"]}"#);
    let unsubscribe = frame(true, Opcode::Text, r#"{"type":"unsubscribe","topics":["a"]}"#);
    let mut flap = async |count: u64| {
        for _ in 0..count {
            socket.write(&subscribe).await;
            let ack = socket.value().await;
            assert_eq!(
                (&ack["type"], &ack["topics"][0]["topic"]),
                (&json!("subscribed"), &json!("a"))
            );
            socket.write(&unsubscribe).await;
            assert_eq!(socket.value().await["type"], "unsubscribed");
        }
    };
    flap(1).await;
    let (interest, scripts, started) =
        (calls(&redis, &INTEREST), calls(&redis, &SCRIPTS), Instant::now());
    assert!(interest > 0 && scripts > 0, "the first of them was");
    flap(FLAPS).await;
    // Nor is one of a connection of its own.
    for _ in 0..100 {
        let mut other = Socket::open(program.address, "/v1/ws?topics=a").await;
        assert_eq!(other.value().await["type"], "subscribed");
    }
    let elapsed = started.elapsed();
    // Two probes a second, and now and then a comparison, go on whoever is there.
    let usual = 10 + 4 * elapsed.as_secs();
    let scripts = calls(&redis, &SCRIPTS) - scripts;
    assert!(scripts <= usual, "{scripts} scripts for {FLAPS} flaps in {elapsed:?}");
    assert_eq!(calls(&redis, &INTEREST), interest, "{elapsed:?}");

    // When nobody has wanted it for a while it is given back, once.
    assert_eq!(metric(&program, TOPICS).await, 1.0);
    until("a topic given back", async || metric(&program, TOPICS).await == 0.0).await;
    until("one command", async || calls(&redis, &INTEREST) == interest + 1).await;
}

/// Topics that nobody publishes to take half of the room at most, and are forgotten.
#[tokio::test]
async fn subscribers_alone_do_not_fill_the_broker_of_a_node() {
    let program = Program::serve(&[("broker.memory.topics_max", "20")]);
    let mut socket = Socket::open(program.address, "/v1/ws").await;
    let names: Vec<String> = (0..50).map(|number| format!("read.{number}")).collect();
    let ack = socket.ask(json!({"type": "subscribe", "topics": names})).await;
    let count = |key: &str| ack[key].as_array().map_or(0, Vec::len);
    assert_eq!((count("topics"), count("errors")), (10, 40), "{ack}");
    assert!(ack["errors"].as_array().is_some_and(|errors| {
        errors.iter().all(|error: &Value| error["code"] == "unavailable")
    }));
    for number in 0..10 {
        let target = format!("/v1/topics/new.{number}");
        assert_eq!(Raw::connect(program.address).await.post(&target, "", "1").await.status, 200);
    }
    // Those that are published may be subscribed as ever.
    let ack = socket.ask(json!({"type": "subscribe", "topics": ["new.1", "new.2"]})).await;
    assert_eq!(ack["topics"].as_array().map(Vec::len), Some(2), "{ack}");
    let answer = Raw::connect(program.address).await.post("/v1/topics/more", "", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "broker_full"));
}

/// The time that a client waits for topics that cannot be had is that of any others: it is told at once.
#[tokio::test]
async fn who_cannot_have_a_topic_is_told_soon() {
    let program = Program::serve(&[("broker.memory.topics_max", "1")]);
    let mut first = Socket::open(program.address, "/v1/ws?topics=a").await;
    assert_eq!(first.value().await["topics"][0]["topic"], "a");
    let asked = Instant::now();
    let mut second = Socket::open(program.address, "/v1/ws?topics=b").await;
    assert_eq!(second.value().await["errors"][0]["code"], "unavailable");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}
