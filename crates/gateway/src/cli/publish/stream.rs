//! Publishes a stream of lines: a thread reads, a task per lane sends.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::input::{self, BadLine, Format};
use super::lane::{Batch, Lanes};
use super::{Retries, send};
use crate::cli::Failure;
use crate::cli::client::{HttpConnection, Target, printable, run_id, thousands};

/// A run of `tickcast pub` over many lines.
pub(super) struct Stream {
    /// What a line is.
    pub(super) format: Format,
    /// Publications per second at most.
    pub(super) rate: Option<f64>,
    /// The number of lanes.
    pub(super) in_flight: u16,
    /// Where the result of each publication goes, if anywhere.
    pub(super) results: Option<Box<dyn Write + Send>>,
}

/// A line that the gateway did not take.
#[derive(Debug)]
struct Refused {
    line: u64,
    why: String,
}

/// What became of the publications so far, shared by the lanes.
struct Outcome {
    accepted: AtomicU64,
    /// `None` once nobody reads it any more.
    results: Mutex<Option<Box<dyn Write + Send>>>,
}

impl Stream {
    /// Publishes all lines and returns a summary.
    pub(super) async fn run(
        self,
        input: Box<dyn BufRead + Send>,
        target: &Target,
    ) -> Result<String, Failure> {
        let started = Instant::now();
        let lanes = Arc::new(Lanes::new(self.in_flight));
        let outcome =
            Arc::new(Outcome { accepted: AtomicU64::new(0), results: Mutex::new(self.results) });

        let (read, reader) = oneshot::channel();
        let for_reader = Arc::clone(&lanes);
        let (format, rate) = (self.format, self.rate);
        let thread = std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            let end = input::read(input, &format, rate, &run_id(), &for_reader);
            for_reader.close();
            // Nobody listens if a lane has failed before the input ended.
            drop(read.send(end));
        });
        if let Err(error) = thread {
            return Err(Failure::Failed(format!("cannot start a thread: {error}")));
        }

        let refused = run_lanes(&lanes, &outcome, target).await;
        let accepted = outcome.accepted.load(Ordering::Relaxed);
        outcome.flush();
        if let Some(Refused { line, why }) = refused {
            return Err(failure(&format!("line {line} was not published: {why}"), accepted));
        }
        // Without a failure the lanes end only after the reader has closed them, so its end is known.
        match reader.await {
            Ok(Err(BadLine { number, why })) => {
                Err(failure(&format!("line {number}: {why}"), accepted))
            }
            _ => Ok(summary(accepted, started)),
        }
    }
}

fn failure(what: &str, accepted: u64) -> Failure {
    Failure::Failed(format!("{what} ({} published)", thousands(accepted)))
}

fn summary(accepted: u64, started: Instant) -> String {
    let seconds = started.elapsed().as_secs_f64();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people; the cast saturates"
    )]
    let rate = (accepted as f64 / seconds.max(1e-6)) as u64;
    format!("published {} in {seconds:.2} s ({}/s)", thousands(accepted), thousands(rate))
}

/// Runs all lanes to their end. The first line that was refused, if any was.
async fn run_lanes(lanes: &Arc<Lanes>, outcome: &Arc<Outcome>, target: &Target) -> Option<Refused> {
    let mut tasks = JoinSet::new();
    for number in 0..lanes.count() {
        let connection = HttpConnection::new(target);
        let (target, outcome) = (target.clone(), Arc::clone(outcome));
        let mut sender =
            Sender { target, connection, retries: Retries::new(), items_max: usize::MAX, outcome };
        let lanes = Arc::clone(lanes);
        tasks.spawn(async move {
            while let Some(batch) = lanes.take(number).await {
                if let Err(refused) = sender.deliver(batch).await {
                    // The others send what they have and end; the reader stops.
                    lanes.close();
                    return Some(refused);
                }
            }
            None
        });
    }
    let ends = tasks.join_all().await;
    ends.into_iter().flatten().min_by_key(|refused| refused.line)
}

