//! One connection of the proxy: two ways, each a reader, a bounded queue and a writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Control, Counts, Direction, Flow, Harm, Way, connect};

/// Bytes of one read.
const CHUNK_BYTES: u32 = 4096;

/// Bytes that one way holds, in whole reads. The sender feels it when they are full.
const HELD_BYTES: usize = 256 * 1024;

/// Reads that one way holds: enough for those bytes in small pieces.
const HELD_CHUNKS: usize = 4096;

/// The connection must be reset towards both ends.
struct Broken;

/// What a reader hands to its writer.
enum Item {
    Bytes {
        due: Instant,
        bytes: Vec<u8>,
        _room: OwnedSemaphorePermit,
    },
    /// The sender has nothing more to say.
    End,
    /// The sender's connection is gone.
    Failure,
}

/// Carries bytes until both ways have ended, or until something resets the connection.
pub(super) async fn carry(
    mut client: TcpStream,
    orders: watch::Receiver<Control>,
    counts: &Counts,
    seed: u64,
) {
    let upstream = orders.borrow().upstream;
    let Ok(mut server) = connect(upstream).await else { return reset(&client) };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("an open connection");
    }
    let result = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = Writer::new(to_server, Direction::ToServer, orders.clone(), counts);
        let back = Writer::new(to_client, Direction::ToClient, orders.clone(), counts);
        let ways = async {
            let random = [seed, !seed].map(StdRng::seed_from_u64);
            let [random_there, random_back] = random;
            tokio::try_join!(
                pass(from_client, there, random_there),
                pass(from_server, back, random_back)
            )
        };
        tokio::select! {
            result = ways => result.map(drop),
            () = until_reset(orders) => Err(Broken),
        }
    };
    if result.is_err() {
        reset(&client);
        reset(&server);
    }
}

/// When it is dropped, the other end gets RST and whatever it has not read is gone.
fn reset(socket: &TcpStream) {
    // It may be gone already.
    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}

async fn until_reset(mut orders: watch::Receiver<Control>) {
    let resets = orders.borrow().resets;
    // An error is the end of the proxy.
    drop(orders.wait_for(|control| control.resets != resets).await);
}

async fn pass(from: ReadHalf<'_>, writer: Writer<'_>, random: StdRng) -> Result<(), Broken> {
    let (queue, items) = mpsc::channel(HELD_CHUNKS);
    let orders = writer.orders.clone();
    let direction = writer.direction;
    let reading = async {
        read(from, &queue, &orders, direction, random).await;
        Ok(())
    };
    tokio::try_join!(reading, writer.run(items)).map(drop)
}

/// Reads to the end, and decides when each piece is due.
async fn read(
    mut from: ReadHalf<'_>,
    queue: &mpsc::Sender<Item>,
    orders: &watch::Receiver<Control>,
    direction: Direction,
    mut random: StdRng,
) {
    let room = Arc::new(Semaphore::new(HELD_BYTES));
    let mut scratch = vec![0; CHUNK_BYTES as usize];
    let mut due = Instant::now();
    loop {
        let chunk = Arc::clone(&room).acquire_many_owned(CHUNK_BYTES).await;
        let chunk = chunk.expect("it is never closed");
        let item = match from.read(&mut scratch).await {
            Ok(0) => Item::End,
            Err(_) => Item::Failure,
            Ok(length) => {
                let way = orders.borrow().ways[direction as usize];
                due = due.max(Instant::now() + latency(&way, &mut random));
                Item::Bytes { due, bytes: scratch[..length].to_vec(), _room: chunk }
            }
        };
        let is_last = matches!(item, Item::End | Item::Failure);
        if queue.send(item).await.is_err() || is_last {
            return;
        }
    }
}

fn latency(way: &Way, random: &mut StdRng) -> Duration {
    let early = way.latency.saturating_sub(way.jitter);
    early + (way.latency + way.jitter - early).mul_f64(random.random())
}

/// The end of a way: does the harm.
struct Writer<'a> {
    to: WriteHalf<'a>,
    direction: Direction,
    orders: watch::Receiver<Control>,
    counts: &'a Counts,
    /// Bytes were thrown away, so the stream cannot go on.
    has_lost: bool,
    /// Whether this direction was closed by order.
    is_closed: bool,
    closes: u64,
    damages: u64,
    /// What happens after so many more bytes.
    armed: Option<(usize, Harm)>,
    /// When a way of limited speed has room again.
    free: Instant,
}

