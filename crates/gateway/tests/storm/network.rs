//! What networks do to connections of clients: they forget them, close half of them, and give clients another address.

use std::time::{Duration, Instant};

use crate::harness::{Load, Manner, Node, alone};
use crate::process::{PATIENCE, until};
use crate::proxy::{Direction, Flow, Proxy, Way};
use crate::redis::Redis;
use crate::scene::{Scene, expect_unbroken};

/// Publishers are at work, but these clients hear little, so that it is for pings to find who is not there any more.
const LOAD: Load = Load { clients: 0, topics: 20, interests: 2, per_second: 20 };
const CLIENTS: usize = 200;
const TOPICS: usize = 2;

/// A peer that is not there any more is found soon, so that a test need not wait.
const QUICK: [(&str, &str); 1] = [("websocket.ping_interval", "2s")];

/// A ping after 2 s, its answer after 2 s more, and the grain of a second.
const REAPED: Duration = Duration::from_secs(8);

/// Clients that come through a proxy, which is the only thing that knows of it.
fn proxied() -> (Proxy, Scene) {
    let mut scene = Scene::new(1, LOAD, &QUICK);
    let proxy = Proxy::start(scene.nodes[0].address, 1);
    scene.world.set_nodes(vec![proxy.address()]);
    scene.add_quiet(CLIENTS, Manner::HASTY);
    // Publishers go there directly from here on, and so do clients that come back.
    scene.lead_to([0]);
    scene.publish_quietly(1);
    scene.until_level();
    (proxy, scene)
}

fn open(scene: &Scene) -> f64 {
    scene.nodes[0].metric(r#"tickcast_connections{transport="websocket"}"#)
}

fn closed(scene: &Scene, reason: &str) -> f64 {
    let labels = format!(r#"{{transport="websocket",reason="{reason}"}}"#);
    scene.nodes[0].metric(&format!("tickcast_connections_closed_total{labels}"))
}

/// Waits until every client has come back once, and nothing but its new connection is open.
fn until_back(scene: &Scene, start: Instant) -> Duration {
    until("back", PATIENCE, || {
        scene.fleets[0].sum(|notes| notes.absences.len() as u64) == CLIENTS as u64
    });
    println!("all back after {:?}", start.elapsed());
    until("reaped", PATIENCE, || (open(scene) - CLIENTS as f64).abs() < 0.5);
    start.elapsed()
}

fn expect_nothing_missed(scene: Scene) {
    scene.publish_quietly(3);
    scene.until_level();
    let tally = scene.finish();
    expect_unbroken(&tally);
    assert_eq!(tally.resumed, (CLIENTS * TOPICS) as u64, "{tally:?}");
}

#[test]
fn clients_get_another_address_and_their_old_connections_are_forgotten() {
    let _turn = alone();
    let (proxy, scene) = proxied();
    let start = Instant::now();
    proxy.set_both(Way { flow: Flow::Lost, ..Way::default() });
    scene.publish_quietly(2);
    // They notice by the silence, and resume while the node still holds what they have left.
    let reaped = until_back(&scene, start);
    println!("reaped after {reaped:?}");
    assert!(reaped < REAPED, "{reaped:?}");
    let found = closed(&scene, "ping_timeout");
    assert!((found - CLIENTS as f64).abs() < 0.5, "{found} were found to be dead");
    expect_nothing_missed(scene);
}

fn half_closed(direction: Direction) {
    let (proxy, scene) = proxied();
    let start = Instant::now();
    proxy.half_close(direction);
    scene.publish_quietly(2);
    let back = until_back(&scene, start);
    assert!(back < REAPED, "{back:?}");
    expect_nothing_missed(scene);
}

#[test]
fn clients_hear_that_there_is_no_more_to_hear() {
    let _turn = alone();
    half_closed(Direction::ToClient);
}

#[test]
fn the_node_hears_that_clients_have_no_more_to_say() {
    let _turn = alone();
    half_closed(Direction::ToServer);
}

#[test]
fn clients_know_more_than_the_node_they_come_to() {
    let _turn = alone();
    let load = Load { clients: 100, topics: 10, interests: 3, per_second: 200 };
    let redis = Redis::start(&[]);
    let far = Proxy::start(redis.address(), 1);
    let nodes = vec![Node::start(&redis.url(), &[]), Node::start(&far.url(), &[])];
    // One node hears of everything this much later than the other.
    let latency = Duration::from_millis(60);
    far.set_both(Way { latency, ..Way::default() });
    let mut scene = Scene::on(redis, nodes, load, &[]);
    scene.add(load, Manner { away: (0, 5), away_max: 5, ..Manner::HASTY });
    let rounds = 20;
    for round in 1..=rounds {
        scene.fleets[0].hang_up();
        until("back", PATIENCE, || {
            let back = scene.fleets[0].sum(|notes| notes.absences.len() as u64);
            back == round * load.clients as u64
        });
    }
    let tally = scene.finish();
    expect_unbroken(&tally);
    assert_eq!(tally.resumed, rounds * (load.clients * load.interests) as u64, "{tally:?}");
}
