//! The server side of one connection: a socket, and what is in the middle of going in or out.
//!
//! An idle session is 48 bytes beside its socket in the kernel: no task, no timer, no buffer.

use std::sync::Arc;

use mio::net::TcpStream;
use tickcast_hub::{ConnectionId, Replies};
use tickcast_protocol::{Opcode, Publication, ServerMessage, append_frame};

use super::rights::Who;
use crate::transport::websocket::reader::Reader;

/// Bytes of replies that may wait for the socket. Beyond it the connection's commands are not read.
pub(crate) const REPLIES_MAX: usize = 64 * 1024;

/// Publish commands of one connection that may be at the broker at the same time. Beyond it none is read.
pub(crate) const PUBLISHING_MAX: u8 = 64;

/// One connection.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about a connection, one byte each"
)]
pub(crate) struct Session {
    pub(crate) socket: TcpStream,
    /// Only while a frame or a message is incomplete.
    pub(crate) reader: Option<Box<Reader>>,
    /// Only while something waits for the socket.
    pub(crate) output: Option<Box<Output>>,
    /// Tells this session from a later one with the same index.
    pub(crate) serial: u32,
    /// Second at which it was taken.
    pub(crate) opened: u32,
    /// Second of the last bytes in either direction.
    pub(crate) last_traffic: u32,
    /// Second since which a full socket has taken nothing.
    pub(crate) stalled_since: u32,
    /// Whose key it has presented.
    pub(crate) who: Option<Who>,
    /// Publish commands at the broker.
    pub(crate) publishing: u8,
    /// Wrong keys that it has presented.
    pub(crate) wrong_keys: u8,
    pub(crate) phase: Phase,
    /// The socket is full.
    pub(crate) is_blocked: bool,
    /// It is in the worker's list of full sockets.
    pub(crate) is_listed: bool,
    /// A ping is not answered yet.
    pub(crate) awaits_pong: bool,
    /// Commands are not read until replies have gone out.
    pub(crate) is_paused: bool,
    /// The client was told to go.
    pub(crate) is_told: bool,
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Commands in, data out.
    Open,
    /// The close frame waits in the output; nothing else goes in or out.
    Closing,
    /// The close frame is written; the peer may read it and hang up.
    Lingering,
}

/// What waits for the socket, in order: the rest of a large frame, then bytes.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// A large publication and how much of its frame is written.
    pub(crate) shared: Option<(Arc<Publication>, usize)>,
    /// The rest of a frame that was begun, then replies.
    pub(crate) bytes: Vec<u8>,
    /// Pongs among them.
    pub(crate) pongs: u8,
}

impl Session {
    pub(crate) fn new(socket: TcpStream, serial: u32, second: u32) -> Self {
        Self {
            socket,
            reader: None,
            output: None,
            serial,
            opened: second,
            last_traffic: second,
            stalled_since: 0,
            who: None,
            publishing: 0,
            wrong_keys: 0,
            phase: Phase::Open,
            is_blocked: false,
            is_listed: false,
            awaits_pong: false,
            is_paused: false,
            is_told: false,
        }
    }

    /// The socket has taken something in this second.
    pub(crate) fn note_progress(&mut self, second: u32) {
        self.last_traffic = second;
        self.stalled_since = second;
    }

    /// Where replies are queued.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output.get_or_insert_default().bytes
    }

    /// Bytes that wait for the socket.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.output.as_deref().map_or(0, |output| {
            let rest = output.shared.as_ref();
            let rest = rest.map_or(0, |(publication, written)| publication.frame().len() - written);
            rest + output.bytes.len()
        })
    }

    /// Whether the connection has so much under way that no more of its commands are read.
    pub(crate) fn is_saturated(&self) -> bool {
        self.publishing >= PUBLISHING_MAX
            || self.output.as_ref().is_some_and(|output| output.bytes.len() >= REPLIES_MAX)
    }
}

/// The sessions of a worker, by the index of their connection.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: Vec<Option<Session>>,
    len: usize,
    next_serial: u32,
    /// Connections that got a reply and are to be flushed.
    replied: Vec<ConnectionId>,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One more than the highest index.
    pub(crate) fn span(&self) -> usize {
        self.table.len()
    }

    /// Takes a session, and gives its serial.
    pub(crate) fn insert(
        &mut self,
        connection: ConnectionId,
        socket: TcpStream,
        second: u32,
    ) -> u32 {
        if self.table.len() <= connection.index() {
            self.table.resize_with(connection.index() + 1, || None);
        }
        self.next_serial = self.next_serial.wrapping_add(1);
        self.table[connection.index()] = Some(Session::new(socket, self.next_serial, second));
        self.len += 1;
        self.next_serial
    }

    pub(crate) fn remove(&mut self, connection: ConnectionId) -> Option<Session> {
        let session = self.table.get_mut(connection.index())?.take();
        self.len -= usize::from(session.is_some());
        session
    }

    pub(crate) fn get(&mut self, connection: ConnectionId) -> Option<&mut Session> {
        self.table.get_mut(connection.index())?.as_mut()
    }

    /// The session at an index of the table.
    pub(crate) fn at(&mut self, index: usize) -> Option<&mut Session> {
        self.table.get_mut(index)?.as_mut()
    }

    /// Queues a control frame.
    pub(crate) fn control(&mut self, connection: ConnectionId, opcode: Opcode, payload: &[u8]) {
        if let Some(session) = self.open(connection) {
            append_frame(session.output(), opcode, payload);
            self.replied.push(connection);
        }
    }

    /// Whether the connection is there and was not closed from this side.
    pub(crate) fn is_open(&mut self, connection: ConnectionId) -> bool {
        self.open(connection).is_some()
    }

    fn open(&mut self, connection: ConnectionId) -> Option<&mut Session> {
        self.get(connection).filter(|session| session.phase == Phase::Open)
    }

    /// Takes a connection that got a reply since the last call.
    pub(crate) fn pop_replied(&mut self) -> Option<ConnectionId> {
        self.replied.pop()
    }
}

impl Replies for Sessions {
    fn reply(&mut self, connection: ConnectionId, message: &ServerMessage<'_>) {
        if let Some(session) = self.open(connection) {
            message.append_frame(session.output());
            self.replied.push(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_stays_small() {
        // Debug builds of mio carry 12 bytes more in each socket, which then shares no word with anything.
        let most = if cfg!(debug_assertions) { 64 } else { 48 };
        assert!(size_of::<Option<Session>>() <= most, "{}", size_of::<Option<Session>>());
    }

    #[test]
    fn what_waits_is_the_rest_of_a_frame_and_the_bytes_behind_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut session = Session::new(socket, 1, 0);
        assert_eq!(session.pending_bytes(), 0);
        session.output().extend_from_slice(b"12345");
        assert_eq!(session.pending_bytes(), 5);
        let topic = tickcast_protocol::Topic::new("a").unwrap();
        let position = tickcast_protocol::Position { epoch: "e".parse().unwrap(), offset: 1 };
        let publication = Arc::new(Publication::new(topic, position, 0, b"1"));
        let rest = publication.frame().len() - 3;
        session.output.as_mut().unwrap().shared = Some((publication, 3));
        assert_eq!(session.pending_bytes(), 5 + rest);
    }
}
