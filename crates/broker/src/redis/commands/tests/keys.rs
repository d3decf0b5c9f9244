//! Idempotency.

use super::*;

const CONFLICT: Answer = Err(PublishError::IdempotencyConflict);

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_no_second_delivery() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &["a"]).await;
    let batch = vec![keyed("a", "1", "k"), keyed("a", "1", "k"), keyed("a", "2", "k")];
    let answers = rig.commands.publish(batch).await;
    let first = answers[0].unwrap();
    assert!(!first.duplicate);
    assert_eq!(answers[1], Ok(Published { duplicate: true, ..first }));
    assert_eq!(answers[2], CONFLICT);
    assert_eq!(rig.commands.publish(vec![keyed("a", "1", "k")]).await, [answers[1]]);
    assert_eq!(ear.hear().await, ("a".to_owned(), 1, vec!["1".to_owned()]));
    assert!(ear.is_silent());
    let elsewhere = rig.publish(keyed("b", "2", "k")).await;
    assert!(!elsewhere.duplicate, "the key is scoped to the topic");
    assert!(!rig.publish(keyed("a", "2", "l")).await.duplicate);
}

#[tokio::test]
async fn new_and_known_keys_in_one_run() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &["a"]).await;
    rig.publish(keyed("a", "1", "k1")).await;
    let batch = vec![
        keyed("a", "0", "k0"),
        keyed("a", "1", "k1"),
        keyed("a", "2", "k2"),
        keyed("a", "x", "k1"),
        keyed("a", "3", "k3"),
    ];
    let answers = rig.commands.publish(batch).await;
    let places: Vec<_> = answers
        .iter()
        .map(|answer| answer.map(|one| (one.position.offset, one.duplicate)))
        .collect();
    let conflict = Err(PublishError::IdempotencyConflict);
    assert_eq!(places, [Ok((2, false)), Ok((1, true)), Ok((3, false)), conflict, Ok((4, false))]);
    ear.hear().await;
    let payloads = ["0", "2", "3"].map(str::to_owned).to_vec();
    assert_eq!(ear.hear().await, ("a".to_owned(), 2, payloads));
}

#[tokio::test]
async fn nodes_with_the_same_key_at_once_make_one_publication() {
    let rig = Rig::new().await;
    let other = node("m7q2");
    rig.link(&other).await;
    for round in 0..50 {
        let request = || vec![keyed("a", "1", &format!("k{round}"))];
        let (mine, theirs) =
            tokio::join!(rig.commands.publish(request()), other.publish(request()));
        let (mine, theirs) = (mine[0].unwrap(), theirs[0].unwrap());
        assert_eq!(mine.position, theirs.position);
        assert_ne!(mine.duplicate, theirs.duplicate);
    }
    assert_eq!(rig.read("a", LOOK).await.unwrap().position.offset, 50);
}

#[tokio::test]
async fn a_known_key_outlives_its_topic() {
    let rig = Rig::new().await;
    let first = rig.publish(keyed("a", "1", "k")).await;
    let _: u64 = rig.ask(&["DEL", &rig.key("a")]).await;
    let again = rig.publish(keyed("a", "1", "k")).await;
    assert_eq!(again, Published { duplicate: true, ..first });
    let exists: u64 = rig.ask(&["EXISTS", &rig.key("a")]).await;
    assert_eq!(exists, 0, "a duplicate creates nothing");
}

#[tokio::test]
async fn what_was_refused_leaves_no_key() {
    let rig = Rig::new().await;
    let _: () = rig.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = Err(PublishError::Unavailable);
    assert_eq!(rig.commands.publish(vec![keyed("a", "1", "k")]).await, [refused]);
    let _: () = rig.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(!rig.publish(keyed("a", "2", "k")).await.duplicate);
}

#[tokio::test]
async fn any_key_and_topic_go_together() {
    let rig = Rig::new().await;
    for key in ["}", "{x}", "#", "a#b", "%s", "\"", "~", &"k".repeat(128)] {
        for name in ["a", "a/b@c=d:e"] {
            assert!(!rig.publish(keyed(name, "1", key)).await.duplicate, "{name} {key}");
            assert!(rig.publish(keyed(name, "1", key)).await.duplicate, "{name} {key}");
        }
    }
}
