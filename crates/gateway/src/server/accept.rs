//! Accepts connections and lets them in, in the order in which they came and not faster than the node can take.
//!
//! When a node is lost, all its clients come to the others at once. Each of them costs a handshake and a subscription, and
//! a worker that did a thousand of these in a row would leave its live clients without news meanwhile. So what was
//! accepted waits in a [`Line`], untouched, and workers get it at the rate of `server.accept_rate`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::admission::{Place, rate, waiting_max};
use super::line::{Line, Waiting};
use super::peer::Peer;
use super::refusal::{Refusal, Refusals, answer_at_once};
use crate::config::ProxyProtocol;
use crate::node::Node;
use crate::worker::socket;

/// Pause after an accept that failed, for example because all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Pause when every worker has as much to take as it may.
const WORKERS_PAUSE: Duration = Duration::from_millis(5);

/// Connections that are looked at before the runtime has its turn: it also serves the admin listener.
const TURN_MAX: usize = 128;

/// Who has waited longer than that may have given up.
const GIVING_UP_MIN: Duration = Duration::from_millis(100);

/// A connection that a worker is given.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: std::net::TcpStream,
    /// Who is at the other end of the socket: the client, or a proxy in front of it.
    pub(crate) peer: Peer,
    pub(crate) place: Place,
}

/// Accepts until `stop` is cancelled or the workers have ended, and turns away who waits then.
pub(super) async fn run(
    listener: TcpListener,
    node: Arc<Node>,
    workers: Vec<mpsc::Sender<Accepted>>,
    stop: CancellationToken,
) {
    let mut door = Door::new(node, workers);
    stop.run_until_cancelled(door.keep(&listener)).await;
    drop(listener);
    door.turn_away().await;
}

/// The workers take no more connections: the node ends.
#[derive(Debug)]
struct Ended;

#[derive(Debug)]
struct Door {
    node: Arc<Node>,
    workers: Vec<mpsc::Sender<Accepted>>,
    /// The worker whose turn is next. Round-robin, because the kernel would favour the worker that is idle at the moment,
    /// and long-lived connections would pile up there.
    next: usize,
    line: Line,
    /// As it is configured; of the line.
    rate: usize,
    refusals: Refusals,
    /// Nothing is accepted until then.
    pause: Option<Instant>,
    /// There were no more open files, and nobody has said that there are again.
    lacks_files: bool,
}

impl Door {
    fn new(node: Arc<Node>, workers: Vec<mpsc::Sender<Accepted>>) -> Self {
        let rate = rate(&node.config(), workers.len());
        Self {
            line: Line::new(rate, Instant::now()),
            rate,
            refusals: Refusals::new(node.connections.max()),
            node,
            workers,
            next: 0,
            pause: None,
            lacks_files: false,
        }
    }

    async fn keep(&mut self, listener: &TcpListener) {
        loop {
            let Ok(due) = self.let_in() else { return };
            let pause = self.pause;
            tokio::select! {
                biased;
                accepted = listener.accept(), if pause.is_none() => self.take(accepted),
                () = at(pause), if pause.is_some() => self.pause = None,
                () = at(due), if due.is_some() => {}
            }
        }
    }

