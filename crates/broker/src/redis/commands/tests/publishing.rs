//! Order, batches, chunks, what is stored, and what it costs.

use super::*;

#[tokio::test]
async fn offsets_rise_by_one_and_deliveries_follow() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &["a", "b"]).await;
    assert_eq!(rig.offsets(vec![plain("a", "1")]).await, [1]);
    assert_eq!(rig.offsets(vec![plain("a", "2")]).await, [2]);
    assert_eq!(rig.offsets(vec![item("b", "3")]).await, [1]);
    assert_eq!(ear.hear().await, ("a".to_owned(), 1, vec!["1".to_owned()]));
    assert_eq!(ear.hear().await, ("a".to_owned(), 2, vec!["2".to_owned()]));
    assert_eq!(ear.hear().await, ("b".to_owned(), 1, vec!["3".to_owned()]));
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order_and_sent_once_per_topic() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &["a", "b"]).await;
    let batch = ["a", "b", "a", "b", "a"].iter().zip(["1", "2", "3", "4", "5"]);
    let items = batch.map(|(name, data)| item(name, data)).collect();
    assert_eq!(rig.offsets(items).await, [1, 1, 2, 2, 3]);
    let mut heard = [ear.hear().await, ear.hear().await];
    heard.sort();
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    assert_eq!(heard[0], ("a".to_owned(), 1, texts(&["1", "3", "5"])));
    assert_eq!(heard[1], ("b".to_owned(), 1, texts(&["2", "4"])));
    assert!(ear.is_silent());
    assert_eq!(rig.history("a").await, [1, 2, 3]);
    let state = rig.read("b", LOOK).await.unwrap();
    assert_eq!(state.value.unwrap().data(), b"4");
}

#[tokio::test]
async fn items_retained_differently_keep_their_order() {
    let rig = Rig::new().await;
    let items = vec![plain("a", "1"), item("a", "2"), keyed("a", "3", "k"), item("a", "4")];
    assert_eq!(rig.offsets(items).await, [1, 2, 3, 4]);
    assert_eq!(rig.history("a").await, [4], "a hole ends a history");
}

#[tokio::test]
async fn chunks_are_cut_by_items_and_by_bytes() {
    let rig = Rig::new().await;
    for (count, size, chunks) in
        [(64, 2, 1), (65, 2, 2), (1000, 2, 16), (17, 65_536, 2), (3, 700_000, 3)]
    {
        let name = format!("t{count}");
        let mut ear = Ear::new(&rig, &[&name]).await;
        let data = "7".repeat(size);
        let items = vec![plain(&name, &data); count];
        rig.calls().await;
        let expected: Vec<_> = (1..=count as u64).collect();
        assert_eq!(rig.offsets(items).await, expected);
        let calls = rig.calls().await;
        let evals = ["eval", "evalsha"].iter().filter_map(|name| calls.get(*name)).sum::<u64>();
        assert_eq!(evals, chunks, "{count} items of {size} bytes");
        let mut next = 1;
        for _ in 0..chunks {
            let (_, offset, payloads) = ear.hear().await;
            assert_eq!(offset, next);
            next += payloads.len() as u64;
            assert!(payloads.iter().all(|payload| *payload == data));
        }
        assert_eq!(next, count as u64 + 1);
    }
}

#[tokio::test]
async fn a_thousand_topics_in_one_batch() {
    let rig = Rig::new().await;
    let names: Vec<_> = (0..1000).map(|number| format!("t{}", number % 500)).collect();
    let items = names.iter().map(|name| plain(name, "1")).collect();
    let expected: Vec<_> = (0..1000).map(|number| 1 + number / 500).collect();
    assert_eq!(rig.offsets(items).await, expected);
}

#[tokio::test]
async fn payloads_are_verbatim() {
    let rig = Rig::new().await;
    let mut ear = Ear::new(&rig, &["a"]).await;
    let large = format!("\"{}\"", "x".repeat(65_534));
    let payloads = [
        "0",
        "-1.50e+400",
        "12345678901234567890123",
        "null",
        r#"{"a":[1,2,{"b":"\u0000\n\\"}],"a":" 1 2 \t"}"#,
        " [ \r\n 1 ] ",
        "\"\u{e4}\u{1f600}\"",
        "\"%s %d % 1 17\"",
        &large,
    ];
    for (payload, offset) in payloads.iter().zip(1..) {
        assert_eq!(rig.publish(item("a", payload)).await.position.offset, offset);
        assert_eq!(ear.hear().await.2, [*payload]);
        let state = rig.read("a", ALL).await.unwrap();
        assert_eq!(state.value.unwrap().data(), payload.as_bytes());
        assert_eq!(state.history.last().unwrap().data(), payload.as_bytes());
    }
    let state = rig.read("a", ALL).await.unwrap();
    assert!(state.history.iter().map(|one| one.data()).eq(payloads.map(str::as_bytes)));
    assert!(state.history.iter().all(|one| one.time_ms() > 1_600_000_000_000));
}

#[tokio::test]
async fn what_is_not_retained_costs_nothing() {
    let rig = Rig::new().await;
    let nothing = Retention { value: false, ..NO_HISTORY };
    rig.publish(PublishItem { retention: nothing, ..item("a", "1") }).await;
    rig.publish(plain("b", "1")).await;
    rig.calls().await;
    rig.publish(PublishItem { retention: nothing, ..item("a", "2") }).await;
    rig.publish(plain("b", "2")).await;
    let mut calls: Vec<_> = rig.calls().await.into_iter().collect();
    calls.retain(|(name, _)| !name.starts_with("config"));
    calls.sort();
    let expected = ["evalsha", "hget", "hset", "publish"].map(|name| (name.to_owned(), 2));
    assert_eq!(calls, expected);
    let state = rig.read("a", ALL).await.unwrap();
    assert!(state.value.is_none() && state.history.is_empty());
    let keys: Vec<String> = rig.ask(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 2, "{keys:?}");
}

