//! Connections that are turned away before anything is done for them: one answer, and the end.

use std::fmt::{self, Write as _};
use std::io::{self, Read as _, Write as _};
use std::net::{self, Shutdown};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Body as _;
use rand::RngExt as _;
use tickcast_protocol::ErrorCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::api::Answer;
use crate::api::problem::Problem;
use crate::metrics::{Metrics, RejectReason};

/// Connections that are answered at once: one for so many that are served, within these bounds. Each is an open file.
const ANSWERING: std::ops::RangeInclusive<usize> = 8..=64;
const SERVED_PER_ANSWERING: usize = 16;

/// Time for a client to take its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Seconds after which clients are told to come back. Each gets its own number, so that they do not come back at once.
const RETRY_AFTER: std::ops::RangeInclusive<u32> = 1..=10;

/// What a client has sent and nobody will read: so much is taken from its socket, in pieces of this size.
const UNREAD_BYTES: usize = 4096;
const UNREAD_PIECES_MAX: usize = 16;

/// Why a connection is turned away before its request is read. Who has been read has an answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As many are open as may be.
    Limit,
    /// As many wait as may.
    Queue,
    /// It waited when the node began to drain.
    Draining,
}

impl Refusal {
    /// What it counts as.
    pub(super) fn reason(self) -> RejectReason {
        match self {
            Self::Limit => RejectReason::Limit,
            Self::Queue => RejectReason::Queue,
            Self::Draining => RejectReason::Draining,
        }
    }
}

/// Turns connections away. At most so many at once get an answer; the others are just closed.
#[derive(Debug)]
pub(super) struct Refusals {
    slots: Arc<Semaphore>,
}

impl Refusals {
    /// For a listener that serves so many connections.
    pub(super) fn new(connections_max: usize) -> Self {
        let slots =
            (connections_max / SERVED_PER_ANSWERING).clamp(*ANSWERING.start(), *ANSWERING.end());
        Self { slots: Arc::new(Semaphore::new(slots)) }
    }

    /// Answers a new connection, and reads what it sends for as long as it takes the answer: a socket that is closed with
    /// something unread takes the answer back.
    pub(super) fn answer(&self, mut socket: TcpStream, refusal: Refusal, metrics: &Metrics) {
        metrics.count_rejected(refusal.reason());
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let answered = tokio::time::timeout(ANSWER_TIMEOUT, async {
                socket.write_all(text(refusal).as_bytes()).await?;
                socket.shutdown().await?;
                let mut unread = [0; UNREAD_BYTES];
                while socket.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            });
            if let Ok(Err(error)) = answered.await {
                tracing::debug!(%error, "a refused connection did not take its answer");
            }
            drop(slot);
        });
    }
}

/// Answers a connection that has been there for a moment, without waiting for anything: the answer fits into an empty
/// socket, and what the client had to say has come.
pub(super) fn answer_at_once(mut socket: &net::TcpStream, refusal: Refusal) -> io::Result<()> {
    socket.write_all(text(refusal).as_bytes())?;
    socket.shutdown(Shutdown::Write)?;
    let mut unread = [0; UNREAD_BYTES];
    for _ in 0..UNREAD_PIECES_MAX {
        match socket.read(&mut unread) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The whole answer. The request is not read: no HTTP connection is made for it.
fn text(refusal: Refusal) -> String {
    let (code, detail) = match refusal {
        Refusal::Limit => {
            (ErrorCode::TooManyConnections, "this node has as many connections as it may")
        }
        Refusal::Queue => {
            (ErrorCode::TooManyConnections, "as many connections as may wait for this node do so")
        }
        Refusal::Draining => (ErrorCode::Unavailable, "this node is about to end"),
    };
    let seconds = rand::rng().random_range(RETRY_AFTER);
    let mut answer = Problem::new(code, detail).after(seconds).into_response();
    let body = body_of(&mut answer);
    let mut text = format!("HTTP/1.1 {}\r\n", answer.status());
    for (name, value) in answer.headers() {
        append(&mut text, format_args!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    append(
        &mut text,
        format_args!("content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()),
    );
    text
}

/// The body of an answer that is all there.
fn body_of(answer: &mut Answer) -> String {
    let mut context = Context::from_waker(Waker::noop());
    match Pin::new(answer.body_mut()).poll_frame(&mut context) {
        Poll::Ready(Some(Ok(frame))) => {
            let data = frame.into_data().unwrap_or_default();
            String::from_utf8_lossy(&data).into_owned()
        }
        Poll::Ready(_) | Poll::Pending => String::new(),
    }
}

fn append(text: &mut String, what: fmt::Arguments<'_>) {
    let written = text.write_fmt(what);
    debug_assert!(written.is_ok(), "writing into a string cannot fail");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_refusal_is_a_whole_answer() {
        for (refusal, code) in [
            (Refusal::Limit, "too_many_connections"),
            (Refusal::Queue, "too_many_connections"),
            (Refusal::Draining, "unavailable"),
        ] {
            let answer = text(refusal);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
            for line in [
                "content-type: application/problem+json",
                "connection: close",
                &format!("content-length: {}", body.len()),
            ] {
                assert!(head.lines().any(|other| other == line), "{line} in {head}");
            }
            let document: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&document["code"], &document["status"]), (&code.into(), &503.into()));
        }
    }

    #[test]
    fn clients_are_told_to_come_back_at_different_times() {
        let seconds: BTreeSet<u32> = (0..1000)
            .map(|_| {
                let answer = text(Refusal::Limit);
                let line = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
                line.unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(seconds, (1..=10).collect());
    }
}
