//! The only code that writes to client sockets.
//!
//! One connection at a time: what the hub gathers goes out with one non-blocking write, and the hub is told how much of
//! it the socket took. Another way of writing (many connections in one system call, say) belongs here and nowhere else:
//! gather several plans, write them together, commit each.

use std::io::{self, Write};

use tickcast_hub::ConnectionId;

use super::core::State;
use super::session::{Output, Phase, Session};
use super::socket;
use crate::metrics::CloseReason;

/// Connections flushed in one turn, before reads, timers, accepts and requests get theirs. Larger chunks starve them: with 6,000 sockets
/// in one go another publisher waits 60 ms, in chunks of 256 it waits 4.
const CHUNK: usize = 256;

impl State {
    /// Flushes up to a chunk of dirty connections; true if more wait.
    pub(super) fn flush_chunk(&mut self) -> bool {
        for _ in 0..CHUNK {
            let Some(connection) = self.fanout.pop_dirty() else { return false };
            self.shield(connection, |state| {
                if let Err(error) = state.flush(connection) {
                    tracing::debug!(%error, "a connection was lost while writing");
                    state.remove(connection, CloseReason::Lost);
                }
            });
        }
        self.fanout.dirty_connections() > 0
    }

    fn flush(&mut self, connection: ConnectionId) -> io::Result<()> {
        let Some(session) = self.sessions.get(connection) else { return Ok(()) };
        if session.phase == Phase::Lingering {
            return Ok(()); // It is owed nothing any more, though its subscriptions end with it only.
        }
        let (written, is_done) = write_shared(session)?;
        if written > 0 {
            self.counters.sent_bytes += written as u64;
            session.note_progress(self.second);
        }
        if !is_done {
            self.block(connection);
            return Ok(());
        }
        let waiting = session.output.as_deref().map_or(&[][..], |output| &output.bytes);
        if session.phase == Phase::Open {
            self.fanout.gather(connection, waiting, &mut self.plan);
        } else {
            self.plan.start(waiting);
        }
        let bytes = self.plan.bytes();
        let written = if bytes.is_empty() { 0 } else { write_some(&mut session.socket, bytes)? };
        #[cfg(feature = "testing")]
        self.faults.strike(connection, super::faults::Place::Flush);
        let committed = self.fanout.commit(connection, &self.plan, written);
        self.counters.writes += u64::from(written > 0);
        self.counters.sent_bytes += written as u64;
        if written > 0 {
            session.note_progress(self.second);
        }
        if written == bytes.len() {
            session.output = None;
            if session.is_paused {
                self.resumable.push(connection);
            }
            if session.phase == Phase::Closing {
                self.linger(connection);
            } else if committed.has_more {
                self.fanout.enqueue(connection);
            }
            return Ok(());
        }
        keep_rest(session, &self.plan, written, committed.unfinished);
        self.block(connection);
        Ok(())
    }

    /// The socket is full: nothing more is gathered for it until it is writable.
    fn block(&mut self, connection: ConnectionId) {
        let second = self.second;
        if let Some(session) = self.sessions.get(connection)
            && !session.is_blocked
        {
            session.is_blocked = true;
            session.stalled_since = second;
            if !std::mem::replace(&mut session.is_listed, true) {
                self.stalled.push((connection, session.serial));
                socket::be_patient(session, &self.node.config().websocket);
            }
        }
        self.fanout.set_blocked(connection, true);
        self.counters.blocked += 1;
    }
}

/// Keeps what must follow before anything else: the bytes that waited already, and the rest of the frame begun.
fn keep_rest(session: &mut Session, plan: &tickcast_hub::Plan, written: usize, unfinished: usize) {
    if unfinished == 0 {
        session.output = None;
        return;
    }
    let output = session.output.get_or_insert_default();
    if let Some(publication) = plan.shared() {
        **output = Output { shared: Some((publication.clone(), written)), ..Output::default() };
    } else {
        if written >= output.bytes.len() {
            output.pongs = 0; // What waited is out; the rest of a publication follows.
        }
        output.bytes.clear();
        output.bytes.extend_from_slice(&plan.bytes()[written..written + unfinished]);
    }
}

/// Writes the rest of a large frame: how much of it, and whether that was all.
fn write_shared(session: &mut Session) -> io::Result<(usize, bool)> {
    let Some(output) = session.output.as_deref_mut() else { return Ok((0, true)) };
    let Some((publication, done)) = &mut output.shared else { return Ok((0, true)) };
    let rest = &publication.frame()[*done..];
    let written = write_some(&mut session.socket, rest)?;
    *done += written;
    let is_done = written == rest.len();
    if is_done {
        output.shared = None;
    }
    Ok((written, is_done))
}

/// One non-blocking write; 0 if the socket is full.
fn write_some(socket: &mut mio::net::TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
