//! A node that has little memory, and clients that do not read what it has for them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::handshake;
use crate::harness::http::Http;
use crate::harness::{Load, Manner, Node, alone, command};
use crate::memory_group::MemoryGroup;
use crate::process::{PATIENCE, until};
use crate::redis::Redis;
use crate::scene::{Scene, expect_unbroken};

/// What the node may use.
const MEMORY: u64 = 256 << 20;

/// Clients that read all they get, and are judged.
const HEALTHY: Load = Load { clients: 100, topics: 20, interests: 2, per_second: 20 };

/// Clients that read nothing after their subscription, and clients that read a little now and then.
const STALLED: usize = 300;
const SLOW: usize = 100;
const SLOW_BYTES: usize = 16 * 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(100);

/// Of so many topics each of them has some, every second client in mode `latest`.
const TOPICS: usize = 320;
const TOPICS_EACH: usize = 10;

/// Each of these topics gets more than its history keeps, and all together more than the node has memory.
const ROUNDS: usize = 18;
const PAYLOAD_BYTES: usize = 60_000;

/// Topics of one batch, which must not be larger than `limits.batch_bytes`.
const BATCH: usize = 16;

/// Who publishes to them.
const PUBLISHERS: usize = 2;

/// What a reader's kernel holds for it: little, so that the node feels it.
const RECEIVE_BYTES: usize = 8 * 1024;

fn topic(index: usize) -> String {
    format!("heavy.{}", index % TOPICS)
}