#[tokio::test]
async fn a_value_that_is_kept_no_longer_is_gone() {
    let rig = Rig::new().await;
    rig.publish(plain("a", "1")).await;
    assert!(rig.read("a", LOOK).await.unwrap().value.is_some());
    rig.publish(PublishItem {
        retention: Retention { value: false, ..NO_HISTORY },
        ..item("a", "2")
    })
    .await;
    let state = rig.read("a", LOOK).await.unwrap();
    assert_eq!((state.position.offset, state.value.is_none()), (2, true));
}

#[tokio::test]
async fn offsets_are_exact_far_beyond_32_bits() {
    let rig = Rig::new().await;
    rig.publish(item("a", "1")).await;
    let id = replication_id(&mut rig.raw.clone()).await;
    for offset in [u64::from(u32::MAX), 9_007_199_254_740_000] {
        let _: u64 = rig.ask(&["HSET", &rig.key("a"), &id, &format!("k3f9 {offset}")]).await;
        let items = vec![item("a", "2"), item("a", "3"), keyed("a", "4", &offset.to_string())];
        let expected = [offset + 1, offset + 2, offset + 3];
        assert_eq!(rig.offsets(items).await, expected);
        let again = rig.publish(keyed("a", "4", &offset.to_string())).await;
        assert_eq!((again.position.offset, again.duplicate), (offset + 3, true));
        assert_eq!(rig.publish(item("a", "5")).await.position.offset, offset + 4);
        let state = rig.read("a", LOOK).await.unwrap();
        assert_eq!(state.position.offset, offset + 4);
        assert_eq!(rig.history("a").await, [offset + 4]);
    }
}

#[tokio::test]
async fn everything_expires() {
    let rig = Rig::new().await;
    // Some seconds may have passed already, and most are set longer by the interval in which they are renewed.
    let within = |ttl: i64, of: Duration| {
        let range = of.saturating_sub(SOON).as_secs()..=(of + renewals::INTERVAL).as_secs();
        assert!(u64::try_from(ttl).is_ok_and(|ttl| range.contains(&ttl)), "{ttl} s of {of:?}");
    };
    rig.publish(PublishItem { key: Some("k".to_owned()), ..item("a", "1") }).await;
    within(rig.ttl(&rig.key("a")).await, TTLS.topic);
    within(rig.ttl(&rig.list("a")).await, RETENTION.history_age);
    let answer = rig.commands.shared.names.answer(&topic("a"), "k");
    within(rig.ttl(&answer).await, TTLS.idempotency);

    rig.read("b", ALL).await;
    within(rig.ttl(&rig.key("b")).await, TTLS.unpublished);
    rig.commands.compare(1, &[topic("a"), topic("c")]).await.unwrap();
    within(rig.ttl(&rig.key("c")).await, TTLS.unpublished);
    within(rig.ttl(&rig.key("a")).await, TTLS.topic);
    rig.publish(plain("b", "1")).await;
    within(rig.ttl(&rig.key("b")).await, TTLS.topic);

    rig.commands.probe(1).await.unwrap();
    within(rig.ttl(&rig.commands.shared.node_key).await, PROBE_TTL);
    let keys: Vec<String> = rig.ask(&["KEYS", "*"]).await;
    for key in &keys {
        assert!(rig.ttl(key).await > 0, "{key}");
    }
    assert_eq!(keys.len(), 6, "{keys:?}");
}

#[tokio::test]
async fn times_to_live_are_renewed_after_a_new_connection_and_by_comparisons() {
    let rig = Rig::new().await;
    rig.publish(item("a", "1")).await;
    let shorten = async || {
        for key in [rig.key("a"), rig.list("a")] {
            let _: u64 = rig.ask(&["EXPIRE", &key, "100"]).await;
        }
    };
    shorten().await;
    rig.publish(item("a", "2")).await;
    rig.publish(PublishItem { key: Some("k".to_owned()), ..item("a", "3") }).await;
    assert!(rig.ttl(&rig.key("a")).await <= 100, "renewed only now and then");

    rig.link(&rig.commands).await;
    rig.publish(PublishItem { key: Some("k".to_owned()), ..item("a", "3") }).await;
    assert!(rig.ttl(&rig.key("a")).await > 1000, "a duplicate renews, too");
    assert!(rig.ttl(&rig.list("a")).await > 200);

    shorten().await;
    rig.link(&rig.commands).await;
    rig.publish(item("a", "4")).await;
    assert!(rig.ttl(&rig.key("a")).await > 1000);
    assert!(rig.ttl(&rig.list("a")).await > 200);

    shorten().await;
    rig.commands.compare(1, &[topic("a")]).await.unwrap();
    assert!(rig.ttl(&rig.key("a")).await > 1000);
    shorten().await;
    rig.read("a", LOOK).await;
    assert!(rig.ttl(&rig.key("a")).await <= 100, "looking leaves no trace");
    rig.read("a", ALL).await;
    assert!(rig.ttl(&rig.key("a")).await > 1000);
}
