//! Publications that are lost between the broker and the node.

use tickcast_protocol::{Epoch, Position};

use crate::rig::{ClientId, Rig, Setup};

/// A client of `t` that has publication 1.
fn live(setup: Setup) -> (Rig, ClientId) {
    let mut rig = setup.build();
    rig.publish("t", 1);
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t""#);
    rig.settle();
    rig.frames(client);
    (rig, client)
}

fn without_history() -> Setup {
    Setup { history: 0, ..Setup::default() }
}

#[test]
fn a_hole_that_is_repaired_from_history_is_invisible() {
    let (mut rig, client) = live(Setup::default());
    rig.lose("t", 2);
    rig.publish("t", 1);
    assert_eq!(rig.jobs(), ["repair t after 1"]);
    rig.turns();
    assert_eq!(rig.frames(client), [""; 0]);
    rig.expect(client, &["t 2", "t 3", "t 4"]);
    let stats = rig.hub.stats();
    assert_eq!((stats.gaps_found, stats.gaps_repaired), (1, 1));
}

#[test]
fn more_may_come_while_a_hole_is_repaired() {
    let (mut rig, client) = live(Setup::default());
    rig.lose("t", 1);
    rig.publish("t", 2); // 3 finds the hole, 4 waits with it.
    rig.collect();
    rig.step(0); // The broker is read at offset 4.
    rig.publish("t", 1);
    rig.lose("t", 1); // A further hole, at 6.
    rig.publish("t", 1);
    assert_eq!(rig.jobs(), ["repair t after 1"]);
    rig.step(0);
    assert_eq!(rig.jobs(), ["repair t after 5"]);
    rig.expect(client, &["t 2", "t 3", "t 4", "t 5", "t 6", "t 7"]);
}

#[test]
fn a_hole_that_cannot_be_repaired_is_named_and_nothing_else_is() {
    for keeps_value in [true, false] {
        let (mut rig, client) = live(without_history().topics(|t| t.keeps_value = keeps_value));
        rig.lose("t", 2);
        rig.publish("t", 1);
        rig.expect(client, &["gap t 2-3 lost", "t 4"]);
        rig.lose("t", 1);
        rig.publish("t", 3); // All three came; the broker retains one at most.
        rig.expect(client, &["gap t 5-5 lost", "t 6", "t 7", "t 8"]);
        assert_eq!(rig.hub.stats().gaps_repaired, 0);
        let gaps = rig.counters().gaps_lost;
        assert_eq!((gaps.notices, gaps.publications), (2, 3));
    }
}

#[test]
fn a_hole_in_a_log_of_one_is_still_a_lost_one() {
    for keeps_value in [true, false] {
        let setup = without_history().topics(|t| {
            t.keeps_value = keeps_value;
            t.log.publications = 1;
        });
        let (mut rig, client) = live(setup);
        rig.lose("t", 2);
        rig.publish("t", 1);
        rig.expect(client, &["gap t 2-3 lost", "t 4"]);
    }
}

#[test]
fn the_audit_finds_a_last_publication_that_is_lost() {
    let (mut rig, client) = live(Setup::default());
    rig.lose("t", 1);
    rig.hub.suspect(&crate::rig::topic("t"));
    rig.expect(client, &["t 2"]);
    // With no history the value is there, and only the ones before it are missing.
    let (mut rig, client) = live(without_history());
    rig.lose("t", 2);
    rig.hub.suspect(&crate::rig::topic("t"));
    rig.expect(client, &["gap t 2-2 lost", "t 3"]);
    // With nothing retained at all, the loss is named to its end.
    let (mut rig, client) = live(without_history().topics(|t| t.keeps_value = false));
    rig.lose("t", 2);
    rig.hub.suspect(&crate::rig::topic("t"));
    rig.expect(client, &["gap t 2-3 lost"]);
    rig.publish("t", 1);
    rig.expect(client, &["t 4"]);
}

