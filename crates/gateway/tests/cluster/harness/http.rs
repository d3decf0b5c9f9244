//! A blocking HTTP connection, kept alive, that takes any answer.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Time for one answer. A node answers within a second or so, whatever its broker does.
const ANSWER: Duration = Duration::from_secs(10);

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(2);

/// One connection.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    /// What it says of itself in each request: nothing, or a header line.
    identity: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and all headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self { stream: BufReader::new(stream), identity: String::new() })
    }

    /// It has an API key, if it is given one, and shows it with every request.
    pub(crate) fn with_key(mut self, key: Option<&str>) -> Self {
        self.identity =
            key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        let identity = &self.identity;
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{identity}\r\n"))
    }

    /// Posts a body with an idempotency key.
    pub(crate) fn post(&mut self, path: &str, key: &str, body: &str) -> io::Result<Answer> {
        let (length, identity) = (body.len(), &self.identity);
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{identity}Idempotency-Key: {key}");
        self.request(&format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
    }

    fn request(&mut self, request: &str) -> io::Result<Answer> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = head[start..].trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let body = String::from_utf8(body).expect("text");
        Ok(Answer { status: status.expect("a status line"), head, body })
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// The code of the problem document that this answer is.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_else(|| panic!("{self:?}: no code")).to_owned()
    }
}
