//! Nodes that are asked to end while thousands of clients are connected.

use std::time::{Duration, Instant};

use crate::harness::{Load, Manner, Notes, alone};
use crate::process::{PATIENCE, until};
use crate::scene::{Scene, expect_unbroken};

/// Half of the clients of one node. The others are deaf to `goaway`.
const HALF: Load = Load { clients: 5_000, topics: 100, interests: 2, per_second: 30 };

/// Clients that take no notice of `goaway`, as most that are written by hand.
const DEAF: Manner = Manner { moves: false, ..Manner::CROWD };

/// A node that is asked to end has ended within this time: the default of `drain.timeout`.
const DRAINED: Duration = Duration::from_secs(45);

/// What the other nodes' clients may notice of it, at the 99th percentile.
const NOTICED: Duration = Duration::from_millis(50);

/// Everything that is open is closed at once after a second signal; clients have a moment to hang up.
const HURRIED: Duration = Duration::from_secs(8);

const ROLLS: usize = 3;

/// Ten thousand clients on one of two nodes, and witnesses on the other.
fn crowded(settings: &[(&'static str, &str)]) -> Scene {
    let mut scene = Scene::new(2, HALF, settings);
    scene.lead_to([1]);
    scene.add_witnesses();
    scene.lead_to([0]);
    let arrival = scene.add(HALF, Manner::CROWD) + scene.add(HALF, DEAF);
    println!("{} clients are there after {arrival:?}", 2 * HALF.clients);
    scene.lead_to([0, 1]);
    scene.until_heard(Instant::now());
    scene
}

/// Clients that were asked to come back in each second, at most.
fn busiest_second(notes: &[Notes]) -> usize {
    let mut times: Vec<_> = notes.iter().filter_map(|notes| notes.acknowledged).collect();
    times.sort_unstable();
    let within = |(first, time): (usize, &Instant)| {
        let end = *time + Duration::from_secs(1);
        times.partition_point(|time| *time < end) - first
    };
    times.iter().enumerate().map(within).max().unwrap_or_default()
}

/// The fields of the line with which a node sums up its end.
fn summary(log: &str) -> serde_json::Value {
    let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut events = events.filter(|event: &serde_json::Value| event["message"] == "stopped");
    events.next().unwrap_or_else(|| panic!("no summary in {log}"))
}

#[test]
fn ten_thousand_clients_are_sent_to_another_node() {
    let _turn = alone();
    let mut scene = crowded(&[("drain.delay", "1s")]);
    let quiet = Instant::now();
    until("timed", PATIENCE, || quiet.elapsed() > Duration::from_secs(3));
    let before = scene.ages(0, quiet);
    let start = Instant::now();
    let drained = scene.end(0);
    println!("drained after {drained:?}: {}", summary(&scene.nodes[0].log()));
    assert!(drained < DRAINED, "{drained:?}");

    let movers = scene.notes([1]);
    let moves: u64 = movers.iter().map(|notes| notes.moves).sum();
    let lost: u64 = movers.iter().map(|notes| notes.ends).sum();
    println!("{moves} have moved, {lost} were cut off before");
    assert_eq!((moves, lost), (HALF.clients as u64, 0));
    let deaf = scene.notes([2]);
    let closed = deaf.iter().filter(|notes| notes.closes == [1012]).count();
    assert_eq!(closed, HALF.clients, "all others were closed in good order");
    let busiest = busiest_second(&scene.notes([1, 2]));
    println!("{busiest} came to the other node in the busiest second");
    // 1,000 a second were sent away. Those that are closed stay away for up to a second of their own choice.
    assert!(busiest < 2_500, "{busiest}");

    scene.until_heard(Instant::now());
    let during = scene.ages(0, start);
    println!("witnesses before: {before}; during: {during}");
    let bound = before.percentile(99) + NOTICED;
    assert!(during.percentile(99) < bound, "{during}");
    let tally = scene.finish();
    expect_unbroken(&tally);
    assert!(tally.resumed >= (2 * HALF.clients * HALF.interests) as u64, "{tally:?}");
}

#[test]
fn a_second_signal_hurries_and_nothing_is_lost() {
    let _turn = alone();
    let mut scene = crowded(&[("drain.delay", "0s"), ("drain.rate", "300")]);
    scene.nodes[0].terminate();
    scene.until_noticed(0);
    // It would take half a minute; some have gone.
    until("under way", PATIENCE, || {
        scene.fleets[1].sum(|notes| notes.moves) > HALF.clients as u64 / 20
    });
    let second = Instant::now();
    scene.nodes[0].terminate();
    scene.until_ended(0);
    let hurried = second.elapsed();
    let summary = summary(&scene.nodes[0].log());
    println!("ended {hurried:?} after the second signal: {summary}");
    assert!(hurried < HURRIED, "{hurried:?}");
    assert_eq!(summary["cut"], 0, "{summary}");
    scene.until_heard(Instant::now());
    let tally = scene.finish();
    expect_unbroken(&tally);
}

/// How often all nodes are replaced: `TICKCAST_ROLLS`, for a long run.
fn rolls() -> usize {
    let given = std::env::var("TICKCAST_ROLLS").ok();
    given.map_or(ROLLS, |text| text.parse().expect("TICKCAST_ROLLS is a number"))
}

#[test]
fn all_nodes_are_replaced_again_and_again() {
    let _turn = alone();
    let load = Load { clients: 1_500, ..HALF };
    let settings = [("drain.delay", "500ms"), ("drain.rate", "1000")];
    let mut scene = Scene::new(3, load, &settings);
    scene.add(load, Manner::CROWD);
    scene.add(load, DEAF);
    let start = Instant::now();
    for roll in 1..=rolls() {
        for node in 0..scene.nodes.len() {
            let drained = scene.end(node);
            let summary = summary(&scene.nodes[node].log());
            assert_eq!(summary["cut"], 0, "{summary}");
            assert!(drained < DRAINED, "{drained:?}");
            scene.replace(node);
        }
        println!("roll {roll} is over after {:?}", start.elapsed());
    }
    scene.until_heard(Instant::now());
    let [movers, deaf] = [0, 1].map(|fleet| {
        let notes = scene.notes([fleet]).into_iter();
        notes.fold((0, 0), |sum, notes| (sum.0 + notes.moves, sum.1 + notes.ends))
    });
    println!("moved and cut off: {movers:?}, deaf ones: {deaf:?}");
    assert_eq!(movers.1, 0, "who follows the node's advice is never without a connection");
    assert!(movers.0 >= (load.clients * rolls()) as u64, "everybody had to move");
    let tally = scene.finish();
    expect_unbroken(&tally);
}

#[test]
fn connections_that_are_old_enough_even_out_over_the_nodes() {
    let _turn = alone();
    let load = Load { clients: 1_500, ..HALF };
    let max_age = Duration::from_secs(4);
    let mut scene = Scene::new(3, load, &[("websocket.max_age", "4s")]);
    // As after a deploy: everybody is on the node that was there first.
    scene.lead_to([0]);
    scene.add(load, Manner::CROWD);
    scene.add(load, DEAF);
    scene.lead_to([0, 1, 2]);
    let start = Instant::now();
    let counts = || {
        let series = r#"tickcast_connections{transport="websocket"}"#;
        scene.nodes.iter().map(|node| node.metric(series)).collect::<Vec<_>>()
    };
    let fair = (2 * load.clients / scene.nodes.len()) as f64;
    until("even", PATIENCE, || counts().iter().all(|count| (count / fair - 1.0).abs() < 0.2));
    let even = start.elapsed();
    println!("{:?} after {even:?}", counts());
    // The oldest is a tenth older than the age, is asked within a second, and closed 4 s after that; then the next half goes.
    assert!(even < 2 * max_age + Duration::from_secs(10), "{even:?}");
    let asked: f64 = scene
        .nodes
        .iter()
        .map(|node| node.metric(r#"tickcast_goaways_total{reason="max_age"}"#))
        .sum();
    assert!(asked > fair, "{asked} were asked");
    let cut_off = scene.notes([0]).iter().map(|notes| notes.ends).sum::<u64>();
    assert_eq!(cut_off, 0, "who follows the node's advice is never without a connection");
    let tally = scene.finish();
    expect_unbroken(&tally);
}
