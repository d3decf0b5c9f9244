//! Memory that clients hold over HTTP by being slow: bodies that have come in part, and answers that are not taken.
//!
//! A connection holds a body and an answer or two, each within its own bounds; here are the bounds of all connections
//! together. Bodies and answers have one each, so that who does not take answers keeps nobody from publishing. What came
//! in one piece and what is small is not counted: it is gone in the same moment, or costs less than its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body as _;
use tickcast_protocol::ErrorCode;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Answer;
use super::problem::Problem;
use crate::metrics::label_values;

/// Answers of this size are not counted, in bytes.
const SPARED: usize = 4 * 1024;

label_values! {
    /// What is held.
    pub(crate) enum Held {
        /// A body that has come in part.
        Request => "request",
        /// An answer that the client has not taken.
        Answer => "answer",
    }
}

/// What all connections of a node hold together.
#[derive(Debug, Default)]
pub(crate) struct HttpMemory {
    bytes: [AtomicUsize; Held::COUNT],
    refused: [AtomicU64; Held::COUNT],
    /// Answers that were not taken in time.
    cut: AtomicU64,
}

impl HttpMemory {
    /// Bytes that are held now, and how often somebody was refused, by [`Held`].
    pub(crate) fn numbers(&self) -> [(usize, u64); Held::COUNT] {
        let number =
            |kind: usize| (self.bytes[kind].load(Relaxed), self.refused[kind].load(Relaxed));
        std::array::from_fn(number)
    }

    /// Connections that were cut because they did not take their answer in time.
    pub(crate) fn cut(&self) -> u64 {
        self.cut.load(Relaxed)
    }

    pub(crate) fn count_cut(&self) {
        self.cut.fetch_add(1, Relaxed);
    }

    /// A share of nothing yet. All shares of a kind together may have `max` bytes; the only one may have any number.
    pub(crate) fn share(self: &Arc<Self>, kind: Held, max: usize) -> Share {
        Share { memory: Arc::clone(self), kind, max, bytes: 0 }
    }

    /// Counts the body of an answer until the client has taken it, or makes it one that says that there is no room. Where
    /// something is counted, the token is cancelled when the client has taken it.
    pub(crate) fn guard(
        self: &Arc<Self>,
        answer: Answer,
        max: usize,
    ) -> (Answer, Option<CancellationToken>) {
        let length = answer.body().size_hint().lower();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length <= SPARED {
            return (answer, None);
        }
        let mut share = self.share(Held::Answer, max);
        if let Err(problem) = share.grow(length) {
            return (problem.into_response(), None);
        }
        let taken = CancellationToken::new();
        let guard = taken.clone().drop_guard();
        let answer = answer.map(|body| {
            let bytes = all_of(body);
            Full::new(Bytes::from_owner(Counted { bytes, _share: share, _taken: guard }))
        });
        (answer, Some(taken))
    }
}

/// What is held for one request.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Arc<HttpMemory>,
    kind: Held,
    max: usize,
    bytes: usize,
}

impl Share {
    /// Takes more.
    ///
    /// # Errors
    /// 503, when the others hold too much.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let all = &self.memory.bytes[self.kind as usize];
        let before = all.fetch_add(bytes, Relaxed);
        if before > self.bytes && before.saturating_add(bytes) > self.max {
            all.fetch_sub(bytes, Relaxed);
            self.memory.refused[self.kind as usize].fetch_add(1, Relaxed);
            let detail = "this node holds as much of slow requests and answers as it may";
            return Err(Problem::new(ErrorCode::Unavailable, detail).after_a_while());
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.bytes[self.kind as usize].fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// Bytes that are counted as long as somebody has them: hyper lets go of them when the socket has taken the last one.
struct Counted {
    bytes: Bytes,
    _share: Share,
    _taken: DropGuard,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes of a body that is all there.
pub(crate) fn all_of(mut body: Full<Bytes>) -> Bytes {
    let mut context = Context::from_waker(Waker::noop());
    match Pin::new(&mut body).poll_frame(&mut context) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(_) | Poll::Pending => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Response;
    use hyper::header::RETRY_AFTER;

    use super::*;

    const MAX: usize = 100_000;

    fn held(memory: &HttpMemory) -> [usize; 2] {
        memory.numbers().map(|(bytes, _)| bytes)
    }

    fn answer(length: usize) -> Answer {
        Response::new(Full::new(Bytes::from(vec![b'x'; length])))
    }

    #[test]
    fn all_shares_of_a_kind_have_one_bound() {
        let memory = Arc::new(HttpMemory::default());
        let mut first = memory.share(Held::Request, MAX);
        let mut second = memory.share(Held::Request, MAX);
        assert!(first.grow(MAX / 2).is_ok() && second.grow(MAX / 2).is_ok());
        assert!(first.grow(0).is_ok());
        let problem = second.grow(1).unwrap_err();
        assert_eq!(problem.code(), ErrorCode::Unavailable);
        assert_eq!(
            (held(&memory), memory.numbers()[0].1),
            ([MAX, 0], 1),
            "a refusal holds nothing"
        );
        assert!(memory.share(Held::Answer, MAX).grow(MAX).is_ok(), "the other kind has its own");
        drop(first);
        assert!(second.grow(1).is_ok());
        drop(second);
        assert_eq!(held(&memory), [0, 0]);
    }

    #[test]
    fn what_is_the_only_one_may_be_as_large_as_it_is() {
        let memory = Arc::new(HttpMemory::default());
        let mut only = memory.share(Held::Request, MAX);
        assert!(only.grow(MAX).is_ok() && only.grow(MAX).is_ok());
        assert!(memory.share(Held::Request, MAX).grow(1).is_err());
        drop(only);
        assert_eq!(held(&memory), [0, 0]);
    }

    #[test]
    fn an_answer_counts_until_its_last_byte_is_gone() {
        let memory = Arc::new(HttpMemory::default());
        let (small, taken) = memory.guard(answer(SPARED), MAX);
        assert!(taken.is_none());
        assert_eq!(held(&memory), [0, 0]);
        let (large, taken) = memory.guard(answer(SPARED + 1), MAX);
        let taken = taken.unwrap();
        assert_eq!(held(&memory), [0, SPARED + 1]);
        let (refused, no_token) = memory.guard(answer(MAX), MAX);
        assert!(refused.status() == 503 && no_token.is_none());
        assert!(refused.headers().contains_key(RETRY_AFTER));
        assert_eq!(all_of(small.into_body()).len(), SPARED);
        let body = all_of(large.into_body());
        let part = body.slice(SPARED..);
        drop(body);
        assert_eq!(held(&memory), [0, SPARED + 1], "a part of it is there");
        assert!(part == "x" && !taken.is_cancelled());
        drop(part);
        assert!(taken.is_cancelled());
        assert_eq!((held(&memory), memory.numbers()[1].1), ([0, 0], 1));
    }
}
