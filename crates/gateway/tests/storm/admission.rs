//! Thousands of clients that come at once are let in at a measured pace, in the order in which they came.

use std::time::{Duration, Instant};

use crate::harness::{Fleet, Load, Manner, alone};
use crate::process::{PATIENCE, until};
use crate::scene::{Ages, Scene, expect_unbroken};

/// Clients that come within a second.
const CROWD: Load = Load { clients: 10_000, topics: 100, interests: 2, per_second: 30 };

/// What clients that are there already get is so old at most, at the 99th percentile.
const FRESH: Duration = Duration::from_millis(100);

/// How much later than one that came after it a client may be served: the workers are not in step.
const DISORDER: Duration = Duration::from_millis(500);

#[test]
fn ten_thousand_come_within_a_second_and_are_served_in_turn() {
    let _turn = alone();
    let mut scene = Scene::new(1, CROWD, &[]);
    scene.add_witnesses();
    let quiet = Instant::now();
    until("timed", PATIENCE, || quiet.elapsed() > Duration::from_secs(2));
    let before = scene.ages(0, quiet);
    let start = Instant::now();
    let manner = Manner { arrivals: Some(10_000), ..Manner::CROWD };
    let crowd = Fleet::begin(&scene.world, scene.interests(CROWD), manner);
    let served = crowd.until_acknowledged();
    let during = scene.ages(0, start);
    let notes = crowd.notes();
    let mut times: Vec<_> =
        notes.iter().filter_map(|notes| notes.arrived.zip(notes.acknowledged)).collect();
    times.sort_unstable();
    let came = times[times.len() - 1].0 - times[0].0;
    let waits = Ages::new(times.iter().map(|(came, served)| *served - *came).collect());
    let waiting = scene.nodes[0].metric("tickcast_connections_waiting_max");
    println!("came within {came:.1?}, all served after {served:.1?}; waited {waits}");
    println!("{waiting} waited at once; witnesses before: {before}; during: {during}");

    // Nobody is served long before somebody who came earlier.
    let mut latest = times[0].1;
    let overtaken = times.iter().map(|(_, served)| {
        latest = latest.max(*served);
        latest - *served
    });
    let overtaken = Ages::new(overtaken.collect());
    println!("overtaken by {overtaken}");
    assert!(overtaken.percentile(99) < DISORDER, "{overtaken}");
    assert!(waiting > 0.0, "it was no storm");
    assert_eq!(notes.iter().map(|notes| notes.ends).sum::<u64>(), 0, "nobody came in vain");
    assert!(during.percentile(99) < FRESH, "{during}");
    scene.fleets.push(crowd);
    scene.until_heard(Instant::now());
    let tally = scene.finish();
    expect_unbroken(&tally);
}
