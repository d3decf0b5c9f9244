//! Which broker a node has, and what it says of a Redis that is not there or cannot be used.

use serde_json::Value;

use crate::exposition;
use crate::harness::{Raw, Socket, until};
use crate::program::{Program, command};
use crate::redis::{Memory, Redis};

const PASSWORD: &str = "hunter2";

async fn get(program: &Program, target: &str) -> (u16, String) {
    let answer = Raw::connect(program.admin).await.get(target, "").await;
    (answer.status, answer.text())
}

async fn metric(program: &Program, series: &str) -> Option<f64> {
    exposition::value(&get(program, "/metrics").await.1, series)
}

/// Where a node says that its broker is, in the line with which it begins.
async fn named_broker(program: &Program) -> String {
    let find = || {
        let log = program.log();
        let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["message"] == "serving")
    };
    until("serving", async || find().is_some()).await;
    find().unwrap()["broker"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn without_a_url_the_broker_is_inside_the_node() {
    let program = Program::serve(&[]);
    until("ready", async || get(&program, "/readyz").await.0 == 200).await;
    assert_eq!(named_broker(&program).await, "memory");
    assert_eq!(metric(&program, r#"tickcast_broker_up{broker="memory"}"#).await, Some(1.0));
    assert_eq!(metric(&program, "tickcast_broker_retained_max_bytes").await, Some(1_073_741_824.0));
    assert_eq!(metric(&program, "tickcast_broker_reconnects_total").await, None);
}

#[tokio::test]
async fn a_node_starts_without_its_redis_and_is_ready_when_that_comes() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let address = redis.address();
    let program =
        Program::serve(&[("broker.redis.url", &format!("redis://:{PASSWORD}@{address}"))]);
    assert_eq!(named_broker(&program).await, format!("redis://:***@{address}/0"));
    assert_eq!(get(&program, "/livez").await.0, 200);
    assert_eq!(get(&program, "/readyz?for=subscribe").await.0, 200);
    let (status, report) = get(&program, "/readyz").await;
    assert!(status == 503 && report.contains("broker_down"), "{report}");
    let answer = Raw::connect(program.address).await.post("/v1/topics/a", "", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "broker_unavailable"));
    let up = r#"tickcast_broker_up{broker="redis"}"#;
    assert_eq!(metric(&program, up).await, Some(0.0));
    assert_eq!(metric(&program, "tickcast_broker_retained_bytes").await, None);

    // It asks for no password, and takes any.
    redis.start_again(Memory::Lost);
    until("ready", async || get(&program, "/readyz").await.0 == 200).await;
    assert_eq!(metric(&program, up).await, Some(1.0));
    let mut socket = Socket::open(program.address, "/v1/ws?topics=a").await;
    assert_eq!(socket.value().await["type"], "subscribed");
    let answer = Raw::connect(program.address).await.post("/v1/topics/a", "", "1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    socket.expect_numbers("a", 1..=1).await;
    let received = "tickcast_broker_publications_received_total";
    until(received, async || metric(&program, received).await == Some(1.0)).await;
    let age = metric(&program, "tickcast_broker_probe_age_seconds").await.expect("a link");
    assert!((0.0..2.5).contains(&age), "{age}");
    assert!(!program.log().contains(PASSWORD), "{}", program.log());
}

#[test]
fn what_cannot_be_used_keeps_a_node_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("empty.pem");
    std::fs::write(&pem, "nothing").unwrap();
    let pem = pem.to_str().unwrap();
    let check = |settings: &[(&str, &str)], code: i32, words: &[&str]| {
        let listen = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut command = command(&listen);
        for (key, value) in settings {
            command.env(format!("TICKCAST__BROKER__REDIS__{key}"), value);
        }
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
    };
    let bad = format!("redis://:{PASSWORD}@host:port");
    check(&[("URL", &bad)], 2, &["env TICKCAST__BROKER__REDIS__URL", "`port`"]);
    check(&[("URL_FILE", "/nowhere/url")], 2, &["url_file", "No such file"]);
    check(&[("URL", "rediss://localhost"), ("CA_FILE", "/nowhere/ca.pem")], 2, &["ca_file"]);
    check(&[("URL", "rediss://localhost"), ("CA_FILE", pem)], 2, &["no certificate in", pem]);
    check(&[("URL", "redis://localhost"), ("PREFIX", "a b")], 2, &["broker.redis.prefix"]);
}
