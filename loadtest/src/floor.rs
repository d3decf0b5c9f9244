//! The bare loop: the least work that answers a publish with one `send` per subscriber, as a server.
//!
//! It is the yardstick of the budgets, so it must not be clever: one thread, one epoll set, one plain non-blocking
//! `send` of the ready frame to every subscribed socket, in the order of subscription. It keeps no value, batches
//! nothing, reads and ignores what subscribers say, and where a socket is full it drops the frame and counts it.
//! It speaks just enough of the public wire that the generator cannot tell it from any other server:
//! `POST /v1/topics/{topic}`, `POST /v1/publish` (a JSON array), `GET /v1/ws?topics=a,b`, `GET /healthz`, `GET /stats`.

mod routes;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;
use slab::Slab;

use crate::error::LoadError;
use crate::http::Message;
use crate::wire::{OPCODE_TEXT, append_header};
use routes::{Request, Response};

const LISTENER: Token = Token(usize::MAX);
/// Events taken per wait; more would only delay the accepts behind them.
const EVENTS_PER_TURN: usize = 1024;
/// One scratch for all sockets. A request that is longer comes in several reads.
const SCRATCH_BYTES: usize = 64 << 10;

/// What the loop has done since it started; `GET /stats` returns it as JSON.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct FloorStats {
    /// Publications taken.
    pub publications: u64,
    /// Frames handed whole to the kernel.
    pub sent: u64,
    /// Frames not sent because the socket was full.
    pub dropped: u64,
    /// Frames cut short by the kernel or refused because the peer was gone; the socket is given up.
    pub failed: u64,
}

/// A topic: its counter and the sockets that want it.
#[derive(Debug, Default)]
struct Topic {
    offset: u64,
    subscribers: Vec<usize>,
}

/// One connection. It begins as HTTP and may become a subscriber, for good.
#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    /// Unfinished request bytes; bounded by the limits of [`Message`], empty and unallocated for subscribers.
    inbox: Vec<u8>,
    /// Topics subscribed to; not empty means that this is a subscriber.
    topics: Vec<String>,
}

/// The server. [`Floor::run`] owns the thread until the process ends.
#[derive(Debug)]
pub struct Floor {
    poll: Poll,
    listener: TcpListener,
    peers: Slab<Peer>,
    topics: HashMap<String, Topic>,
    stats: FloorStats,
    /// The frame of the publication in hand, and nothing else.
    frame: Vec<u8>,
}

impl Floor {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(address: SocketAddr) -> Result<Self, LoadError> {
        let bind = || -> io::Result<Self> {
            let poll = Poll::new()?;
            let mut listener = TcpListener::bind(address)?;
            poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
            Ok(Self {
                poll,
                listener,
                peers: Slab::new(),
                topics: HashMap::new(),
                stats: FloorStats::default(),
                frame: Vec::new(),
            })
        };
        bind().map_err(LoadError::system(
            format!("listening on {address}"),
            "choose an address of this host and a free port with --listen",
        ))
    }

