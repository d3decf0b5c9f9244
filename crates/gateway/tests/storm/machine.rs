//! Machines that give a node little of themselves: hardly any processor time, and nowhere to write its log.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Load, Manner, Node, alone};
use crate::port::Port;
use crate::process::PATIENCE;
use crate::redis::Redis;
use crate::scene::{Scene, expect_unbroken};

const CLIENTS: Load = Load { clients: 300, topics: 20, interests: 2, per_second: 20 };

/// Of this time a node runs the tenth part.
const PERIOD: Duration = Duration::from_millis(100);

/// How long that lasts: several pings.
const STARVED: Duration = Duration::from_secs(12);

#[test]
fn a_node_with_a_tenth_of_a_processor_takes_nobody_for_dead() {
    let _turn = alone();
    let settings = [("websocket.ping_interval", "2s"), ("websocket.user_timeout", "4s")];
    let mut scene = Scene::new(1, CLIENTS, &settings);
    // These say nothing by themselves for a minute, and hear nothing, so the node has to ask them.
    let silent = Manner { ping: Duration::from_secs(60), ..Manner::CROWD };
    scene.add_quiet(CLIENTS.clients, silent);
    scene.add(CLIENTS, Manner::CROWD);
    scene.publish_quietly(1);
    scene.until_level();
    let start = Instant::now();
    while start.elapsed() < STARVED {
        scene.nodes[0].stop();
        std::thread::park_timeout(PERIOD * 9 / 10);
        scene.nodes[0].go_on();
        std::thread::park_timeout(PERIOD / 10);
    }
    let pings = scene.nodes[0].metric("tickcast_pings_total");
    println!("{pings} pings were sent");
    // One in 2 s to each; the seconds in between are not missed.
    let due = CLIENTS.clients as f64 * (STARVED.as_secs_f64() / 2.0 - 2.0);
    assert!(pings > due, "{pings} of {due}");
    scene.publish_quietly(2);
    scene.until_level();
    let ends = scene.notes([0, 1]).iter().map(|notes| notes.ends).sum::<u64>();
    assert_eq!(ends, 0, "clients keep their connections");
    let tally = scene.finish();
    expect_unbroken(&tally);
}

/// Threads that make a node talk, and what each does between two looks.
const PROVOKERS: usize = 4;
const PROVOCATIONS: usize = 250;

/// What clients get is so old at most, at the 99th percentile, wherever the log goes.
const FRESH: Duration = Duration::from_millis(100);

/// A node under load that says a lot, with its log somewhere else. The ports are its own for as long as they are kept.
fn talker(stderr: Stdio) -> (Scene, [Port; 2]) {
    let redis = Redis::start(&[]);
    let ports = [Port::free(), Port::free()];
    let [address, admin] = ports.each_ref().map(|port| port.address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
    command.args(["serve", "--redis", &redis.url(), "--log-filter", "trace"]);
    command.args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()]);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let node = Node::adopt(command.spawn().expect("the program starts"), address, admin);
    let mut scene = Scene::on(redis, vec![node], CLIENTS, &[]);
    scene.add(CLIENTS, Manner { is_timed: true, ..Manner::HASTY });
    scene.until_heard(Instant::now());
    (scene, ports)
}

/// Has a node say something: a request that is none is worth a line.
fn provoke(node: &Node) {
    let request = TcpStream::connect(node.address).and_then(|mut stream| {
        stream.write_all(b"?\r\n\r\n")?;
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    // It may be refused in any way.
    drop(request);
}

/// Has the node talk until lines are dropped beside these, while nobody notices. Returns how many were dropped.
fn until_dropped(scene: &Scene, before: f64) -> f64 {
    let dropped = || scene.nodes[0].metric("tickcast_log_lines_dropped_total");
    let start = Instant::now();
    let over = start + PATIENCE;
    while dropped() <= before {
        assert!(Instant::now() < over, "there still is room for lines");
        std::thread::scope(|scope| {
            for _ in 0..PROVOKERS {
                scope.spawn(|| (0..PROVOCATIONS).for_each(|_| provoke(&scene.nodes[0])));
            }
        });
    }
    scene.until_heard(Instant::now());
    let ages = scene.ages(0, start);
    println!("{} lines were dropped; {ages}", dropped());
    assert!(ages.percentile(99) < FRESH, "{ages}");
    dropped()
}

/// The node ends well, and nobody has missed anything.
fn expect_a_good_end(mut scene: Scene) {
    assert_eq!(scene.fleets[0].sum(|notes| notes.ends), 0, "clients keep their connections");
    let redis = scene.redis.url();
    scene.nodes.push(Node::start(&redis, &[]));
    scene.nodes[0].terminate();
    scene.lead_to([1]);
    scene.until_ended(0);
    let tally = scene.finish();
    expect_unbroken(&tally);
}

/// A process that reads a log and passes on the lines that say what was dropped.
struct Reader(Child);

impl Reader {
    /// The reader, what it reads from, and what it finds.
    fn start() -> (Self, Stdio, Receiver<String>) {
        let (log, writer) = std::io::pipe().expect("a pipe");
        let mut grep = Command::new("grep");
        grep.args(["--line-buffered", "log lines were dropped"]);
        let mut grep =
            grep.stdin(log).stdout(Stdio::piped()).spawn().expect("every machine has grep");
        let (found, lines) = channel();
        let out = BufReader::new(grep.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            // Once the test has ended nobody wants them any more.
            out.lines().map_while(Result::ok).all(|line| found.send(line).is_ok())
        });
        (Self(grep), writer.into(), lines)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it is ours");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended by itself; what matters is that nothing is left.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn nobody_reads_the_log_and_then_nobody_can() {
    let _turn = alone();
    let (reader, log, found) = Reader::start();
    let (scene, _ports) = talker(log);
    reader.signal(Signal::STOP);
    let dropped = until_dropped(&scene, 0.0);
    reader.signal(Signal::CONT);
    let line = found.recv_timeout(PATIENCE).expect("what was dropped is said");
    println!("{line}");
    // The pipe has no other end any more.
    drop(reader);
    until_dropped(&scene, dropped);
    expect_a_good_end(scene);
}

#[test]
fn there_is_no_room_for_the_log() {
    let _turn = alone();
    let full = File::options().write(true).open("/dev/full").expect("every Linux has it");
    let (scene, _ports) = talker(full.into());
    until_dropped(&scene, 1_000.0);
    expect_a_good_end(scene);
}
