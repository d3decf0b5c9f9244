//! Mode `all` behind a socket that takes less than is published.

use crate::rig::{ClientId, Rig, Setup};

/// A client that has publication 1 and takes no more.
fn stuck(setup: Setup) -> (Rig, ClientId) {
    let mut rig = setup.build();
    rig.publish("t", 1);
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.settle();
    rig.frames(client);
    rig.block(client);
    (rig, client)
}

#[test]
fn within_the_log_a_slow_client_misses_nothing() {
    let (mut rig, client) = stuck(Setup::default().topic("t", |t| t.log.publications = 3));
    rig.publish("t", 3);
    rig.settle();
    rig.unblock(client, None);
    rig.expect(client, &["t 2", "t 3", "t 4"]);
}

#[test]
fn beyond_the_log_it_hears_what_it_does_not_get_and_continues_from_the_newest() {
    let (mut rig, client) = stuck(Setup::default().topic("t", |t| t.log.publications = 3));
    rig.publish("t", 4);
    rig.settle();
    rig.unblock(client, None);
    rig.expect(client, &["gap t 2-4 slow_consumer", "t 5"]);
    rig.publish("t", 1);
    rig.expect(client, &["t 6"]);
    let gaps = rig.counters().gaps_slow;
    assert_eq!((gaps.notices, gaps.publications), (1, 3));
    assert_eq!(rig.counters().deliveries, 3);
}

#[test]
fn without_a_value_the_gap_reaches_to_the_newest() {
    let setup = Setup::default().topic("t", |t| {
        t.log.publications = 3;
        t.keeps_value = false;
    });
    let (mut rig, client) = stuck(setup);
    rig.publish("t", 4);
    rig.settle();
    rig.unblock(client, None);
    rig.expect(client, &["gap t 2-5 slow_consumer"]);
    rig.publish("t", 1);
    rig.expect(client, &["t 6"]);
}

#[test]
fn bytes_and_the_bound_of_the_node_bound_a_slow_client_as_well() {
    let by_bytes = Setup::default().topic("t", |t| t.log.bytes = 1500);
    let by_node = Setup { log_bytes: 1500, ..Setup::default() };
    for setup in [by_bytes, by_node] {
        let (mut rig, client) = stuck(setup);
        for _ in 0..4 {
            rig.publish_one("t", 400, true);
        }
        rig.settle();
        rig.unblock(client, None);
        rig.expect(client, &["gap t 2-4 slow_consumer", "t 5"]);
    }
}

#[test]
fn old_publications_go_and_the_value_stays() {
    let (mut rig, client) = stuck(Setup::default());
    rig.publish("t", 1);
    rig.hub.sweep(299);
    rig.publish("t", 1);
    rig.hub.sweep(329); // Publications 1 and 2 are too old, and the topic is quiet.
    rig.settle();
    rig.unblock(client, None);
    rig.expect(client, &["gap t 2-2 slow_consumer", "t 3"]);
    rig.hub.sweep(100_000);
    let late = rig.attach();
    rig.subscribe(late, 1, r#""t""#);
    rig.expect(late, &["ok 1: t@a/3 all", "t 3"]);
}

#[test]
fn without_a_value_everything_gets_too_old() {
    let (mut rig, client) = stuck(Setup::default().topics(|t| t.keeps_value = false));
    rig.publish("t", 2);
    rig.settle();
    assert_eq!(rig.log_of("t").0, 2);
    rig.hub.sweep(300);
    assert_eq!(rig.log_of("t"), (0, 0));
    assert_eq!(rig.hub.stats().log_bytes, 0);
    rig.unblock(client, None);
    rig.expect(client, &["gap t 2-3 slow_consumer"]);
    rig.publish("t", 1);
    rig.expect(client, &["t 4"]);
}

#[test]
fn more_than_the_log_holds_in_one_turn_is_no_gap_for_who_keeps_up() {
    let mut rig = Setup::default().topic("t", |t| t.log.publications = 3).build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/0 all"]);
    rig.publish("t", 20);
    let all: Vec<String> = (1..=20).map(|offset| format!("t {offset}")).collect();
    rig.expect(client, &all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(rig.log_of("t").0, 3);
}

#[test]
fn a_slow_client_costs_the_others_nothing() {
    let (mut rig, client) = stuck(Setup::default().topic("t", |t| t.log.publications = 3));
    let quick = rig.attach();
    rig.subscribe(quick, 1, r#""t""#);
    rig.expect(quick, &["ok 1: t@a/1 all", "t 1"]);
    for offset in 2..100 {
        rig.publish("t", 1);
        rig.expect(quick, &[&format!("t {offset}")]);
    }
    assert_eq!(rig.log_of("t").0, 3);
    rig.unblock(client, None);
    rig.expect(client, &["gap t 2-98 slow_consumer", "t 99"]);
}

#[test]
fn a_gap_is_handed_over_with_the_value_that_follows_it() {
    // The socket takes one byte of the notice, and the log moves on before the rest is written.
    let (mut rig, client) = stuck(Setup::default().topic("t", |t| t.log.publications = 1));
    rig.publish("t", 2);
    rig.settle();
    rig.unblock(client, Some(1));
    rig.settle();
    rig.publish("t", 2);
    rig.settle();
    rig.unblock(client, None);
    rig.expect(client, &["gap t 2-2 slow_consumer", "t 3", "gap t 4-4 slow_consumer", "t 5"]);
}
