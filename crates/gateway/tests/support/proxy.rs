//! A TCP proxy that harms what passes through it, on command, while connections are open.
//!
//! It runs on a thread of its own, so that a test that waits does not slow it down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::port::Port;
use crate::process::{PATIENCE, until};

#[path = "proxy/connection.rs"]
mod connection;

/// What the kernel holds for each socket of the proxy: little, so that whoever sends soon feels a slow way.
const SOCKET_BUFFER_BYTES: u32 = 64 * 1024;

const BACKLOG: u32 = 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer = 0,
    ToClient = 1,
}

/// How bytes pass in one direction. The default is no harm.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Way {
    pub(crate) latency: Duration,
    /// The latency is this much more or less, at random. Bytes keep their order.
    pub(crate) jitter: Duration,
    pub(crate) bytes_per_second: Option<u32>,
    /// At most this many bytes in one write, and so in one segment.
    pub(crate) bytes_per_write: Option<usize>,
    pub(crate) flow: Flow,
    /// Happens once to each connection: to those that are open, and to new ones.
    pub(crate) damage: Option<Damage>,
}

/// Whether bytes pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    #[default]
    Open,
    /// They wait, within bounds, and come as a burst when the way is open again: a network that stalls.
    Held,
    /// They are taken and thrown away, and so is the end of the connection: a black hole. Connections that have lost
    /// bytes are reset when the way is open again.
    Lost,
}

/// Harm to the stream itself, that many bytes after it was ordered, or after the connection began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Damage {
    pub(crate) after: usize,
    pub(crate) what: Harm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// One byte becomes another.
    Flip,
    /// These bytes come in between.
    Insert(&'static [u8]),
    /// The connection is reset there.
    Cut,
}

/// The proxy. Everything ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
    counts: Arc<Counts>,
}

/// What the proxy is told to do.
#[derive(Debug, Clone, Copy)]
struct Control {
    upstream: SocketAddr,
    accepts: bool,
    ways: [Way; 2],
    /// How often damage was ordered, by direction.
    damages: [u64; 2],
    /// How often everything was reset.
    resets: u64,
    /// How often each direction was closed.
    closes: [u64; 2],
}

/// What has passed.
#[derive(Debug, Default)]
struct Counts {
    listens: AtomicBool,
    connections: AtomicU64,
    open: AtomicU64,
    bytes: [AtomicU64; 2],
}

impl Proxy {
    /// A proxy before `upstream` that does no harm yet. `seed` decides its jitter.
    pub(crate) fn start(upstream: SocketAddr, seed: u64) -> Self {
        let port = Port::free();
        let control = Control {
            upstream,
            accepts: true,
            ways: [Way::default(); 2],
            damages: [0; 2],
            resets: 0,
            closes: [0; 2],
        };
        let (control, orders) = watch::channel(control);
        let counts = Arc::<Counts>::default();
        let proxy = Self { address: port.address, control, counts: Arc::clone(&counts) };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(port, orders, counts, seed));
        });
        proxy.wait_until_listening(true);
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the Redis behind it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// From now on bytes pass like this in one direction.
    pub(crate) fn set(&self, direction: Direction, way: Way) {
        self.control.send_modify(|control| {
            control.ways[direction as usize] = way;
            control.damages[direction as usize] += u64::from(way.damage.is_some());
        });
    }

    /// From now on bytes pass like this in both directions.
    pub(crate) fn set_both(&self, way: Way) {
        self.set(Direction::ToServer, way);
        self.set(Direction::ToClient, way);
    }

    /// No more harm.
    pub(crate) fn clear(&self) {
        self.set_both(Way::default());
    }

    /// Resets every open connection, towards both ends.
    pub(crate) fn reset_all(&self) {
        self.control.send_modify(|control| control.resets += 1);
    }

    /// Ends one direction of every open connection, and leaves the other.
    pub(crate) fn half_close(&self, direction: Direction) {
        self.control.send_modify(|control| control.closes[direction as usize] += 1);
    }

    /// New connections are refused. Those that are open stay.
    pub(crate) fn refuse(&self) {
        self.control.send_modify(|control| control.accepts = false);
        self.wait_until_listening(false);
    }

    /// New connections are taken again.
    pub(crate) fn accept(&self) {
        self.control.send_modify(|control| control.accepts = true);
        self.wait_until_listening(true);
    }

    /// New connections lead to another server.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        self.control.send_modify(|control| control.upstream = upstream);
    }

    /// Connections that were ever made.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> u64 {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Bytes that have arrived at the other end of the proxy in one direction.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        self.counts.bytes[direction as usize].load(Ordering::Relaxed)
    }

    fn wait_until_listening(&self, listens: bool) {
        until("listening as it should", PATIENCE, || {
            self.counts.listens.load(Ordering::Acquire) == listens
        });
    }
}

/// Listens whenever connections are to be taken.
async fn serve(port: Port, mut orders: watch::Receiver<Control>, counts: Arc<Counts>, seed: u64) {
    while orders.wait_for(|control| control.accepts).await.is_ok() {
        let listener = listen(&port).await;
        counts.listens.store(true, Ordering::Release);
        let mut refusal = orders.clone();
        let is_over = tokio::select! {
            () = accept(&listener, &orders, &counts, seed) => true,
            refused = refusal.wait_for(|control| !control.accepts) => refused.is_err(),
        };
        drop(listener);
        counts.listens.store(false, Ordering::Release);
        if is_over {
            return;
        }
    }
}

/// Listens again. A process that is just being started may still hold the listener of before for a moment.
async fn listen(port: &Port) -> TcpListener {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listener = socket().and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(port.address)?;
            socket.listen(BACKLOG)
        });
        match listener {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", port.address),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn accept(
    listener: &TcpListener,
    orders: &watch::Receiver<Control>,
    counts: &Arc<Counts>,
    seed: u64,
) {
    while let Ok((client, _)) = listener.accept().await {
        let number = counts.connections.fetch_add(1, Ordering::Relaxed);
        let (orders, counts) = (orders.clone(), Arc::clone(counts));
        counts.open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            connection::carry(client, orders, &counts, seed ^ number).await;
            counts.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn socket() -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(socket)
}

async fn connect(upstream: SocketAddr) -> std::io::Result<TcpStream> {
    socket()?.connect(upstream).await
}
