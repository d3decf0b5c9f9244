//! One keep-alive connection of the publisher: output that waits for room, and requests that wait for answers.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream as BlockingStream;
use std::time::Duration;

use mio::net::TcpStream;

use crate::error::LoadError;
use crate::target::Target;

/// Longest wait for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Request {
    /// Reading of the clock for which it was planned.
    pub(super) planned: u64,
    /// Number of its first publication in the schedule.
    pub(super) first: u64,
    /// How many it carries.
    pub(super) publications: u32,
}

/// The connection. Its buffers are bounded by the publisher's limit on requests in flight.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: TcpStream,
    fields: String,
    out: Vec<u8>,
    /// Bytes of `out` that are with the kernel already.
    written: usize,
    /// Unfinished answers.
    pub(super) inbox: Vec<u8>,
    /// In the order of sending, which is the order of the answers.
    pub(super) in_flight: VecDeque<Request>,
}

impl Link {
    pub(super) fn connect(target: &Target) -> Result<Self, LoadError> {
        let connect = || {
            let stream = BlockingStream::connect_timeout(&target.address, CONNECT_TIMEOUT)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok(TcpStream::from_std(stream))
        };
        let stream = connect().map_err(LoadError::system(
            format!("connecting the publisher to {}", target.address),
            "check that the server listens there",
        ))?;
        Ok(Self {
            stream,
            fields: target.fields(),
            out: Vec::new(),
            written: 0,
            inbox: Vec::new(),
            in_flight: VecDeque::new(),
        })
    }

    /// Sends a request as far as the socket takes it; the rest leaves when the socket is writable.
    pub(super) fn send(
        &mut self,
        path: &str,
        body: &[u8],
        request: Request,
    ) -> Result<(), LoadError> {
        let head = format!(
            "POST {path} HTTP/1.1\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.fields,
            body.len()
        );
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body);
        self.in_flight.push_back(request);
        self.flush()
    }

    /// Writes until nothing waits or the socket is full.
    pub(super) fn flush(&mut self) -> Result<(), LoadError> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads all that the socket has into the inbox.
    pub(super) fn fill(&mut self) -> Result<(), LoadError> {
        let mut piece = [0; 16 << 10];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(self.broken(ErrorKind::UnexpectedEof.into())),
                Ok(length) => self.inbox.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn broken(&self, error: std::io::Error) -> LoadError {
        LoadError::System {
            action: format!("publishing, with {} requests unanswered", self.in_flight.len()),
            source: error,
            fix: "look at the server's log: it closed the publisher's connection",
        }
    }
}
