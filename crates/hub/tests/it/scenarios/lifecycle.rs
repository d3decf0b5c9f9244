//! Connections and topics come and go.

use tickcast_hub::ConnectionId;

use crate::rig::{Setup, topic};

#[test]
fn a_topic_is_left_after_its_grace_and_opened_anew() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.publish("t", 1);
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/1 all", "t 1"]);
    rig.unsubscribe(client, 2, r#""t""#);
    assert_eq!(rig.jobs(), ["idle t"]);
    // Until the grace ends, the node keeps listening.
    rig.publish("t", 1);
    rig.expect(client, &["bye 2: t"]);
    assert!(rig.broker.is_subscribed(&topic("t")) && rig.hub.holds(&topic("t")));
    rig.end_grace();
    assert!(!rig.broker.is_subscribed(&topic("t")) && !rig.hub.holds(&topic("t")));
    assert_eq!(rig.hub.stats().log_bytes, 0);
    rig.publish("t", 1);
    rig.subscribe(client, 3, r#""t""#);
    assert_eq!(rig.jobs(), ["open t"]);
    rig.expect(client, &["ok 3: t@a/3 all", "t 3"]);
}

#[test]
fn who_comes_back_within_the_grace_finds_the_log_and_the_grace_starts_anew() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/0 all"]);
    rig.detach(client);
    assert_eq!(rig.jobs(), ["idle t"]);
    rig.publish("t", 2);
    rig.reattach(client);
    rig.subscribe(client, 1, r#"{"topic":"t","since":{"epoch":"a","offset":0}}"#);
    assert_eq!(rig.jobs(), ["idle t"]);
    rig.turns();
    assert_eq!(rig.frames(client), ["ok 1: t@a/2 all", "t 1", "t 2"]);
    // The first grace ends while the topic is wanted: it stays.
    rig.end_grace();
    assert!(rig.hub.holds(&topic("t")));
    // It comes and goes within one grace: the topic gets a whole one more.
    rig.detach(client);
    rig.reattach(client);
    rig.subscribe(client, 1, r#""t""#);
    rig.detach(client);
    assert_eq!(rig.jobs(), ["idle t"]);
    rig.step(0);
    assert!(rig.hub.holds(&topic("t")));
    assert_eq!(rig.jobs(), ["idle t"]);
    rig.step(0);
    assert!(!rig.hub.holds(&topic("t")));
}

#[test]
fn a_topic_stays_while_one_worker_wants_it() {
    let mut rig = Setup { workers: 2, ..Setup::default() }.build();
    let (first, second) = (rig.attach_to(0), rig.attach_to(1));
    rig.subscribe(first, 1, r#""t""#);
    rig.subscribe(second, 1, r#""t""#);
    rig.settle();
    rig.detach(first);
    assert_eq!(rig.jobs(), [""; 0]);
    rig.publish("t", 1);
    rig.expect(second, &["ok 1: t@a/0 all", "t 1"]);
    rig.detach(second);
    assert_eq!(rig.jobs(), ["idle t"]);
}

#[test]
fn detaching_with_everything_pending_leaves_nothing() {
    let mut rig = Setup::default().topic("f", |t| t.flush_interval_ms = 50).build();
    let (client, other) = (rig.attach(), rig.attach());
    rig.subscribe(client, 1, r#""f",{"topic":"r","max_rate":0.1},"t""#);
    rig.subscribe(other, 1, r#""t""#);
    rig.publish("t", 1);
    rig.settle();
    // A rate and a flush interval run, two commands wait, a reply and a frame are unfinished.
    rig.publish("r", 2);
    rig.turns();
    rig.publish("r", 1);
    rig.publish("f", 1);
    rig.block(client);
    rig.publish("t", 5);
    rig.subscribe(client, 2, r#""w","t""#);
    rig.subscribe(client, 3, r#"{"topic":"t","mode":"latest"},"w""#);
    rig.unblock(client, Some(10));
    rig.turns();
    assert_eq!(rig.held(), [5, 4, 2]);
    rig.detach(client);
    assert_eq!(rig.held(), [1, 1, 0]);
    rig.pass(60_000);
    rig.expect(other, &["ok 1: t@a/1 all", "t 1", "t 2", "t 3", "t 4", "t 5", "t 6"]);
    rig.detach(other);
    rig.settle();
    rig.end_grace();
    assert_eq!(rig.held(), [0; 3]);
    assert_eq!((rig.hub.stats().topics, rig.hub.stats().log_bytes), (0, 0));
    rig.detach(client); // Once more is harmless.
}

#[test]
fn a_connection_that_reuses_an_index_inherits_nothing() {
    let mut rig = Setup::default().build();
    let old = rig.attach();
    rig.subscribe(old, 1, r#""t",{"topic":"r","max_rate":1}"#);
    rig.publish("r", 1);
    rig.settle();
    rig.publish("r", 1);
    rig.publish("t", 3);
    rig.turn(0);
    // Queued for a flush, with a timer, and with a command that waits.
    rig.publish("t", 1);
    rig.subscribe(old, 2, r#""w""#);
    let index = rig.clients[old.0].connection.map(ConnectionId::index);
    rig.detach(old);
    let new = rig.attach();
    assert_eq!(rig.clients[new.0].connection.map(ConnectionId::index), index);
    rig.subscribe(new, 7, r#""r""#);
    rig.expect(new, &["ok 7: r@a/2 all", "r 2"]);
    rig.pass(5000);
    rig.publish("t", 1);
    rig.publish("r", 1);
    rig.expect(new, &["r 3"]);
}

#[test]
fn a_topic_that_reuses_an_index_gets_nothing_of_the_old_one() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/0 all"]);
    rig.publish("t", 2); // In the inbox when the worker lets the topic go.
    rig.unsubscribe(client, 2, r#""t""#);
    rig.subscribe(client, 3, r#""u""#);
    rig.expect(client, &["bye 2: t", "ok 3: u@a/0 all"]);
    rig.publish("t", 1);
    rig.publish("u", 1);
    rig.expect(client, &["u 1"]);
}

#[test]
fn a_log_that_comes_too_late_is_not_taken_for_the_log_of_another_topic() {
    let mut rig = Setup { workers: 2, ..Setup::default() }.build();
    let (other, client) = (rig.attach_to(1), rig.attach_to(0));
    rig.publish("t", 3);
    rig.subscribe(other, 1, r#""t""#);
    rig.expect(other, &["ok 1: t@a/3 all", "t 3"]);
    // The log of `t` lies in the inbox of the first worker when its index is `u`'s.
    rig.subscribe(client, 1, r#""t""#);
    rig.unsubscribe(client, 2, r#""t""#);
    rig.subscribe(client, 3, r#""u""#);
    rig.expect(client, &["ok 1: !t unsubscribed", "bye 2: t", "ok 3: u@a/0 all"]);
}

#[test]
fn giving_back_and_taking_again_in_one_breath_starts_anew() {
    let mut rig = Setup::default().build();
    rig.publish("t", 3);
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/3 all", "t 3"]);
    rig.unsubscribe(client, 2, r#""t""#);
    rig.subscribe(client, 3, r#""t""#);
    rig.expect(client, &["bye 2: t", "ok 3: t@a/3 all", "t 3"]);
    rig.end_grace();
    rig.publish("t", 1);
    rig.expect(client, &["t 4"]);
}

#[test]
fn what_nobody_subscribes_costs_nothing() {
    let mut rig = Setup::default().build();
    let publication = {
        rig.broker.read(&tickcast_hub::Job::Open { topic: topic("t") });
        rig.withhold("t")
    };
    rig.hub.deliver(publication);
    assert_eq!((rig.hub.stats().delivered, rig.hub.stats().topics), (1, 0));
    assert_eq!(rig.jobs(), [""; 0]);
}
