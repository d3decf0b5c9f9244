//! What a history keeps, and what a read shows of it.

use std::time::Instant;

use super::*;

async fn publish_all(rig: &Rig, name: &str, retentions: &[Retention]) {
    for retention in retentions {
        rig.publish(PublishItem { retention: *retention, ..item(name, "\"payload\"") }).await;
    }
}

fn bytes(history_bytes: usize) -> Retention {
    Retention { history_bytes, ..RETENTION }
}

fn count(history: usize) -> Retention {
    Retention { history, ..RETENTION }
}

fn age(millis: u64) -> Retention {
    Retention { history_age: Duration::from_millis(millis), ..RETENTION }
}

#[tokio::test]
async fn bounds_hold() {
    let rig = Rig::new().await;
    publish_all(&rig, "size", &[RETENTION]).await;
    let entry: Vec<Vec<u8>> = rig.ask(&["LRANGE", &rig.list("size"), "0", "-1"]).await;
    let size = entry[0].len();
    let table: [(&[Retention], &[u64]); 12] = [
        (&[RETENTION; 4], &[1, 2, 3, 4]),
        (&[count(3); 4], &[2, 3, 4]),
        (&[count(1); 4], &[4]),
        // The microseconds have one to six digits.
        (&[bytes(2 * size + 12); 4], &[3, 4]),
        (&[bytes(size - 20); 4], &[]),
        (&[age(0); 4], &[]),
        (&[bytes(0); 4], &[]),
        // A retention that changes holds for what is there already.
        (&[RETENTION, RETENTION, RETENTION, count(2)], &[3, 4]),
        (&[RETENTION, RETENTION, NO_HISTORY, RETENTION], &[4]),
        (&[RETENTION, RETENTION, RETENTION, NO_HISTORY], &[]),
        (&[NO_HISTORY, RETENTION, age(0), age(0), RETENTION, RETENTION], &[5, 6]),
        (&[RETENTION, bytes(1), RETENTION], &[3]),
    ];
    for (place, (retentions, expected)) in table.into_iter().enumerate() {
        let name = format!("t{place}");
        publish_all(&rig, &name, retentions).await;
        assert_eq!(rig.history(&name).await, expected, "one by one: {retentions:?}");
        let name = format!("u{place}");
        let batch = retentions
            .iter()
            .map(|&retention| PublishItem { retention, ..item(&name, "\"payload\"") });
        rig.offsets(batch.collect()).await;
        assert_eq!(rig.history(&name).await, expected, "at once: {retentions:?}");
    }
}

#[tokio::test]
async fn the_list_holds_no_more_than_its_bounds() {
    let rig = Rig::new().await;
    for batch in [1, 7, 64] {
        let name = format!("t{batch}");
        for _ in 0..20 {
            rig.offsets(vec![PublishItem { retention: count(10), ..item(&name, "1") }; batch])
                .await;
        }
        let length: u64 = rig.ask(&["LLEN", &rig.list(&name)]).await;
        assert_eq!(length, 10);
        // The bytes in the state are those in the list.
        let entries: Vec<Vec<u8>> = rig.ask(&["LRANGE", &rig.list(&name), "0", "-1"]).await;
        let id = replication_id(&mut rig.raw.clone()).await;
        let state: String = rig.ask(&["HGET", &rig.key(&name), &id]).await;
        let counted = entries.iter().map(Vec::len).sum::<usize>().to_string();
        assert_eq!(state.rsplit(' ').next(), Some(counted.as_str()));
    }
}

#[tokio::test]
async fn a_read_selects() {
    let rig = Rig::new().await;
    publish_all(&rig, "a", &[count(3); 5]).await;
    let table: [(HistoryRequest, &[u64]); 10] = [
        (HistoryRequest::None, &[]),
        (HistoryRequest::Newest(0), &[]),
        (HistoryRequest::Newest(2), &[4, 5]),
        (HistoryRequest::Newest(9), &[3, 4, 5]),
        (HistoryRequest::Newest(usize::MAX), &[3, 4, 5]),
        (HistoryRequest::After(0), &[3, 4, 5]),
        (HistoryRequest::After(2), &[3, 4, 5]),
        (HistoryRequest::After(4), &[5]),
        (HistoryRequest::After(5), &[]),
        (HistoryRequest::After(u64::MAX), &[]),
    ];
    for (history, expected) in table {
        let state = rig.read("a", ReadRequest { create: false, history }).await.unwrap();
        let found: Vec<_> = state.history.iter().map(|one| one.offset()).collect();
        assert_eq!(found, expected, "{history:?}");
        assert!(state.history.iter().all(|one| one.epoch() == state.position.epoch));
    }
}

#[tokio::test]
async fn age_is_exact_by_the_clock_of_redis() {
    let rig = Rig::new().await;
    let (retention, age_max) = (age(400), Duration::from_millis(400));
    let before = Instant::now();
    publish_all(&rig, "a", &[retention]).await;
    let after = Instant::now();
    loop {
        let asked = Instant::now();
        if rig.history("a").await.is_empty() {
            break;
        }
        assert!(asked < after + age_max, "still shown {:?} later", asked - after);
    }
    assert!(before.elapsed() >= age_max, "hidden after {:?}", before.elapsed());
    publish_all(&rig, "a", &[retention]).await;
    assert_eq!(rig.history("a").await, [2]);
    let length: u64 = rig.ask(&["LLEN", &rig.list("a")]).await;
    assert_eq!(length, 2, "memory is freed now and then only");
    rig.link(&rig.commands).await;
    publish_all(&rig, "a", &[retention]).await;
    let length: u64 = rig.ask(&["LLEN", &rig.list("a")]).await;
    assert!((1..=2).contains(&length), "the first one is freed: {length}");
}

#[tokio::test]
async fn the_newest_entry_decides_how_old_the_others_may_be() {
    let rig = Rig::new().await;
    publish_all(&rig, "a", &[RETENTION, RETENTION]).await;
    assert_eq!(rig.history("a").await, [1, 2]);
    publish_all(&rig, "a", &[age(1)]).await;
    let deadline = Instant::now() + SOON;
    while !rig.history("a").await.is_empty() {
        assert!(Instant::now() < deadline, "the newest one never ages");
    }
    publish_all(&rig, "a", &[RETENTION]).await;
    assert_eq!(rig.history("a").await, [4], "what was invisible does not come back");
}

#[tokio::test]
async fn a_list_that_was_evicted_begins_anew() {
    let rig = Rig::new().await;
    publish_all(&rig, "a", &[RETENTION; 3]).await;
    let _: u64 = rig.ask(&["DEL", &rig.list("a")]).await;
    assert!(rig.history("a").await.is_empty());
    publish_all(&rig, "a", &[RETENTION; 2]).await;
    assert_eq!(rig.history("a").await, [4, 5]);
    assert!(rig.ttl(&rig.list("a")).await > 0);
}

#[tokio::test]
async fn a_list_does_not_survive_its_topic() {
    let rig = Rig::new().await;
    publish_all(&rig, "a", &[RETENTION; 3]).await;
    let before = rig.read("a", LOOK).await.unwrap().position.epoch;
    let _: u64 = rig.ask(&["DEL", &rig.key("a")]).await;
    let state = rig.read("a", ALL).await.unwrap();
    assert_ne!(state.position.epoch, before);
    assert_eq!((state.position.offset, state.history.len()), (0, 0));
    publish_all(&rig, "a", &[RETENTION; 2]).await;
    assert_eq!(rig.history("a").await, [1, 2]);
    let length: u64 = rig.ask(&["LLEN", &rig.list("a")]).await;
    assert_eq!(length, 2);
}
