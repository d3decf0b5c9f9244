//! A new epoch while clients are connected.

use crate::broker::Flip;
use crate::rig::{ClientId, Rig, Setup};

/// Two clients of `t`, one per mode, that have publication 3.
fn live(setup: Setup) -> (Rig, ClientId, ClientId) {
    let mut rig = setup.build();
    let (all, latest) = (rig.attach(), rig.attach());
    rig.subscribe(all, 1, r#""t""#);
    rig.subscribe(latest, 1, r#"{"topic":"t","mode":"latest"}"#);
    rig.settle();
    rig.publish("t", 3);
    rig.settle();
    rig.frames(all);
    rig.frames(latest);
    (rig, all, latest)
}

#[test]
fn a_publication_in_a_new_epoch_resets_everyone() {
    let (mut rig, all, latest) = live(Setup::default());
    rig.flip("t", Flip::Restart);
    rig.publish("t", 6);
    rig.expect(all, &["reset t@b/6 broker_restart", "t 6"]);
    rig.expect(latest, &["reset t@b/6 broker_restart", "t 6"]);
    rig.publish("t", 1);
    rig.expect(all, &["t 7"]);
    assert_eq!(rig.hub.stats().resets, 1);
    assert_eq!((rig.counters().resets, rig.counters().resumes_reset), (2, 0));
}

#[test]
fn what_the_old_epoch_let_go_says_nothing_about_the_new_one() {
    // In one turn: a publication for which older ones went, then the log of the new epoch with smaller offsets.
    let (mut rig, all, _latest) = live(Setup::default().topics(|t| t.log.publications = 2));
    rig.publish("t", 7);
    rig.flip("t", Flip::Restart);
    rig.publish("t", 1);
    rig.collect();
    rig.step(0);
    rig.step(0);
    rig.expect(all, &["reset t@b/1 broker_restart", "t 1"]);
    let newcomer = rig.attach();
    rig.subscribe(newcomer, 1, r#""t""#);
    rig.expect(newcomer, &["ok 1: t@b/1 all", "t 1"]);
}

#[test]
fn a_failover_resets_to_the_value_that_is_kept() {
    let (mut rig, all, latest) = live(Setup::default());
    rig.flip("t", Flip::Fence);
    rig.hub.suspect(&crate::rig::topic("t"));
    rig.expect(all, &["reset t@b/3 broker_restart", "t 3"]);
    rig.expect(latest, &["reset t@b/3 broker_restart", "t 3"]);
    rig.publish("t", 1);
    rig.expect(all, &["t 4"]);
}

#[test]
fn with_no_value_the_reset_waits_for_the_next_publication() {
    let (mut rig, all, latest) = live(Setup::default());
    rig.flip("t", Flip::Restart);
    rig.hub.suspect(&crate::rig::topic("t"));
    rig.expect(all, &[]);
    rig.publish("t", 1);
    rig.expect(all, &["reset t@b/1 broker_restart", "t 1"]);
    rig.expect(latest, &["reset t@b/1 broker_restart", "t 1"]);
}

#[test]
fn the_publication_that_reveals_the_new_epoch_is_delivered_where_no_value_is_kept() {
    for history in [0, 1000] {
        let setup = Setup { history, ..Setup::default() };
        let (mut rig, all, latest) = live(setup.topics(|t| t.keeps_value = false));
        rig.flip("t", Flip::Restart);
        rig.publish("t", 1);
        rig.expect(all, &["reset t@b/1 broker_restart", "t 1"]);
        rig.expect(latest, &["reset t@b/1 broker_restart", "t 1"]);
    }
}

#[test]
fn the_end_of_the_old_epoch_may_come_during_the_read() {
    let (mut rig, all, _latest) = live(Setup::default());
    rig.lose("t", 1);
    rig.publish("t", 1); // Offset 5 of epoch a: a hole.
    rig.collect();
    rig.publish("t", 1);
    rig.flip("t", Flip::Restart);
    rig.publish("t", 1);
    rig.step(0); // The read finds epoch b.
    rig.publish("t", 1);
    rig.expect(all, &["reset t@b/1 broker_restart", "t 1", "t 2"]);
    assert_eq!(rig.hub.stats().resets, 1);
}

#[test]
fn a_new_epoch_may_begin_after_the_read() {
    let (mut rig, all, _latest) = live(Setup::default());
    rig.lose("t", 1);
    rig.publish("t", 1);
    rig.collect();
    rig.step(0); // The read finds epoch a, at offset 5.
    rig.flip("t", Flip::Restart);
    rig.publish("t", 2);
    rig.step(0);
    rig.turns();
    assert_eq!(rig.frames(all), ["t 4", "t 5"]);
    rig.expect(all, &["reset t@b/2 broker_restart", "t 2"]);
}

#[test]
fn a_straggler_of_the_old_epoch_is_ignored() {
    let (mut rig, all, _latest) = live(Setup::default());
    let straggler = rig.withhold("t");
    rig.flip("t", Flip::Restart);
    rig.publish("t", 1);
    rig.expect(all, &["reset t@b/1 broker_restart", "t 1"]);
    rig.hub.deliver(straggler);
    rig.expect(all, &[]);
    rig.publish("t", 1);
    rig.expect(all, &["t 2"]);
    assert_eq!(rig.hub.stats().resets, 1);
}

#[test]
fn an_epoch_that_a_slow_client_never_saw_is_skipped() {
    let (mut rig, all, latest) = live(Setup::default());
    rig.block(all);
    for _ in 0..2 {
        rig.flip("t", Flip::Restart);
        rig.publish("t", 2);
        rig.settle();
    }
    rig.publish("t", 2);
    rig.settle();
    rig.unblock(all, None);
    rig.expect(all, &["reset t@c/2 broker_restart", "t 2", "t 3", "t 4"]);
    assert_eq!(
        rig.frames(latest),
        ["reset t@b/2 broker_restart", "t 2", "reset t@c/2 broker_restart", "t 2", "t 4"]
    );
}

#[test]
fn a_slow_client_that_owes_its_log_a_reset_continues_from_the_newest() {
    let (mut rig, all, _latest) = live(Setup::default().topic("t", |t| t.log.publications = 2));
    rig.block(all);
    rig.flip("t", Flip::Restart);
    rig.publish("t", 1);
    rig.settle();
    rig.publish("t", 5);
    rig.settle();
    rig.unblock(all, None);
    rig.expect(all, &["reset t@b/6 broker_restart", "t 6"]);
}

#[test]
fn a_reset_keeps_to_the_rate() {
    let (mut rig, all, _latest) = live(Setup::default());
    rig.subscribe(all, 2, r#"{"topic":"t","max_rate":4}"#);
    rig.flip("t", Flip::Restart);
    rig.publish("t", 1);
    rig.expect(all, &["ok 2: t@a/3 latest 4"]);
    rig.publish("t", 1);
    rig.pass(250);
    rig.expect(all, &["reset t@b/2 broker_restart", "t 2"]);
    rig.publish("t", 1);
    rig.expect(all, &[]);
    rig.pass(250);
    rig.expect(all, &["t 3"]);
}

#[test]
fn a_command_that_waits_for_history_survives_the_new_epoch() {
    let mut rig = Setup::default().build();
    rig.publish("t", 5);
    let client = rig.attach();
    rig.subscribe(client, 1, r#"{"topic":"t","since":{"epoch":"a","offset":1}}"#);
    rig.run_job("open t");
    assert_eq!(rig.jobs(), ["history t"]);
    rig.flip("t", Flip::Restart);
    rig.publish("t", 1);
    rig.expect(client, &["ok 1: t@b/1 all", "reset t@b/1 unknown_epoch", "t 1"]);
}

#[test]
fn a_history_of_a_new_epoch_reveals_it() {
    let mut rig = Setup::default().build();
    rig.publish("t", 5);
    let client = rig.attach();
    rig.subscribe(client, 1, r#"{"topic":"t","since":{"epoch":"a","offset":1}}"#);
    rig.run_job("open t");
    rig.flip("t", Flip::Fence);
    rig.run_job("history t");
    assert_eq!(rig.jobs(), ["repair t after 5"]);
    rig.expect(client, &["ok 1: t@b/5 all", "reset t@b/5 unknown_epoch", "t 5"]);
}

#[test]
fn the_history_of_the_new_epoch_is_loaded_when_it_is_needed() {
    let mut rig = Setup::default().build();
    let clients = [rig.attach(), rig.attach(), rig.attach()];
    for (client, epoch) in clients.into_iter().zip(["a", "b", "c"]) {
        rig.publish("t", 4);
        rig.settle();
        let since = format!(r#"{{"topic":"t","since":{{"epoch":"{epoch}","offset":2}}}}"#);
        rig.subscribe(client, 1, &since);
        if epoch == "a" {
            rig.run_job("open t");
        }
        assert_eq!(rig.jobs(), ["history t"]);
        rig.expect(client, &[&format!("ok 1: t@{epoch}/4 all"), "t 3", "t 4"]);
        rig.flip("t", Flip::Restart);
    }
}
