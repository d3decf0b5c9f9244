//! Options of client sockets, and the last words on one that is stuck.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

use super::session::Session;
use crate::config::Websocket;

/// Prepares an accepted socket.
///
/// Without these a client that stops reading pins megabytes in the kernel and gets minutes-old values when it goes on:
/// the send buffer is capped, and the kernel takes no more than it is about to send.
pub(crate) fn prepare(socket: &impl AsFd, options: &Websocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(options.send_buffer_bytes.bytes())?;
    socket
        .set_tcp_notsent_lowat(u32::try_from(options.unsent_bytes.bytes()).unwrap_or(u32::MAX))?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))
}

/// Lets a full socket live longer than the stall timeout: to the kernel a peer that acknowledges but takes nothing looks
/// dead after the user timeout, and it would be cut before it can be told why.
pub(crate) fn be_patient(session: &Session, options: &Websocket) {
    let patience = options.user_timeout.max(options.stall_timeout + Duration::from_secs(10));
    set_user_timeout(session, patience);
}

/// The socket takes something again: dead peers are to be found as fast as before.
pub(crate) fn be_strict(session: &Session, options: &Websocket) {
    set_user_timeout(session, options.user_timeout);
}

fn set_user_timeout(session: &Session, timeout: Duration) {
    if let Err(error) = SockRef::from(&session.socket).set_tcp_user_timeout(Some(timeout)) {
        tracing::debug!(%error, "the user timeout of a connection stays as it is");
    }
}

/// Tries to get the close frame of a stuck connection into the kernel, behind the rest of the frame that was begun.
///
/// A client that goes on reading before its socket times out then learns why it was closed; one that does not costs the
/// kernel a send buffer until then. Failure is fine: the connection is given up in any case.
pub(crate) fn write_last(session: &mut Session, close: &[u8]) {
    let mut last = Vec::new();
    if let Some(output) = session.output.take() {
        if let Some((publication, written)) = &output.shared {
            last.extend_from_slice(&publication.frame()[*written..]);
        }
        last.extend_from_slice(&output.bytes);
    }
    last.extend_from_slice(close);
    let socket = SockRef::from(&session.socket);
    let room = socket.send_buffer_size().unwrap_or(0) + 2 * last.len();
    let is_prepared =
        socket.set_tcp_notsent_lowat(u32::MAX).is_ok() && socket.set_send_buffer_size(room).is_ok();
    if is_prepared && let Err(error) = session.socket.write(&last) {
        tracing::debug!(%error, "a stuck connection took no close frame");
    }
}
