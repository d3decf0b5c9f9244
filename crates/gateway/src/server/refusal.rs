//! Connections that are turned away before anything is done for them: one answer, and the end.

use std::fmt::{self, Write as _};
use std::io::{self, Read as _, Write as _};
use std::net::{self, Shutdown};
use std::sync::Arc;
use std::time::Duration;

use tickcast_protocol::ErrorCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::api::held::all_of;
use crate::api::problem::Problem;
use crate::metrics::{Metrics, RejectReason};

/// Connections that are answered at once: one for so many that are served, within these bounds. Each is an open file.
const ANSWERING: std::ops::RangeInclusive<usize> = 8..=64;
const SERVED_PER_ANSWERING: usize = 16;

/// Time for a client to take its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

const TOO_MANY_FROM_ADDRESS: &str = "your address has as many connections as it may";

/// What a client has sent and nobody will read: so much is taken from its socket, in pieces of this size.
const UNREAD_BYTES: usize = 4096;
const UNREAD_PIECES_MAX: usize = 16;

/// Why a connection is turned away before its request is read. Who has been read has an answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many are open as may be.
    Limit,
    /// As many wait as may.
    Queue,
    /// Its address has as many as one may have.
    Address,
    /// It waited when the node began to drain.
    Draining,
}

impl Refusal {
    /// What it counts as.
    pub(super) fn reason(self) -> RejectReason {
        match self {
            Self::Limit => RejectReason::Limit,
            Self::Queue => RejectReason::Queue,
            Self::Address => RejectReason::Address,
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
    pub(super) fn turn_away(&self, mut socket: TcpStream, refusal: Refusal, metrics: &Metrics) {
        metrics.count_rejected(refusal.reason());
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
        tokio::spawn(async move {
            answer(&mut socket, refusal).await;
            drop(slot);
        });
    }
}

/// Answers a connection and takes what it sends for as long as that takes, within bounds.
pub(crate) async fn answer(socket: &mut TcpStream, refusal: Refusal) {
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
        Refusal::Address => (ErrorCode::TooManyFromAddress, TOO_MANY_FROM_ADDRESS),
        Refusal::Draining => (ErrorCode::Unavailable, "this node is about to end"),
    };
    let (answer, body) = Problem::new(code, detail).after_a_while().into_response().into_parts();
    let body = all_of(body);
    let body = String::from_utf8_lossy(&body);
    let mut text = format!("HTTP/1.1 {}\r\n", answer.status);
    for (name, value) in &answer.headers {
        append(&mut text, format_args!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    append(
        &mut text,
        format_args!("content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()),
    );
    text
}

/// The answer to a request for a WebSocket whose client, whom only a proxy has named, has as many as it may.
pub(crate) fn too_many_from_address() -> Problem {
    Problem::new(ErrorCode::TooManyFromAddress, TOO_MANY_FROM_ADDRESS).after_a_while()
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
        for (refusal, code, status) in [
            (Refusal::Limit, "too_many_connections", 503),
            (Refusal::Queue, "too_many_connections", 503),
            (Refusal::Address, "too_many_from_address", 429),
            (Refusal::Draining, "unavailable", 503),
        ] {
            let answer = text(refusal);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            for line in [
                "content-type: application/problem+json",
                "connection: close",
                &format!("content-length: {}", body.len()),
            ] {
                assert!(head.lines().any(|other| other == line), "{line} in {head}");
            }
            let document: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&document["code"], &document["status"]), (&code.into(), &status.into()));
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