#[test]
fn a_lost_end_of_an_empty_log_is_lost_and_no_fault_of_the_client() {
    let (mut rig, client) = live(without_history().topics(|t| t.keeps_value = false));
    rig.publish("t", 1);
    rig.expect(client, &["t 2"]);
    rig.hub.sweep(300);
    rig.lose("t", 2);
    rig.hub.suspect(&crate::rig::topic("t"));
    rig.expect(client, &["gap t 3-4 lost"]);
}

#[test]
fn an_audit_that_finds_nothing_changes_nothing() {
    let (mut rig, client) = live(Setup::default());
    rig.hub.suspect(&crate::rig::topic("t"));
    assert_eq!(rig.jobs(), ["repair t after 1"]);
    rig.hub.suspect(&crate::rig::topic("nobody-holds-it"));
    rig.expect(client, &[]);
    assert_eq!(rig.hub.stats().gaps_repaired, 0);
}

/// Where the broker says that `t` stands.
fn compare(rig: &Rig, offset: u64) {
    let epoch = rig.hub.position(&crate::rig::topic("t")).unwrap().epoch;
    rig.hub.compare(&crate::rig::topic("t"), Position { epoch, offset });
}

#[test]
fn a_position_that_the_log_has_not_reached_is_a_loss() {
    let (mut rig, client) = live(Setup::default());
    compare(&rig, 1);
    assert_eq!(rig.jobs(), [""; 0], "nothing is missing");
    rig.lose("t", 2);
    compare(&rig, 3);
    assert_eq!(rig.jobs(), ["repair t after 1"]);
    rig.expect(client, &["t 2", "t 3"]);
    compare(&rig, 2);
    assert_eq!(rig.jobs(), [""; 0], "a repair may be ahead of what the link has delivered");
    assert_eq!((rig.hub.stats().gaps_found, rig.hub.stats().gaps_repaired), (1, 1));
    let epoch = Epoch::new(99);
    rig.hub.compare(&crate::rig::topic("t"), Position { epoch, offset: 0 });
    assert_eq!(rig.jobs(), ["repair t after 3"], "another epoch");
}

#[test]
fn a_loss_found_while_the_broker_is_read_is_read_again() {
    let (mut rig, client) = live(Setup::default());
    rig.lose("t", 1);
    compare(&rig, 2);
    rig.collect();
    rig.step(0); // The broker is read at offset 2.
    rig.lose("t", 1);
    compare(&rig, 3);
    rig.step(0);
    assert_eq!(rig.jobs(), ["repair t after 2"]);
    rig.expect(client, &["t 2", "t 3"]);
    assert_eq!(rig.jobs(), [""; 0]);
}

#[test]
fn what_comes_twice_is_delivered_once() {
    let (mut rig, client) = live(Setup::default());
    let publication = rig.withhold("t");
    rig.hub.deliver(publication.clone());
    rig.hub.deliver(publication);
    rig.expect(client, &["t 2"]);
    assert_eq!(rig.hub.stats().duplicates, 1);
}

#[test]
fn a_broker_that_is_behind_its_own_publications_is_asked_once_only() {
    // A read that does not know a publication which came before it, as from a replica that lags.
    let (mut rig, client) = live(without_history());
    let missing = rig.withhold("t");
    let came = rig.withhold("t");
    rig.hub.deliver(came);
    rig.collect();
    let mut state = rig.take_task(0);
    state.position.offset = 1;
    state.value = None;
    rig.hub.repaired(missing.topic(), state);
    assert_eq!(rig.jobs(), [""; 0]);
    rig.turns();
    assert_eq!(rig.frames(client), ["gap t 2-2 lost", "t 3"]);
}

#[test]
fn a_repair_under_load_holds_on_to_a_bounded_number() {
    let (mut rig, client) = live(Setup { history: 10_000, ..Setup::default() });
    rig.lose("t", 1);
    rig.publish("t", 5000);
    rig.settle();
    rig.publish("t", 1);
    // The log keeps 1,000: the client hears of the others, and of nothing else.
    rig.expect(client, &["gap t 2-5001 slow_consumer", "t 5002", "t 5003"]);
}
