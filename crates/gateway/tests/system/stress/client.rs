//! One of many clients: a socket, the bytes of an unfinished frame, and the follower that judges it. No thread, no task.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::handshake;
use crate::oracle::{Follower, Oracle, Place};

/// The kernel takes little for a client that does not read.
const RECEIVE_BUFFER_BYTES: usize = 4096;

/// A subscription of a client.
#[derive(Debug, Clone)]
pub(crate) struct Interests {
    pub(crate) topics: Vec<String>,
    /// The options of all of them, as they stand in a command, such as `"mode":"latest"`.
    pub(crate) options: &'static str,
}

/// One client.
pub(crate) struct Client {
    interests: Interests,
    pub(crate) follower: Follower,
    connection: Option<Connection>,
}

/// One of its connections.
struct Connection {
    socket: TcpStream,
    is_upgraded: bool,
    input: Vec<u8>,
}

/// How a connection ended that the client did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With this close code.
    Closed(u16),
    /// Without one.
    Lost,
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

impl Client {
    pub(crate) fn new(name: String, interests: Interests) -> Self {
        Self { interests, follower: Follower::new(name), connection: None }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects, and asks for everything since the last time, right behind the handshake.
    pub(crate) fn arrive(&mut self, address: SocketAddr, registry: &Registry, token: Token) {
        let socket =
            Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("a small buffer");
        // On loopback the backlog has room, so it does not wait.
        socket.connect(&address.into()).expect("the node listens");
        socket.set_nonblocking(true).expect("a socket");
        let mut socket = TcpStream::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE).expect("room in the set");
        let mut bytes = handshake::head(&handshake::LINES).into_bytes();
        append_frame(&mut bytes, TEXT, self.subscribe().as_bytes());
        let written = socket.write(&bytes).expect("a new connection");
        assert_eq!(written, bytes.len(), "a new socket takes a request");
        self.connection = Some(Connection { socket, is_upgraded: false, input: Vec::new() });
    }

    fn subscribe(&mut self) -> String {
        let options = self.interests.options;
        let items = self.interests.topics.iter().map(|topic| match self.follower.asks(topic, true) {
            None => format!(r#"{{"topic":"{topic}",{options}}}"#),
            Some(Place { epoch, offset }) => format!(
                r#"{{"topic":"{topic}",{options},"since":{{"epoch":"{epoch}","offset":{offset}}}}}"#
            ),
        });
        let items = items.collect::<Vec<_>>().join(",");
        format!(r#"{{"type":"subscribe","id":1,"topics":[{items}]}}"#)
    }

    /// Hangs up, with a close frame or without a word.
    pub(crate) fn leave(&mut self, with_close_frame: bool) {
        if let Some(mut connection) = self.connection.take()
            && with_close_frame
        {
            let mut bytes = Vec::new();
            append_frame(&mut bytes, CLOSE, &1000_u16.to_be_bytes());
            // It may be gone already.
            drop(connection.socket.write(&bytes));
        }
        self.follower.loses_connection();
    }

    /// Reads everything that is there. An end is answered once.
    pub(crate) fn read(&mut self, scratch: &mut [u8], oracle: &mut Oracle) -> Result<(), End> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let end = loop {
            match connection.socket.read(scratch) {
                Ok(0) => break End::Lost,
                Ok(length) => connection.input.extend_from_slice(&scratch[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let Some(code) = connection.take_frames(&mut self.follower, oracle) else {
                        return Ok(());
                    };
                    break End::Closed(code);
                }
                Err(_) => break End::Lost,
            }
        };
        // What came before the end has come.
        let code = connection.take_frames(&mut self.follower, oracle);
        self.leave(false);
        Err(code.map_or(end, End::Closed))
    }
}

impl Connection {
    /// Hands on the whole frames of the input; the code of a close frame.
    fn take_frames(&mut self, follower: &mut Follower, oracle: &mut Oracle) -> Option<u16> {
        let mut used = 0;
        if !self.is_upgraded {
            used = self.input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
            let head = String::from_utf8_lossy(&self.input[..used]);
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            self.is_upgraded = true;
        }
        let mut code = None;
        while let Some((opcode, payload)) = frame(&self.input[used..]) {
            used += header_length(payload.len()) + payload.len();
            match opcode {
                TEXT => follower.receives(std::str::from_utf8(payload).expect("UTF-8"), oracle),
                PING => {
                    let mut pong = Vec::new();
                    append_frame(&mut pong, PONG, payload);
                    // A pong that finds no room is not sent: then there is other traffic.
                    drop(self.socket.write(&pong));
                }
                CLOSE => code = Some(u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("opcode {other}"),
            }
        }
        self.input.drain(..used);
        code
    }
}

/// Opcode and payload of the frame at the beginning of the input, if it is whole.
fn frame(input: &[u8]) -> Option<(u8, &[u8])> {
    let (first, length) = (input.first()?, input.get(1)?);
    let length = match length {
        126 => usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])),
        127 => panic!("a frame of more than 64 KiB"),
        length => usize::from(*length),
    };
    let start = header_length(length);
    Some((first & 0x0F, input.get(start..start + length)?))
}

fn header_length(payload: usize) -> usize {
    if payload < 126 { 2 } else { 4 }
}

/// A client's frame. Its mask is zero: that is a mask too, and costs nothing.
fn append_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => out.push(0x80 | length),
        _ => {
            out.push(0x80 | 126);
            let length = u16::try_from(payload.len()).expect("commands are short here");
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}
