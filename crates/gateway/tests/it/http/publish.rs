//! Publishing over HTTP: single, in batches, and again with the same key.

use serde_json::{Value, json};

use crate::harness::{Node, Update};

#[tokio::test]
async fn one_payload_reaches_subscribers_byte_for_byte() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    let topics = socket.subscribe(json!(["stocks/eu:SAP@xetra"])).await;
    let payload =
        r#"{"px" : 1.10, "n":12345678901234567890.10, "e":1e400, "s":"\u00e4\ud800", "px":2}"#;
    let answer =
        node.post("/v1/topics/stocks/eu%3ASAP@xetra", "", &format!(" {payload}\r\n")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let epoch = &topics[0]["epoch"];
    assert_eq!(answer.json(), json!({"topic": "stocks/eu:SAP@xetra", "epoch": epoch, "offset": 1}));
    assert_eq!(socket.update().await, Update::new("stocks/eu:SAP@xetra", 1, payload));
}

#[tokio::test]
async fn what_is_no_json_is_not_published() {
    let node = Node::start().await;
    for body in ["", "hello", "{} {}", "01", "\"a\nb\"", "{\"a\":1,}"] {
        let answer = node.post("/v1/topics/a", "", body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_json"), "{body:?}");
    }
    for topic in ["", "a*", "a/../b", "a//b", "%00", "%zz", "a%20b", &"x".repeat(201)] {
        let answer = node.post(&format!("/v1/topics/{topic}"), "", "1").await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_topic"), "{topic:?}");
    }
    let answer = node.post("/v1/topics/a?key=1", "", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_option"));
    assert_eq!(node.metric(r#"tickcast_publications_total{result="accepted"}"#).await, 0.0);
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_answers_item_by_item() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a", "b"])).await;
    let items: Vec<_> = (1..=100)
        .map(|n| json!({"topic": if n % 2 == 0 { "b" } else { "a" }, "data": n}))
        .collect();
    let answer = node.post("/v1/publish", "", &Value::from(items).to_string()).await;
    assert_eq!(answer.status, 200);
    let results = answer.json();
    for n in 1..=100_u64 {
        let result = &results["results"][usize::try_from(n).unwrap() - 1];
        assert_eq!(result["offset"], n.div_ceil(2), "{result}");
    }
    let mut last = [0, 0];
    for _ in 0..100 {
        let update = socket.update().await;
        let is_b = update.topic == "b";
        let last = &mut last[usize::from(is_b)];
        *last += 1;
        assert_eq!(
            update,
            Update::new(&update.topic, *last, &(2 * *last - u64::from(!is_b)).to_string())
        );
    }
}

#[tokio::test]
async fn a_bad_item_keeps_no_good_one_back() {
    let node = Node::start().await;
    let body = r#"[{"topic":"a","data":1},{"topic":"a*","data":2},{"data":3},{"topic":"a","data":4,"key":""},{"topic":"a","data":5}]"#;
    let answer = node.post("/v1/publish", "", body).await;
    assert_eq!(answer.status, 207);
    let results = answer.json()["results"].clone();
    let codes: Vec<_> = (0..5).map(|index| results[index]["error"]["code"].as_str()).collect();
    assert_eq!(codes, [None, Some("bad_topic"), Some("bad_command"), Some("bad_key"), None]);
    assert_eq!((&results[1]["topic"], &results[2]["topic"]), (&json!("a*"), &Value::Null));
    assert_eq!((&results[0]["offset"], &results[4]["offset"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn lines_are_a_batch_too() {
    let node = Node::start().await;
    let body = "{\"topic\":\"a\",\"data\":1.0}\r\n\n  {\"topic\":\"a\",\"data\":\"two\"}\n";
    let answer = node.post("/v1/publish", "Content-Type: application/x-ndjson\r\n", body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["results"].as_array().map(Vec::len), Some(2));
    let history = node.get("/v1/topics/a?history=2", "").await.json();
    assert_eq!(history["publications"][1], json!({"offset": 2, "data": "two"}));

    let answer = node.post("/v1/publish", "", "{\"topic\":\"a\",\"data\":1}\nnonsense\n").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_json"));
    assert!(answer.text().contains("line 2"), "{}", answer.text());
    assert_eq!(
        node.get("/v1/topics/a", "").await.json()["offset"],
        2,
        "nothing of it was published"
    );
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer_and_one_delivery() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a", "b"])).await;
    let key = "Idempotency-Key: order-7\r\n";
    let first = node.post("/v1/topics/a", key, "1").await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
    for _ in 0..3 {
        let again = node.post("/v1/topics/a", key, "1").await;
        assert_eq!((again.status, &again.body), (200, &first.body));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    let conflict = node.post("/v1/topics/a", key, "2").await;
    assert_eq!((conflict.status, conflict.problem().as_str()), (409, "idempotency_conflict"));
    // The key belongs to its topic.
    assert_eq!(node.post("/v1/topics/b", key, "1").await.json()["offset"], 1);
    node.publish("a", "2").await;
    let offsets = [socket.update().await, socket.update().await, socket.update().await];
    assert_eq!(
        offsets.map(|update| (update.topic, update.offset)),
        [("a", 1), ("b", 1), ("a", 2)].map(|(topic, offset)| (topic.to_owned(), offset))
    );
    assert_eq!(node.metric(r#"tickcast_publications_total{result="duplicate"}"#).await, 3.0);
    assert_eq!(
        node.metric(r#"tickcast_publications_total{result="idempotency_conflict"}"#).await,
        1.0
    );
}

#[tokio::test]
async fn the_same_key_at_the_same_time_is_one_publication() {
    let node = Node::start().await;
    let again = || async {
        node.post("/v1/topics/a", "Idempotency-Key: k\r\n", "1").await.json()["offset"].clone()
    };
    let (a, b, c, d) = tokio::join!(again(), again(), again(), again());
    assert_eq!([a, b, c, d], [1, 1, 1, 1].map(Value::from));
}

#[tokio::test]
async fn a_batch_can_be_repeated_as_it_is() {
    let node = Node::start().await;
    let batch =
        r#"[{"topic":"a","data":1},{"topic":"a","data":2,"key":"own"},{"topic":"b","data":3}]"#;
    let key = "Idempotency-Key: batch-1\r\n";
    let first = node.post("/v1/publish", key, batch).await;
    let again = node.post("/v1/publish", key, batch).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    // Items are named by their place, and an item's own key wins.
    let single = node.post("/v1/topics/b", "Idempotency-Key: batch-1/2\r\n", "3").await;
    assert_eq!(single.header("idempotency-replayed"), Some("true"));
    let single = node.post("/v1/topics/a", "Idempotency-Key: own\r\n", "2").await;
    assert_eq!(
        (&single.json()["offset"], single.header("idempotency-replayed")),
        (&json!(2), Some("true"))
    );

    let answer = node.post("/v1/topics/a", "Idempotency-Key: a b\r\n", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_key"));
}

#[tokio::test]
async fn bodies_have_bounds() {
    let node = Node::with(|config| config.limits.batch_items = 10).await;
    let largest = format!("\"{}\"", "x".repeat(64 * 1024 - 2));
    assert_eq!(node.post("/v1/topics/a", "", &largest).await.status, 200);
    let answer = node.post("/v1/topics/a", "", &format!("{largest} ")).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "payload_too_large"));
    assert!(answer.text().contains("65536"), "the limit is named: {}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"));

    let items = |count| Value::from(vec![json!({"topic": "a", "data": 1}); count]).to_string();
    assert_eq!(node.post("/v1/publish", "", &items(10)).await.status, 200);
    let answer = node.post("/v1/publish", "", &items(11)).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "batch_too_large"));
    let answer = node.post("/v1/publish", "", &" ".repeat(1 << 20 | 1)).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "batch_too_large"));
    assert_eq!(node.get("/v1/topics/a", "").await.json()["offset"], 11);
}
