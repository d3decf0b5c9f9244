//! Snapshots, acknowledgements, and commands that change their mind.

use crate::rig::Setup;

#[test]
fn the_snapshot_is_at_the_acknowledged_offset_and_everything_after_it_follows() {
    let mut rig = Setup::default().build();
    rig.publish("t", 3);
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/3 all", "t 3"]);
    rig.publish("t", 2);
    rig.expect(client, &["t 4", "t 5"]);
}

#[test]
fn what_is_published_while_the_topic_opens_is_neither_missed_nor_repeated() {
    let mut rig = Setup::default().build();
    rig.publish("t", 1);
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    assert_eq!(rig.jobs(), ["open t"]);
    rig.step(0); // Subscribed at the broker and read at offset 1.
    rig.publish("t", 2);
    rig.expect(client, &["ok 1: t@a/3 all", "t 3"]);
    rig.publish("t", 1);
    rig.expect(client, &["t 4"]);
}

#[test]
fn a_topic_that_was_never_published_has_an_epoch_and_no_snapshot() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/0 all"]);
    rig.publish("t", 1);
    rig.expect(client, &["t 1"]);
}

#[test]
fn a_topic_that_keeps_no_value_starts_with_the_next_publication() {
    let mut rig = Setup::default().topic("t", |t| t.keeps_value = false).build();
    rig.publish("t", 2);
    let early = rig.attach();
    rig.subscribe(early, 1, r#""t""#);
    rig.expect(early, &["ok 1: t@a/2 all"]);
    rig.publish("t", 1);
    rig.expect(early, &["t 3"]);
    let late = rig.attach();
    rig.subscribe(late, 1, r#""t""#);
    rig.expect(late, &["ok 1: t@a/3 all"]);
    rig.publish("t", 1);
    rig.expect(early, &["t 4"]);
    rig.expect(late, &["t 4"]);
}

#[test]
fn one_reply_for_all_topics_of_a_command_comes_before_their_data() {
    let mut rig = Setup::default().build();
    rig.publish("t", 1);
    rig.publish("u", 1);
    let first = rig.attach();
    rig.subscribe(first, 1, r#""t""#);
    rig.expect(first, &["ok 1: t@a/1 all", "t 1"]);
    // The worker knows `t` already, but not `u`.
    let second = rig.attach();
    rig.subscribe(second, 7, r#""t","u""#);
    rig.publish("t", 1);
    rig.turns();
    assert_eq!(rig.frames(second), [""; 0]);
    rig.expect(second, &["ok 7: t@a/2 all u@a/1 all", "t 2", "u 1"]);
    assert_eq!(rig.hub.stats().topics, 2);
}

#[test]
fn names_that_are_wrong_do_not_fail_the_others() {
    let mut rig = Setup { subscriptions_per_connection: 2, ..Setup::default() }.build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""a b","t",{"topic":"u","mode":"all","max_rate":1},"v","t","w""#);
    let reply = "ok 1: t@a/0 all v@a/0 all t@a/0 all !a b bad_topic !u bad_option \
                 !w too_many_subscriptions";
    rig.expect(client, &[reply]);
    // Room is made by giving back.
    rig.unsubscribe(client, 2, r#""t","a b""#);
    rig.subscribe(client, 3, r#""w""#);
    rig.expect(client, &["bye 2: t", "ok 3: w@a/0 all"]);
    assert_eq!(rig.held(), [2, 2, 0]);
    assert_eq!(rig.counters().subscribes_accepted, 4);
    assert_eq!(rig.counters().subscribes_rejected, 3);
}

#[test]
fn a_command_without_topics_is_answered() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, "");
    rig.unsubscribe(client, 2, "");
    rig.expect(client, &["ok 1:", "bye 2: "]);
}

#[test]
fn topics_that_do_not_settle_within_a_second_are_unavailable_and_may_be_tried_again() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""u""#);
    rig.expect(client, &["ok 1: u@a/0 all"]);
    rig.subscribe(client, 2, r#""t","u""#);
    rig.pass(999);
    assert_eq!(rig.frames(client), [""; 0]);
    rig.pass(1);
    assert_eq!(rig.frames(client), ["ok 2: u@a/0 all !t unavailable"]);
    assert_eq!(rig.held(), [1, 1, 0]);
    rig.subscribe(client, 3, r#""t""#);
    rig.publish("t", 1);
    rig.expect(client, &["ok 3: t@a/1 all", "t 1"]);
}

#[test]
fn commands_that_wait_for_the_same_topic_are_answered_together() {
    let mut rig = Setup::default().build();
    let (client, other) = (rig.attach(), rig.attach());
    rig.subscribe(client, 1, r#""t""#);
    rig.pass(400);
    rig.subscribe(client, 2, r#"{"topic":"t","mode":"latest"},"u""#);
    rig.subscribe(other, 1, r#""t""#);
    // A second after the first command the topic is given up, for the second command too.
    rig.pass(600);
    assert_eq!(rig.frames(client), ["ok 1: !t unavailable"]);
    rig.expect(client, &["ok 2: u@a/0 all !t unavailable"]);
    rig.expect(other, &["ok 1: t@a/0 all"]);
    assert_eq!(rig.held(), [2, 2, 0]);
}

#[test]
fn subscribing_again_changes_the_options_and_keeps_the_cursor() {
    let mut rig = Setup::default().build();
    rig.publish("t", 1);
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/1 all", "t 1"]);
    rig.block(client);
    rig.publish("t", 3);
    rig.turns();
    rig.subscribe(client, 2, r#"{"topic":"t","max_rate":4,"since":{"epoch":"a","offset":0}}"#);
    rig.unblock(client, None);
    rig.expect(client, &["ok 2: t@a/4 latest 4"]);
    rig.pass(250); // After publication 1.
    rig.expect(client, &["t 4"]);
    rig.publish("t", 2);
    rig.turns();
    rig.subscribe(client, 3, r#"{"topic":"t","mode":"all"}"#);
    rig.expect(client, &["ok 3: t@a/6 all", "t 5", "t 6"]);
    // Naming no option changes none.
    rig.subscribe(client, 4, r#"{"topic":"t","mode":"latest"}"#);
    rig.subscribe(client, 5, r#""t""#);
    rig.expect(client, &["ok 4: t@a/6 latest", "ok 5: t@a/6 latest"]);
    assert_eq!(rig.held(), [1, 1, 0]);
}

#[test]
fn options_of_the_topic_are_the_default_and_the_bound() {
    let rate = tickcast_protocol::Rate::from_hz(10.0).unwrap();
    let mut rig = Setup::default()
        .topic("t", |t| t.max_rate = Some(rate))
        .topic("u", |t| t.mode = tickcast_protocol::Mode::Latest)
        .build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t","u""#);
    rig.expect(client, &["ok 1: t@a/0 all u@a/0 latest"]);
    rig.subscribe(client, 2, r#"{"topic":"t","mode":"latest"},{"topic":"u","max_rate":1000}"#);
    rig.expect(client, &["ok 2: t@a/0 latest 10 u@a/0 latest 1000"]);
    rig.subscribe(client, 3, r#"{"topic":"t","max_rate":50}"#);
    rig.subscribe(client, 4, r#"{"topic":"t","max_rate":2.5}"#);
    rig.expect(client, &["ok 3: t@a/0 latest 10", "ok 4: t@a/0 latest 2.5"]);
}

#[test]
fn a_topic_that_is_given_back_before_it_is_ready_is_answered_at_once() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.subscribe(client, 2, r#""t","u""#);
    rig.unsubscribe(client, 3, r#""t","v""#);
    rig.turns();
    assert_eq!(rig.frames(client), ["ok 1: !t unsubscribed", "bye 3: t v"]);
    rig.expect(client, &["ok 2: u@a/0 all !t unsubscribed"]);
    rig.publish("t", 1);
    rig.expect(client, &[]);
    assert_eq!(rig.held(), [1, 1, 0]);
}

#[test]
fn commands_on_one_topic_apply_in_their_order() {
    let mut rig = Setup::default().build();
    rig.publish("t", 3);
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t","u""#);
    rig.unsubscribe(client, 2, r#""t""#);
    rig.subscribe(client, 3, r#"{"topic":"t","since":{"epoch":"a","offset":2}}"#);
    // `u` is ready first. That answers command 1, and leaves what command 3 asked for alone.
    let open_u = rig.jobs().iter().position(|job| job == "open u").unwrap();
    rig.step(open_u);
    rig.step(open_u);
    rig.turns();
    assert_eq!(rig.frames(client), ["bye 2: t", "ok 1: u@a/0 all !t unsubscribed"]);
    rig.expect(client, &["ok 3: t@a/3 all", "t 3"]);
}

#[test]
fn a_settled_topic_stays_settled_while_another_is_waited_for() {
    let mut rig = Setup::default().topic("t", |t| t.log.publications = 2).build();
    let (client, other) = (rig.attach(), rig.attach());
    rig.publish("t", 3);
    rig.subscribe(other, 1, r#""t""#);
    rig.expect(other, &["ok 1: t@a/3 all", "t 3"]);
    rig.subscribe(client, 1, r#"{"topic":"t","since":{"epoch":"a","offset":3}},"u""#);
    // The log of `t` moves on beyond offset 3 before `u` is ready.
    rig.publish("t", 4);
    rig.expect(client, &["ok 1: t@a/7 all u@a/0 all", "gap t 4-6 expired", "t 7"]);
}

#[test]
fn no_connection_makes_the_node_remember_commands_without_end() {
    let mut rig = Setup::default().build();
    let client = rig.attach();
    for id in 1..=1001 {
        rig.subscribe(client, id, r#""t""#);
    }
    rig.turns();
    assert_eq!(rig.frames(client), ["error 1001 unavailable"]);
    assert_eq!(rig.held(), [1, 1, 1000]);
    rig.settle();
    assert_eq!(rig.frames(client).len(), 1000);
    rig.subscribe(client, 1002, r#""u""#);
    rig.expect(client, &["ok 1002: u@a/0 all"]);
}