    fn take(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.note_failure(&error),
        };
        self.note_files();
        let peer = Peer::from(peer.ip());
        let config = self.node.config();
        let server = &config.server;
        let is_direct = server.proxy_protocol == ProxyProtocol::Required
            && !peer.is_trusted(&server.trusted_proxies);
        if is_direct {
            return self.node.reject_unproxied(peer, &"it is no trusted proxy");
        }
        let (max, refusal) = self.places();
        if self.line.len() >= max
            && let Some(accepted) = self.line.make_room(max)
        {
            self.send_away(&accepted, refusal);
        }
        if self.line.len() >= max {
            return self.refusals.turn_away(socket, refusal, &self.node.metrics);
        }
        let Some(mut place) = self.node.connections.enter() else {
            return self.refusals.turn_away(socket, Refusal::Limit, &self.node.metrics);
        };
        // Where a proxy is at the other end, whose connection it is turns out later.
        if !place.claim(peer, &config) {
            self.node.warnings.crowded_address(peer);
            return self.refusals.turn_away(socket, Refusal::Address, &self.node.metrics);
        }
        match socket.into_std() {
            Ok(socket) => {
                self.line.join(Accepted { socket, peer, place }, Instant::now());
            }
            Err(error) => note_loss(&error),
        }
    }

    fn note_failure(&mut self, error: &io::Error) {
        match Errno::from_io_error(error) {
            // The client has gone, or the kernel asks to be asked again.
            Some(Errno::CONNABORTED | Errno::CONNRESET | Errno::INTR | Errno::PROTO) => return,
            Some(Errno::MFILE | Errno::NFILE) => {
                self.node.connections.note_lack_of_files();
                self.lacks_files = true;
            }
            _ => tracing::warn!(%error, "accepting a connection failed; trying again in 100 ms"),
        }
        self.pause = Some(Instant::now() + ACCEPT_PAUSE);
    }

    fn note_files(&mut self) {
        if self.lacks_files && !self.node.connections.is_out_of_files() {
            self.lacks_files = false;
            tracing::info!("there are open files again");
        }
    }

    /// Hands connections to the workers as long as it is their time, and says when to go on; never, if nobody waits.
    fn let_in(&mut self) -> Result<Option<Instant>, Ended> {
        let due = self.let_in_some();
        self.node.connections.set_waiting(self.line.len());
        due
    }

    fn let_in_some(&mut self) -> Result<Option<Instant>, Ended> {
        let now = Instant::now();
        self.follow_config(now);
        for _ in 0..TURN_MAX {
            let Some((turn, waiting)) = self.line.next(now) else {
                if self.look(now) {
                    continue;
                }
                return Ok(self.line.due(now));
            };
            let Waiting { accepted, since } = waiting;
            let waited = now.saturating_duration_since(since);
            if waited >= GIVING_UP_MIN && is_gone(&accepted.socket) {
                self.node.metrics.count_admission_abandoned();
                continue;
            }
            match self.hand_over(accepted)? {
                HandedOver::Taken => {
                    self.line.spend(turn);
                    self.node.metrics.observe_admission_wait(waited);
                }
                HandedOver::Lost => {}
                HandedOver::Back(accepted) => {
                    self.line.put_back(turn, Waiting { accepted, since });
                    // Who publishes is to be the next all the same.
                    self.look(now);
                    return Ok(Some(now + WORKERS_PAUSE));
                }
            }
        }
        Ok(Some(now))
    }

    /// Has the line find out who publishes, if it is time to, and sends away who has no place in it after that.
    fn look(&mut self, now: Instant) -> bool {
        let (max, refusal) = self.places();
        let Some(refused) = self.line.look(max, now) else { return false };
        for accepted in refused {
            self.send_away(&accepted, refusal);
        }
        true
    }

    /// How many may wait now, and what those are told for whom that is too few. Who is in counts against
    /// `server.max_connections` like who waits, so that no more may wait than will find a place.
    fn places(&self) -> (usize, Refusal) {
        let connections = &self.node.connections;
        let served = connections.open().saturating_sub(self.line.len());
        let left = connections.max().saturating_sub(served);
        let patient = waiting_max(&self.node.config(), self.workers.len());
        if left < patient { (left, Refusal::Limit) } else { (patient, Refusal::Queue) }
    }

    fn follow_config(&mut self, now: Instant) {
        let rate = rate(&self.node.config(), self.workers.len());
        if rate != self.rate {
            self.rate = rate;
            self.line.set_rate(rate, now);
        }
    }

    /// Gives a connection to the next worker that has room.
    fn hand_over(&mut self, mut accepted: Accepted) -> Result<HandedOver, Ended> {
        if let Err(error) = socket::prepare(&accepted.socket, &self.node.config().websocket) {
            note_loss(&error);
            return Ok(HandedOver::Lost);
        }
        for _ in 0..self.workers.len() {
            let index = self.next;
            self.next = (index + 1) % self.workers.len();
            if self.node.pulse.is_silent(index) {
                continue;
            }
            match self.workers[index].try_send(accepted) {
                Ok(()) => return Ok(HandedOver::Taken),
                Err(TrySendError::Full(back)) => accepted = back,
                Err(TrySendError::Closed(_)) => return Err(Ended),
            }
        }
        Ok(HandedOver::Back(accepted))
    }

    /// Sends everybody who waits to another node.
    async fn turn_away(&mut self) {
        while let Some(Waiting { accepted, .. }) = self.line.leave() {
            self.send_away(&accepted, Refusal::Draining);
            drop(accepted);
            self.node.connections.set_waiting(self.line.len());
            if self.line.len().is_multiple_of(TURN_MAX) {
                yield_now().await;
            }
        }
    }

    fn send_away(&self, accepted: &Accepted, refusal: Refusal) {
        self.node.metrics.count_rejected(refusal.reason());
        if let Err(error) = answer_at_once(&accepted.socket, refusal) {
            tracing::debug!(%error, "a client did not take the answer that there is no place for it");
        }
    }
}

/// What has become of a connection that was to get a worker.
#[derive(Debug)]
enum HandedOver {
    Taken,
    Lost,
    /// No worker has room.
    Back(Accepted),
}

fn note_loss(error: &io::Error) {
    tracing::debug!(%error, "a connection was lost before it was served");
}

/// At this time; never, without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Whether the client of a connection has hung up, or will send nothing more: then whatever it has asked for, it does not
/// wait for the answer.
fn is_gone(socket: &std::net::TcpStream) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::RDHUP)];
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    // What cannot be asked is found out when it is served.
    poll(&mut watched, Some(&Timespec::default()))
        .is_ok_and(|_| watched[0].revents().intersects(gone))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net;

    use super::*;

    fn pair() -> (net::TcpStream, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        (client, served)
    }

    #[test]
    fn who_has_hung_up_is_gone_whatever_it_has_said() {
        let (mut client, served) = pair();
        assert!(!is_gone(&served));
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert!(!is_gone(&served));
        drop(client);
        while !is_gone(&served) {} // The end takes its time, even here.
    }

    #[test]
    fn an_answer_at_once_is_not_taken_back_by_what_was_not_read() {
        let (mut client, served) = pair();
        client.write_all(&[b'x'; 5000]).unwrap();
        served.set_nonblocking(true).unwrap();
        // Wait until it is there: only then does the question come up.
        while served.peek(&mut [0; 5000]).unwrap_or(0) < 5000 {}
        answer_at_once(&served, Refusal::Draining).unwrap();
        drop(served);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}
