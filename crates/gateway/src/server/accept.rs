//! Accepts connections and hands them to the workers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use crate::admin;
use crate::node::Node;
use crate::worker::socket;

/// Pause after an accept that failed, for example because all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections beyond the bound that are answered at once, and the time for each.
const REFUSALS_MAX: usize = 64;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that a worker is given.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: std::net::TcpStream,
    /// Who is at the other end of the socket: the client, or a proxy in front of it.
    pub(crate) peer: Peer,
}

/// Accepts and hands each socket to the next worker. Round-robin, because the kernel would favour the worker that is idle
/// at the moment, and long-lived connections would pile up there.
pub(super) async fn run(
    listener: TcpListener,
    node: Arc<Node>,
    workers: Vec<mpsc::Sender<Accepted>>,
    stop: CancellationToken,
) {
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    for worker in workers.iter().cycle() {
        let (socket, peer) = loop {
            match stop.run_until_cancelled(listener.accept()).await {
                None => return,
                Some(Ok(accepted)) if node.connections.try_acquire() => break accepted,
                Some(Ok((socket, _peer))) => refuse(socket, &node, &refusals),
                Some(Err(error)) => {
                    tracing::warn!(%error, "accepting a connection failed; trying again in 100 ms");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        let prepared =
            socket::prepare(&socket, &node.config().websocket).and_then(|()| socket.into_std());
        match prepared {
            Ok(socket) => {
                let accepted = Accepted { socket, peer: peer.ip().into() };
                if worker.send(accepted).await.is_err() {
                    return; // The worker has ended: so does the node.
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was lost before it was served");
                node.connections.release();
            }
        }
    }
}

/// Answers a connection beyond the bound, and reads what it sends for as long as it takes the answer: a socket that is
/// closed with something unread takes the answer back. At most so many at once; the others are just closed.
fn refuse(mut socket: TcpStream, node: &Node, slots: &Arc<Semaphore>) {
    node.metrics.count_refused();
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else { return };
    tokio::spawn(async move {
        let answered = tokio::time::timeout(REFUSAL_TIMEOUT, async {
            socket.write_all(admin::too_many_connections().as_bytes()).await?;
            socket.shutdown().await?;
            let mut unread = [0; 1024];
            while socket.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        });
        if let Ok(Err(error)) = answered.await {
            tracing::debug!(%error, "a refused connection did not take its answer");
        }
        drop(slot);
    });
}
