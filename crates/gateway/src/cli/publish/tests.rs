//! `tickcast pub` against a small gateway that keeps what it is given and misbehaves on request.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;
use crate::cli::{Cli, Command};

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// It does not.
    None,
    /// 503 before anything was done.
    Unavailable,
    /// Everything was done, and the connection breaks before the answer.
    AnswerLost,
    /// The connection is closed after the answer.
    Close,
    /// 429, with a `Retry-After` of so many seconds.
    RateLimited(u64),
    /// Of every topic, only the items before this place are accepted.
    OnlyFirst(usize),
    /// An item with this payload is refused for good.
    Refuse(&'static str),
    /// Batches of more than that many items are refused.
    ItemsMax(usize),
}

#[derive(Debug, Default)]
struct Kept {
    /// Topic to payloads, in order.
    payloads: HashMap<String, Vec<String>>,
    /// Topic and key to offset.
    keys: HashMap<(String, String), usize>,
    requests: usize,
    items_in_largest_request: usize,
    /// What came as `Authorization` last.
    authorization: Option<String>,
}

impl Kept {
    /// Publishes once per key; the answer is the offset.
    fn publish(&mut self, topic: &str, key: &str, data: &str) -> usize {
        let payloads = self.payloads.entry(topic.to_owned()).or_default();
        *self.keys.entry((topic.to_owned(), key.to_owned())).or_insert_with(|| {
            payloads.push(data.to_owned());
            payloads.len()
        })
    }
}

