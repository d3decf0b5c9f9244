//! Reads the body of a request: bounded in bytes and in time, and without a copy where it came in one piece.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::CONTENT_ENCODING;
use tickcast_protocol::ErrorCode;

use super::held::Share;
use super::problem::Problem;

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Upload<B> {
    body: B,
    /// Nothing of it is left in the connection, so the next request can follow.
    is_done: bool,
    /// Counts what has come of it, as long as the request lasts.
    share: Option<Share>,
}

/// How many bytes a body may have, and what it is called when it has more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// At most that many.
    pub(crate) bytes: usize,
    /// The code of the refusal.
    pub(crate) code: ErrorCode,
}

impl Bound {
    /// `seen` is how much of the body there is, or how much there will be.
    fn check(self, seen: u64) -> Result<(), Problem> {
        if seen <= u64::try_from(self.bytes).unwrap_or(u64::MAX) {
            return Ok(());
        }
        let max = self.bytes;
        let detail =
            format!("the body has at least {seen} bytes, and {max} are the most this node takes");
        Err(Problem::new(self.code, detail))
    }
}

impl<B: Body<Data = Bytes, Error: Display> + Unpin> Upload<B> {
    /// The body, of which nothing has been read.
    pub(crate) fn new(body: B) -> Self {
        let is_done = body.is_end_stream();
        Self { body, is_done, share: None }
    }

    /// The same, counted beside those of all connections.
    pub(crate) fn within(self, share: Share) -> Self {
        Self { share: Some(share), ..self }
    }

    /// Whether the connection can carry another request. If not, the answer must say that it closes.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// 415 for a content coding, 413 as soon as the bound is known to be passed, 408 when it takes longer than
    /// `patience`, 503 when it comes in pieces and the node holds too many of those, 400 when the connection broke off.
    pub(crate) async fn read(
        &mut self,
        headers: &HeaderMap,
        bound: Bound,
        patience: Duration,
    ) -> Result<Bytes, Problem> {
        if headers.get_all(CONTENT_ENCODING).iter().any(|coding| !is_identity(coding.as_bytes())) {
            return Err(Problem::unsupported_encoding());
        }
        // With a `Content-Length` this is all of it: refused before a byte is read.
        bound.check(self.body.size_hint().lower())?;
        let Some(whole) = within(patience, self.collect(bound)).await else {
            let detail = format!("the body did not arrive within {} ms", patience.as_millis());
            return Err(Problem::new(ErrorCode::RequestTimeout, detail));
        };
        let whole = whole?;
        self.is_done = true;
        Ok(whole)
    }

    async fn collect(&mut self, bound: Bound) -> Result<Bytes, Problem> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        bound.check(first.len() as u64)?;
        if self.body.is_end_stream() {
            return Ok(first);
        }
        // The rest is waited for.
        self.count(first.len())?;
        let Some(mut piece) = self.next().await? else { return Ok(first) };
        // It grows with what arrives, never with what a header announces.
        let mut whole = BytesMut::from(first);
        loop {
            bound.check((whole.len() + piece.len()) as u64)?;
            self.count(piece.len())?;
            whole.extend_from_slice(&piece);
            match self.next().await? {
                Some(next) => piece = next,
                None => return Ok(whole.freeze()),
            }
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Problem> {
        self.share.as_mut().map_or(Ok(()), |share| share.grow(bytes))
    }

    /// The next piece of data; trailers are passed over.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                Problem::new(ErrorCode::BadJson, format!("the body cannot be read: {error}"))
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

fn is_identity(coding: &[u8]) -> bool {
    coding.trim_ascii().is_empty() || coding.trim_ascii().eq_ignore_ascii_case(b"identity")
}

/// Waits for `future`, but not longer than `patience`: then there is none.
///
/// hyper reads a body only after it was first asked for it, so even one that came together with its header is there in
/// the task's second turn, not in the first. That turn is waited for before a timer is armed: most requests need none.
async fn within<F: Future>(patience: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut is_first_turn = true;
    let early = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if is_first_turn => {
            is_first_turn = false;
            context.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Pending => Poll::Ready(None),
    });
    match early.await {
        Some(output) => Some(output),
        None => tokio::time::timeout(patience, future).await.ok(),
    }
}

#[cfg(test)]
mod tests;
