//! A real Prometheus that looks at real nodes: whatever the dashboard and the rules ask for, they get an answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tickcast::config::KeyHash;

use crate::harness::{Raw, Socket};
use crate::port::Port;
use crate::process::{PATIENCE, Process, until};
use crate::program::Program;
use crate::queries::{Query, queries};
use crate::redis::Redis;

/// A key that may publish.
const FEED: &str = "tck_feedAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Prometheus with the rules of `deploy/`. It looks every second.
struct Prometheus {
    _process: Process,
    _folder: TempDir,
    port: Port,
}

impl Prometheus {
    fn start(nodes: &[SocketAddr]) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), Port::free());
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus/rules");
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        // JSON is YAML.
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules.join("*.yaml")],
            "scrape_configs": [{"job_name": "tickcast", "static_configs": [{"targets": nodes}]}],
        });
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={}", port.address));
        Self { _process: Process::start("prometheus", &mut command), _folder: folder, port }
    }

    /// The data of an answer; none while it does not serve yet.
    fn ask(&self, target: &str) -> Option<Value> {
        let mut socket = TcpStream::connect(self.port.address).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        // The old version: the answer comes in one piece and ends with the connection.
        write!(socket, "GET {target} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let body: Value = serde_json::from_str(body).ok()?;
        let is_ready = head.contains(" 503 ") || body["status"] == "success";
        assert!(is_ready, "{target}: {head}\n{body}");
        Some(body["data"].clone())
    }

    fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.ask(&format!("/api/v1/query?query={encoded}")).unwrap_or_default();
        data["result"].as_array().cloned().unwrap_or_default()
    }
}

/// A client that gets what is published, and resumes once.
async fn some_traffic(node: &Program) {
    let key = format!("Authorization: Bearer {FEED}\r\n");
    let mut socket = Socket::open(node.address, "/v1/ws").await;
    let topics = socket.subscribe(json!(["a"])).await;
    let mut raw = Raw::connect(node.address).await;
    for number in 1..=3 {
        assert_eq!(raw.post("/v1/topics/a", &key, &number.to_string()).await.status, 200);
    }
    socket.expect_numbers("a", 1..=3).await;
    let epoch = topics[0]["epoch"].as_str().unwrap().to_owned();
    let mut again = Socket::open(node.address, "/v1/ws").await;
    again.resume("a", &epoch, 1).await;
    again.expect_numbers("a", 2..=3).await;
}

#[tokio::test]
async fn every_query_and_rule_has_an_answer() {
    let redis = Redis::start(&[]);
    let mut keys = tempfile::NamedTempFile::new().unwrap();
    let hash = KeyHash::of(FEED);
    let key = format!("[[access.key]]\nname = 'feed'\nrights = ['publish']\nhash = '{hash}'\n");
    keys.write_all(key.as_bytes()).unwrap();
    let keys = ("access.keys_file", keys.path().to_str().unwrap());
    let nodes =
        [Program::serve(&[keys, ("broker.redis.url", &redis.url())]), Program::serve(&[keys])];
    let prometheus = Prometheus::start(&nodes.each_ref().map(|node| node.admin));
    until("watched", PATIENCE, || prometheus.query("tickcast_ready == 1").len() == nodes.len());
    for node in &nodes {
        some_traffic(node).await;
    }
    let started = Instant::now();
    // A rate needs a look from before the traffic and one from after it.
    let mut open: Vec<Query> = queries("tickcast", "1m");
    // There is none here; the tests of the cluster have one.
    open.retain(|query| !query.is_of_the_balancer());
    while !open.is_empty() {
        open.retain(|query| prometheus.query(&query.expression).is_empty());
        assert!(started.elapsed() < PATIENCE, "no data for {open:#?}");
    }

    check_drawings(&prometheus);

    let is_done = |rule: &Value| rule["health"] != "unknown";
    let rules = || prometheus.ask("/api/v1/rules").map(|data| all_rules(&data));
    until("evaluated", PATIENCE, || rules().is_some_and(|all| all.iter().all(is_done)));
    let rules = rules().unwrap();
    assert!(rules.len() > 25, "{} rules are not all", rules.len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        let is_quiet = rule["type"] == "recording" || rule["state"] == "inactive";
        assert!(is_quiet, "nothing is wrong, and yet: {rule}");
    }
    for name in rules.iter().filter(|rule| rule["type"] == "recording").map(|rule| &rule["name"]) {
        let name = name.as_str().unwrap();
        until(name, PATIENCE, || !prometheus.query(name).is_empty());
    }
}

/// Runs `scripts/panels`, which makes pictures of the dashboard for the documents.
fn check_drawings(prometheus: &Prometheus) {
    let folder = TempDir::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/panels");
    let url = format!("http://{}", prometheus.port.address);
    let panels = [
        ("Clients by node", "<polygon"),
        ("Delivery latency, all of it", "darker: more"),
        ("Uptime", "<polyline"),
        ("Notices to clients", "gap: expired"),
    ];
    let mut command = Command::new(script);
    command.args(["--prometheus", &url, "--from", "30s", "--scrape", "1", "--out"]);
    command.arg(folder.path()).args(["--mark", "2s=a <node> & more"]);
    command.args(panels.iter().flat_map(|(title, _)| ["--panel", title]));
    let draw = |command: &mut Command, files: usize| {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let names = String::from_utf8(output.stdout).unwrap();
        let texts: Vec<_> =
            names.lines().map(|name| std::fs::read_to_string(name).unwrap()).collect();
        assert_eq!(texts.len(), files, "{names}");
        texts
    };
    for (text, (title, shape)) in draw(&mut command, panels.len()).iter().zip(panels) {
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{title}: {text}");
        assert!(text.contains(title) && text.contains(shape), "{title}: {text}");
        assert!(text.contains("a &lt;node&gt; &amp; more"), "{title}: {text}");
    }
    let sheet = draw(command.args(["--sheet", "all"]), 1);
    assert!(panels.iter().all(|(title, _)| sheet[0].contains(title)), "{}", sheet[0]);
}

fn all_rules(data: &Value) -> Vec<Value> {
    let groups = data["groups"].as_array().into_iter().flatten();
    groups.flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
}
