//! What clients and publishers get through the load balancer while something behind it fails.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, test_kill_process};
use socket2::{Domain, Socket, Type};

use super::deployment::{Deployment, fetch, has_ended, root, script};
use super::tunnel::Tunnel;
use crate::harness::http::{Answer, Http};
use crate::harness::{Fleet, LOAD, Load, Manner, Notes, Publishers, Sent, World, alone, place};
use crate::oracle::Tally;
use crate::process::{PATIENCE, Process, until};

/// A publication is answered: within a second, and a moment for a busy machine.
const ANSWERED: Duration = Duration::from_millis(1_300);

/// Of each kind of clients.
const CROWD: Load = Load { clients: LOAD.clients / 2, ..LOAD };

/// Every topic of every client, of both kinds.
const SUBSCRIPTIONS: u64 = 2 * (CROWD.clients * CROWD.interests) as u64;

/// What is away starts again after so many seconds, unless a test says otherwise.
const SOON: (&str, &str) = ("RESTART_AFTER", "1");

/// A node has drained: the bound in `deploy/tickcast.toml`, and time to start again.
const DRAINED: Duration = Duration::from_secs(60);

/// Clients and publishers on a cluster, half of them over TLS.
struct Rig {
    deployment: Deployment,
    world: Arc<World>,
    /// Clients that move when they are asked to, and clients that only come back.
    fleets: [Fleet; 2],
    publishers: Publishers,
    _tunnel: Tunnel,
}

impl Rig {
    fn start(settings: &[(&str, &str)]) -> Self {
        let deployment = Deployment::start(settings);
        let certificate = deployment.folder.join("tls.crt");
        let tunnel = Tunnel::start(deployment.https(), &certificate);
        let world = Arc::new(World::with_key(&deployment.key()));
        world.set_nodes(vec![deployment.http(), tunnel.address]);
        let topics = LOAD.topics();
        let manners = [true, false].map(|moves| Manner { moves, ..Manner::HASTY });
        let fleets =
            manners.map(|manner| Fleet::start_with(&world, CROWD.interests(&topics), manner));
        let publishers = Publishers::start(&world, &topics, LOAD.per_second);
        let rig = Self { deployment, world, fleets, publishers, _tunnel: tunnel };
        rig.until_heard();
        rig
    }

    /// Waits until everybody gets publications.
    fn until_heard(&self) {
        let now = Instant::now();
        for fleet in &self.fleets {
            fleet.until_heard(now);
        }
    }

    /// A number of the notes, over all clients.
    fn sum(&self, number: impl Fn(&Notes) -> u64 + Copy) -> u64 {
        self.fleets.iter().map(|fleet| fleet.sum(number)).sum()
    }

