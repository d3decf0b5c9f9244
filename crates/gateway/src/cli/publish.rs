//! `tickcast pub`: one payload from the command line, or a stream of lines.
//!
//! A single payload is one `POST /v1/topics/{topic}`; a stream is batches of `POST /v1/publish`. Payload bytes travel as
//! they were given. Every publication has an idempotency key, so that trying again can never publish twice.

mod input;
mod lane;
mod stream;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use rand::RngExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickcast_protocol::Topic;
use tickcast_protocol::limits::{self, KEY_BYTES_MAX};
use tokio::time::sleep;

use super::client::{Answer, Backoff, HttpConnection, Target, run_id};
use super::{Failure, PublishArgs, runtime};
use crate::demo::{Feed, Lines};
use input::Format;
use stream::Stream;

/// Attempts for one request. With the back-off below the last one is made half a minute after the first at the latest:
/// long enough for a broker to fail over, and far below the 300 s for which idempotency keys are kept.
const ATTEMPTS_MAX: u32 = 10;
const BACKOFF_BASE: Duration = Duration::from_millis(200);
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// A `Retry-After` beyond this is cut, or ten of them would outlive the idempotency keys.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// Time that one request may wait for the rate of its key, also below the life of idempotency keys.
const RATE_WAIT_MAX: Duration = Duration::from_secs(240);
/// The shortest of these waits.
const RATE_WAIT_MIN: Duration = Duration::from_millis(50);
/// The share of a wait for the rate that is added at random, so that the lanes do not come back in the same instant.
const RATE_JITTER: f64 = 0.1;

/// Room for long lines without many system calls.
const INPUT_BUFFER_BYTES: usize = 64 << 10;

/// The demo feed that `tickcast dev` has unless it is told otherwise.
const DEMO_SEED: u64 = 0;

/// Runs the verb.
pub(super) fn run(args: PublishArgs) -> Result<(), Failure> {
    let target = &args.client.target()?;
    let runtime = runtime()?;
    let (mut out, mut messages) = (io::stdout(), io::stderr());
    if let (Some(topic), Some(payload)) = (&args.topic, &args.payload) {
        let text = runtime.block_on(single(&args, topic, payload, target))?;
        // A single result is all there is to say, so it goes where it was asked for.
        return if args.json { say(&mut out, &text) } else { say(&mut messages, &text) };
    }
    let input = match args.demo {
        true => {
            Box::new(BufReader::new(Lines::new(Feed::new(DEMO_SEED)))) as Box<dyn BufRead + Send>
        }
        false => open(args.file.as_deref())?,
    };
    let format = match args.topic {
        Some(topic) => Format::Payloads { topic, string: args.string },
        None => Format::Items,
    };
    let results = args.json.then(|| Box::new(BufWriter::new(out)) as Box<dyn Write + Send>);
    let stream = Stream { format, rate: args.rate, in_flight: args.in_flight, results };
    let summary = runtime.block_on(stream.run(input, target))?;
    if args.json { Ok(()) } else { say(&mut messages, &summary) }
}

/// Writes a line; a reader that went away does not make the publication a failure.
fn say(to: &mut impl Write, text: &str) -> Result<(), Failure> {
    match writeln!(to, "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("published, but the result cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

fn open(file: Option<&Path>) -> Result<Box<dyn BufRead + Send>, Failure> {
    match file.filter(|file| *file != Path::new("-")) {
        Some(path) => {
            let file = File::open(path);
            let file = file.map_err(|error| {
                Failure::Failed(format!("cannot read {}: {error}", path.display()))
            })?;
            Ok(Box::new(BufReader::with_capacity(INPUT_BUFFER_BYTES, file)))
        }
        None => {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                say(&mut io::stderr(), "reading one payload per line; Ctrl-D ends")?;
            }
            Ok(Box::new(BufReader::with_capacity(INPUT_BUFFER_BYTES, stdin)))
        }
    }
}

/// The answer to a single publication.
#[derive(Deserialize)]
struct Published<'a> {
    topic: &'a str,
    epoch: &'a str,
    offset: u64,
}

