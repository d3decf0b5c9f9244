//! The connections of one client: one at a time, or two while it moves to another node.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::client::{Shared, Which};
use super::fleet::Manner;
use super::world::World;

/// The same choices every time.
const SEED: u64 = 20_261_125;

/// Pause before asking again for a topic that could not be had.
const AGAIN: Duration = Duration::from_millis(200);

/// Pause before looking again whether a client that is to move can do so.
const BUSY: Duration = Duration::from_millis(50);

/// What all clients of a fleet share.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) world: Arc<World>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) manner: Manner,
}

/// How often clients were told to do something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    /// Everybody hangs up and comes back.
    pub(super) hang_ups: u64,
    /// The connections of every second one are reset.
    pub(super) cuts: u64,
}

type Stream = WebSocketStream<TcpStream>;
type Opening = Pin<Box<dyn Future<Output = Option<Stream>> + Send>>;

/// One client, for as long as its task lives.
pub(super) async fn live(index: usize, client: Shared, mut context: Context) {
    let mut random = StdRng::seed_from_u64(SEED ^ index as u64);
    let mut choice = index;
    if let Some(per_second) = context.manner.arrivals {
        let place = u32::try_from(index).expect("a count of clients");
        sleep(Duration::from_secs(1) * place / per_second).await;
    }
    client.lock().notes.arrived = Some(std::time::Instant::now());
    let mut failures = 0;
    loop {
        let opened = connect(Arc::clone(&context.world), choice, context.manner).await;
        failures += 1;
        if let Some(first) = opened {
            failures = 0;
            client.lock().connects();
            let mut session = Session::new((index, &client), &mut context, first, &mut random);
            let by_itself = session.run().await;
            client.lock().disconnects(by_itself);
        }
        choice = random.random_range(0..usize::MAX);
        sleep(pause(&context.manner, failures, &mut random)).await;
    }
}

/// How long to stay away after so many failures in a row.
fn pause(manner: &Manner, failures: u32, random: &mut StdRng) -> Duration {
    let (least, most) = manner.away;
    let most = most.saturating_mul(1 << failures.min(20)).min(manner.away_max.max(most));
    Duration::from_millis(random.random_range(least..most))
}

async fn connect(world: Arc<World>, choice: usize, manner: Manner) -> Option<Stream> {
    let address = world.way(choice);
    let connecting = async {
        let stream = dial(address, &manner).await.ok()?;
        let builder = ClientBuilder::new().uri(&format!("ws://{address}/v1/ws")).expect("a URI");
        Some(builder.connect_on(stream).await.ok()?.0)
    };
    timeout(manner.connect, connecting).await.ok().flatten()
}

async fn dial(address: SocketAddr, manner: &Manner) -> io::Result<TcpStream> {
    let Some(from) = manner.from else { return TcpStream::connect(address).await };
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(address).await
}

/// The connections of a client, until it has none any more.
struct Session<'a> {
    index: usize,
    client: &'a Shared,
    context: &'a mut Context,
    random: &'a mut StdRng,
    first: Stream,
    /// The one that is to take over.
    second: Option<Stream>,
    opening: Option<Opening>,
    /// When to make a second one.
    leave_at: Option<Instant>,
    /// Pings since something was heard.
    silent: u32,
    /// What was ordered before.
    before: Orders,
}

/// What goes on.
enum Event {
    Came(Which, Option<Message>),
    Opened(Option<Stream>),
    Leave,
    Ping,
    Again,
    Orders,
}