/// The sending end of a lane.
struct Sender {
    target: Target,
    connection: HttpConnection,
    retries: Retries,
    /// Items per request; learned, when a gateway takes smaller batches than the default.
    items_max: usize,
    outcome: Arc<Outcome>,
}

/// The answer to a batch.
#[derive(Deserialize)]
struct BatchAnswer<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

/// The part of an item's result that says whether it was accepted.
#[derive(Deserialize)]
struct ItemAnswer {
    error: Option<ItemError>,
}

#[derive(Deserialize)]
struct ItemError {
    code: String,
    #[serde(default)]
    detail: String,
}

impl ItemError {
    fn is_temporary(&self) -> bool {
        let temporary = ["unavailable", "broker_unavailable", "outcome_unknown", "broker_full"];
        temporary.contains(&self.code.as_str())
    }

    fn text(&self) -> String {
        printable(&format!("{}; {}", self.code, self.detail))
    }
}

impl Sender {
    /// Sends a batch, and what of it must be tried again, until all of it was accepted.
    async fn deliver(&mut self, mut batch: Batch) -> Result<(), Refused> {
        while batch.len() > 0 {
            let count = batch.len().min(self.items_max);
            let line = batch.first_line();
            let refused = |why| Refused { line, why };

            let request = self.target.request(Method::POST, "/v1/publish", batch.body(count));
            let mut request = request.map_err(|error| refused(error.to_string()))?;
            let ndjson = HeaderValue::from_static("application/x-ndjson");
            request.headers_mut().insert(CONTENT_TYPE, ndjson);
            let answer = send(&mut self.connection, &mut self.retries, &request).await;
            let answer = answer.map_err(refused)?;
            match answer.status {
                StatusCode::OK | StatusCode::MULTI_STATUS => {}
                StatusCode::PAYLOAD_TOO_LARGE if count > 1 => {
                    self.items_max = count / 2;
                    continue;
                }
                _ => return Err(refused(answer.problem())),
            }
            match self.settle(&mut batch, count, &answer.body)? {
                Some(again) => self
                    .retries
                    .pause(again, answer.retry_after)
                    .await
                    .map_err(|why| Refused { line: batch.first_line(), why })?,
                None => self.retries.succeeded(),
            }
        }
        Ok(())
    }

    /// Takes the accepted items out of the batch. If some must be tried again, the reason of the first.
    fn settle(
        &self,
        batch: &mut Batch,
        count: usize,
        body: &[u8],
    ) -> Result<Option<String>, Refused> {
        let unreadable = |why: String| Refused {
            line: batch.first_line(),
            why: format!("the answer is not one of a gateway: {why}"),
        };
        let answer: BatchAnswer<'_> =
            serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))?;
        if answer.results.len() != count {
            return Err(unreadable(format!("{} results for {count} items", answer.results.len())));
        }
        let (mut again, mut refused) = (None, None);
        let mut accepted = vec![false; count];
        for (at, result) in answer.results.iter().enumerate() {
            let item: ItemAnswer = serde_json::from_str(result.get())
                .map_err(|error| unreadable(error.to_string()))?;
            match item.error {
                None => {
                    accepted[at] = true;
                    self.outcome.accepted(result.get());
                }
                Some(error) if error.is_temporary() => again = again.or_else(|| Some(error.text())),
                Some(error) => {
                    refused = refused
                        .or_else(|| Some(Refused { line: batch.line(at), why: error.text() }));
                }
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        self.outcome.flush();
        batch.drop_done(|at| accepted.get(at).copied().unwrap_or(false));
        Ok(again)
    }
}

impl Outcome {
    fn accepted(&self, result: &str) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let mut results = self.results.lock();
        if let Some(out) = results.as_mut() {
            // A reader that went away wants no more results; the publications go on.
            if writeln!(out, "{result}").is_err() {
                *results = None;
            }
        }
    }

    fn flush(&self) {
        if let Some(out) = self.results.lock().as_mut() {
            drop(out.flush());
        }
    }
}