/// Publishes one payload and says what became of it.
async fn single(
    args: &PublishArgs,
    topic: &Topic,
    payload: &str,
    target: &Target,
) -> Result<String, Failure> {
    let body = if args.string {
        serde_json::to_string(payload).map_err(|error| Failure::Usage(error.to_string()))?
    } else {
        let json: &RawValue = serde_json::from_str(payload).map_err(|error| {
            Failure::Usage(format!(
                "the payload is not JSON: {error}; --string publishes it as a JSON string"
            ))
        })?;
        json.get().to_owned()
    };
    let key = idempotency_key(args.idempotency_key.as_deref())?;
    let request = target.request(Method::POST, &format!("/v1/topics/{topic}"), Bytes::from(body));
    let mut request = request.map_err(|error| Failure::Failed(error.to_string()))?;
    request.headers_mut().insert(HeaderName::from_static("idempotency-key"), key);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));

    let mut connection = HttpConnection::new(target);
    let answer =
        send(&mut connection, &mut Retries::new(), &request).await.map_err(Failure::Failed)?;
    if !answer.status.is_success() {
        return Err(Failure::Failed(format!("not published: {}", answer.problem())));
    }
    let text = String::from_utf8_lossy(&answer.body).trim().to_owned();
    match serde_json::from_str::<Published<'_>>(&text) {
        Ok(_) if args.json => Ok(text),
        Ok(Published { topic, epoch, offset }) => {
            Ok(format!("published {topic} at offset {offset} of epoch {epoch}"))
        }
        Err(error) => Err(Failure::Failed(format!("the answer is not one of a gateway: {error}"))),
    }
}

/// The key that was given, or a random one.
fn idempotency_key(given: Option<&str>) -> Result<HeaderValue, Failure> {
    let key = given.map_or_else(run_id, str::to_owned);
    let value = HeaderValue::from_str(&key).ok().filter(|_| limits::is_key(&key));
    value.ok_or_else(|| {
        Failure::Usage(format!(
            "--idempotency-key takes 1 to {KEY_BYTES_MAX} visible ASCII characters"
        ))
    })
}

/// How often and how patiently something is tried again.
struct Retries {
    backoff: Backoff,
    /// Has the gateway ever answered? Before that, no connection is a wrong address rather than an outage.
    reached: bool,
    /// How long this request has waited for the rate of its key.
    rate_wait: Duration,
}

impl Retries {
    fn new() -> Self {
        let backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
        Self { backoff, reached: false, rate_wait: Duration::ZERO }
    }

    /// Waits before the next attempt, or gives up with the reason of the last one.
    async fn pause(&mut self, why: String, retry_after: Option<Duration>) -> Result<(), String> {
        let wait = self.backoff.next();
        if self.backoff.attempts() >= ATTEMPTS_MAX {
            return Err(format!("{why}; gave up after {ATTEMPTS_MAX} attempts"));
        }
        // The jitter comes on top, or all publishers would come back in the same instant.
        sleep(wait + retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)).await;
        Ok(())
    }

    /// Waits until the key's rate allows more. Nothing is wrong, so this is no attempt that failed.
    async fn pause_for_rate(
        &mut self,
        why: String,
        retry_after: Option<Duration>,
    ) -> Result<(), String> {
        let wait = retry_after.unwrap_or_default().max(RATE_WAIT_MIN);
        let wait = wait + wait.mul_f64(RATE_JITTER * rand::rng().random::<f64>());
        self.rate_wait += wait;
        if self.rate_wait > RATE_WAIT_MAX {
            let seconds = RATE_WAIT_MAX.as_secs();
            return Err(format!(
                "{why}; not within {seconds} s; --rate publishes more slowly from the start"
            ));
        }
        sleep(wait).await;
        Ok(())
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.rate_wait = Duration::ZERO;
    }
}

/// Sends a request until there is an answer other than "try again". The error is the reason of the last attempt.
async fn send(
    connection: &mut HttpConnection,
    retries: &mut Retries,
    request: &Request<Full<Bytes>>,
) -> Result<Answer, String> {
    loop {
        let (why, retry_after) = match connection.send(request.clone()).await {
            Ok(answer) => {
                retries.reached = true;
                if answer.status == StatusCode::TOO_MANY_REQUESTS {
                    retries.pause_for_rate(answer.problem(), answer.retry_after).await?;
                    continue;
                }
                if !answer.is_temporary() {
                    return Ok(answer);
                }
                (answer.problem(), answer.retry_after)
            }
            Err(error) if error.is_before_asking() && !retries.reached => {
                return Err(error.to_string());
            }
            Err(error) => (error.to_string(), None),
        };
        retries.pause(why, retry_after).await?;
    }
}
