//! What links do to packets of clients: they lose all of them, or some, or are pulled out.
//!
//! Unlike in [`network`](crate::network) it is the kernel's TCP that has to cope, on both sides.

use std::time::{Duration, Instant};

use crate::harness::{Load, Manner};
use crate::own_network::{FAR, Network, in_own_network};
use crate::process::{PATIENCE, until};
use crate::scene::{Scene, expect_unbroken};

/// Publishers at work, and how much of it each client hears.
const LOAD: Load = Load { clients: 0, topics: 20, interests: 2, per_second: 20 };

/// Topics of one client.
const TOPICS: u64 = 2;

/// What clients elsewhere get is so old at most, at the 99th percentile, whatever happens to the others.
const FRESH: Duration = Duration::from_millis(100);

/// Peers that are not there any more are found soon, so that a test need not wait: the defaults are 25 s, 20 s and 30 s.
const QUICK: [(&str, &str); 3] = [
    ("websocket.ping_interval", "5s"),
    ("websocket.user_timeout", "5s"),
    ("websocket.stall_timeout", "8s"),
];

/// The longest way to find a dead peer: a ping after 5 s of silence, no answer for 5 s, the grain of a second at both
/// ends, and one for a busy machine. With the defaults it is 25 s and 20 s.
const REAPED: Duration = Duration::from_secs(13);

/// Clients that find out by themselves within 5 s, and live where the harm is done.
const HASTY: Manner = Manner { from: Some(FAR), ..Manner::HASTY };

