//! A TCP connection that sends any bytes, and reads answers and frames by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::within;
use crate::handshake;

/// One TCP connection.
pub(crate) struct Raw {
    reader: OwnedReadHalf,
    /// None while something is written beside the test.
    writer: Option<OwnedWriteHalf>,
    /// What was read beyond the last answer or frame.
    rest: Vec<u8>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A frame of the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// A masked frame, as a client sends it.
pub(crate) fn frame(is_final: bool, opcode: Opcode, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let payload = payload.as_ref();
    let mut bytes = vec![u8::from(is_final) << 7 | opcode as u8];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => bytes.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("connection", TcpStream::connect(address)).await.expect("it listens");
        Self::new(stream)
    }

    /// From another address of this machine.
    pub(crate) async fn connect_from(own: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((own, 0).into()).expect("all of 127.0.0.0/8 is this machine");
        let stream = within("connection", socket.connect(address)).await.expect("it listens");
        Self::new(stream)
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an open connection");
        let (reader, writer) = stream.into_split();
        Self { reader, writer: Some(writer), rest: Vec::new() }
    }

    /// The lines of a good handshake.
    pub(crate) const HANDSHAKE: &[&str] = &handshake::LINES;

    /// Becomes a WebSocket.
    pub(crate) async fn upgrade(&mut self) {
        self.write_head(Self::HANDSHAKE).await;
        assert_eq!(self.answer().await.status, 101);
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let writer = self.writer.as_mut().expect("one writer at a time");
        let written = within("room in the socket", writer.write_all(bytes.as_ref())).await;
        written.expect("an open connection");
    }

    /// Writes a little, unless the connection has ended: false then, also where the node only says that it has.
    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let is_over = self.reader.try_read_buf(&mut self.rest).is_ok();
        let writer = self.writer.as_mut().expect("one writer at a time");
        !is_over && writer.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Writes beside whatever the test does next. The connection is open as long as the writer in the answer is.
    pub(crate) fn write_aside(&mut self, bytes: Vec<u8>) -> JoinHandle<OwnedWriteHalf> {
        let mut writer = self.writer.take().expect("one writer at a time");
        tokio::spawn(async move {
            writer.write_all(&bytes).await.expect("an open connection");
            writer
        })
    }

    pub(crate) async fn write_head(&mut self, lines: &[&str]) {
        self.write(handshake::head(lines)).await;
    }

    pub(crate) async fn post(&mut self, target: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n");
        self.write(format!("{head}{headers}\r\n{body}")).await;
        self.answer().await
    }

    pub(crate) async fn get(&mut self, target: &str, headers: &str) -> Answer {
        self.write(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        self.answer().await
    }

    /// The next answer, with its body.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = self.take(length).await.expect("the whole body");
        answer
    }

    /// The next answer without its body: what follows a `HEAD` request.
    pub(crate) async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(self.read().await > 0, "the end instead of an answer");
        };
        let head: Vec<u8> = self.rest.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("headers are text here");
        let (first, lines) = head.split_once("\r\n").expect("a status line");
        // `HTTP/1.0 400 Bad Request` to a request of that version.
        let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let headers = lines.lines().filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        });
        let status = status.unwrap_or_else(|| panic!("{first}"));
        Answer { status, headers: headers.collect(), body: Vec::new() }
    }

    /// The next frame; none at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let head = self.take(2).await?;
        assert_eq!(head[1] & 0x80, 0, "a node does not mask");
        assert_eq!(head[0] & 0xF0, 0x80, "a node neither fragments nor extends");
        let extended = match head[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let extended = self.take(extended).await?;
        let long = extended.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let length = if extended.is_empty() { usize::from(head[1]) } else { long };
        Some(Frame { opcode: head[0] & 0x0F, payload: self.take(length).await? })
    }

    /// The next frame is text, in JSON.
    pub(crate) async fn value(&mut self) -> Value {
        let frame = self.frame().await.expect("a frame, not the end");
        assert_eq!(frame.opcode, Opcode::Text as u8, "{frame:?}");
        serde_json::from_slice(&frame.payload).unwrap()
    }

    /// Reads up to the close frame and the end that must follow it: the code.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            let frame = self.frame().await.expect("a close frame before the end");
            if frame.opcode == Opcode::Close as u8 {
                assert!(self.frame().await.is_none(), "nothing follows a close frame");
                return u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            }
        }
    }

    /// Ends the connection by a reset: what is on the way in either direction is lost.
    pub(crate) fn reset(self) {
        let socket = SockRef::from(self.reader.as_ref());
        socket.set_linger(Some(Duration::ZERO)).expect("an open connection");
        // Dropped, it would say goodbye before.
        self.writer.into_iter().for_each(OwnedWriteHalf::forget);
    }

    /// Reads some bytes of an answer and leaves the rest.
    pub(crate) async fn begin(&mut self, length: usize) -> Vec<u8> {
        self.take(length).await.expect("an answer")
    }

    /// Reads to the end of the connection.
    pub(crate) async fn end(&mut self) -> Vec<u8> {
        while self.read().await > 0 {}
        std::mem::take(&mut self.rest)
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.rest.len() < length {
            if self.read().await == 0 {
                return None;
            }
        }
        Some(self.rest.drain(..length).collect())
    }

    /// Reads more; 0 at the end. A reset is an end too: the node may close while bytes of ours are on the way.
    async fn read(&mut self) -> usize {
        within("bytes", self.reader.read_buf(&mut self.rest)).await.unwrap_or(0)
    }
}

impl Answer {
    /// The value of a header; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// The code of the problem document that this answer is.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        for member in ["type", "title", "detail", "hint"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{document}");
        }
        document["code"].as_str().expect("a code").to_owned()
    }
}
