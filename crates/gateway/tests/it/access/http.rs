//! Publishing and reading over HTTP.

use serde_json::{Value, json};

use super::{FEED, OPS, SLOW, VIEW, WRONG, bearer, failures, guarded};
use crate::harness::{Answer, Node, until};

const STOCK: &str = "/v1/topics/stocks.AAPL";
const CLOSED: &str = "/v1/topics/closed.a";

/// The answer is a problem with this status and code.
fn expect(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{answer:?}");
    let is_asked = answer.header("www-authenticate") == Some("Bearer");
    assert_eq!(is_asked, status == 401, "{answer:?}");
}

#[tokio::test]
async fn publishing_needs_a_key_with_the_right_for_the_topic() {
    let node = guarded().await;
    expect(&node.post(STOCK, "", "1").await, 401, "unauthorized");
    expect(&node.post(STOCK, &bearer(WRONG), "1").await, 401, "unauthorized");
    expect(&node.post(STOCK, &bearer("hello"), "1").await, 401, "unauthorized");
    expect(&node.post(STOCK, &bearer(""), "1").await, 401, "unauthorized");
    expect(&node.post(STOCK, "Authorization: Basic dTpw\r\n", "1").await, 401, "unauthorized");
    let both = bearer(FEED) + &bearer(FEED);
    expect(&node.post(STOCK, &both, "1").await, 401, "unauthorized");
    for key in [VIEW, OPS] {
        expect(&node.post(STOCK, &bearer(key), "1").await, 403, "forbidden");
    }
    expect(&node.post("/v1/topics/nba", &bearer(FEED), "1").await, 403, "forbidden");
    assert_eq!(node.get(STOCK, "").await.status, 404, "nothing was published");

    let answer = node.post(STOCK, &bearer(FEED), "1").await;
    assert_eq!((answer.status, answer.json()["offset"].clone()), (200, json!(1)));
    let other_case = format!("authorization: bearer   {FEED}\r\n");
    assert_eq!(node.post(STOCK, &other_case, "2").await.status, 200);
    let counted = [
        failures(&node, "missing_key").await,
        failures(&node, "unknown_key").await,
        failures(&node, "no_right").await,
    ];
    assert_eq!(counted, [2.0, 4.0, 3.0]);
}

#[tokio::test]
async fn a_key_that_is_presented_must_be_one() {
    let open = Node::start().await;
    open.publish("a", "1").await;
    expect(&open.post("/v1/topics/a", &bearer(FEED), "1").await, 401, "unauthorized");
    expect(&open.get("/v1/topics/a", &bearer(FEED)).await, 401, "unauthorized");
    assert_eq!(open.get("/v1/topics/a", "Authorization: Basic dTpw\r\n").await.status, 200);

    let node = guarded().await;
    assert_eq!(node.post(STOCK, &bearer(FEED), "1").await.status, 200);
    for key in [FEED, VIEW, OPS, SLOW] {
        assert_eq!(node.get(STOCK, &bearer(key)).await.status, 200);
    }
    expect(&node.get(STOCK, &bearer(WRONG)).await, 401, "unauthorized");
    // Whoever looks after health is asked for nothing.
    assert_eq!(node.get("/healthz", &bearer(WRONG)).await.status, 200);
}

#[tokio::test]
async fn closed_topics_are_read_with_a_key() {
    let node = guarded().await;
    assert_eq!(node.post(CLOSED, &bearer(FEED), "1").await.status, 200);
    for target in [CLOSED.to_owned(), format!("{CLOSED}?history=1")] {
        expect(&node.get(&target, "").await, 401, "unauthorized");
        expect(&node.get(&target, &bearer(FEED)).await, 403, "forbidden");
        let answer = node.get(&target, &bearer(VIEW)).await;
        assert_eq!((answer.status, answer.json()["offset"].clone()), (200, json!(1)));
    }
    let mut raw = node.raw().await;
    raw.write_head(&[&format!("HEAD {CLOSED} HTTP/1.1"), "Host: localhost"]).await;
    assert_eq!(raw.head().await.status, 401);
}

