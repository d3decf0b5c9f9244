use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tickcast_protocol::{Epoch, Position};

use super::*;
use crate::config::{Config, Size};

fn read(body: &str, key: Option<&str>) -> Result<Batch, Problem> {
    let defaults = Config::default().limits;
    let limits = Limits { batch_items: 4, payload_bytes: Size::new(8), ..defaults };
    Batch::read(&Bytes::copy_from_slice(body.as_bytes()), &limits, key, &|_| Ok(()))
}

/// The items as `topic data key`, the refusals as `topic? code`.
fn taken(batch: &Batch) -> Vec<String> {
    let mut items = batch.items.iter();
    let fates = batch.fates.iter().map(|fate| match fate {
        Fate::Sent(_) => {
            let Item { topic, data, key } = items.next().unwrap();
            let data = std::str::from_utf8(data).unwrap();
            format!("{topic} {data} {}", key.as_deref().unwrap_or("-"))
        }
        Fate::Refused { topic, why } => {
            format!("{}? {}", topic.as_deref().unwrap_or("-"), why.code().as_str())
        }
    });
    fates.collect()
}

#[test]
fn good_batches() {
    let check = |body: &str, expected: &[&str]| {
        assert_eq!(taken(&read(body, None).unwrap()), expected, "{body}");
    };
    check("", &[]);
    check(" \r\n\n", &[]);
    check("[]", &[]);
    check(" [ ] ", &[]);
    check(r#"[{"topic":"a","data":1}]"#, &["a 1 -"]);
    check("\n [ {\"data\": {\"x\": 1} ,\n\"topic\":\"a\"}\n]\n", &["a {\"x\": 1} -"]);
    check(r#"[{"topic":"a","data":null,"key":null}]"#, &["a null -"]);
    check(r#"[{"topic":"\u0061","data":"\u0061","key":"k"}]"#, &[r#"a "\u0061" k"#]);
    check(r#"{"topic":"a","data":1}"#, &["a 1 -"]);
    check(
        "{\"topic\":\"a\",\"data\":1}\r\n\r\n \t\n{\"topic\":\"b\",\"data\": 2 }",
        &["a 1 -", "b 2 -"],
    );
}

#[test]
fn a_refused_item_keeps_its_place_and_no_other_back() {
    let check = |item: &str, expected: &str| {
        let good = r#"{"topic":"ok","data":1}"#;
        for body in [format!("[{good},{item},{good}]"), format!("{good}\n{item}\n{good}\n")] {
            assert_eq!(
                taken(&read(&body, None).unwrap()),
                ["ok 1 -", expected, "ok 1 -"],
                "{body}"
            );
        }
    };
    check("7", "-? bad_command");
    check("null", "-? bad_command");
    check("[]", "-? bad_command");
    check(r#""a""#, "-? bad_command");
    check("{}", "-? bad_command");
    check(r#"{"topic":"a"}"#, "a? bad_command");
    check(r#"{"data":1}"#, "-? bad_command");
    check(r#"{"topic":7,"data":1}"#, "-? bad_command");
    check(r#"{"topic":"a","data":1,"ttl":5}"#, "a? bad_command");
    check(r#"{"topic":"a","data":1,"data":2}"#, "a? bad_command");
    check(r#"{"topic":"a","data":1,"key":7}"#, "a? bad_command");
    check(r#"{"topic":"a b","data":1}"#, "a b? bad_topic");
    check(r#"{"topic":"","data":1}"#, "? bad_topic");
    check(r#"{"topic":"a","data":1,"key":""}"#, "a? bad_key");
    check(r#"{"topic":"a","data":123456789}"#, "a? payload_too_large");
}

#[test]
fn a_body_that_cannot_be_read() {
    let check = |body: &str, code: ErrorCode, detail: &str| {
        let problem = read(body, None).unwrap_err();
        assert_eq!(problem.code(), code, "{body}");
        assert!(problem.detail().contains(detail), "{body}: {}", problem.detail());
    };
    check("[", ErrorCode::BadJson, "line 1 column 1");
    check("[{}", ErrorCode::BadJson, "line 1 column 3");
    check("[{},]", ErrorCode::BadJson, "line 1 column 5");
    check("[{}]\n[", ErrorCode::BadJson, "line 2 column 1");
    check("hello", ErrorCode::BadJson, "line 1 is not one JSON text: expected value at column 1");
    check("{\"topic\":\"a\",\"data\":1}\n\n{\"unknown\":1,", ErrorCode::BadJson, "line 3 ");
    check("{} {}", ErrorCode::BadJson, "trailing characters at column 4");
    check("[1,2,3,4,5]", ErrorCode::BatchTooLarge, "more than 4 items");
    check("1\n2\n3\n4\n5\n", ErrorCode::BatchTooLarge, "more than 4 items");
    let limits = Config::default().limits;
    let body = Bytes::from_static(b"[\"\xff\"]");
    assert_eq!(
        Batch::read(&body, &limits, None, &|_| Ok(())).unwrap_err().code(),
        ErrorCode::BadJson
    );
}

#[test]
fn the_key_of_the_request_counts_the_items() {
    let body =
        r#"[{"topic":"a","data":1},7,{"topic":"b","data":2,"key":"own"},{"topic":"c","data":3}]"#;
    assert_eq!(
        taken(&read(body, Some("K")).unwrap()),
        ["a 1 K/0", "-? bad_command", "b 2 own", "c 3 K/3"]
    );
}

#[test]
fn payloads_are_slices_of_the_body() {
    let body = Bytes::from_static(br#"[{"topic":"a","data":12}]"#);
    let batch = Batch::read(&body, &Config::default().limits, None, &|_| Ok(())).unwrap();
    assert_eq!(batch.items[0].data.as_ptr(), body[21..].as_ptr());
}

#[test]
fn what_is_echoed_is_bounded() {
    let name = "x ".repeat(5000);
    let batch = read(&format!(r#"[{{"topic":"{name}","data":1}},{{"{name}":1}}]"#), None).unwrap();
    for fate in &batch.fates {
        let Fate::Refused { topic, why } = fate else { panic!("{fate:?}") };
        assert!(topic.as_deref().unwrap_or_default().len() <= TOPIC_BYTES_MAX);
        assert!(why.detail().len() <= 300);
    }
}

fn rendered(fates: &[Fate], results: Vec<Result<Published, PublishError>>) -> (u16, Value) {
    let (parts, body) = report(fates, results).into_parts();
    let collecting = std::pin::pin!(body.collect());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(body) = collecting.poll(&mut context) else { panic!() };
    (parts.status.as_u16(), serde_json::from_slice(&body.unwrap().to_bytes()).unwrap())
}

#[test]
fn the_report() {
    let sent = |name: &str| Fate::Sent(Topic::new(name).unwrap());
    let published = |offset| {
        let position = Position { epoch: Epoch::new(937_557), offset };
        Ok(Published { position, duplicate: false })
    };
    assert_eq!(rendered(&[], Vec::new()), (200, json!({"results": []})));
    assert_eq!(
        rendered(&[sent("a"), sent("b")], vec![published(1), published(7)]),
        (
            200,
            json!({"results": [
                {"topic": "a", "epoch": "k3f9", "offset": 1},
                {"topic": "b", "epoch": "k3f9", "offset": 7},
            ]})
        )
    );
    let why = Problem::new(ErrorCode::BadTopic, "\"quoted\"");
    let refused = Fate::Refused { topic: Some("a\"b".to_owned()), why };
    let nameless = Fate::Refused { topic: None, why: Problem::new(ErrorCode::BadCommand, "x") };
    let (status, report) = rendered(
        &[refused, sent("c"), nameless, sent("d"), sent("e")],
        vec![published(1), Err(PublishError::IdempotencyConflict)],
    );
    assert_eq!(status, 207);
    assert_eq!(
        report["results"][0],
        json!({"topic": "a\"b", "error": {"code": "bad_topic", "detail": "\"quoted\""}})
    );
    assert_eq!(report["results"][1]["offset"], 1);
    assert_eq!(report["results"][2]["topic"], Value::Null);
    assert_eq!(report["results"][3]["error"]["code"], "idempotency_conflict");
    assert_eq!(report["results"][4]["error"]["code"], "outcome_unknown");
}
