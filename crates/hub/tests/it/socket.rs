//! A socket that takes as many bytes as the test lets it, and the client that reads at its other end.

use crate::frame::Frame;

/// One direction of a connection: node to client.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// Bytes that it still takes; none for as many as come.
    room: Option<usize>,
    /// What the node has begun to write and must finish before anything else.
    pub(crate) unfinished: Vec<u8>,
    /// The node waits until the socket is writable.
    pub(crate) is_blocked: bool,
    /// The beginning of a frame, and when its first byte came.
    tail: Vec<u8>,
    tail_since: u64,
    /// Bytes of the largest write that was tried.
    pub(crate) largest_write: usize,
}

impl Socket {
    /// Takes no more until there is room again.
    pub(crate) fn close_window(&mut self) {
        self.room = Some(0);
    }

    /// Takes this many bytes more; none for as many as come.
    pub(crate) fn open_window(&mut self, bytes: Option<usize>) {
        self.room = match (self.room, bytes) {
            (Some(room), Some(bytes)) => Some(room + bytes),
            _ => None,
        };
    }

    /// Whether everything that is written goes through.
    pub(crate) fn is_open(&self) -> bool {
        self.room.is_none() && !self.is_blocked
    }

    /// One non-blocking write at `now`: the bytes that were taken, and the frames that are complete with them, each with
    /// the time of its first byte.
    pub(crate) fn write(&mut self, bytes: &[u8], now: u64) -> (usize, Vec<(u64, Frame)>) {
        self.largest_write = self.largest_write.max(bytes.len());
        let taken = self.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if let Some(room) = &mut self.room {
            *room -= taken;
        }
        if self.tail.is_empty() {
            self.tail_since = now;
        }
        self.tail.extend_from_slice(&bytes[..taken]);
        let (mut frames, mut at) = (Vec::new(), 0);
        while let Some((frame, length)) = Frame::read(&self.tail[at..]) {
            frames.push((self.tail_since, frame));
            self.tail_since = now;
            at += length;
        }
        self.tail.drain(..at);
        (taken, frames)
    }
}