    /// Each topic ends with one more publication, every client gets there, and the verdict is that all is well.
    fn finish(self) -> Tally {
        self.publishers.stop();
        let mut http = Http::connect(self.deployment.http()).expect("it listens");
        http = http.with_key(self.world.key());
        for topic in LOAD.topics() {
            let payload = format!(r#"{{"last":"{topic}"}}"#);
            self.world.sends(&topic, &payload, Sent { publisher: usize::MAX, number: 0 });
            let answer = http.post(&format!("/v1/topics/{topic}"), "last", &payload);
            let answer = answer.expect("an answer").json();
            self.world.published(&topic, &place(&answer), &payload);
        }
        let ends = self.world.ends();
        self.fleets.into_iter().for_each(|fleet| fleet.finish(&ends));
        let tally = self.world.verdict();
        println!("{tally:?}");
        tally
    }

    /// Publishes one payload through the load balancer.
    fn publish(&self, key: Option<&str>) -> Answer {
        let http = Http::connect(self.deployment.http()).expect("it listens").with_key(key);
        let mut http = http;
        http.post("/v1/topics/aside", "aside", "1").expect("an answer")
    }

    /// As the service manager does, or as an operator does.
    fn tell_to_drain(&self, number: usize) {
        if number == 2 {
            return self.deployment.signal(&format!("node-{number}"), Signal::TERM);
        }
        let admin = format!("http://{}", self.deployment.admin(number));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
        let output = command.args(["drain", "--admin-url", &admin]).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// A node is told to stop, and the load balancer leaves it out while it still serves.
    fn drain(&self, number: usize) {
        let (name, start) = (format!("node-{number}"), Instant::now());
        let id = self.deployment.id(&name);
        self.tell_to_drain(number);
        let left_out = self.deployment.until_left_out(&name);
        let answer = fetch(self.deployment.node(number), "/v1/topics/ticker.0");
        assert!(answer.is_ok(), "left out after {left_out:?}: {answer:?}");
        let ended = until("ended", DRAINED, || has_ended(id));
        println!("{name}: left out after {left_out:?}, ended after {ended:?}");
        until("started again", PATIENCE, || self.deployment.id(&name) != id);
        let used = self.deployment.until_used(&name);
        println!("{name}: in use again {used:?} later, {:?} after it was told", start.elapsed());
    }
}

#[test]
fn clients_miss_nothing_while_nodes_are_killed_and_drained_one_after_the_other() {
    let _turn = alone();
    let rig = Rig::start(&[SOON]);
    let start = Instant::now();
    let id = rig.deployment.id("node-1");
    rig.deployment.signal("node-1", Signal::KILL);
    until("started again", PATIENCE, || rig.deployment.id("node-1") != id);
    rig.deployment.until_used("node-1");
    rig.until_heard();
    let [movers, others] = &rig.fleets;
    let [lost, lost_by_others] = [movers, others].map(|fleet| fleet.sum(|notes| notes.ends));
    println!("publishing through a kill: {:?}", rig.publishers.results(start));
    // Not the one that was away first: nobody is there yet.
    for number in [2, 3, 1] {
        rig.drain(number);
        rig.until_heard();
    }
    assert_eq!(movers.sum(|notes| notes.ends), lost, "they were away before the end");
    assert!(others.sum(|notes| notes.ends) >= lost_by_others + CROWD.clients as u64);
    // Publishers have keys, so what a dead node may have taken was asked of another one.
    let results = rig.publishers.results(start);
    assert_eq!(results.keys().collect::<Vec<_>>(), ["ok"], "{results:?}");
    let tally = rig.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
    assert!(tally.resumed >= SUBSCRIPTIONS, "all had to move: {tally:?}");
}

#[test]
fn without_redis_clients_get_through_and_publications_are_refused_at_once() {
    let _turn = alone();
    let rig = Rig::start(&[("RESTART_AFTER", "8")]);
    let (key, names) = (rig.deployment.key(), ["node-1", "node-2", "node-3"]);
    let start = Instant::now();
    rig.deployment.signal("redis", Signal::KILL);
    let killed = Instant::now();
    // The nodes say it first, then the load balancer.
    let mut said = Vec::new();
    until("left out", PATIENCE, || {
        let answer = rig.publish(Some(&key));
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.head.to_ascii_lowercase().contains("retry-after: "), "{answer:?}");
        assert_eq!(answer.json()["status"], 503, "{answer:?}");
        said.push(answer.code());
        names.iter().all(|name| !rig.deployment.is_used("publish", name))
    });
    println!("no node is published to after {:?}: {said:?}", killed.elapsed());
    let answer = rig.publish(Some(&key));
    assert_eq!((answer.status, answer.code().as_str()), (503, "broker_unavailable"), "{answer:?}");
    assert_eq!(answer.json()["detail"], "no node can publish now");
    for fleet in &rig.fleets {
        fleet.until_told_down(start);
    }
    // Whoever comes now is let in, and told.
    assert!(names.iter().all(|name| rig.deployment.is_used("subscribe", name)));
    assert!(fetch(rig.deployment.http(), "/healthz").is_ok());
    rig.fleets.iter().for_each(Fleet::hang_up);
    let told = 2 * LOAD.clients as u64;
    until("told on a new connection", PATIENCE, || {
        rig.sum(|notes| notes.downs.len() as u64) >= told
    });
    let slowest = rig.publishers.slowest(killed);
    assert!(slowest < ANSWERED, "{slowest:?}");
    let results = rig.publishers.results(killed);
    assert!(!results.contains_key("lost"), "{results:?}");
    until("ready", PATIENCE, || rig.publish(Some(&key)).status == 200);
    rig.until_heard();
    assert_eq!(rig.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = rig.finish();
    assert!(tally.resets >= SUBSCRIPTIONS, "{tally:?}");
}

#[test]
fn nobody_publishes_without_a_key_and_nodes_know_who_asks() {
    let _turn = alone();
    let rig = Rig::start(&[SOON, ("TICKCAST__LOG__FILTER", "info,tickcast=debug")]);
    for key in [None, Some("tck_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")] {
        let answer = rig.publish(key);
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{answer:?}");
    }
    // From an address of its own, and with another that it claims to have.
    let (own, claimed) = (Ipv4Addr::new(127, 0, 7, 77), Ipv4Addr::new(192, 0, 2, 66));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((own, 0)).into()).expect("every such address is loopback");
    socket.connect(&rig.deployment.http().into()).expect("it listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("an open connection");
    let head = [
        "POST /v1/topics/aside HTTP/1.1",
        "Host: x",
        &format!("X-Forwarded-For: {claimed}"),
        "Authorization: Bearer tck_wrong",
        "Content-Length: 1",
        "Connection: close",
    ];
    write!(stream, "{}\r\n\r\n1", head.join("\r\n")).expect("an open connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let log = || [1, 2, 3].map(|node| rig.deployment.read(&format!("node-{node}.log"))).concat();
    until("logged", PATIENCE, || log().contains(&own.to_string()));
    assert!(!log().contains(&claimed.to_string()));
    assert!(!log().contains("tck_"), "keys are in no log");
    rig.finish();
}

/// The program as a client that trusts the certificate in a file.
fn client(arguments: &[&str], address: &str, ca: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
    command.args(arguments).args(["--url", address]).arg("--ca").arg(ca);
    command
}

#[test]
fn the_command_line_gets_through_over_tls() {
    let _turn = alone();
    let deployment = Deployment::start(&[SOON]);
    let (http, https) = (deployment.http().port(), deployment.https().port());
    let (wss, https) = (format!("wss://localhost:{https}"), format!("https://127.0.0.1:{https}"));
    let (ca, key) = (deployment.folder.join("tls.crt"), deployment.key());
    let publish = |address: &str, ca: &Path| {
        let mut command = client(&["pub", "aside", "1", "--key", &key], address, ca);
        let output = command.output().expect("it runs");
        (output.status.success(), String::from_utf8(output.stderr).expect("a text"))
    };
    let watch = Process::start("sub", &mut client(&["sub", "aside", "--json"], &wss, &ca));
    let until_seen = |what: &str| watch.wait_for(what, |line| line.contains(what).then_some(()));
    until_seen(r#""type":"subscribed""#);
    let (is_published, said) = publish(&https, &ca);
    assert!(is_published, "{said}");
    until_seen(r#""offset":1,"#);
    let id = deployment.id("haproxy");
    deployment.signal("haproxy", Signal::KILL);
    until("started again", PATIENCE, || deployment.id("haproxy") != id);
    until("published", PATIENCE, || publish(&https, &ca).0);
    until_seen(r#""offset":2,"#);
    let seen = watch.log();
    assert!(!seen.contains(r#""type":"gap""#) && !seen.contains(r#""type":"reset""#), "{seen}");

    let refused = |address: &str, ca: &Path, expected: &str| {
        let (is_published, said) = publish(address, ca);
        assert!(!is_published && said.contains(expected), "{address}: {said}");
    };
    refused(&https.replace("https", "http"), &ca, "is a port for TLS; write https:// for http://");
    let plain = format!("https://127.0.0.1:{http}");
    refused(&plain, &ca, "no TLS is spoken there; write http:// for https://");
    // Another one that has signed a certificate of the same name.
    let others = tempfile::tempdir().expect("a folder");
    let mut secrets = Command::new(root().join("scripts/secrets"));
    secrets.arg(others.path()).env("TICKCAST_BIN", env!("CARGO_BIN_EXE_tickcast"));
    assert!(secrets.status().expect("it runs").success());
    let stranger = others.path().join("tls.crt");
    let why = format!("not signed by the certificates in {}", stranger.display());
    refused(&https, &stranger, &why);
}

#[test]
fn the_script_leaves_nothing() {
    let _turn = alone();
    let mut deployment = Deployment::start(&[SOON]);
    // The demo feed comes through the load balancer.
    until("published", PATIENCE, || {
        fetch(deployment.http(), "/v1/topics/nba.LAL-BOS.score").is_ok()
    });
    let names = ["redis", "node-1", "node-2", "node-3", "haproxy", "prometheus", "feed"];
    for name in names {
        let id = deployment.id(name);
        deployment.signal(name, Signal::KILL);
        until("started again", PATIENCE, || deployment.id(name) != id);
    }
    let key = deployment.key();
    let publish = || {
        let mut http = Http::connect(deployment.http())?.with_key(Some(&key));
        http.post("/v1/topics/aside", "aside", "1")
    };
    until("healed", PATIENCE, || publish().is_ok_and(|answer| answer.status == 200));
    let ids = names.map(|name| deployment.id(name));
    deployment.script.signal(Signal::INT);
    until("ended", PATIENCE, || deployment.script.ended().is_some());
    let status = deployment.script.ended().expect("it has ended");
    assert_eq!(status.code(), Some(0), "{}", deployment.script.log());
    for (name, id) in names.into_iter().zip(ids) {
        assert!(test_kill_process(id).is_err(), "{name} runs: {}", deployment.script.log());
    }
    assert!(!deployment.folder.exists());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let output = script(&[("REDIS_PORT", &port)]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("something listens on port {port} already")), "{said}");
}
