//! One WebSocket client: connects, upgrades, waits for the acknowledgement, then hands out frames.
//!
//! Sans event loop: its owner says when the socket is ready and lends the read buffer. After the handshake a connection
//! holds a socket and an empty frame scanner, about 60 bytes.

use std::borrow::Cow;
use std::io::{ErrorKind, Read as _, Write as _};

use mio::net::TcpStream;
use serde::Deserialize;

use crate::http::{HttpError, Message, excerpt};
use crate::reactor::Clock;
use crate::target::Target;
use crate::wire::{Frame, FrameError, FrameScanner, accept_key, base64};

/// Why a connection did not come to life, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    /// The answer to the upgrade is not HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The bytes after the upgrade are not frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The server answered the upgrade with another status.
    #[error("the upgrade was refused with {status}: {body}")]
    Refused {
        /// The status line.
        status: String,
        /// Seconds to stay away, if the server has named them.
        retry_after: Option<u64>,
        /// The front of the body.
        body: String,
    },
    /// The server's proof of having read the key is wrong.
    #[error("the upgrade was accepted with the wrong Sec-WebSocket-Accept")]
    WrongAccept,
    /// The server closed the connection.
    #[error("closed by the server")]
    Closed,
}

/// How far the connection has come.
#[derive(Debug)]
enum Phase {
    Connecting,
    /// The request is out; holds the bytes of the answer so far, bounded by the limits of [`Message`].
    Upgrading(Vec<u8>),
    Open(FrameScanner),
}

/// One client of the server under test.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    phase: Phase,
}

impl Connection {
    /// Takes over a socket that is connecting.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, phase: Phase::Connecting }
    }

    /// The socket, for registering it.
    pub fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends the upgrade request as soon as the socket is connected; does nothing at any other time.
    ///
    /// `path` has the query, too; `number` makes the key differ from the other connections' keys.
    ///
    /// # Errors
    /// If the connection was refused.
    pub fn upgrade(
        &mut self,
        target: &Target,
        path: &str,
        number: usize,
    ) -> Result<(), ConnectionError> {
        if !matches!(self.phase, Phase::Connecting) {
            return Ok(());
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        if self.stream.peer_addr().is_err() {
            // Not connected yet: this was a wake-up for something else.
            return Ok(());
        }
        let key = key(number);
        let request = format!(
            "GET {path} HTTP/1.1\r\n{}Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n",
            target.fields()
        );
        // The buffer of a fresh socket takes the bounded request whole.
        self.stream.write_all(request.as_bytes())?;
        self.phase = Phase::Upgrading(Vec::new());
        Ok(())
    }

    /// Reads what the socket has into `scratch` and calls `on_frame` for every complete frame, with the reading of the
    /// clock taken once after the read that completed it. `ended` says that the end of the stream is there, too.
    ///
    /// # Errors
    /// If the connection ended or broke the protocol. It must not be used again.
    pub fn read(
        &mut self,
        (number, ended): (usize, bool),
        scratch: &mut [u8],
        clock: Clock,
        mut on_frame: impl FnMut(Frame<'_>, u64),
    ) -> Result<(), ConnectionError> {
        loop {
            let length = match self.stream.read(scratch) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let (bytes, now) = (&scratch[..length], clock.now());
            match &mut self.phase {
                Phase::Open(scanner) => scanner.feed(bytes, |frame| on_frame(frame, now))?,
                Phase::Upgrading(answer) => {
                    answer.extend_from_slice(bytes);
                    if let Some(behind) = upgraded(answer, number)? {
                        let mut scanner = FrameScanner::default();
                        scanner.feed(behind, |frame| on_frame(frame, now))?;
                        self.phase = Phase::Open(scanner);
                    }
                }
                // A server has nothing to say before it was asked; wait for the answer to fail on it.
                Phase::Connecting => {}
            }
            // A short read has emptied the socket, and the next arrival is a new edge.
            if length < scratch.len() && !ended {
                return Ok(());
            }
        }
    }

    /// Whether the handshake is over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Sends a command, which the buffer of a fresh socket takes whole.
    ///
    /// # Errors
    /// If the connection has ended.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), ConnectionError> {
        Ok(self.stream.write_all(frame)?)
    }

    /// Sends a small control frame if the socket has room; a client that cannot keep up does not answer pings.
    pub fn try_send(&mut self, frame: &[u8]) {
        drop(self.stream.write(frame));
    }
}