/// What somebody without a key is told does not depend on the key he made up, nor on what there is.
#[tokio::test]
async fn refusals_tell_nothing() {
    let node = guarded().await;
    assert_eq!(node.post(CLOSED, &bearer(FEED), "1").await.status, 200);
    let almost = FEED.replace("feedA", "feedB");
    let mut answers = Vec::new();
    for wrong in [WRONG, "x", &almost, &FEED[..46], "feed"] {
        answers.push(node.post(STOCK, &bearer(wrong), "1").await.body);
        answers.push(node.get(CLOSED, &bearer(wrong)).await.body);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let missing = node.get("/v1/topics/closed.none", "").await.body;
    assert_eq!(node.get(CLOSED, "").await.body, missing);
    // The key of the node names itself and the topic that was asked for, and nothing else.
    let forbidden = node.get("/v1/topics/closed.none", &bearer(FEED)).await.body;
    assert_eq!(node.get(CLOSED, &bearer(FEED)).await.body, forbidden);
    let elsewhere = |name: &str| format!("/v1/topics/nba.{name}");
    let answer = node.post(&elsewhere("LAL"), &bearer(FEED), "1").await;
    let detail = "the key `feed` has the right `publish`, but not for `nba.LAL`";
    assert_eq!(answer.json()["detail"], detail, "{answer:?}");
    assert_eq!(
        node.post(&elsewhere("BOS"), &bearer(FEED), "1").await.text(),
        answer.text().replace("LAL", "BOS")
    );
    let given = format!("Authorization: {FEED}\r\n");
    let answer = node.post(STOCK, &given, "1").await;
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.ends_with("is not `Authorization: Bearer <key>`"), "{detail}");
    assert!(!answer.text().contains(FEED), "{answer:?}");
}

#[tokio::test]
async fn a_body_without_a_key_is_not_read() {
    let node = guarded().await;
    let mut raw = node.raw().await;
    let head = ["POST /v1/publish HTTP/1.1", "Host: localhost", "Content-Length: 1000000"];
    raw.write_head(&head).await;
    let answer = raw.answer().await;
    expect(&answer, 401, "unauthorized");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_batch_is_judged_item_by_item() {
    let node = guarded().await;
    let batch = json!([
        {"topic": "stocks.AAPL", "data": 1},
        {"topic": "nba", "data": 2},
        {"topic": "a b", "data": 3},
        {"topic": "closed.a", "data": 4},
    ])
    .to_string();
    expect(&node.post("/v1/publish", "", &batch).await, 401, "unauthorized");
    expect(&node.post("/v1/publish", &bearer(WRONG), &batch).await, 401, "unauthorized");

    let answer = node.post("/v1/publish", &bearer(FEED), &batch).await;
    assert_eq!(answer.status, 207);
    let results = answer.json()["results"].take();
    let outcome = |result: &Value| match result["error"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None => result["offset"].to_string(),
    };
    let outcomes: Vec<_> = results.as_array().unwrap().iter().map(outcome).collect();
    assert_eq!(outcomes, ["1", "forbidden", "bad_topic", "1"]);
    assert_eq!(results[1]["topic"], "nba");

    let answer = node.post("/v1/publish", &bearer(VIEW), &batch).await;
    assert_eq!(answer.status, 207);
    assert_eq!(node.get("/v1/topics/nba", "").await.status, 404);
}

#[tokio::test]
async fn a_rate_is_kept_in_publications() {
    let node = guarded().await;
    let batch = r#"[{"topic":"a","data":1},{"topic":"a","data":2},{"topic":"a","data":3}]"#;
    // It begins within the rate, so it is taken whole; what it goes beyond has to be paid off.
    assert_eq!(node.post("/v1/publish", &bearer(SLOW), batch).await.status, 200);
    let answer = node.post("/v1/topics/a", &bearer(SLOW), "4").await;
    expect(&answer, 429, "rate_limited");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(seconds, 1);
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    let named = "the key `slow` has used up its rate of 2 per second";
    assert!(detail.starts_with(named), "{detail}");
    assert_eq!(answer.header("connection"), None, "the next request may use the connection");
    expect(&node.post("/v1/publish", &bearer(SLOW), batch).await, 429, "rate_limited");
    assert_eq!(node.get("/v1/topics/a", "").await.json()["offset"], 3);
    assert_eq!(failures(&node, "rate_limited").await, 2.0);
    assert_eq!(node.post(STOCK, &bearer(FEED), "1").await.status, 200, "other keys go on");
    // What cannot be published costs nothing.
    assert_eq!(node.post("/v1/topics/a", &bearer(SLOW), "no json").await.status, 400);

    until("room in the rate", || async {
        node.post("/v1/topics/a", &bearer(SLOW), "4").await.status == 200
    })
    .await;
    assert_eq!(node.get("/v1/topics/a", "").await.json()["offset"], 4);
}