/// A subscriber that has not read anything of what it has asked for.
fn reader(node: SocketAddr, index: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BYTES).expect("a socket");
    socket.connect(&node.into()).expect("the node listens");
    let mut stream = TcpStream::from(socket);
    let upgrade = handshake::head(&handshake::LINES);
    stream.write_all(upgrade.as_bytes()).expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let mode = if index.is_multiple_of(2) { "latest" } else { "all" };
    let topics = (0..TOPICS_EACH).map(|place| topic(index + place * TOPICS / TOPICS_EACH));
    let topics = topics.map(|topic| format!(r#"{{"topic":"{topic}","mode":"{mode}"}}"#));
    let topics = topics.collect::<Vec<_>>().join(",");
    let text = format!(r#"{{"type":"subscribe","id":1,"topics":[{topics}]}}"#);
    // One masked frame of text with a length of two bytes; the mask is zero.
    let length = u16::try_from(text.len()).expect("a short command");
    let frame = [&[0x81, 0xfe], &length.to_be_bytes()[..], &[0; 4], text.as_bytes()].concat();
    stream.write_all(&frame).expect("a connection");
    stream
}

/// Reads a little from each of them now and then, until it is over. Those whose connection has ended stay as they are.
fn read_slowly(readers: &[TcpStream], is_over: &AtomicBool) {
    let mut buffer = vec![0; SLOW_BYTES];
    for stream in readers {
        stream.set_nonblocking(true).expect("a socket");
    }
    while !is_over.load(Relaxed) {
        for mut stream in readers {
            // Nothing is there at the moment, or never will be any more.
            drop(stream.read(&mut buffer));
        }
        std::thread::park_timeout(SLOW_PAUSE);
    }
}

/// Publishes this part of everything, each batch until it is taken: how many bytes. Ends early if the node does.
fn publish(node: SocketAddr, part: usize) -> usize {
    let mut http = Http::connect(node).expect("the node listens");
    let padding = "x".repeat(PAYLOAD_BYTES);
    let mut published = 0;
    for batch in (part..ROUNDS * TOPICS / BATCH).step_by(PUBLISHERS) {
        let items = (batch * BATCH..(batch + 1) * BATCH).map(|item| {
            let data = format!(r#"{{"n":{item},"padding":"{padding}"}}"#);
            format!("{{\"topic\":\"{}\",\"data\":{data}}}\n", topic(item))
        });
        let (key, body) = (format!("heavy-{batch}"), items.collect::<String>());
        loop {
            let Ok(answer) = http.post("/v1/publish", &key, &body) else { return published };
            assert!(matches!(answer.status, 200 | 207 | 503), "{answer:?}");
            if answer.status == 200 {
                break;
            }
        }
        published += body.len();
    }
    published
}

/// Publishes everything while some read slowly, and waits until they are told what they have missed. Returns the most
/// memory that the node was seen to have meanwhile.
fn flood(scene: &Scene, group: &MemoryGroup, slow: &[TcpStream]) -> f64 {
    let node = &scene.nodes[0];
    let start = Instant::now();
    let (is_over, mut most) = (AtomicBool::new(false), 0.0_f64);
    let mut look = || {
        assert_eq!(group.kills(), 0, "the kernel had to kill the node");
        most = most.max(node.resident_bytes());
    };
    std::thread::scope(|scope| {
        let _end = Ending(&is_over);
        scope.spawn(|| read_slowly(slow, &is_over));
        let publish = |part| scope.spawn(move || publish(node.address, part));
        let publishers: Vec<_> = (0..PUBLISHERS).map(publish).collect();
        until("published", PATIENCE, || {
            look();
            publishers.iter().all(std::thread::ScopedJoinHandle::is_finished)
        });
        let bytes = publishers.into_iter().map(|publisher| publisher.join().expect("it is done"));
        println!("{} MiB were published in {:.1?}", bytes.sum::<usize>() >> 20, start.elapsed());
        let gaps = r#"tickcast_gap_notices_total{reason="slow_consumer"}"#;
        until("told what they have missed", PATIENCE, || {
            look();
            node.metric(gaps) > 0.0
        });
    });
    most
}

/// Says that it is over when it is dropped, also by a test that fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A node with little memory and the defaults of all settings survives what its readers do not take. On Redis or alone.
fn survives(is_alone: bool) {
    let _turn = alone();
    let group = MemoryGroup::new(MEMORY);
    let redis = Redis::start(&[]);
    let mut serve = command(&[]);
    if !is_alone {
        serve.args(["--redis", &redis.url()]);
    }
    let node = Node::run(&mut group.command(&serve));
    node.until_ready();
    let mut scene = Scene::on(redis, vec![node], HEALTHY, &[]);
    scene.add(HEALTHY, Manner::CROWD);
    let address = scene.nodes[0].address;
    let readers: Vec<_> = (0..STALLED + SLOW).map(|index| reader(address, index)).collect();
    let subscriptions = readers.len() * TOPICS_EACH + HEALTHY.clients * HEALTHY.interests;
    let held = r#"tickcast_subscriptions{transport="websocket"}"#;
    until("subscribed", PATIENCE, || scene.nodes[0].metric(held) >= subscriptions as f64);

    let most = flood(&scene, &group, &readers[STALLED..]);
    let mib = |name| scene.nodes[0].metric(name) / f64::from(1 << 20);
    let logs = ["tickcast_hub_log_bytes", "tickcast_hub_log_max_bytes"].map(mib);
    println!("{:.1} MiB at most; logs {logs:.1?}", most / f64::from(1 << 20));
    assert!(most < MEMORY as f64, "{most}");
    assert_eq!(logs[1], 64.0, "a quarter of the memory");
    assert!(logs[0] <= 64.0 && logs[0] > 60.0, "{logs:?}: the bound was not reached");
    if is_alone {
        let kept =
            ["tickcast_broker_retained_bytes", "tickcast_broker_retained_max_bytes"].map(mib);
        println!("kept: {kept:.1?}");
        assert_eq!(kept[1], 128.0, "half of the memory");
        assert!(kept[0] <= 128.0 && kept[0] > 120.0, "{kept:?}: the bound was not reached");
    }
    scene.until_level();
    let ends = scene.fleets[0].sum(|notes| notes.ends);
    assert_eq!(ends, 0, "who reads keeps the connection");
    assert_eq!((scene.nodes[0].ended(), group.kills()), (None, 0));
    drop(readers);
    let tally = scene.finish();
    expect_unbroken(&tally);
}

#[test]
fn a_node_with_little_memory_survives_hundreds_who_do_not_read() {
    survives(false);
}

#[test]
fn a_node_with_little_memory_and_a_broker_inside_survives_them_too() {
    survives(true);
}
