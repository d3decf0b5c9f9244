//! A worker that does not keep up with the broker.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use tickcast_hub::{Hub, HubLimits, Inbox, Item, LocalTopic, State};
use tickcast_protocol::{Epoch, Position, Publication};

use crate::rig::{Setup, topic};
use crate::rules::Rules;

#[test]
fn what_does_not_fit_into_the_inbox_comes_from_the_log() {
    let mut rig = Setup { inbox: 2, ..Setup::default() }.build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t","u","v""#);
    rig.expect(client, &["ok 1: t@a/0 all u@a/0 all v@a/0 all"]);
    for name in ["t", "u", "v"] {
        rig.publish(name, 3);
    }
    assert!(rig.overflows() > 0);
    rig.settle();
    assert_eq!(rig.violation, None);
    let mut frames = rig.frames(client);
    frames.sort();
    assert_eq!(frames, ["t 1", "t 2", "t 3", "u 1", "u 2", "u 3", "v 1", "v 2", "v 3"]);
}

#[test]
fn what_the_log_has_let_go_meanwhile_is_a_gap() {
    let mut rig = Setup { inbox: 2, ..Setup::default() }.topics(|t| t.log.publications = 3).build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.expect(client, &["ok 1: t@a/0 all"]);
    rig.publish("t", 10);
    // Two were in the inbox.
    rig.expect(client, &["t 1", "t 2", "gap t 3-9 slow_consumer", "t 10"]);
}

#[test]
fn a_full_inbox_delays_no_other_worker() {
    let mut rig = Setup { workers: 2, inbox: 2, ..Setup::default() }.build();
    let (slow, quick) = (rig.attach_to(0), rig.attach_to(1));
    rig.subscribe(slow, 1, r#""t""#);
    rig.subscribe(quick, 1, r#""t""#);
    rig.settle();
    rig.frames(quick);
    for offset in 1..=5 {
        rig.publish("t", 1);
        rig.turn(1);
        assert_eq!(rig.frames(quick), [format!("t {offset}")]);
    }
    rig.expect(slow, &["ok 1: t@a/0 all", "t 1", "t 2", "t 3", "t 4", "t 5"]);
}

#[test]
fn a_change_of_epoch_that_did_not_fit_is_still_a_reset() {
    let mut rig = Setup { inbox: 1, ..Setup::default() }.build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t","u""#);
    rig.expect(client, &["ok 1: t@a/0 all u@a/0 all"]);
    rig.publish("u", 1); // Fills the inbox.
    rig.flip("t", crate::broker::Flip::Restart);
    rig.publish("t", 1);
    rig.collect();
    rig.step(0);
    rig.step(0);
    rig.publish("t", 1);
    rig.expect(client, &["u 1", "reset t@b/1 broker_restart", "t 1", "t 2"]);
}

#[test]
fn the_state_of_the_link_reaches_a_worker_with_a_full_inbox() {
    let mut rig = Setup { inbox: 1, ..Setup::default() }.build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.settle();
    rig.publish("t", 3);
    rig.hub.link_changed(false);
    rig.settle();
    assert_eq!(rig.links(), [false]);
    // Alone it wakes the worker, and only the last change before the worker looks counts.
    rig.hub.link_changed(false);
    rig.hub.link_changed(true);
    rig.settle();
    assert_eq!(rig.links(), [false, true]);
}

/// A worker on its own thread, with room for one item, sleeps until it is woken. However the two threads meet, it learns of
/// the last publication.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const PUBLICATIONS: u64 = 20_000;
    let name = topic("t");
    let bell = Arc::new((Mutex::new(false), Condvar::new()));
    let start = Position { epoch: Epoch::new(1), offset: 0 };
    let rope = Arc::clone(&bell);
    let inbox = Arc::new(Inbox::new(1, move || {
        *rope.0.lock().unwrap() = true;
        rope.1.notify_one();
    }));
    let limits = HubLimits { log_bytes: 1 << 30 };
    let hub =
        Arc::new(Hub::new(limits, Arc::new(Rules::default()), vec![Arc::clone(&inbox)], || {}));
    hub.join(&name, 0, LocalTopic { index: 0, generation: 0 });
    let state = State { position: start, value: None, history: Vec::new(), complete: true };
    hub.opened(&name, state);
    let publisher = thread::spawn({
        let hub = Arc::clone(&hub);
        move || {
            for offset in 1..=PUBLICATIONS {
                let position = Position { offset, ..start };
                hub.deliver(Arc::new(Publication::new(name.clone(), position, 0, b"1")));
            }
        }
    });
    let (mut last, mut items) = (0, VecDeque::new());
    while last < PUBLICATIONS {
        // Ten seconds without a wake-up are a lost one: the publisher needs milliseconds.
        let rung = bell.0.lock().unwrap();
        let (mut rung, _) =
            bell.1.wait_timeout_while(rung, Duration::from_secs(10), |rung| !*rung).unwrap();
        assert!(std::mem::take(&mut *rung), "asleep at {last}, {} items wait", inbox.len());
        drop(rung);
        let stale = inbox.take(&mut items);
        for item in items.drain(..) {
            let seen = match item {
                Item::Publication { publication, .. } => publication.offset(),
                Item::Log { log, .. } => log.last(),
                other => panic!("{other:?}"),
            };
            assert!(seen >= last, "{seen} after {last}");
            last = seen;
        }
        hub.resync(0, &stale);
    }
    publisher.join().unwrap();
}
