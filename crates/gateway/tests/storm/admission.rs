//! Thousands of clients that come at once are let in at a measured pace, in the order in which they came.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::scope;
use std::time::{Duration, Instant};

use crate::harness::{Fleet, Load, Manner, Node, alone};
use crate::process::{PATIENCE, until};
use crate::scene::{Ages, Scene, expect_unbroken};

/// Clients that come within a second.
const CROWD: Load = Load { clients: 10_000, topics: 100, interests: 2, per_second: 30 };

/// All of them have come within this time: a second, and a moment for a busy machine.
const ARRIVAL: Duration = Duration::from_millis(1_500);

/// Clients that the node lets in per second, and how many at once.
const RATE: u32 = 4_000;
const BURST: u32 = RATE / 10;

/// They come so much faster than they are let in that several times as many stand in line.
const IN_LINE: f64 = 1_000.0;

/// How often the length of the line is looked at.
const GLANCE: Duration = Duration::from_millis(100);

/// What clients that are there already get is so old at most, at the 99th percentile.
const FRESH: Duration = Duration::from_millis(100);

/// How much later than one that came after it a client may be served: the workers are not in step.
const DISORDER: Duration = Duration::from_millis(500);

/// Waits until everybody is served: how long that took, and how many stood in line when most did.
fn until_served(crowd: &Fleet, node: &Node) -> (Duration, f64) {
    scope(|scope| {
        // It ends with the other end of the channel, also in a panic.
        let (going_on, is_over) = channel::<()>();
        let longest = scope.spawn(move || {
            let mut longest = 0.0_f64;
            while is_over.recv_timeout(GLANCE) == Err(RecvTimeoutError::Timeout) {
                longest = longest.max(node.metric("tickcast_connections_waiting"));
            }
            longest
        });
        let served = crowd.until_acknowledged();
        drop(going_on);
        (served, longest.join().expect("the node answers"))
    })
}

#[test]
fn ten_thousand_come_within_a_second_and_are_served_in_turn() {
    let _turn = alone();
    let mut scene = Scene::new(1, CROWD, &[("server.accept_rate", &RATE.to_string())]);
    scene.add_witnesses();
    let quiet = Instant::now();
    until("timed", PATIENCE, || quiet.elapsed() > Duration::from_secs(2));
    let before = scene.ages(0, quiet);
    let start = Instant::now();
    let manner = Manner { arrivals: Some(10_000), ..Manner::CROWD };
    let crowd = Fleet::begin(&scene.world, scene.interests(CROWD), manner);
    let (served, in_line) = until_served(&crowd, &scene.nodes[0]);
    let during = scene.ages(0, start);
    let notes = crowd.notes();
    let mut times: Vec<_> =
        notes.iter().filter_map(|notes| notes.arrived.zip(notes.acknowledged)).collect();
    times.sort_unstable();
    let came = times[times.len() - 1].0 - times[0].0;
    let waits = Ages::new(times.iter().map(|(came, served)| *served - *came).collect());
    let last = times.iter().map(|(_, served)| *served).max().expect("many");
    let took = last - times[0].0;
    println!("came within {came:.1?}, all served after {served:.1?}; waited {waits}");
    println!("{in_line} in line at once; witnesses before: {before}; during: {during}");

    // Nobody is served long before somebody who came earlier.
    let mut latest = times[0].1;
    let overtaken = times.iter().map(|(_, served)| {
        latest = latest.max(*served);
        latest - *served
    });
    let overtaken = Ages::new(overtaken.collect());
    println!("overtaken by {overtaken}");
    assert!(overtaken.percentile(99) < DISORDER, "{overtaken}");
    assert!(came < ARRIVAL, "it was no storm: they came within {came:?}");
    assert!(in_line > IN_LINE, "it was no storm: {in_line} stood in line");
    // The last of them came after those before it at the rate, and not sooner.
    let count = u32::try_from(CROWD.clients).expect("few enough");
    let least = Duration::from_secs(1) * (count - BURST) / RATE;
    assert!(took >= least, "{took:?}, and at the rate it is {least:?}");
    assert_eq!(notes.iter().map(|notes| notes.ends).sum::<u64>(), 0, "nobody came in vain");
    assert!(during.percentile(99) < FRESH, "{during}");
    scene.fleets.push(crowd);
    scene.until_heard(Instant::now());
    let tally = scene.finish();
    expect_unbroken(&tally);
}