/// Whether so many connections are open.
fn are_open(scene: &Scene, count: usize) -> bool {
    let open = scene.nodes[0].metric(r#"tickcast_connections{transport="websocket"}"#);
    (open - count as f64).abs() < 0.5
}

/// Connections that were closed because nobody seemed to be there.
fn reaped(scene: &Scene) -> f64 {
    let reasons = ["lost", "ping_timeout", "slow_consumer"].map(|reason| {
        let labels = format!(r#"{{transport="websocket",reason="{reason}"}}"#);
        (reason, scene.nodes[0].metric(&format!("tickcast_connections_closed_total{labels}")))
    });
    println!("taken for dead: {reasons:?}");
    reasons.iter().map(|(_, count)| count).sum()
}

/// Waits until only the connections of witnesses are open, which must be soon.
fn until_reaped(scene: &Scene, cut: Instant) {
    let witnesses = scene.fleets[0].notes().len();
    until("reaped", PATIENCE, || are_open(scene, witnesses));
    let took = cut.elapsed();
    println!("all reaped after {took:.1?}");
    assert!(took < REAPED, "{took:?}");
}

/// Waits until everybody who was away is back, and nothing but their new connections is open.
fn until_back(scene: &Scene, since: Instant) {
    let counts: Vec<_> = scene.fleets.iter().map(|fleet| fleet.notes().len()).collect();
    until("back", PATIENCE, || {
        let fleets = scene.fleets.iter().zip(&counts).skip(1);
        fleets
            .into_iter()
            .all(|(fleet, count)| fleet.sum(|notes| notes.absences.len() as u64) == *count as u64)
    });
    println!("all back after {:.1?}", since.elapsed());
    let all = counts.iter().sum();
    until("open once each", PATIENCE, || are_open(scene, all));
}

/// Witnesses have noticed nothing of what went on since.
fn expect_undisturbed(scene: &Scene, since: Instant) {
    let ages = scene.ages(0, since);
    println!("witnesses meanwhile: {ages}");
    assert!(ages.percentile(99) < FRESH, "{ages}");
    assert_eq!(scene.fleets[0].sum(|notes| notes.ends), 0, "witnesses keep their connections");
}

/// Half of a thousand clients, whatever they want.
const HALF: usize = 500;

/// What a node may have grown by once a thousand clients are gone: publications went on meanwhile.
const GROWTH_MAX_BYTES: f64 = 8.0 * 1024.0 * 1024.0;

/// Open files that come and go with publishers and with looks at the metrics.
const FILES_MORE: f64 = 20.0;

#[test]
fn all_packets_of_a_thousand_clients_are_dropped() {
    in_own_network("links::all_packets_of_a_thousand_clients_are_dropped", a_thousand_are_cut);
}

fn a_thousand_are_cut(network: &Network) {
    let mut scene = Scene::new(1, LOAD, &QUICK);
    scene.add_witnesses();
    let files = scene.nodes[0].open_files();
    // Half of them are in the middle of hearing something, the others wait in silence.
    scene.add(Load { clients: HALF, ..LOAD }, HASTY);
    scene.add_quiet(HALF, HASTY);
    scene.publish_quietly(1);
    scene.until_level();
    let before = scene.nodes[0].resident_bytes();

    let cut = Instant::now();
    network.drop_all();
    until_reaped(&scene, cut);
    assert_eq!(reaped(&scene), 2.0 * HALF as f64, "each of them was found to be gone");
    expect_undisturbed(&scene, cut);
    let (after, files_after) = (scene.nodes[0].resident_bytes(), scene.nodes[0].open_files());
    println!("resident: {before} and then {after}; files: {files} and then {files_after}");
    assert!(after - before < GROWTH_MAX_BYTES, "{before} and then {after}");
    assert!(files_after < files + FILES_MORE, "{files} and then {files_after}");

    scene.publish_quietly(2);
    let back = Instant::now();
    let (seen, lost) = network.let_through();
    assert_eq!(seen, lost, "nothing passed");
    until_back(&scene, back);
    scene.publish_quietly(3);
    scene.until_level();
    expect_undisturbed(&scene, cut);
    let tally = scene.finish();
    expect_unbroken(&tally);
    assert_eq!(tally.resumed, 2 * HALF as u64 * TOPICS, "{tally:?}");
}

/// Clients that hear something all the time, and clients that are asked whether they are there.
const LIVELY: Load = Load { clients: 150, topics: 20, interests: 2, per_second: 20 };
const SILENT: usize = 60;

/// Packets in a hundred that are lost.
const LOSS: u32 = 10;

/// A ping, and 8 s for its answer: five retransmissions in each direction. All of them are lost once in a million times.
const PATIENT: [(&str, &str); 1] = [("websocket.ping_interval", "8s")];

/// Two pings to each silent client, and shorter than the default of `websocket.user_timeout`: an acknowledgement that
/// stays away for 20 s ends a connection, and rightly.
const LOSSY: Duration = Duration::from_secs(19);

#[test]
fn a_tenth_of_all_packets_is_lost() {
    in_own_network("links::a_tenth_of_all_packets_is_lost", a_tenth_is_lost);
}

fn a_tenth_is_lost(network: &Network) {
    let mut scene = Scene::new(1, LIVELY, &PATIENT);
    scene.add_witnesses();
    let far = Manner { from: Some(FAR), is_timed: true, ..Manner::CROWD };
    scene.add(LIVELY, far);
    scene.add_quiet(SILENT, Manner { ping: Duration::from_secs(60), ..far });
    scene.publish_quietly(1);
    scene.until_level();
    let pings = scene.nodes[0].metric("tickcast_pings_total");

    let start = Instant::now();
    network.drop_percent(LOSS);
    until("over", PATIENCE, || start.elapsed() > LOSSY);
    let pings = scene.nodes[0].metric("tickcast_pings_total") - pings;
    scene.publish_quietly(2);
    let (seen, lost) = network.let_through();
    let share = lost as f64 / seen as f64 * 100.0;
    println!("{lost} of {seen} packets were lost, {share:.1} %; {pings} pings");
    assert!((share - f64::from(LOSS)).abs() < 2.0, "{share} %");
    // Two to each, but for those whose first answer was lost so often that the second ping is not due yet.
    assert!(pings > 1.5 * SILENT as f64, "{pings} pings");
    scene.until_level();
    let [straight, lossy] = [0, 1].map(|fleet| scene.ages(fleet, start));
    println!("publications on the straight way: {straight}; on the lossy one: {lossy}");
    let ends = scene.notes([0, 1, 2]).iter().map(|notes| notes.ends).sum::<u64>();
    assert_eq!((ends, reaped(&scene)), (0, 0.0), "nobody was taken for dead");
    let tally = scene.finish();
    expect_unbroken(&tally);
    assert_eq!(tally.resumed, 0, "{tally:?}");
}

const VANISHING: usize = 100;

/// In this many rounds clients are sent more than sockets hold, and less than the history: so much of it is in flight.
const ROUNDS: u64 = 3;
const ROUND_BYTES: usize = 40_000;

/// Publishes more than fits into a socket to everybody who vanishes.
fn publish_much(scene: &Scene, first: u64) {
    (first..first + ROUNDS).for_each(|round| scene.publish_padded(round, ROUND_BYTES));
}

#[test]
fn a_link_is_pulled_out_with_data_in_flight() {
    in_own_network("links::a_link_is_pulled_out_with_data_in_flight", a_link_is_pulled_out);
}

fn a_link_is_pulled_out(network: &Network) {
    let mut scene = Scene::new(1, LOAD, &QUICK);
    scene.add_witnesses();
    scene.add_quiet(VANISHING, HASTY);
    scene.publish_quietly(1);
    scene.until_level();

    // Out for a moment: TCP sends again what was in flight, and nobody else notices.
    let start = Instant::now();
    network.pull_out();
    publish_much(&scene, 2);
    // Sockets are full, and the node has seen it in its look of every second.
    until("in flight", PATIENCE, || {
        scene.nodes[0].metric(r#"tickcast_output_pending_bytes{transport="websocket"}"#) > 0.0
    });
    println!("it was out for {:.1?}", start.elapsed());
    network.plug_in();
    scene.until_level();
    println!("all level {:.1?} after it was pulled out", start.elapsed());
    assert_eq!(scene.fleets[1].sum(|notes| notes.ends), 0, "they keep their connections");
    assert_eq!(reaped(&scene), 0.0, "nobody was taken for dead");

    // Out for good, in the middle of a delivery: the node gives them up, and they resume when they have a link again.
    scene.publish_padded(2 + ROUNDS, ROUND_BYTES);
    let start = Instant::now();
    network.pull_out();
    publish_much(&scene, 3 + ROUNDS);
    until_reaped(&scene, start);
    reaped(&scene);
    scene.publish_quietly(3 + 2 * ROUNDS);
    let back = Instant::now();
    network.plug_in();
    until_back(&scene, back);
    scene.until_level();
    expect_undisturbed(&scene, start);
    let tally = scene.finish();
    expect_unbroken(&tally);
    assert_eq!(tally.resumed, VANISHING as u64 * TOPICS, "{tally:?}");
}
