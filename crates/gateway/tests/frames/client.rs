//! A client of blocking sockets that sends any bytes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Long enough for a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

const HANDSHAKE: &[u8] =
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// One WebSocket.
#[derive(Debug)]
pub(crate) struct Client(TcpStream);

/// A frame with a short payload, masked with zeros.
pub(crate) fn frame(is_final: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short payload");
    assert!(length < 126, "a short payload");
    let head = [u8::from(is_final) << 7 | opcode, 0x80 | length, 0, 0, 0, 0];
    [&head, payload].concat()
}

/// The header of a text frame that declares so many bytes.
pub(crate) fn declared(length: u64) -> Vec<u8> {
    [&[0x81, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()
}

impl Client {
    pub(crate) fn open(node: SocketAddr) -> Self {
        let stream = TcpStream::connect(node).expect("the node listens");
        stream.set_nodelay(true).expect("an open connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("an open connection");
        stream.set_write_timeout(Some(PATIENCE)).expect("an open connection");
        let mut client = Self(stream);
        client.send(HANDSHAKE);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(client.take(1).expect("an answer"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("an open connection");
    }

    /// Whether the connection took the bytes: a flood goes on until it does not.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// A second handle, so that one thread can write while another reads.
    pub(crate) fn twin(&self) -> Self {
        Self(self.0.try_clone().expect("an open connection"))
    }

    /// The next frame; none at the end of the connection.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.take(2)?;
        let length = match head[1] {
            126 => {
                self.take(2)?.into_iter().fold(0, |length, byte| length << 8 | usize::from(byte))
            }
            short => usize::from(short),
        };
        Some((head[0] & 0x0f, self.take(length)?))
    }

    /// The code of the close frame that comes before the end, and how many frames came before it.
    pub(crate) fn closed(&mut self) -> (u16, usize) {
        let mut frames = 0;
        loop {
            let (opcode, payload) = self.frame().expect("a close frame before the end");
            if opcode == CLOSE {
                assert!(self.frame().is_none(), "nothing follows a close frame");
                return (u16::from_be_bytes([payload[0], payload[1]]), frames);
            }
            frames += 1;
        }
    }

    /// Asks for a pong of the client protocol, and waits for it.
    pub(crate) fn ask(&mut self) {
        self.send(&frame(true, TEXT, br#"{"type":"ping"}"#));
        assert_eq!(self.frame(), Some((TEXT, br#"{"type":"pong"}"#.to_vec())));
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no frame in time")
            }
            Err(_) => None,
        }
    }
}
