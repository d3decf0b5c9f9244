//! What thousands of clients and their neighbours go through when connections end without a word.

use std::time::{Duration, Instant};

use crate::harness::{Fleet, Load, Manner, alone};
use crate::process::{PATIENCE, until};
use crate::scene::{Ages, Scene, expect_unbroken};

/// Clients that lose their connections at once.
const CROWD: Load = Load { clients: 10_000, topics: 100, interests: 2, per_second: 30 };

/// How long clients of a node that was killed are away, at the median and at the 99th percentile.
const AWAY: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(10));

/// What clients that stay get is so old at most, at the 99th percentile, whatever the others do.
const FRESH: Duration = Duration::from_millis(100);

/// A load balancer has noticed by then that a node does not answer any more.
const HEALTH_CHECKS: Duration = Duration::from_secs(1);

/// How long clients of a fleet were away, once all of them were `count` times.
fn absences(fleet: &Fleet, count: usize) -> Ages {
    until("back", PATIENCE, || {
        let absences = fleet.sum(|notes| notes.absences.len() as u64);
        absences >= count as u64
    });
    Ages::new(fleet.notes().into_iter().flat_map(|notes| notes.absences).collect())
}

#[test]
fn a_node_is_killed_under_ten_thousand_clients() {
    let _turn = alone();
    let mut scene = Scene::new(3, CROWD, &[]);
    scene.lead_to([1, 2]);
    scene.add_witnesses();
    scene.lead_to([0]);
    let arrival = scene.add(CROWD, Manner::CROWD);
    println!("{} clients are there after {arrival:?}", CROWD.clients);
    scene.lead_to([0, 1, 2]);
    scene.until_heard(Instant::now());
    let killed = Instant::now();
    scene.nodes[0].kill();
    until("noticed", PATIENCE, || killed.elapsed() > HEALTH_CHECKS);
    scene.lead_to([1, 2]);
    let away = absences(&scene.fleets[1], CROWD.clients);
    println!("away: {away}");
    assert!(away.percentile(50) < AWAY.0 && away.percentile(99) < AWAY.1, "{away}");
    scene.until_heard(Instant::now());
    let ages = scene.ages(0, killed);
    println!("witnesses meanwhile: {ages}");
    assert!(ages.percentile(99) < FRESH, "{ages}");
    let tally = scene.finish();
    expect_unbroken(&tally);
    assert_eq!(tally.resumed, (CROWD.clients * CROWD.interests) as u64, "{tally:?}");
}

#[test]
fn half_of_all_connections_are_cut_at_once() {
    let _turn = alone();
    let mut scene = Scene::new(3, CROWD, &[]);
    scene.add_witnesses();
    scene.add(CROWD, Manner::CROWD);
    scene.until_heard(Instant::now());
    let cut = Instant::now();
    scene.fleets[1].cut_half();
    let away = absences(&scene.fleets[1], CROWD.clients / 2);
    println!("away: {away}");
    assert!(away.percentile(50) < AWAY.0 && away.percentile(99) < AWAY.1, "{away}");
    scene.until_heard(Instant::now());
    let ages = scene.ages(0, cut);
    println!("witnesses meanwhile: {ages}");
    assert!(ages.percentile(99) < FRESH, "{ages}");
    // Nothing is left of the connections that were cut.
    let open = |scene: &Scene| {
        let series = r#"tickcast_connections{transport="websocket"}"#;
        scene.nodes.iter().map(|node| node.metric(series)).sum::<f64>()
    };
    let expected = (CROWD.clients + scene.fleets[0].notes().len()) as f64;
    until("only the new ones open", PATIENCE, || (open(&scene) - expected).abs() < 0.5);
    let tally = scene.finish();
    expect_unbroken(&tally);
    assert_eq!(tally.resumed, (CROWD.clients / 2 * CROWD.interests) as u64, "{tally:?}");
}
