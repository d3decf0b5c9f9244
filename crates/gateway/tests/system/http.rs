//! A blocking HTTP connection, kept alive: what a simple publisher or scraper has.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub(crate) struct Http(BufReader<TcpStream>);

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream.set_nodelay(true).expect("an open connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("an open connection");
        Self(BufReader::new(stream))
    }

    /// Publishes one payload: the answer, which must be 200.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) -> String {
        let length = payload.len();
        let head =
            format!("POST /v1/topics/{topic} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}");
        self.request(&format!("{head}\r\n\r\n{payload}"))
    }

    /// One request, whose answer must be 200: its body.
    pub(crate) fn get(&mut self, path: &str) -> String {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn request(&mut self, request: &str) -> String {
        self.0.get_mut().write_all(request.as_bytes()).expect("an open connection");
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            let read = self.0.read_line(&mut head).expect("an answer in time");
            let line = head[start..].trim_end();
            if line.is_empty() || read == 0 {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the whole body");
        let body = String::from_utf8(body).expect("text");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}{body}");
        body
    }
}

/// One page of an address that closes after each answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    Http::connect(address).get(path)
}
