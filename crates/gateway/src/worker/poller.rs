//! A worker's own epoll set, watched by the worker's runtime.
//!
//! After the upgrade a socket leaves tokio and joins this set, so that a connection needs no task and no registration
//! with the runtime. The set's own descriptor is readable whenever one of its sockets is ready, and that descriptor is
//! what the runtime watches: one registration for all connections of the worker.

use std::io;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Registry};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Events taken per look. More looks follow until there are none.
const EVENTS: usize = 1024;

/// Looks per turn: a flood of readable sockets must not keep the flush waiting.
const LOOKS_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Poller {
    poll: AsyncFd<Poll>,
    events: Events,
}

impl Poller {
    /// A new, empty set. Must be made on the runtime that watches it.
    #[expect(unsafe_code, reason = "tokio asks for it; see below")]
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        // SAFETY: `AsyncFd` demands that the descriptor stays open and the same until it is dropped. It is owned by the
        // `Poll` that moves into the `AsyncFd`: nothing here closes or replaces it, and both are dropped together.
        let poll = unsafe { AsyncFd::register_with_interest(poll, Interest::READABLE) }
            .map_err(io::Error::from)?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS) })
    }

    /// Where sockets are registered.
    pub(crate) fn registry(&self) -> io::Result<Registry> {
        self.poll.get_ref().registry().try_clone()
    }

    /// Waits until a socket of the set is ready. May be dropped at any time.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        self.poll.readable_mut().await?.retain_ready();
        Ok(())
    }

    /// Hands every event to `handle` until the set is drained, or until it is time for something else; then
    /// [`Poller::ready`] returns at once.
    pub(crate) fn drain(&mut self, mut handle: impl FnMut(&Event)) -> io::Result<()> {
        let events = &mut self.events;
        for _ in 0..LOOKS_MAX {
            // An edge-triggered watch needs a look that finds nothing before it reports anew.
            let look = self.poll.try_io_mut(Interest::READABLE, |poll| {
                poll.poll(events, Some(Duration::ZERO))?;
                if events.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match look {
                Ok(()) => events.iter().for_each(&mut handle),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use mio::Token;

    use super::*;

    const SOCKETS: usize = 50;
    const ROUNDS: usize = 200;

    fn write_everywhere(mut writers: Vec<std::net::TcpStream>) -> Vec<std::net::TcpStream> {
        for round in 0..SOCKETS * ROUNDS {
            writers[round % SOCKETS].write_all(b"x").unwrap();
        }
        writers
    }

    fn read_all(socket: &mut mio::net::TcpStream) -> usize {
        let mut buffer = [0; 64];
        std::iter::from_fn(|| socket.read(&mut buffer).ok()).sum()
    }

    /// Writes from another thread while the set is drained: every byte is seen.
    #[tokio::test]
    async fn no_edge_is_missed() {
        let mut poller = Poller::new().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for index in 0..SOCKETS {
            writers.push(std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut socket = mio::net::TcpStream::from_std(socket);
            let interest = mio::Interest::READABLE;
            poller.registry().unwrap().register(&mut socket, Token(index), interest).unwrap();
            readers.push(socket);
        }
        let writing = std::thread::spawn(move || write_everywhere(writers));
        let mut seen = 0;
        while seen < SOCKETS * ROUNDS {
            poller.ready().await.unwrap();
            poller.drain(|event| seen += read_all(&mut readers[event.token().0])).unwrap();
        }
        drop(writing.join().unwrap());
        assert_eq!(seen, SOCKETS * ROUNDS);
    }
}