    /// The address that clients connect to.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn address(&self) -> Result<SocketAddr, LoadError> {
        self.listener
            .local_addr()
            .map_err(LoadError::system("reading the listener's address", "report this as a bug"))
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// If the epoll set fails, which no client can cause.
    pub fn run(mut self) -> Result<(), LoadError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut scratch = vec![0; SCRATCH_BYTES];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => {
                    result
                        .map_err(LoadError::system("waiting for events", "report this as a bug"))?;
                }
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept_all();
                } else {
                    self.read_all(event.token().0, &mut scratch);
                }
            }
        }
    }

    fn accept_all(&mut self) {
        // Out of descriptors ends the loop as WouldBlock does: the generator then reports its handshake as timed out.
        while let Ok((mut stream, _)) = self.listener.accept() {
            let slot = self.peers.vacant_entry();
            let token = Token(slot.key());
            let ready = stream.set_nodelay(true).and_then(|()| {
                self.poll.registry().register(&mut stream, token, Interest::READABLE)
            });
            if ready.is_ok() {
                slot.insert(Peer { stream, inbox: Vec::new(), topics: Vec::new() });
            }
        }
    }

    /// Reads until the socket is empty; a short read says so without a second system call.
    fn read_all(&mut self, id: usize, scratch: &mut [u8]) {
        loop {
            let Some(peer) = self.peers.get_mut(id) else { return };
            match peer.stream.read(scratch) {
                Ok(0) => return self.close(id),
                Ok(length) => {
                    if !self.take_bytes(id, &scratch[..length]) {
                        return self.close(id);
                    }
                    if length < scratch.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(id),
            }
        }
    }

    /// Handles all complete requests; false if the connection is of no further use.
    fn take_bytes(&mut self, id: usize, bytes: &[u8]) -> bool {
        if self.is_subscriber(id) {
            return true;
        }
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let mut inbox = std::mem::take(&mut peer.inbox);
        inbox.extend_from_slice(bytes);
        let mut done = 0;
        let usable = loop {
            match Message::read(&inbox[done..]) {
                Ok(Some(message)) => {
                    done += message.length;
                    let response = self.answer(id, &message);
                    if !self.respond(id, &response) {
                        break false;
                    }
                }
                Ok(None) => break true,
                Err(_) => break false,
            }
            if self.is_subscriber(id) {
                return true;
            }
        };
        inbox.drain(..done);
        if let Some(peer) = self.peers.get_mut(id)
            && !inbox.is_empty()
        {
            peer.inbox = inbox;
        }
        usable
    }

    fn is_subscriber(&self, id: usize) -> bool {
        self.peers.get(id).is_some_and(|peer| !peer.topics.is_empty())
    }

    fn answer(&mut self, id: usize, message: &Message<'_>) -> Response {
        match Request::read(message) {
            Ok(Request::Publish { topic, data }) => {
                let offset = self.publish(topic, data);
                Response::published(topic, offset)
            }
            Ok(Request::Batch(items)) => {
                let offsets = items
                    .iter()
                    .map(|item| (item.topic, self.publish(item.topic, item.data.get().as_bytes())))
                    .collect::<Vec<_>>();
                Response::batch(&offsets)
            }
            Ok(Request::Subscribe { topics, key }) => {
                let offsets = topics
                    .iter()
                    .map(|topic| (*topic, self.subscribe(id, topic)))
                    .collect::<Vec<_>>();
                Response::subscribed(key, &offsets)
            }
            Ok(Request::Health) => Response::ok("{\"status\":\"ok\"}"),
            Ok(Request::Stats) => {
                Response::ok(&serde_json::to_string(&self.stats).unwrap_or_default())
            }
            Err(refusal) => refusal,
        }
    }

    /// Numbers one publication and sends its frame to every subscriber: the loop that everything is compared with.
    fn publish(&mut self, name: &str, data: &[u8]) -> u64 {
        let topic = self.topics.entry(name.to_owned()).or_default();
        topic.offset += 1;
        encode(&mut self.frame, name, topic.offset, data);
        self.stats.publications += 1;
        for &id in &topic.subscribers {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            match peer.stream.write(&self.frame) {
                Ok(length) if length == self.frame.len() => self.stats.sent += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stats.dropped += 1,
                // Half a frame would garble the stream and the floor keeps no rest: the socket is given up.
                // Its end is seen, and the peer removed, by the next event.
                _ => {
                    self.stats.failed += 1;
                    drop(peer.stream.shutdown(std::net::Shutdown::Both));
                }
            }
        }
        topic.offset
    }

    /// Adds the peer to a topic and returns the topic's last offset.
    fn subscribe(&mut self, id: usize, name: &str) -> u64 {
        let Some(peer) = self.peers.get_mut(id) else { return 0 };
        let topic = self.topics.entry(name.to_owned()).or_default();
        topic.subscribers.push(id);
        peer.topics.push(name.to_owned());
        topic.offset
    }

    /// Writes a response; false if it did not fit, since the floor keeps no output.
    fn respond(&mut self, id: usize, response: &Response) -> bool {
        self.peers.get_mut(id).is_some_and(|peer| {
            peer.stream.write(response.bytes()).is_ok_and(|length| length == response.bytes().len())
        })
    }

    fn close(&mut self, id: usize) {
        let Some(peer) = self.peers.try_remove(id) else { return };
        for name in &peer.topics {
            if let Some(topic) = self.topics.get_mut(name) {
                topic.subscribers.retain(|subscriber| *subscriber != id);
            }
        }
    }
}

/// Makes the frame of one publication in `frame`, with its WebSocket header.
fn encode(frame: &mut Vec<u8>, topic: &str, offset: u64, data: &[u8]) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let head = format!(
        "{{\"topic\":\"{topic}\",\"offset\":{offset},\"time\":{},\"data\":",
        since_1970.as_millis()
    );
    frame.clear();
    append_header(frame, OPCODE_TEXT, head.len() + data.len() + 1);
    frame.extend_from_slice(head.as_bytes());
    frame.extend_from_slice(data);
    frame.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FrameScanner, publication_head};

    #[test]
    fn the_frame_is_the_publication_of_the_public_wire() {
        let mut frame = Vec::new();
        encode(&mut frame, "stocks.AAPL", 1043, b"{\"price\": 1.50}");
        let mut seen = 0;
        FrameScanner::default()
            .feed(&frame, |frame| {
                seen += 1;
                let head = publication_head(frame.payload).expect("a publication");
                assert_eq!((head.topic, head.offset), (&b"stocks.AAPL"[..], 1043));
                assert!(frame.payload.ends_with(b",\"data\":{\"price\": 1.50}}"));
            })
            .expect("a frame");
        assert_eq!(seen, 1);
    }
}
