//! HTTP/1.1 messages with a stated length: all that publishing, the handshake and the floor need.
//!
//! Used on both ends, the generator's (reading answers, several of which may be pipelined) and the floor's (reading
//! requests). It borrows from the caller's buffer and copies nothing. Chunked bodies and trailers are refused by name.

use memchr::memmem;

/// Longest head taken, in bytes: a handshake that names 1,000 topics fits.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
/// Longest body taken, in bytes: twice the gateway's default batch limit.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// Bytes that are not an HTTP message this program understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No blank line within [`HEAD_BYTES_MAX`].
    #[error("a head of more than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// The head is not text, or its first line is not of HTTP/1.1.
    #[error("not an HTTP/1.1 head: {0:?}")]
    NotHttp(String),
    /// `Content-Length` is not a number, or above [`BODY_BYTES_MAX`].
    #[error("content-length {0:?}, expected a number of at most {BODY_BYTES_MAX}")]
    BadLength(String),
    /// `Transfer-Encoding` is set.
    #[error("transfer-encoding {0:?}, only content-length is supported")]
    Encoded(String),
}

/// One complete message at the front of a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The request line or the status line.
    pub first_line: &'a str,
    fields: &'a str,
    /// The body, as many bytes as the head says.
    pub body: &'a [u8],
    /// Length of the whole message in the buffer, in bytes.
    pub length: usize,
}

impl<'a> Message<'a> {
    /// Reads the message at the front of `bytes`; `None` until it is complete.
    ///
    /// # Errors
    /// On bytes that no further bytes could turn into a message within the bounds.
    pub fn read(bytes: &'a [u8]) -> Result<Option<Self>, HttpError> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return if bytes.len() > HEAD_BYTES_MAX {
                Err(HttpError::HeadTooLong)
            } else {
                Ok(None)
            };
        };
        let not_http = || HttpError::NotHttp(excerpt(bytes));
        // Invalid UTF-8 cannot be a head: every field that is read here is ASCII.
        let head = str::from_utf8(&bytes[..end]).map_err(|_invalid| not_http())?;
        let (first_line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        if !first_line.contains("HTTP/1.1") {
            return Err(not_http());
        }
        let mut message = Message { first_line, fields, body: &[], length: end + 4 };
        let body = message.body_length()?;
        let Some(behind) = bytes.get(message.length..message.length + body) else {
            return Ok(None);
        };
        message.body = behind;
        message.length += body;
        Ok(Some(message))
    }

    /// The first field of that name, which is given in any case, without surrounding space.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields
            .split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// The status code of an answer; `None` for a request.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.first_line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    /// Method and target of a request; `None` for an answer.
    #[must_use]
    pub fn request(&self) -> Option<(&'a str, &'a str)> {
        let (method_and_target, _) = self.first_line.split_once(" HTTP/1.1")?;
        method_and_target.split_once(' ')
    }

    fn body_length(&self) -> Result<usize, HttpError> {
        if let Some(encoding) = self.field("transfer-encoding") {
            return Err(HttpError::Encoded(encoding.to_owned()));
        }
        let Some(length) = self.field("content-length") else { return Ok(0) };
        match length.parse() {
            Ok(bytes) if bytes <= BODY_BYTES_MAX => Ok(bytes),
            _ => Err(HttpError::BadLength(length.to_owned())),
        }
    }
}

/// The front of some bytes as text for an error message, 200 characters at most.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-LENGTH:  5\r\n\r\nhello";

    #[test]
    fn a_message_is_complete_only_with_its_last_byte() {
        for cut in 0..ANSWER.len() {
            assert!(matches!(Message::read(&ANSWER[..cut]), Ok(None)), "cut at {cut}");
        }
        let pipelined = [ANSWER, ANSWER].concat();
        let message = Message::read(&pipelined).expect("http").expect("complete");
        assert_eq!((message.status(), message.body), (Some(200), &b"hello"[..]));
        assert_eq!(message.length, ANSWER.len());
        assert_eq!(message.field("CONTENT-TYPE"), Some("application/json"));
        assert_eq!(message.request(), None);
    }

    #[test]
    fn a_request_names_method_and_target() {
        let message = Message::read(b"GET /v1/ws?topics=a HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("http")
            .expect("complete");
        assert_eq!(message.request(), Some(("GET", "/v1/ws?topics=a")));
        assert_eq!((message.status(), message.body), (None, &b""[..]));
    }

    #[test]
    fn hostile_messages_are_named() {
        let read = |bytes: &[u8]| Message::read(bytes).map(|_| ()).expect_err("refused");
        assert_eq!(read(&[b'a'; HEAD_BYTES_MAX + 1]), HttpError::HeadTooLong);
        assert!(matches!(read(b"SSH-2.0-x\r\n\r\n"), HttpError::NotHttp(_)));
        assert!(matches!(read(b"\xff HTTP/1.1\r\n\r\n"), HttpError::NotHttp(_)));
        assert!(matches!(
            read(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
            HttpError::BadLength(_)
        ));
        assert!(matches!(
            read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            HttpError::Encoded(_)
        ));
    }
}
