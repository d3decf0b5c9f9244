//! What one write holds, and what happens when the socket takes only some of it.

use crate::rig::{ClientId, Rig, Setup};

fn offsets(topic: &str, range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|offset| format!("{topic} {offset}")).collect()
}

fn subscribed(setup: Setup, topics: &str) -> (Rig, ClientId) {
    let mut rig = setup.build();
    let client = rig.attach();
    rig.subscribe(client, 1, topics);
    rig.settle();
    rig.frames(client);
    (rig, client)
}

#[test]
fn a_socket_that_takes_a_byte_at_a_time_gets_every_byte_in_order() {
    let (mut rig, client) = subscribed(Setup::default(), r#""t",{"topic":"u","mode":"latest"}"#);
    rig.block(client);
    rig.publish("t", 5);
    rig.publish("u", 5);
    rig.subscribe(client, 2, r#""v""#);
    rig.settle();
    for step in 0..2000 {
        rig.unblock(client, Some(1));
        rig.settle();
        if step == 300 {
            rig.publish("t", 1);
            rig.unsubscribe(client, 3, r#""u""#);
            rig.settle();
        }
    }
    assert_eq!(rig.violation, None);
    let frames = rig.frames(client);
    assert_eq!(frames[0], "ok 2: v@a/0 all");
    assert_eq!(frames.iter().filter(|frame| frame.starts_with("t ")).count(), 6);
    assert_eq!(frames.last().map(String::as_str), Some("t 6"));
}

#[test]
fn a_write_that_ends_anywhere_loses_and_repeats_nothing() {
    // All ways to cut the first write, with a second one that takes everything.
    for first in 0..700 {
        let (mut rig, client) =
            subscribed(Setup::default(), r#""t",{"topic":"u","mode":"latest"}"#);
        rig.block(client);
        rig.publish("t", 3);
        rig.publish("u", 3);
        rig.turns();
        rig.subscribe(client, 2, r#""t""#);
        rig.unblock(client, Some(first));
        rig.settle();
        rig.publish("t", 1);
        rig.unblock(client, None);
        rig.settle();
        assert_eq!(rig.violation, None, "cut at {first}");
        let mut frames = rig.frames(client);
        frames.sort();
        assert_eq!(frames, ["ok 2: t@a/3 all", "t 1", "t 2", "t 3", "t 4", "u 3"], "{first}");
    }
}

#[test]
fn large_frames_go_alone_and_in_their_place() {
    let (mut rig, client) = subscribed(Setup::default(), r#""t","u""#);
    rig.block(client);
    for size in [10, 9_000, 10, 100_000, 9_000, 9_000, 10, 8_000, 70_000] {
        rig.publish_one("t", size, true);
        rig.publish_one("u", size / 2, true);
    }
    rig.subscribe(client, 2, r#""t""#);
    rig.settle();
    rig.unblock(client, Some(5000));
    rig.settle();
    rig.unblock(client, Some(50_000));
    rig.settle();
    rig.unblock(client, None);
    rig.settle();
    assert_eq!(rig.violation, None);
    let frames = rig.frames(client);
    let of =
        |name: &str| frames.iter().filter(|f| f.starts_with(name)).cloned().collect::<Vec<_>>();
    assert_eq!(of("t "), offsets("t", 1..=9));
    assert_eq!(of("u "), offsets("u", 1..=9));
    assert_eq!(frames.len(), 19);
}

#[test]
fn a_large_value_follows_its_notice() {
    let (mut rig, client) =
        subscribed(Setup::default().topics(|t| t.log.publications = 1), r#""t","u""#);
    rig.block(client);
    rig.publish_one("t", 10, true);
    rig.publish_one("t", 200_000, true);
    rig.publish_one("u", 100, true);
    rig.settle();
    rig.unblock(client, Some(100_000));
    rig.settle();
    rig.unblock(client, None);
    rig.expect(client, &["gap t 1-1 slow_consumer", "t 2", "u 1"]);
}

#[test]
fn a_topic_with_a_big_backlog_does_not_starve_the_others() {
    let (mut rig, client) = subscribed(Setup::default(), r#""t","u""#);
    rig.block(client);
    rig.publish("t", 900);
    rig.publish("u", 1);
    rig.settle();
    rig.unblock(client, None);
    rig.settle();
    let frames = rig.frames(client);
    assert_eq!(frames.len(), 901);
    let place = frames.iter().position(|frame| frame == "u 1").unwrap();
    assert!(place < 200, "only after {place} frames");
    // Nor do large frames.
    rig.block(client);
    (0..10).for_each(|_| rig.publish_one("t", 60_000, true));
    rig.publish("u", 1);
    rig.settle();
    rig.unblock(client, None);
    rig.settle();
    let place = rig.frames(client).iter().position(|frame| frame == "u 2").unwrap();
    assert!(place <= 2, "only after {place} frames");
}

#[test]
fn one_write_gathers_no_more_than_a_socket_takes() {
    let (mut rig, client) = subscribed(Setup::default(), r#""t","u","v""#);
    rig.block(client);
    for _ in 0..200 {
        for name in ["t", "u", "v"] {
            rig.publish_one(name, 1500, true);
        }
    }
    rig.settle();
    rig.unblock(client, None);
    rig.settle();
    assert_eq!((rig.frames(client).len(), &rig.violation), (600, &None));
    let largest = rig.clients[client.0].socket.largest_write;
    assert!((60_000..70_000).contains(&largest), "{largest} bytes");
}

#[test]
fn replies_go_before_data_that_is_not_begun() {
    let (mut rig, client) = subscribed(Setup::default(), r#""t""#);
    rig.block(client);
    rig.publish("t", 3);
    rig.settle();
    rig.unblock(client, Some(1)); // Publication 1 is begun.
    rig.settle();
    rig.unsubscribe(client, 2, r#""t""#);
    rig.subscribe(client, 3, r#""t""#);
    rig.unblock(client, None);
    rig.expect(client, &["t 1", "bye 2: t", "ok 3: t@a/3 all", "t 3"]);
}

#[test]
fn a_flush_interval_gathers_on_a_common_grid() {
    let setup = Setup::default()
        .topic("t", |t| t.flush_interval_ms = 20)
        .topic("u", |t| t.flush_interval_ms = 20);
    let (mut rig, client) = subscribed(setup, r#""t","u","v""#);
    rig.pass(100 - rig.now);
    rig.publish("t", 1);
    rig.pass(7);
    rig.publish("u", 1);
    rig.publish("v", 1);
    rig.publish("t", 1);
    rig.pass(12);
    // A topic without an interval never waits.
    assert_eq!(rig.frames(client), ["v 1"]);
    rig.pass(1); // 120 ms: both intervals end together.
    assert_eq!(rig.frames(client), ["t 1", "t 2", "u 1"]);
    // The next interval starts with the next publication.
    rig.pass(1000);
    assert_eq!(rig.next_due(), None);
    rig.publish("t", 1);
    rig.pass(19);
    assert_eq!(rig.frames(client), [""; 0]);
    rig.pass(1);
    assert_eq!(rig.frames(client), ["t 3"]);
}

#[test]
fn a_snapshot_does_not_wait_for_the_flush_interval() {
    let setup = Setup::default().topic("t", |t| t.flush_interval_ms = 20);
    let (mut rig, _client) = subscribed(setup, r#""t""#);
    rig.publish("t", 1);
    rig.turns();
    let late = rig.attach();
    rig.subscribe(late, 1, r#""t""#);
    rig.expect(late, &["ok 1: t@a/1 all", "t 1"]);
    rig.pass(40);
    rig.expect(late, &[]);
}
