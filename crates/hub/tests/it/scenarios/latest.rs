//! Mode `latest` and `max_rate`: the newest, never a queue, and never too often.

use crate::rig::Setup;

#[test]
fn a_slow_client_gets_the_newest_only() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#"{"topic":"t","mode":"latest"}"#);
    rig.publish("t", 1);
    rig.expect(client, &["ok 1: t@a/1 latest", "t 1"]);
    rig.block(client);
    for _ in 0..10 {
        rig.publish("t", 1);
        rig.turns();
    }
    rig.unblock(client, None);
    rig.expect(client, &["t 11"]);
    assert_eq!((rig.counters().deliveries, rig.counters().conflated), (2, 9));
    // Log bounds are no gap in this mode.
    assert_eq!(rig.counters().gaps_slow.notices, 0);
}

#[test]
fn a_rate_lets_the_first_through_at_once_then_one_per_interval_and_the_last_for_sure() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#"{"topic":"t","max_rate":4}"#);
    rig.expect(client, &["ok 1: t@a/0 latest 4"]);
    let started = rig.now;
    for _ in 0..100 {
        rig.publish("t", 1);
        rig.turns();
        rig.pass(10);
    }
    // 1,000 ms at 4 Hz: at 0, 250, 500 and 750 ms; what came last waits for its turn.
    assert_eq!(rig.frames(client), ["t 1", "t 25", "t 50", "t 75", "t 100"]);
    assert_eq!(rig.now - started, 1000);
    rig.pass(10_000);
    rig.publish("t", 1);
    rig.expect(client, &["t 101"]);
    assert_eq!(rig.violation, None);
}

#[test]
fn the_snapshot_is_the_leading_edge() {
    let mut rig = Setup::default().build();
    rig.publish("t", 1);
    let client = rig.attach();
    rig.subscribe(client, 1, r#"{"topic":"t","max_rate":4}"#);
    rig.expect(client, &["ok 1: t@a/1 latest 4", "t 1"]);
    rig.publish("t", 2);
    rig.pass(249);
    rig.expect(client, &[]);
    rig.pass(1);
    rig.expect(client, &["t 3"]);
    // Nothing was published since, so nothing comes.
    rig.pass(10_000);
    rig.expect(client, &[]);
}

#[test]
fn the_rate_changes_live() {
    let mut rig = Setup::default().build();
    rig.publish("t", 1);
    let client = rig.attach();
    rig.subscribe(client, 1, r#"{"topic":"t","max_rate":0.01}"#);
    rig.expect(client, &["ok 1: t@a/1 latest 0.01", "t 1"]);
    rig.publish("t", 1);
    rig.pass(600);
    rig.expect(client, &[]);
    // Faster: 1 Hz allows the next one 1,000 ms after the last.
    rig.subscribe(client, 2, r#"{"topic":"t","max_rate":1}"#);
    rig.expect(client, &["ok 2: t@a/2 latest 1"]);
    rig.pass(399);
    rig.expect(client, &[]);
    rig.pass(1);
    rig.expect(client, &["t 2"]);
    // Fast enough to be at once.
    rig.pass(100);
    rig.publish("t", 1);
    rig.turns();
    rig.subscribe(client, 3, r#"{"topic":"t","max_rate":10}"#);
    rig.expect(client, &["ok 3: t@a/3 latest 10", "t 3"]);
    // Slower again, while a value waits.
    rig.publish("t", 1);
    rig.turns();
    rig.pass(50);
    rig.subscribe(client, 4, r#"{"topic":"t","max_rate":2}"#);
    rig.expect(client, &["ok 4: t@a/4 latest 2"]);
    rig.pass(449);
    rig.expect(client, &[]);
    rig.pass(1);
    rig.expect(client, &["t 4"]);
    // None at all.
    rig.publish("t", 1);
    rig.turns();
    rig.subscribe(client, 5, r#"{"topic":"t","mode":"latest"}"#);
    rig.expect(client, &["ok 5: t@a/5 latest", "t 5"]);
}

#[test]
fn a_rate_counts_from_the_last_value_of_any_mode() {
    let mut rig = Setup::default().topic("t", |t| t.log.publications = 1).build();
    rig.publish("t", 1);
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/1 all", "t 1"]);
    rig.pass(5000);
    rig.block(client);
    rig.publish("t", 3); // The last of them comes with a gap.
    rig.settle();
    rig.unblock(client, None);
    rig.expect(client, &["gap t 2-3 slow_consumer", "t 4"]);
    rig.subscribe(client, 2, r#"{"topic":"t","max_rate":1}"#);
    rig.publish("t", 1);
    rig.expect(client, &["ok 2: t@a/4 latest 1"]);
    rig.pass(1000);
    rig.expect(client, &["t 5"]);
}

#[test]
fn a_rate_that_is_set_before_the_first_value_delays_nothing() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.subscribe(client, 2, r#"{"topic":"t","max_rate":0.01}"#);
    rig.expect(client, &["ok 1: t@a/0 latest 0.01", "ok 2: t@a/0 latest 0.01"]);
    rig.subscribe(client, 3, r#"{"topic":"t","max_rate":0.02}"#);
    rig.publish("t", 1);
    rig.expect(client, &["ok 3: t@a/0 latest 0.02", "t 1"]);
}

#[test]
fn a_blocked_client_is_not_owed_more_than_its_rate_afterwards() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#"{"topic":"t","max_rate":4}"#);
    rig.publish("t", 1);
    rig.expect(client, &["ok 1: t@a/1 latest 4", "t 1"]);
    rig.block(client);
    rig.publish("t", 1);
    rig.pass(1000);
    rig.publish("t", 1);
    rig.unblock(client, None);
    rig.expect(client, &["t 3"]);
    rig.publish("t", 1);
    rig.expect(client, &[]);
    rig.pass(250);
    rig.expect(client, &["t 4"]);
}

#[test]
fn clients_of_one_topic_keep_their_own_rates() {
    let mut rig = Setup::default().build();
    let (all, fast, slow) = (rig.attach(), rig.attach(), rig.attach());
    rig.subscribe(all, 1, r#""t""#);
    rig.subscribe(fast, 1, r#"{"topic":"t","max_rate":10}"#);
    rig.subscribe(slow, 1, r#"{"topic":"t","max_rate":2}"#);
    rig.settle();
    for _ in 0..10 {
        rig.publish("t", 1);
        rig.pass(100);
    }
    rig.pass(400);
    assert_eq!(rig.frames(all).len(), 11);
    assert_eq!(rig.frames(fast).len(), 11);
    assert_eq!(rig.frames(slow), ["ok 1: t@a/0 latest 2", "t 1", "t 6", "t 10"]);
}
