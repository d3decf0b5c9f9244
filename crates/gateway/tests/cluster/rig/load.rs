//! Clients and publishers on one node without a Redis: the load itself breaks nothing.

use crate::harness::{Cluster, LOAD, Node, beside, command};
use crate::process::{PATIENCE, until};

/// How often all clients hang up and come back.
const HANG_UPS: u64 = 3;

#[test]
fn clients_that_hang_up_come_back_and_miss_nothing() {
    let _turn = beside();
    let cluster = Cluster::start(vec![Node::run(&mut command(&[]))], LOAD);
    for hang_up in 1..=HANG_UPS {
        cluster.fleet.hang_up();
        until("back", PATIENCE, || {
            let back = cluster.fleet.sum(|notes| notes.absences.len() as u64);
            back == hang_up * LOAD.clients as u64
        });
    }
    assert_eq!(cluster.fleet.sum(|notes| notes.ends + notes.gaps + notes.resets), 0);
    let tally = cluster.finish();
    assert_eq!(tally.resumed, HANG_UPS * (LOAD.clients * LOAD.interests) as u64);
    assert!(tally.delivered > tally.published, "{tally:?}");
}