impl<'a> Session<'a> {
    fn new(
        (index, client): (usize, &'a Shared),
        context: &'a mut Context,
        first: Stream,
        random: &'a mut StdRng,
    ) -> Self {
        let (second, opening, leave_at, silent) = (None, None, None, 0);
        // What was ordered while the client was away is not done later.
        let before = *context.orders.borrow_and_update();
        Self { index, client, context, random, first, second, opening, leave_at, silent, before }
    }

    /// `true` if the client ends it on command.
    async fn run(&mut self) -> bool {
        let mut pings = interval(self.context.manner.ping);
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Nobody needs a ping right at the beginning.
        pings.reset();
        loop {
            let command = self.client.lock().next_command();
            if let Some(command) = command
                && !self.send(Message::text(command)).await
                && !self.is_left_with_one(Which::Second)
            {
                return false;
            }
            let has_later = self.client.lock().has_later();
            let event = tokio::select! {
                message = next(Some(&mut self.first)) => Event::Came(Which::First, message),
                message = next(self.second.as_mut()) => Event::Came(Which::Second, message),
                opened = opened(self.opening.as_mut()) => Event::Opened(opened),
                () = reached(self.leave_at) => Event::Leave,
                _ = pings.tick() => Event::Ping,
                _ = again.tick(), if has_later => Event::Again,
                changed = self.context.orders.changed() => match changed {
                    Ok(()) => Event::Orders,
                    Err(_) => return false,
                },
            };
            if let Some(by_itself) = self.handle(event).await {
                return by_itself;
            }
        }
    }

    /// Sends on the newest connection.
    async fn send(&mut self, message: Message) -> bool {
        self.second.as_mut().unwrap_or(&mut self.first).send(message).await.is_ok()
    }

    /// Handles what goes on. At the end, whether the client has ended it.
    async fn handle(&mut self, event: Event) -> Option<bool> {
        match event {
            Event::Came(which, message) => {
                self.silent = 0;
                let Some(message) = message.filter(|message| !self.is_close(message)) else {
                    return self.lost(which).await;
                };
                if let Some(text) = message.as_text() {
                    self.came(which, text).await;
                }
            }
            Event::Opened(None) => self.leave_later(),
            Event::Opened(Some(stream)) => {
                self.opening = None;
                self.client.lock().begins_to_move();
                self.second = Some(stream);
            }
            Event::Leave => self.leave(),
            Event::Ping => {
                self.silent += 1;
                let is_silent = self.silent > self.context.manner.silent_pings;
                let ping = Message::text(r#"{"type":"ping"}"#);
                if is_silent || self.first.send(ping).await.is_err() {
                    return self.lost(Which::First).await;
                }
            }
            Event::Again => self.client.lock().asks_again(),
            Event::Orders => return self.obey(),
        }
        None
    }

    /// Does what was ordered.
    fn obey(&mut self) -> Option<bool> {
        let orders = *self.context.orders.borrow_and_update();
        let before = std::mem::replace(&mut self.before, orders);
        if orders.hang_ups != before.hang_ups {
            return Some(true);
        }
        let is_cut = orders.cuts != before.cuts && self.index.is_multiple_of(2);
        is_cut.then(|| {
            for stream in [Some(&self.first), self.second.as_ref()].into_iter().flatten() {
                // When it is dropped, the other end gets a reset.
                let socket = SockRef::from(stream.get_ref());
                socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
            }
            false
        })
    }

    async fn came(&mut self, which: Which, text: &str) {
        let leave_in = self.client.lock().receives(which, text);
        if let Some(leave_in) = leave_in.filter(|_| self.context.manner.moves) {
            self.leave_at = Some(Instant::now() + leave_in);
        }
        if which == Which::Second
            && self.client.lock().has_moved()
            && let Some(second) = self.second.take()
        {
            let mut first = std::mem::replace(&mut self.first, second);
            // It may have been closed from the other side in the same moment.
            drop(first.close().await);
        }
    }

    fn is_close(&self, message: &Message) -> bool {
        let code = message.as_close().map(|(code, _)| u16::from(code));
        self.client.lock().notes.closes.extend(code);
        code.is_some()
    }

    /// Begins to make a second connection, if the client can go on there now.
    fn leave(&mut self) {
        self.leave_at = None;
        if self.second.is_some() || self.opening.is_some() {
            return;
        }
        if !self.client.lock().can_move() {
            self.leave_at = Some(Instant::now() + BUSY);
            return;
        }
        let choice = self.random.random_range(0..usize::MAX);
        let world = Arc::clone(&self.context.world);
        self.opening = Some(Box::pin(connect(world, choice, self.context.manner)));
    }

    /// There is no second connection yet.
    fn leave_later(&mut self) {
        self.opening = None;
        let pause = pause(&self.context.manner, 1, self.random);
        self.leave_at = Some(Instant::now() + pause);
    }

    /// One of the connections is gone.
    async fn lost(&mut self, which: Which) -> Option<bool> {
        if self.is_left_with_one(which) {
            return None;
        }
        let first = match self.opening.take() {
            Some(opening) => opening.await?.into(),
            None => None,
        };
        let Some(first) = first else { return Some(false) };
        let mut client = self.client.lock();
        client.disconnects(false);
        client.connects();
        self.first = first;
        None
    }

    /// Whether another connection goes on without this one.
    fn is_left_with_one(&mut self, without: Which) -> bool {
        let Some(second) = self.second.take() else { return false };
        match without {
            Which::First => {
                self.client.lock().loses_first();
                self.first = second;
                true
            }
            Which::Second => {
                self.leave_later();
                self.client.lock().loses_second()
            }
        }
    }
}

async fn next(stream: Option<&mut Stream>) -> Option<Message> {
    match stream {
        Some(stream) => stream.next().await.and_then(Result::ok),
        None => pending().await,
    }
}

async fn opened(opening: Option<&mut Opening>) -> Option<Stream> {
    match opening {
        Some(opening) => opening.await,
        None => pending().await,
    }
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