impl<'a> Writer<'a> {
    fn new(
        to: WriteHalf<'a>,
        direction: Direction,
        orders: watch::Receiver<Control>,
        counts: &'a Counts,
    ) -> Self {
        let closes = orders.borrow().closes[direction as usize];
        let free = Instant::now();
        let (has_lost, is_closed, damages, armed) = (false, false, 0, None);
        Self { to, direction, orders, counts, has_lost, is_closed, closes, damages, armed, free }
    }

    async fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<(), Broken> {
        self.heed().await?;
        loop {
            tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    changed.map_err(|_closed| Broken)?;
                    self.heed().await?;
                }
                item = items.recv() => {
                    // Nothing comes after the end, but an order may.
                    let Some(item) = item else { return self.outlast().await };
                    if self.take(item).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn way(&self) -> Way {
        self.orders.borrow().ways[self.direction as usize]
    }

    /// Does what was ordered since the last time.
    async fn heed(&mut self) -> Result<(), Broken> {
        let control = *self.orders.borrow_and_update();
        let (way, index) = (control.ways[self.direction as usize], self.direction as usize);
        if self.has_lost && way.flow == Flow::Open {
            return Err(Broken);
        }
        if std::mem::replace(&mut self.damages, control.damages[index]) != control.damages[index] {
            self.armed = way.damage.map(|damage| (damage.after, damage.what));
        }
        if std::mem::replace(&mut self.closes, control.closes[index]) != control.closes[index] {
            self.is_closed = true;
            self.to.shutdown().await.map_err(|_error| Broken)?;
        }
        Ok(())
    }

    /// Passes on what was read. `true` at the end.
    async fn take(&mut self, item: Item) -> Result<bool, Broken> {
        if let Item::Bytes { due, .. } = &item {
            sleep_until(*due).await;
        }
        while self.way().flow == Flow::Held {
            self.orders.changed().await.map_err(|_closed| Broken)?;
            self.heed().await?;
        }
        if self.way().flow == Flow::Lost {
            self.has_lost = true;
            return Ok(false);
        }
        if self.has_lost {
            // The way was opened while this one waited: what comes behind a loss must not be taken for the next.
            return Err(Broken);
        }
        match item {
            Item::Failure => return Err(Broken),
            _ if self.is_closed => {}
            Item::Bytes { bytes, .. } => self.harm(bytes).await?,
            Item::End => {
                // A writer that is gone has no use for the end.
                drop(self.to.shutdown().await);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The end itself was thrown away: the connection stays as it is until the way is open again.
    async fn outlast(mut self) -> Result<(), Broken> {
        while self.has_lost {
            self.orders.changed().await.map_err(|_closed| Broken)?;
            self.heed().await?;
        }
        Ok(())
    }

    /// Writes bytes, and does the harm that is due among them.
    async fn harm(&mut self, mut bytes: Vec<u8>) -> Result<(), Broken> {
        match &mut self.armed {
            Some((after, harm)) if *after < bytes.len() => {
                let (after, harm) = (*after, *harm);
                self.armed = None;
                match harm {
                    Harm::Flip => bytes[after] = !bytes[after],
                    Harm::Insert(garbage) => {
                        drop(bytes.splice(after..after, garbage.iter().copied()));
                    }
                    Harm::Cut => {
                        self.write(&bytes[..after]).await?;
                        return Err(Broken);
                    }
                }
            }
            Some((after, _)) => *after -= bytes.len(),
            None => {}
        }
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let way = self.way();
        for piece in bytes.chunks(way.bytes_per_write.unwrap_or(usize::MAX)) {
            if let Some(rate) = way.bytes_per_second {
                sleep_until(self.free).await;
                let length = u32::try_from(piece.len()).expect("a chunk is small");
                let time = Duration::from_secs(1) * length / rate;
                self.free = self.free.max(Instant::now()) + time;
            }
            self.to.write_all(piece).await.map_err(|_error| Broken)?;
            let count = &self.counts.bytes[self.direction as usize];
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if way.bytes_per_write.is_some() {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}