/// The key of client `number`: 16 bytes, as the standard wants.
fn key(number: usize) -> String {
    base64(format!("tickcast{:08x}", number & 0xFFFF_FFFF).as_bytes())
}

/// Checks a complete answer to the upgrade and returns the bytes behind it; `None` until it is complete.
fn upgraded(answer: &[u8], number: usize) -> Result<Option<&[u8]>, ConnectionError> {
    let Some(message) = Message::read(answer)? else { return Ok(None) };
    if message.status() != Some(101) {
        return Err(ConnectionError::Refused {
            status: message.first_line.to_owned(),
            retry_after: message.field("retry-after").and_then(|seconds| seconds.parse().ok()),
            body: excerpt(message.body),
        });
    }
    if message.field("sec-websocket-accept") != Some(accept_key(&key(number)).as_str()) {
        return Err(ConnectionError::WrongAccept);
    }
    Ok(answer.get(message.length..))
}

/// A message that is not a publication, as far as the generator looks at it.
#[derive(Debug, Deserialize)]
pub struct Notice<'a> {
    /// `subscribed`, `gap`, `reset`, `status`, …
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// The topic that a `gap` or a `reset` is about.
    #[serde(borrow)]
    pub topic: Option<Cow<'a, str>>,
    /// The epoch that a `reset` begins.
    #[serde(borrow)]
    pub epoch: Option<Cow<'a, str>>,
    /// The offset that a `reset` continues from.
    pub offset: Option<u64>,
    /// When a `goaway` wants the client to connect elsewhere, in milliseconds from now.
    pub reconnect_in_ms: Option<u64>,
    /// Acknowledged topics.
    #[serde(default)]
    pub topics: Vec<Acknowledged<'a>>,
    /// Topics that could not be subscribed to.
    #[serde(default)]
    pub errors: Vec<Rejected<'a>>,
}

/// One acknowledged topic.
#[derive(Debug, Deserialize)]
pub struct Acknowledged<'a> {
    /// Its name.
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    /// Its epoch.
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    /// Its last offset at that moment.
    pub offset: u64,
}

/// One rejected topic.
#[derive(Debug, Deserialize)]
pub struct Rejected<'a> {
    /// Its name.
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    /// Why.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(number: usize) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {}\r\n\r\nframes",
            accept_key(&key(number))
        )
    }

    #[test]
    fn an_upgrade_needs_status_and_proof() {
        assert_eq!(upgraded(accepted(7).as_bytes(), 7).expect("upgraded"), Some(&b"frames"[..]));
        assert!(matches!(upgraded(b"HTTP/1.1 101", 7), Ok(None)));
        assert!(matches!(upgraded(accepted(8).as_bytes(), 7), Err(ConnectionError::WrongAccept)));
        let refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 8\r\n\r\nbad name";
        let error = upgraded(refusal, 7).expect_err("refused").to_string();
        assert!(error.contains("400 Bad Request") && error.contains("bad name"), "{error}");
    }

    #[test]
    fn notices_are_read_as_far_as_needed() {
        let ack = r#"{"type":"subscribed","id":1,"topics":[{"topic":"load.0","epoch":"k3f9","offset":1042,"mode":"all"}],"errors":[{"topic":"x","code":"forbidden","message":"no"}]}"#;
        let notice: Notice<'_> = serde_json::from_str(ack).expect("an acknowledgement");
        assert_eq!((notice.topics[0].topic.as_ref(), notice.topics[0].offset), ("load.0", 1042));
        assert_eq!(notice.errors[0].code, "forbidden");
        let reset = r#"{"type":"reset","topic":"load.0","epoch":"m7q2","offset":3,"reason":"broker_restart"}"#;
        let notice: Notice<'_> = serde_json::from_str(reset).expect("a reset");
        assert_eq!((notice.kind.as_ref(), notice.offset), ("reset", Some(3)));
    }
}
