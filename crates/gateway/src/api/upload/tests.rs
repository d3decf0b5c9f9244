use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Context;

use hyper::body::{Frame, SizeHint};
use hyper::header::HeaderValue;

use super::*;

/// A body in pieces; `None` stands for a turn in which nothing is there yet.
struct Pieces {
    pieces: VecDeque<Option<Bytes>>,
    announced: Option<u64>,
    /// Ends in silence instead of an end.
    hangs: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match self.pieces.pop_front() {
            Some(Some(data)) if data == "!" => Poll::Ready(Some(Err("torn"))),
            Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(None) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None if self.hangs => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.announced.is_some() && self.pieces.is_empty() && !self.hangs
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn pieces(pieces: &[&'static str]) -> Upload<Pieces> {
    let pieces = pieces.iter().map(|piece| match *piece {
        "" => None,
        data => Some(Bytes::from_static(data.as_bytes())),
    });
    Upload::new(Pieces { pieces: pieces.collect(), announced: None, hangs: false })
}

/// Reads at most 8 bytes: the body, or the code.
async fn read(upload: &mut Upload<Pieces>) -> Result<Bytes, ErrorCode> {
    let bound = Bound { bytes: 8, code: ErrorCode::PayloadTooLarge };
    let body = upload.read(&HeaderMap::new(), bound, Duration::from_secs(10)).await;
    body.map_err(|problem| problem.code())
}

fn runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn bodies_in_pieces() {
    let check = async |given: &[&'static str], expected: Result<&str, ErrorCode>| {
        let mut upload = pieces(given);
        let body = read(&mut upload).await;
        assert_eq!(
            body.as_deref(),
            expected.map(str::as_bytes).as_ref().map(|body| *body),
            "{given:?}"
        );
        assert_eq!(upload.is_done(), expected.is_ok(), "{given:?}");
    };
    runtime(async {
        check(&[], Ok("")).await;
        check(&["12345678"], Ok("12345678")).await;
        check(&["", "12345678"], Ok("12345678")).await;
        check(&["12", "", "", "34", "5678"], Ok("12345678")).await;
        check(&["123456789"], Err(ErrorCode::PayloadTooLarge)).await;
        check(&["1234", "56789"], Err(ErrorCode::PayloadTooLarge)).await;
        check(&["1234", "5", "6789", "more"], Err(ErrorCode::PayloadTooLarge)).await;
        check(&["1234", "!"], Err(ErrorCode::BadJson)).await;
    });
}

#[test]
fn an_announced_length_is_refused_before_a_byte_is_read() {
    runtime(async {
        let mut upload = pieces(&["123456789"]);
        upload.body.announced = Some(9);
        assert_eq!(read(&mut upload).await, Err(ErrorCode::PayloadTooLarge));
        assert_eq!(upload.body.pieces.len(), 1);
        assert!(!upload.is_done());
    });
}

#[test]
fn one_piece_is_not_copied() {
    runtime(async {
        let data = Bytes::from_static(b"1234");
        let mut upload = pieces(&["1234"]);
        upload.body.pieces = VecDeque::from([None, Some(data.clone())]);
        assert_eq!(read(&mut upload).await.unwrap().as_ptr(), data.as_ptr());
    });
}

#[test]
fn an_early_body_needs_no_timer() {
    // Outside a runtime, arming a timer panics.
    let mut upload = pieces(&["", "1234"]);
    let mut reading = pin!(read(&mut upload));
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(reading.as_mut().poll(&mut context).is_pending());
    assert!(reading.as_mut().poll(&mut context).is_ready());
}

#[test]
fn a_body_that_stops_is_a_timeout() {
    runtime(async {
        let mut upload = pieces(&["1234"]);
        upload.body.hangs = true;
        let bound = Bound { bytes: 8, code: ErrorCode::PayloadTooLarge };
        let body = upload.read(&HeaderMap::new(), bound, Duration::from_millis(1)).await;
        assert_eq!(body.unwrap_err().code(), ErrorCode::RequestTimeout);
        assert!(!upload.is_done());
    });
}

#[test]
fn content_codings() {
    runtime(async {
        for (coding, is_taken) in [
            ("identity", true),
            ("Identity", true),
            ("", true),
            ("gzip", false),
            ("identity, br", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            let bound = Bound { bytes: 8, code: ErrorCode::PayloadTooLarge };
            let body = pieces(&["1"]).read(&headers, bound, Duration::from_secs(10)).await;
            assert_eq!(body.is_ok(), is_taken, "{coding}");
        }
    });
}