/// The gateway: faults are used up one per request, the last one stays.
#[derive(Clone)]
struct Gateway {
    kept: Arc<Mutex<Kept>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

type Answered = Result<Response<Full<Bytes>>, Box<dyn Error + Send + Sync>>;

fn answer(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap()
}

impl Gateway {
    async fn start(faults: &[Fault]) -> (Self, Target) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let target = Target::new(&url, None, None).unwrap();
        let faults = Arc::new(Mutex::new(faults.iter().copied().collect()));
        let gateway = Self { kept: Arc::default(), faults };
        let serving = gateway.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let gateway = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| gateway.clone().handle(request));
                    // Faults break connections; that is what they are for.
                    drop(
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                    );
                });
            }
        });
        (gateway, target)
    }

    fn fault(&self) -> Fault {
        let mut faults = self.faults.lock();
        if faults.len() > 1 { faults.pop_front() } else { faults.front().copied() }
            .unwrap_or(Fault::None)
    }

    async fn handle(self, request: Request<Incoming>) -> Answered {
        let fault = self.fault();
        self.kept.lock().requests += 1;
        if fault == Fault::Unavailable {
            let problem = r#"{"code":"broker_unavailable","detail":"no broker"}"#.to_owned();
            return Ok(answer(StatusCode::SERVICE_UNAVAILABLE, problem));
        }
        if let Fault::RateLimited(seconds) = fault {
            let problem = r#"{"code":"rate_limited","detail":"so fast"}"#.to_owned();
            let mut answer = answer(StatusCode::TOO_MANY_REQUESTS, problem);
            drop(answer.headers_mut().insert("retry-after", seconds.into()));
            return Ok(answer);
        }
        let path = request.uri().path().to_owned();
        let authorization = request.headers().get("authorization");
        self.kept.lock().authorization =
            authorization.map(|bearer| bearer.to_str().unwrap().to_owned());
        let key =
            request.headers().get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await?.to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let mut answer = match path.strip_prefix("/v1/topics/") {
            Some(topic) => self.single(topic, &key.unwrap(), &body),
            None => self.batch(&body, fault),
        };
        match fault {
            Fault::AnswerLost => return Err("lost".into()),
            Fault::Close => {
                drop(answer.headers_mut().insert("connection", "close".parse().unwrap()));
            }
            _ => {}
        }
        Ok(answer)
    }

    fn single(&self, topic: &str, key: &str, body: &str) -> Response<Full<Bytes>> {
        let offset = self.kept.lock().publish(topic, key, body);
        answer(StatusCode::OK, format!(r#"{{"topic":"{topic}","epoch":"k3f9","offset":{offset}}}"#))
    }

    fn batch(&self, body: &str, fault: Fault) -> Response<Full<Bytes>> {
        let mut kept = self.kept.lock();
        let count = body.lines().count();
        if matches!(fault, Fault::ItemsMax(max) if count > max) {
            return answer(
                StatusCode::PAYLOAD_TOO_LARGE,
                r#"{"code":"batch_too_large"}"#.to_owned(),
            );
        }
        kept.items_in_largest_request = kept.items_in_largest_request.max(count);
        let mut places = HashMap::<String, usize>::new();
        let results = body.lines().map(|line| {
            let item: HashMap<&str, &RawValue> = serde_json::from_str(line).unwrap();
            let text = |name: &str| serde_json::from_str::<String>(item[name].get()).unwrap();
            let (topic, key, data) = (text("topic"), text("key"), item["data"].get());
            let place = places.entry(topic.clone()).or_default();
            *place += 1;
            let error = |code: &str| {
                format!(r#"{{"topic":"{topic}","error":{{"code":"{code}","detail":"so"}}}}"#)
            };
            match fault {
                Fault::OnlyFirst(first) if *place > first => error("outcome_unknown"),
                Fault::Refuse(payload) if payload == data => error("payload_too_large"),
                _ => {
                    let offset = kept.publish(&topic, &key, data);
                    format!(r#"{{"topic":"{topic}","epoch":"k3f9","offset":{offset}}}"#)
                }
            }
        });
        let results: Vec<_> = results.collect();
        answer(StatusCode::MULTI_STATUS, format!(r#"{{"results":[{}]}}"#, results.join(",")))
    }
}

/// A place for results that can be read afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a stream; the results are the lines that `--json` prints.
async fn stream(line: &str, input: &str, target: &Target) -> (Result<String, String>, Vec<String>) {
    let Command::Pub(args) = parse(line) else { panic!("{line}") };
    let format = match args.topic {
        Some(topic) => Format::Payloads { topic, string: args.string },
        None => Format::Items,
    };
    let out = Shared::default();
    let results = Some(Box::new(out.clone()) as Box<dyn Write + Send>);
    let stream = Stream { format, rate: args.rate, in_flight: args.in_flight, results };
    let input = Box::new(Cursor::new(input.as_bytes().to_vec()));
    let outcome = stream.run(input, target).await.map_err(|failure| failure.to_string());
    let text = String::from_utf8(out.0.lock().clone()).unwrap();
    (outcome, text.lines().map(str::to_owned).collect())
}

fn parse(line: &str) -> Command {
    use clap::Parser;
    Cli::parse_from(line.split_whitespace()).command()
}

async fn run_single(line: &str, payload: &str, target: &Target) -> Result<String, Failure> {
    let Command::Pub(args) = parse(line) else { panic!("{line}") };
    let topic = args.topic.clone().unwrap();
    single(&args, &topic, payload, target).await
}

#[tokio::test]
async fn one_payload_travels_as_it_is() {
    let (gateway, target) =
        Gateway::start(&[Fault::Unavailable, Fault::AnswerLost, Fault::None]).await;
    let payload = r#"{"px": 1.10, "big": 12345678901234567890}"#;
    let said = run_single("tickcast pub stocks.AAPL x --idempotency-key k", payload, &target)
        .await
        .unwrap();
    assert_eq!(said, "published stocks.AAPL at offset 1 of epoch k3f9");
    assert_eq!(gateway.kept.lock().payloads["stocks.AAPL"], [payload]);
    assert_eq!(gateway.kept.lock().requests, 3);

    let said =
        run_single("tickcast pub stocks.AAPL x --json --string", "up", &target).await.unwrap();
    assert_eq!(said, r#"{"topic":"stocks.AAPL","epoch":"k3f9","offset":2}"#);
    assert_eq!(gateway.kept.lock().payloads["stocks.AAPL"][1], "\"up\"");

    let failure = run_single("tickcast pub a x", "up", &target).await.unwrap_err();
    assert!(matches!(&failure, Failure::Usage(text) if text.contains("--string")), "{failure}");
    let failure =
        run_single("tickcast pub a x --idempotency-key \u{e4}", "1", &target).await.unwrap_err();
    assert!(matches!(failure, Failure::Usage(_)), "{failure}");
}

#[tokio::test]
async fn the_key_is_presented() {
    let (gateway, target) = Gateway::start(&[]).await;
    let line = format!("tickcast pub a 1 --key tck_secret --url {target}");
    let Command::Pub(args) = parse(&line) else { panic!("{line}") };
    let target = args.client.target().unwrap();
    run_single("tickcast pub a x", "1", &target).await.unwrap();
    assert_eq!(gateway.kept.lock().authorization.as_deref(), Some("Bearer tck_secret"));
}

#[tokio::test]
async fn the_rate_of_a_key_is_waited_for_however_often_it_is_hit() {
    let faults = [&[Fault::RateLimited(0); 20][..], &[Fault::RateLimited(1), Fault::None]].concat();
    let (gateway, target) = Gateway::start(&faults).await;
    let started = Instant::now();
    run_single("tickcast pub a x", "1", &target).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(gateway.kept.lock().requests, 22);

    let (_gateway, target) = Gateway::start(&[Fault::RateLimited(1000)]).await;
    let failure = run_single("tickcast pub a x", "1", &target).await.unwrap_err().to_string();
    assert!(failure.contains("rate_limited") && failure.contains("--rate"), "{failure}");
}

#[tokio::test]
async fn faults_neither_lose_nor_repeat_nor_reorder() {
    let faults = [
        Fault::None,
        Fault::AnswerLost,
        Fault::Close,
        Fault::Unavailable,
        Fault::OnlyFirst(3),
        Fault::AnswerLost,
        Fault::OnlyFirst(0),
        Fault::None,
    ];
    let (gateway, target) = Gateway::start(&faults).await;
    let topics = ["a", "b", "c", "d", "e", "f", "g"];
    let lines: Vec<_> = (0..5000)
        .map(|number| {
            format!("{{\"topic\":\"{}\",\"data\":{number}.0}}\n", topics[number % topics.len()])
        })
        .collect();
    let (outcome, results) =
        stream("tickcast pub --file x --in-flight 3", &lines.concat(), &target).await;
    assert!(outcome.unwrap().starts_with("published 5,000 in "));
    assert_eq!(results.len(), 5000);
    let kept = gateway.kept.lock();
    for (at, topic) in topics.iter().enumerate() {
        let expected = (at..5000).step_by(topics.len()).map(|number| format!("{number}.0"));
        assert_eq!(kept.payloads[*topic], expected.collect::<Vec<_>>(), "{topic}");
        // Results of a topic come in its order as well.
        let offsets = results.iter().filter(|result| result.contains(&format!("\"{topic}\"")));
        let offsets: Vec<_> =
            offsets.map(|result| result.rsplit(':').next().unwrap().to_owned()).collect();
        let rising = (1..=offsets.len()).map(|offset| format!("{offset}}}"));
        assert_eq!(offsets, rising.collect::<Vec<_>>(), "{topic}");
    }
}

#[tokio::test]
async fn batches_fill_up_while_one_is_in_flight() {
    let (gateway, target) = Gateway::start(&[]).await;
    let input: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let (outcome, results) = stream("tickcast pub a", &input, &target).await;
    outcome.unwrap();
    let kept = gateway.kept.lock();
    assert_eq!((results.len(), kept.payloads["a"].len()), (20_000, 20_000));
    assert!(kept.requests < 2000, "{} requests for 20,000 lines", kept.requests);
    assert!(kept.items_in_largest_request <= 1000, "{}", kept.items_in_largest_request);
}

#[tokio::test]
async fn a_gateway_with_small_batches_gets_small_batches() {
    let (gateway, target) = Gateway::start(&[Fault::ItemsMax(10)]).await;
    let input: String = (0..500).map(|number| format!("{number}\n")).collect();
    stream("tickcast pub a", &input, &target).await.0.unwrap();
    let kept = gateway.kept.lock();
    assert_eq!(kept.payloads["a"].len(), 500);
    assert!(kept.items_in_largest_request <= 10);
}

#[tokio::test]
async fn a_bad_line_is_named_and_what_came_before_is_published() {
    let check = async |line: &str, input: &str, published: usize, expected: &str| {
        let (gateway, target) = Gateway::start(&[]).await;
        let (outcome, _) = stream(line, input, &target).await;
        assert!(outcome.as_ref().unwrap_err().starts_with(expected), "{outcome:?}");
        assert_eq!(gateway.kept.lock().payloads.get("a").map_or(0, Vec::len), published, "{input}");
    };
    check(
        "tickcast pub a",
        "1\n\n2\r\nup\n3\n",
        2,
        "line 4: not JSON: expected value at column 1; --string",
    )
    .await;
    check("tickcast pub a", "1 2\n", 0, "line 1: not JSON: trailing characters at column 3").await;
    check(
        "tickcast pub --file x",
        "{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"a\"}\n",
        1,
        "line 2: not an item: missing",
    )
    .await;
    check(
        "tickcast pub --file x",
        "{\"topic\":\"a*\",\"data\":1}",
        0,
        "line 1: '*' at byte 1 is not allowed",
    )
    .await;
    check(
        "tickcast pub --file x",
        "{\"topic\":\"a\",\"data\":1,\"tpoic\":2}",
        0,
        "line 1: not an item: unknown field",
    )
    .await;
    let long = format!("1\n\"{}\"\n", "x".repeat(1 << 20));
    check("tickcast pub a", &long, 1, "line 2: longer than 1048576 bytes").await;
}

#[tokio::test]
async fn a_refused_line_is_named() {
    let (_gateway, target) = Gateway::start(&[Fault::Refuse("700")]).await;
    let input: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    let (outcome, _) = stream("tickcast pub a", &input, &target).await;
    let text = outcome.unwrap_err();
    assert!(text.starts_with("line 700 was not published: payload_too_large; so ("), "{text}");
}

#[tokio::test]
async fn lines_as_text_and_keys_of_their_own() {
    let (gateway, target) = Gateway::start(&[]).await;
    let (outcome, _) = stream("tickcast pub a --string", "one \"1\"\n\ntwo", &target).await;
    outcome.unwrap();
    assert_eq!(gateway.kept.lock().payloads["a"], [r#""one \"1\"""#, r#""""#, r#""two""#]);
    let item = "{\"topic\":\"b\",\"data\":1,\"key\":\"k\\\"1\"}\n";
    stream("tickcast pub --file x", &item.repeat(2), &target).await.0.unwrap();
    assert_eq!(gateway.kept.lock().payloads["b"], ["1"], "the same key twice is one publication");
}

#[tokio::test]
async fn no_gateway_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}").parse().unwrap();
    let target = Target::new(&url, None, None).unwrap();
    let expected =
        format!("cannot reach http://{address}: connection refused; is a gateway running there?");
    let failure = run_single("tickcast pub a x", "1", &target).await.unwrap_err().to_string();
    assert!(failure.starts_with(&expected), "{failure}");
    let (outcome, _) = stream("tickcast pub a", "1\n2\n", &target).await;
    assert!(outcome.as_ref().unwrap_err().contains(&expected), "{outcome:?}");
}

#[tokio::test]
async fn the_rate_is_kept() {
    let (_gateway, target) = Gateway::start(&[]).await;
    let started = Instant::now();
    let (outcome, results) = stream("tickcast pub a --rate 500", &"1\n".repeat(51), &target).await;
    outcome.unwrap();
    assert_eq!(results.len(), 51);
    assert!(started.elapsed() >= Duration::from_millis(100), "{:?}", started.elapsed());
}
