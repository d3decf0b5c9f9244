//! `since`: a client that comes back gets exactly what it missed, or hears what it does not get.

use std::sync::Arc;

use tickcast_protocol::Publication;

use crate::broker::Flip;
use crate::rig::{ClientId, Rig, Setup};

/// One client that resumes a topic of 10 publications, of which the broker retains the last 6.
struct Resume {
    since: &'static str,
    mode: &'static str,
    frames: &'static [&'static str],
}

const TABLE: &[Resume] = &[
    // Everything is there.
    Resume { since: r#"{"epoch":"a","offset":10}"#, mode: "all", frames: &[] },
    Resume { since: r#"{"epoch":"a","offset":8}"#, mode: "all", frames: &["t 9", "t 10"] },
    Resume {
        since: r#"{"epoch":"a","offset":4}"#,
        mode: "all",
        frames: &["t 5", "t 6", "t 7", "t 8", "t 9", "t 10"],
    },
    // Too old.
    Resume {
        since: r#"{"epoch":"a","offset":3}"#,
        mode: "all",
        frames: &["gap t 4-9 expired", "t 10"],
    },
    Resume {
        since: r#"{"epoch":"a","offset":0}"#,
        mode: "all",
        frames: &["gap t 1-9 expired", "t 10"],
    },
    // Beyond the last.
    Resume {
        since: r#"{"epoch":"a","offset":11}"#,
        mode: "all",
        frames: &["reset t@a/10 offset_ahead", "t 10"],
    },
    Resume {
        since: r#"{"epoch":"a","offset":18446744073709551615}"#,
        mode: "all",
        frames: &["reset t@a/10 offset_ahead", "t 10"],
    },
    // Foreign and garbled.
    Resume {
        since: r#"{"epoch":"b","offset":3}"#,
        mode: "all",
        frames: &["reset t@a/10 unknown_epoch", "t 10"],
    },
    Resume {
        since: r#"{"epoch":"A!","offset":3}"#,
        mode: "all",
        frames: &["reset t@a/10 unknown_epoch", "t 10"],
    },
    Resume {
        since: r#"{"epoch":"a","offset":-1}"#,
        mode: "all",
        frames: &["reset t@a/10 unknown_epoch", "t 10"],
    },
    // Mode `latest`: the newest only, if newer.
    Resume { since: r#"{"epoch":"a","offset":10}"#, mode: "latest", frames: &[] },
    Resume { since: r#"{"epoch":"a","offset":7}"#, mode: "latest", frames: &["t 10"] },
    Resume { since: r#"{"epoch":"a","offset":0}"#, mode: "latest", frames: &["t 10"] },
    Resume {
        since: r#"{"epoch":"b","offset":0}"#,
        mode: "latest",
        frames: &["reset t@a/10 unknown_epoch", "t 10"],
    },
    Resume {
        since: r#"{"epoch":"a","offset":11}"#,
        mode: "latest",
        frames: &["reset t@a/10 offset_ahead", "t 10"],
    },
];

fn check(resume: &Resume, is_live: bool) {
    let mut rig = Setup { history: 6, ..Setup::default() }.build();
    rig.publish("t", 10);
    if is_live {
        // Another client holds the topic, so the worker has a log already, with the last value only.
        let other = rig.attach();
        rig.subscribe(other, 1, r#""t""#);
        rig.expect(other, &["ok 1: t@a/10 all", "t 10"]);
    }
    let client = rig.attach();
    let Resume { since, mode, frames } = resume;
    rig.subscribe(client, 2, &format!(r#"{{"topic":"t","mode":"{mode}","since":{since}}}"#));
    let ack = format!("ok 2: t@a/10 {mode}");
    let frames: Vec<&str> = std::iter::once(&*ack).chain(frames.iter().copied()).collect();
    rig.expect(client, &frames);
    rig.publish("t", 1);
    rig.expect(client, &["t 11"]);
}

#[test]
fn every_kind_of_since() {
    for resume in TABLE {
        check(resume, false);
        check(resume, true);
    }
}

#[test]
fn the_history_is_loaded_once_for_everyone() {
    let mut rig = Setup { workers: 2, ..Setup::default() }.build();
    rig.publish("t", 5);
    let clients = [rig.attach_to(0), rig.attach_to(0), rig.attach_to(1), rig.attach_to(1)];
    for (client, since) in clients.into_iter().zip([4, 3, 2, 1]) {
        let since = format!(r#"{{"topic":"t","since":{{"epoch":"a","offset":{since}}}}}"#);
        rig.subscribe(client, 1, &since);
    }
    assert_eq!(rig.jobs(), ["open t"]);
    rig.step(0);
    rig.step(0);
    rig.turns();
    // `since` 4 is in the log, the others are not.
    assert_eq!(rig.frames(clients[0]), ["ok 1: t@a/5 all", "t 5"]);
    assert_eq!(rig.jobs(), ["history t"]);
    rig.publish("t", 1);
    rig.expect(clients[0], &["t 6"]);
    rig.expect(clients[1], &["ok 1: t@a/6 all", "t 4", "t 5", "t 6"]);
    rig.expect(clients[2], &["ok 1: t@a/6 all", "t 3", "t 4", "t 5", "t 6"]);
    rig.expect(clients[3], &["ok 1: t@a/6 all", "t 2", "t 3", "t 4", "t 5", "t 6"]);
    // From now on the log is known to be all there is.
    let late = rig.attach_to(1);
    rig.subscribe(late, 1, r#"{"topic":"t","since":{"epoch":"a","offset":4}}"#);
    assert_eq!(rig.jobs(), [""; 0]);
    rig.expect(late, &["ok 1: t@a/6 all", "t 5", "t 6"]);
}

#[test]
fn a_history_that_does_not_load_in_time_makes_the_topic_unavailable() {
    let mut rig = Setup::default().build();
    rig.publish("t", 5);
    let client = rig.attach();
    rig.subscribe(client, 1, r#"{"topic":"t","since":{"epoch":"a","offset":1}}"#);
    rig.run_job("open t");
    assert_eq!(rig.jobs(), ["history t"]);
    rig.pass(1000);
    assert_eq!(rig.frames(client), ["ok 1: !t unavailable"]);
    rig.subscribe(client, 2, r#"{"topic":"t","since":{"epoch":"a","offset":3}}"#);
    rig.expect(client, &["ok 2: t@a/5 all", "t 4", "t 5"]);
}

#[test]
fn with_history_off_since_gets_what_the_log_covers() {
    let mut rig = Setup { history: 0, ..Setup::default() }.build();
    rig.publish("t", 3);
    let (client, other) = (rig.attach(), rig.attach());
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/3 all", "t 3"]);
    rig.publish("t", 2);
    rig.expect(client, &["t 4", "t 5"]);
    for (id, since, frames) in [
        (1, 3, &["ok 1: t@a/5 all", "t 4", "t 5"][..]),
        (2, 2, &["ok 2: t@a/5 all", "t 3", "t 4", "t 5"]),
        (3, 1, &["ok 3: t@a/5 all", "gap t 2-4 expired", "t 5"]),
    ] {
        let since = format!(r#"{{"topic":"t","since":{{"epoch":"a","offset":{since}}}}}"#);
        rig.subscribe(other, id, &since);
        rig.expect(other, frames);
        rig.unsubscribe(other, 10 + id, r#""t""#);
        rig.expect(other, &[&format!("bye {}: t", 10 + id)]);
    }
    let counters = rig.counters();
    assert_eq!((counters.resumes_complete, counters.resumes_gap), (2, 1));
    assert_eq!(counters.resumes_replayed, 2 + 3);
    assert_eq!((counters.gaps_expired.notices, counters.gaps_expired.publications), (1, 3));
}

#[test]
fn without_a_value_an_old_since_names_everything_and_a_reset_waits() {
    let setup = Setup { history: 0, ..Setup::default() };
    let mut rig = setup.topic("t", |t| t.keeps_value = false).build();
    rig.publish("t", 5);
    let (old, foreign, latest) = (rig.attach(), rig.attach(), rig.attach());
    rig.subscribe(old, 1, r#"{"topic":"t","since":{"epoch":"a","offset":2}}"#);
    rig.subscribe(foreign, 1, r#"{"topic":"t","since":{"epoch":"b","offset":2}}"#);
    rig.subscribe(latest, 1, r#"{"topic":"t","mode":"latest","since":{"epoch":"a","offset":9}}"#);
    rig.expect(old, &["ok 1: t@a/5 all", "gap t 3-5 expired"]);
    rig.expect(foreign, &["ok 1: t@a/5 all"]);
    rig.publish("t", 2);
    rig.expect(old, &["t 6", "t 7"]);
    rig.expect(foreign, &["reset t@a/6 unknown_epoch", "t 6", "t 7"]);
    rig.expect(latest, &["ok 1: t@a/5 latest", "reset t@a/7 offset_ahead", "t 7"]);
}

#[test]
fn mode_latest_needs_no_history() {
    let mut rig = Setup::default().build();
    rig.publish("t", 5);
    let client = rig.attach();
    let since = r#"{"topic":"t","mode":"latest","since":{"epoch":"a","offset":1}}"#;
    rig.subscribe(client, 1, since);
    rig.run_job("open t");
    assert_eq!(rig.jobs(), [""; 0]);
    rig.expect(client, &["ok 1: t@a/5 latest", "t 5"]);
    let counters = rig.counters();
    assert_eq!((counters.resumes_complete, counters.resumes_replayed), (1, 1));
    // Changing to `all` before the first command is answered needs it after all.
    let other = rig.attach();
    rig.subscribe(other, 1, &format!("{since},\"u\""));
    rig.subscribe(other, 2, r#"{"topic":"t","mode":"all"}"#);
    rig.settle();
    assert_eq!(rig.violation, None);
    let mut frames = rig.frames(other);
    frames.sort();
    let acks = ["ok 1: t@a/5 all u@a/0 all", "ok 2: t@a/5 all"];
    assert_eq!(frames, [acks[0], acks[1], "t 2", "t 3", "t 4", "t 5"]);
}

/// A client that is live, and one that has seen more than this node: publication 6, which is still on its way here.
fn behind(mode: &str) -> (Rig, [ClientId; 2], Arc<Publication>) {
    let mut rig = Setup::default().build();
    rig.publish("t", 5);
    let [live, ahead] = [rig.attach(), rig.attach()];
    rig.subscribe(live, 1, r#""t""#);
    rig.expect(live, &["ok 1: t@a/5 all", "t 5"]);
    let sixth = rig.withhold("t");
    let since = r#""since":{"epoch":"a","offset":6}"#;
    rig.subscribe(ahead, 2, &format!(r#"{{"topic":"t","mode":"{mode}",{since}}}"#));
    rig.turns();
    assert_eq!(rig.frames(ahead), [""; 0], "only the broker knows");
    (rig, [live, ahead], sixth)
}

#[test]
fn a_client_may_know_more_than_its_node() {
    for mode in ["all", "latest"] {
        let (mut rig, [live, ahead], sixth) = behind(mode);
        assert_eq!(rig.jobs(), ["position t"]);
        rig.run_job("position t");
        rig.expect(ahead, &[&format!("ok 2: t@a/6 {mode}")]);
        rig.hub.deliver(sixth);
        rig.expect(live, &["t 6"]);
        rig.publish("t", 1);
        rig.expect(live, &["t 7"]);
        rig.expect(ahead, &["t 7"]);
        let counters = rig.counters();
        assert_eq!((counters.resumes_complete, counters.resumes_reset), (1, 0));
    }
}

#[test]
fn what_a_client_knows_may_come_before_the_broker_has_answered() {
    let (mut rig, [live, ahead], sixth) = behind("all");
    rig.hub.deliver(sixth);
    rig.publish("t", 1);
    rig.expect(live, &["t 6", "t 7"]);
    rig.settle();
    rig.expect(ahead, &["ok 2: t@a/7 all", "t 7"]);
}

#[test]
fn a_look_that_began_too_early_does_not_decide() {
    let (mut rig, [_, ahead], sixth) = behind("all");
    // The broker has been read; the answer is not here yet.
    rig.collect();
    rig.step(0);
    rig.withhold("t");
    let later = rig.attach();
    rig.subscribe(later, 3, r#"{"topic":"t","since":{"epoch":"a","offset":7}}"#);
    rig.turns();
    rig.step(0);
    rig.turns();
    assert_eq!(rig.frames(ahead), ["ok 2: t@a/6 all"]);
    assert_eq!(rig.frames(later), [""; 0], "the look was made before it asked");
    rig.run_job("position t");
    rig.expect(later, &["ok 3: t@a/7 all"]);
    assert_eq!(rig.jobs(), [""; 0]);
    drop(sixth);
}

#[test]
fn nobody_waits_for_a_broker_that_is_away() {
    let (mut rig, [_, ahead], _sixth) = behind("all");
    rig.pass(1000);
    assert_eq!(rig.frames(ahead), ["ok 2: !t unavailable"]);
    // Asked again, it waits for the same look.
    rig.subscribe(ahead, 4, r#"{"topic":"t","since":{"epoch":"a","offset":6}}"#);
    rig.settle();
    rig.expect(ahead, &["ok 4: t@a/6 all"]);
}

#[test]
fn an_epoch_that_has_changed_meanwhile_is_a_reset() {
    let (mut rig, [_, ahead], _sixth) = behind("all");
    rig.flip("t", Flip::Fence);
    rig.settle();
    rig.expect(ahead, &["ok 2: t@b/6 all", "reset t@b/6 unknown_epoch", "t 6"]);
}
