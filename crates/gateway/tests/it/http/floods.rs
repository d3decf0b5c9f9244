//! What thousands of connections at once do that never finish anything: the node's memory stays within bounds, and whoever
//! is served already is answered as before.

use std::time::{Duration, Instant};

use crate::exposition;
use crate::harness::{PATIENCE, Raw};
use crate::program::Program;
use crate::resident::resident;

/// How soon others are answered.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);

/// Answers that are measured at least.
const ANSWERS_MIN: usize = 40;

const KIB: u64 = 1024;

/// Time that a request has here.
const TIME: &str = "2s";

const HTTP: &str = r#"tickcast_connections{transport="http"}"#;

/// A node under a flood, and a client of it that wants no more than answers.
struct Scene {
    program: Program,
    other: Raw,
    before: u64,
    most: u64,
    answers: Vec<Duration>,
}

impl Scene {
    /// All on one worker: what one connection does there, the others feel.
    async fn new(settings: &[(&str, &str)]) -> Self {
        let usual =
            [("server.workers", "1"), ("http.header_timeout", TIME), ("http.body_timeout", TIME)];
        let program = Program::serve(&[&usual, settings].concat());
        let mut other = Raw::connect(program.address).await;
        assert_eq!(other.get("/healthz", "").await.status, 200);
        let before = resident(program.pid());
        Self { program, other, before, most: before, answers: Vec::new() }
    }

    /// The other client publishes.
    async fn ask(&mut self) {
        let asked = Instant::now();
        assert_eq!(self.other.post("/v1/topics/other", "", "1").await.status, 200);
        self.answers.push(asked.elapsed());
        self.most = self.most.max(resident(self.program.pid()));
    }

    async fn metric(&self, series: &str) -> f64 {
        let text = Raw::connect(self.program.admin).await.get("/metrics", "").await.text();
        exposition::value(&text, series).unwrap_or_else(|| panic!("there is no {series}"))
    }

    /// So many connections begin with `words`, and the other client asks in between.
    async fn flood(&mut self, count: usize, words: &[u8]) -> Vec<Raw> {
        let mut crowd = Vec::with_capacity(count);
        for number in 0..count {
            let mut raw = Raw::connect(self.program.address).await;
            raw.write(words).await;
            crowd.push(raw);
            if number % (count / ANSWERS_MIN) == 0 {
                self.ask().await;
            }
        }
        crowd
    }

    /// Waits until only the other client's connection serves requests, and goes on asking meanwhile.
    async fn recover(&mut self) {
        let started = Instant::now();
        while self.metric(HTTP).await > 1.0 {
            assert!(started.elapsed() < PATIENCE, "connections are left");
            self.ask().await;
        }
    }

    /// The others were answered in time, and the node has not grown beyond what it may.
    fn expect_little(mut self, what: &str, grown_max: u64) {
        self.answers.sort();
        let count = self.answers.len();
        // One answer in twenty may wait for the machine, which has other things to do.
        let most = self.answers[(count - 1) * 19 / 20];
        let grown = self.most - self.before;
        assert!(most < ANSWERED_WITHIN, "{what}: others wait {most:?}");
        assert!(grown <= grown_max, "{what}: the node has grown by {grown} bytes");
    }
}

/// Connections that say so much and no more. Each of them may cost so many bytes.
async fn stay_silent(what: &str, words: &[u8], cost_max: u64) {
    const COUNT: usize = 3000;
    let mut scene = Scene::new(&[]).await;
    let crowd = scene.flood(COUNT, words).await;
    scene.recover().await;
    for mut raw in crowd {
        let said = raw.end().await;
        assert!(!said.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&said));
    }
    scene.expect_little(what, COUNT as u64 * cost_max);
}

#[tokio::test]
async fn thousands_of_requests_that_do_not_begin_or_end() {
    stay_silent("connections that say nothing", b"", 24 * KIB).await;
    stay_silent("requests of one byte", b"G", 32 * KIB).await;
    let head = Raw::HANDSHAKE.join("\r\n");
    stay_silent("handshakes that are half open", head.as_bytes(), 32 * KIB).await;
    let large = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(15 * 1024));
    stay_silent("headers of 15 KiB", large.as_bytes(), 56 * KIB).await;
}

#[tokio::test]
async fn thousands_of_handshakes_that_nobody_waits_for() {
    const COUNT: usize = 3000;
    let head = Raw::HANDSHAKE.join("\r\n") + "\r\n\r\n";
    let mut scene = Scene::new(&[]).await;
    let crowd = scene.flood(COUNT, head.as_bytes()).await;
    let websockets = r#"tickcast_connections{transport="websocket"}"#;
    for raw in crowd {
        raw.reset();
    }
    scene.recover().await;
    let started = Instant::now();
    while scene.metric(websockets).await > 0.0 {
        assert!(started.elapsed() < PATIENCE, "WebSockets are left");
        scene.ask().await;
    }
    scene.expect_little("handshakes and a reset", COUNT as u64 * 14 * KIB);
}
