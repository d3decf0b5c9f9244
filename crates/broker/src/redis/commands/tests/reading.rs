//! Reads, comparisons and probes.

use super::*;

#[tokio::test]
async fn a_read_creates_an_epoch_only_if_asked() {
    let rig = Rig::new().await;
    assert!(rig.read("a", LOOK).await.is_none());
    let created = rig.read("a", ALL).await.unwrap();
    assert_eq!(created.position.offset, 0);
    assert!(created.position.epoch.number() < 1 << 40);
    assert!(created.value.is_none() && created.history.is_empty());
    assert_eq!(rig.read("a", LOOK).await.unwrap().position, created.position);
    let published = rig.publish(item("a", "1")).await;
    assert_eq!(published.position.epoch, created.position.epoch);
    assert_eq!(published.position.offset, 1);
    let state = rig.read("a", ALL).await.unwrap();
    assert_eq!(state.value.unwrap().position(), published.position);
}

#[tokio::test]
async fn a_topic_that_is_lost_twice_gets_three_epochs() {
    let rig = Rig::new().await;
    let mut epochs = std::collections::HashSet::new();
    for _ in 0..3 {
        assert!(epochs.insert(rig.publish(plain("a", "1")).await.position.epoch));
        let _: () = rig.ask(&["FLUSHALL"]).await;
    }
}

#[tokio::test]
async fn a_comparison_comes_after_what_it_counts() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &["a"]).await;
    let topics = [topic("a"), topic("b")];
    for round in 1..=20 {
        let (published, compared) = tokio::join!(
            rig.commands.publish(vec![plain("a", "1")]),
            rig.commands.compare(round, &topics)
        );
        assert_eq!(offsets(&published), [round]);
        compared.unwrap();
    }
    let mut heard = 0;
    let mut batch = 0;
    while batch < 20 {
        let (channel, data) = ear.message().await;
        if ear.names.topic_of(&channel).is_some() {
            heard = publications(&topics[0], &data)[0].offset();
            continue;
        }
        let NodeMessage::Comparison(comparison) = NodeMessage::decode(&data).unwrap() else {
            panic!("{data:?}");
        };
        batch += 1;
        assert_eq!(comparison.batch, batch);
        let positions: Vec<_> = comparison.positions().map(Result::unwrap).collect();
        assert_eq!((positions[0].0, positions[0].1.offset), ("a", heard));
        assert_eq!((positions[1].0, positions[1].1.offset), ("b", 0));
    }
}

#[tokio::test]
async fn a_comparison_of_many_topics_and_of_none() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &[]).await;
    let topics: Vec<_> =
        (0..COMPARE_TOPICS_MAX).map(|number| topic(&format!("t{number}"))).collect();
    rig.commands.compare(7, &topics).await.unwrap();
    rig.commands.compare(8, &[]).await.unwrap();
    let lines: String = topics.iter().map(|topic| format!(" {topic}=0")).collect();
    assert_eq!(ear.hear_node().await, format!("C7{lines}"));
    assert_eq!(ear.hear_node().await, "C8");
    for name in ["t0", "t511"] {
        assert_eq!(rig.read(name, LOOK).await.unwrap().position.offset, 0);
    }
}

#[tokio::test]
async fn a_foreign_key_spoils_only_its_own_topic() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &["b"]).await;
    let _: () = rig.ask(&["SET", &rig.key("a"), "foreign"]).await;
    let answers =
        rig.commands.publish(vec![plain("a", "1"), plain("b", "1"), plain("c", "1")]).await;
    assert_eq!(answers[0], Err(PublishError::Unavailable));
    assert_eq!(offsets(&answers[1..]), [1, 1]);
    ear.hear().await;
    assert!(rig.commands.read(&topic("a"), ALL).await.is_err());
    rig.commands.compare(1, &[topic("a"), topic("b")]).await.unwrap();
    assert_eq!(ear.hear_node().await, "C1 b=1");

    // Found only after something was written.
    let _: () = rig.ask(&["SET", &rig.list("d"), "foreign"]).await;
    let half = PublishItem { key: Some("k".to_owned()), ..item("d", "1") };
    let answers = rig.commands.publish(vec![half, plain("b", "2")]).await;
    assert_eq!(answers[0], Err(PublishError::OutcomeUnknown));
    assert_eq!(offsets(&answers[1..]), [2]);
    let _: u64 = rig.ask(&["DEL", &rig.list("d")]).await;
    let retry = rig.publish(PublishItem { key: Some("k".to_owned()), ..item("d", "1") }).await;
    assert!(!retry.duplicate, "a key without its publication is forgotten");
    // What is no state counts as none, and goes.
    let _: u64 = rig.ask(&["HSET", &rig.key("e"), "x", "y"]).await;
    rig.commands.compare(2, &[topic("e")]).await.unwrap();
    let answers = rig.commands.publish(vec![plain("e", "1")]).await;
    assert_eq!(offsets(&answers), [1]);
    let fields: u64 = rig.ask(&["HLEN", &rig.key("e")]).await;
    assert_eq!(fields, 2, "a state and a value");
}

#[tokio::test]
async fn a_probe_comes_back() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &[]).await;
    for number in [1, 2, u64::MAX] {
        rig.commands.probe(number).await.unwrap();
        assert_eq!(ear.hear_node().await, number.to_string());
    }
}

#[tokio::test]
async fn a_value_of_another_version_counts_as_none() {
    let rig = Rig::new().await;
    rig.publish(plain("a", "1")).await;
    let _: u64 = rig.ask(&["HSET", &rig.key("a"), "v", "2something else"]).await;
    let state = rig.read("a", LOOK).await.unwrap();
    assert_eq!((state.position.offset, state.value.is_none()), (1, true));
}
