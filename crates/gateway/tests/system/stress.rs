//! Thousands of clients that come and go, stop reading and go on, while publishers publish.
//!
//! Nothing may be lost without a word, and when everybody has gone the node must be as it was before they came.

mod client;
mod fleet;
mod publisher;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::oracle::Oracle;
use crate::program::Program;
use crate::{exposition, http};
use fleet::Fleet;
use publisher::Publishers;

/// Clients; every second one stops reading at times.
const CLIENTS: usize = 5000;

const TOPICS: usize = 60;

/// All publishers together.
const PUBLICATIONS_PER_SECOND: u32 = 300;

/// How long the clients come and go, in seconds, unless `TICKCAST_STRESS_SECONDS` says otherwise.
const SECONDS: u64 = 120;

/// The round before it, after which a node has all the memory that it keeps.
const WARM_UP: Duration = Duration::from_secs(15);

/// Time for all clients to be up to date, and for the node to notice that they have gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the second and longer round may add to the memory of an empty node. Some 40,000 connections come and go in it: a
/// leak of 256 bytes for each would exceed this.
const RSS_GROWTH_MAX_BYTES: f64 = 10.0 * 1024.0 * 1024.0;

/// A short history and narrow sockets, so that a client that stops reading soon falls behind; and the time after which
/// it is closed, which some of them exceed.
const SETTINGS: [(&str, &str); 6] = [
    ("server.max_connections", "10000"),
    ("topics.history", "50"),
    ("websocket.send_buffer_bytes", "4KiB"),
    ("websocket.unsent_bytes", "1KiB"),
    ("websocket.stall_timeout", "8s"),
    ("log.filter", "warn,tickcast=info"),
];

/// What must be the same before and after.
#[derive(Debug)]
struct Footprint {
    rss_bytes: f64,
    open_files: f64,
}

#[test]
fn thousands_come_and_go_and_leave_nothing_behind() {
    let seconds = std::env::var("TICKCAST_STRESS_SECONDS");
    let seconds =
        seconds.map_or(SECONDS, |text| text.parse().expect("TICKCAST_STRESS_SECONDS: a number"));
    let mut node = Program::serve(&SETTINGS);
    let oracle = Arc::<Mutex<Oracle>>::default();
    let mut fleet = Fleet::new(node.address, CLIENTS, TOPICS, Arc::clone(&oracle));

    round(&node, &mut fleet, &oracle, WARM_UP);
    let before = empty_footprint(&node);
    round(&node, &mut fleet, &oracle, Duration::from_secs(seconds));
    let after = empty_footprint(&node);

    let journeys = fleet.journeys();
    drop(fleet);
    let oracle = Arc::into_inner(oracle).expect("publishers and clients are gone");
    let oracle = oracle.into_inner().expect("nobody has panicked");
    let tally = oracle.verdict().unwrap_or_else(|findings| panic!("{findings:#?}"));
    println!(
        "{journeys:?}\n{tally:?}\nempty after the warm-up: {before:?}\nand after all of it: {after:?}"
    );

    // A short run is too short for the worst.
    if seconds >= 30 {
        assert!(tally.gaps > 0 && tally.conflated > 0, "nobody fell behind: {tally:?}");
        assert!(journeys.closed_as_slow > 0, "nobody was too slow: {journeys:?}");
    }
    assert!(tally.resumed > CLIENTS as u64, "hardly anybody came back: {tally:?}");
    assert_eq!(tally.resets, 0, "the node has not been restarted");
    assert_eq!(before.open_files, after.open_files);
    node.terminate();
    assert_eq!(node.wait().code(), Some(0), "{}", node.log());
    let growth = after.rss_bytes - before.rss_bytes;
    assert!(growth < RSS_GROWTH_MAX_BYTES, "{growth} bytes more than after the warm-up");
}

/// Clients come and go for a while; then all of them catch up, and leave.
fn round(node: &Program, fleet: &mut Fleet, oracle: &Arc<Mutex<Oracle>>, time: Duration) {
    let publishers = Publishers::start(node.address, TOPICS, PUBLICATIONS_PER_SECOND, oracle);
    fleet.come_and_go(Instant::now() + time);
    publishers.stop();
    fleet.catch_up(Instant::now() + PATIENCE);
    fleet.leave();
}

/// Waits until nobody is left: what the node needs then.
fn empty_footprint(node: &Program) -> Footprint {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = http::get(node.admin, "/metrics");
        let metric = |series| exposition::value(&metrics, series).expect("a metric of every node");
        let left = [
            metric(r#"tickcast_connections{transport="websocket"}"#),
            metric(r#"tickcast_connections{transport="http"}"#),
            metric(r#"tickcast_subscriptions{transport="websocket"}"#),
            metric("tickcast_topics"),
            metric("tickcast_slow_consumers"),
        ];
        if left == [0.0; 5] {
            let [rss_bytes, open_files] =
                ["process_resident_memory_bytes", "process_open_fds"].map(metric);
            return Footprint { rss_bytes, open_files };
        }
        assert!(Instant::now() < deadline, "still there: {left:?}\n{}", node.log());
        // Gauges have no event to wait for, so they are looked at again and again.
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
