//! What the node keeps, and that it is counted exactly.

use std::time::Duration;

use tickcast_hub::LogBounds;

use crate::rig::Setup;

#[test]
fn a_log_keeps_to_its_bounds() {
    let wide = LogBounds { publications: 1000, bytes: 1 << 20, age: Duration::from_secs(300) };
    for (bounds, kept) in [
        (LogBounds { publications: 5, ..wide }, 5),
        (LogBounds { publications: 1, ..wide }, 1),
        // A publication of this test costs about 600 bytes.
        (LogBounds { bytes: 2000, ..wide }, 3),
        (LogBounds { bytes: 10, ..wide }, 1),
    ] {
        let mut rig = Setup::default().topic("t", |t| t.log = bounds).build();
        let client = rig.attach();
        rig.subscribe(client, 1, r#""t""#);
        rig.settle();
        for _ in 0..20 {
            rig.publish_one("t", 400, true);
            rig.turns();
        }
        let (publications, bytes) = rig.log_of("t");
        assert_eq!(publications, kept, "{bounds:?}");
        assert_eq!(rig.hub.stats().log_bytes, bytes);
    }
}

#[test]
fn beyond_the_bound_of_the_node_a_topic_that_grows_gives_its_own_first() {
    let mut rig = Setup { log_bytes: 10_000, ..Setup::default() }.build();
    let client = rig.attach();
    rig.subscribe(client, 1, r#""t","u","v""#);
    rig.settle();
    rig.publish("t", 10);
    rig.publish("u", 1);
    let (before, _) = rig.log_of("t");
    for _ in 0..200 {
        rig.publish("v", 1);
        rig.turns();
        assert!(rig.hub.stats().log_bytes <= 10_000);
    }
    assert_eq!((before, rig.log_of("t").0, rig.log_of("u").0), (10, 10, 1));
    assert!((1..200).contains(&rig.log_of("v").0));
    let bytes = ["t", "u", "v"].map(|name| rig.log_of(name).1).iter().sum::<usize>();
    assert_eq!(rig.hub.stats().log_bytes, bytes);
    // The newest of a topic stays even so.
    rig.publish_one("u", 20_000, true);
    assert_eq!(rig.log_of("u").0, 1);
}

#[test]
fn bytes_are_counted_through_repairs_resets_histories_and_age() {
    let mut rig = Setup { history: 5, ..Setup::default() }.build();
    let client = rig.attach();
    rig.publish("t", 20);
    rig.subscribe(client, 1, r#"{"topic":"t","since":{"epoch":"a","offset":2}}"#);
    rig.settle();
    let check = |rig: &mut crate::rig::Rig, publications: usize| {
        rig.settle();
        let (kept, bytes) = rig.log_of("t");
        assert_eq!((kept, rig.hub.stats().log_bytes), (publications, bytes));
    };
    check(&mut rig, 5);
    rig.lose("t", 10);
    rig.publish("t", 1);
    check(&mut rig, 10); // A hole of six, then five from history.
    rig.hub.sweep(300);
    check(&mut rig, 1);
    rig.flip("t", crate::broker::Flip::Restart);
    rig.publish("t", 7);
    check(&mut rig, 1);
    rig.unsubscribe(client, 2, r#""t""#);
    rig.end_grace();
    assert_eq!((rig.hub.stats().log_bytes, rig.hub.stats().topics), (0, 0));
}
