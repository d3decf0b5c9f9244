//! `tickcast sub`: prints what arrives on topics, for as long as one likes to look.
//!
//! Every topic's position is kept, so that after a lost connection it resumes exactly where it was, on whichever node
//! answers. When a node says that it goes away, a second connection is made before the first is left, and nothing is
//! printed twice. What is skipped on the way is said, never hidden.

mod connection;
mod links;
mod message;
mod screen;
mod state;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tickcast_protocol::{CloseCode, Retry};
use tokio::time::Instant;

use super::client::{Backoff, Target};
use super::{Failure, SubscribeArgs, colors, runtime};
use connection::{OpenError, Reader, Received, Writer};
use links::{Event, Link, Links, Next, Which};
use message::Message;
use screen::Screen;
use state::State;

const BACKOFF_BASE: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// A node that was lost without a word has lost all its clients at once: the first attempts to come back are spread
/// over this time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Added where the gateway asks for more than the usual back-off: "a few seconds".
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// A `Retry-After` beyond this is cut: whoever looks at a screen does not wait for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// A connection that lived that long was a good one: the back-off begins anew.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

/// Runs the verb until Ctrl-C.
pub(super) fn run(args: SubscribeArgs) -> Result<(), Failure> {
    let (out, messages) = (io::stdout(), io::stderr());
    let paint = [colors(&out), colors(&messages)];
    let screen = Screen::new(&args, Box::new(out), Box::new(messages), paint);
    let target = args.client.target()?;
    let watch = Watch::new(args, target, screen);
    runtime()?.block_on(watch.run(async {
        // Without a signal handler Ctrl-C still ends the program, only without the summary.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }))
}

/// A run: everything that outlives a connection, and the connections.
struct Watch {
    links: Links,
    state: State,
    screen: Screen,
    backoff: Backoff,
    /// Publications still to be printed before the end, if there is one.
    remaining: Option<u64>,
    has_connected: bool,
}

/// Why watching ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("nothing more is wanted")]
    Done,
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
}

impl Watch {
    fn new(args: SubscribeArgs, target: Target, screen: Screen) -> Self {
        Self {
            links: Links::new(target),
            remaining: args.count,
            state: State::new(args),
            screen,
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            has_connected: false,
        }
    }

    /// Watches until `stop`, the wanted number of publications, or an error that trying again would not mend.
    async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let end = match self.watch(pin!(stop)).await {
            End::Done => self.screen.finish().err().map(End::Output),
            end => Some(end),
        };
        match end {
            None => Ok(()),
            // Whoever read the output has seen enough.
            Some(End::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Some(end) => Err(Failure::Failed(end.to_string())),
        }
    }

    async fn watch(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> End {
        loop {
            let handled = match self.next_event(stop.as_mut()).await {
                Ok(event) => self.on(event).await,
                Err(end) => Err(end),
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    /// What has arrived is printed before anything waits; only then is it shown.
    async fn next_event(&mut self, stop: Pin<&mut impl Future<Output = ()>>) -> Result<Event, End> {
        let mut event = pin!(self.links.event(self.state.due()));
        if let Some(event) = poll_once(event.as_mut()).await {
            return Ok(event);
        }
        self.screen.flush()?;
        tokio::select! {
            event = event => Ok(event),
            () = stop => Err(End::Done),
        }
    }

    async fn on(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Tick => self.tick().await,
            Event::Opened(Ok(halves)) => self.opened(halves).await,
            Event::Opened(Err(error)) => self.not_opened(&error),
            Event::Received(which, received) => {
                if let Some(link) = self.links.get(which) {
                    link.hears();
                }
                self.received(which, received).await
            }
        }
    }

    /// Time has passed: connect, subscribe again to what was not available, ask a silent gateway.
    async fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.links.open_due(now);
        for which in [Which::Current, Which::Next] {
            if let Some(link) = self.links.get(which)
                && !link.is_alive(now).await
            {
                self.lost(which, "the gateway is silent", FIRST_RETRY)?;
            }
        }
        if let Some(link) = self.links.newest() {
            for command in self.state.subscribe_due(link.id, now) {
                link.writer.send_text(command).await;
            }
        }
        Ok(())
    }

    /// A new connection is there: everything is asked for on it, from where it is now.
    async fn opened(&mut self, halves: (Reader, Writer)) -> Result<(), End> {
        self.links.opened(halves);
        if let Some(link) = self.links.newest() {
            for command in self.state.subscribe_all(link.id) {
                link.writer.send_text(command).await;
            }
        }
        if self.links.current.is_none() {
            self.links.promote();
            if self.has_connected {
                self.screen.notice("reconnected")?;
            }
            self.has_connected = true;
        }
        Ok(())
    }

    fn not_opened(&mut self, error: &OpenError) -> Result<(), End> {
        if error.is_final() || !(self.has_connected || error.is_for_now()) {
            return Err(End::Refused(error.to_string()));
        }
        // The jitter comes on top, or everybody would come back in the same instant.
        let stay_away = error.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
        let delay = stay_away + self.backoff.next();
        self.reconnect(&error.reason(), delay)
    }

    /// Makes the next connection after a delay.
    fn reconnect(&mut self, why: &str, delay: Duration) -> Result<(), End> {
        self.links.next = Next::At(Instant::now() + delay);
        Ok(self.screen.notice(&format!("{why}; reconnecting in {:.1} s", delay.as_secs_f64()))?)
    }

    async fn received(&mut self, which: Which, received: Received) -> Result<(), End> {
        match received {
            Received::Text(text) => self.handle(which, &text).await,
            Received::Ping(payload) => {
                if let Some(link) = self.links.get(which) {
                    link.writer.send_pong(payload).await;
                }
                Ok(())
            }
            Received::Other => Ok(()),
            Received::Closed { code, reason } => self.closed(which, code, &reason),
            Received::Lost(why) => {
                self.lost(which, &format!("connection lost: {why}"), FIRST_RETRY)
            }
        }
    }

    async fn handle(&mut self, which: Which, text: &[u8]) -> Result<(), End> {
        let Some(id) = self.links.get(which).map(|link| link.id) else { return Ok(()) };
        let Some(message) = Message::parse(text) else {
            self.screen.raw(text)?;
            return Ok(self.screen.notice("a message that is not JSON or of no known kind")?);
        };
        match &message {
            // What another connection has brought already is not shown a second time.
            Message::Publication(publication) => {
                let Some(arrival) = self.state.publication(id, publication) else {
                    return Ok(());
                };
                self.screen.raw(text)?;
                self.screen.publication(publication, &arrival)?;
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(1));
                if self.remaining == Some(0) {
                    return Err(End::Done);
                }
            }
            Message::Gap { topic, from, to, reason } => {
                if let Some((from, to)) = self.state.gap(id, topic, (*from, *to)) {
                    self.screen.raw(text)?;
                    self.screen.gap(&format!("gap {topic} {from}..{to} ({reason})"))?;
                }
            }
            Message::Reset { topic, epoch, offset, reason } => {
                if self.state.reset(id, topic, *epoch, *offset) {
                    self.screen.raw(text)?;
                    self.screen.protocol_notice(&format!(
                        "reset {topic} to {epoch}:{offset} ({reason})"
                    ))?;
                }
            }
            Message::Subscribed { topics, errors } => {
                self.screen.raw(text)?;
                self.state.subscribed(id, topics, errors, Instant::now());
                for error in errors {
                    // It does so by itself; nobody needs to be told to.
                    let (message, then) = match error.message.strip_suffix("; try again") {
                        Some(message) if error.code == "unavailable" => (message, "; trying again"),
                        _ => (&*error.message, ""),
                    };
                    let (topic, code) = (&error.topic, error.code);
                    let text = format!("error {topic} ({code}) {message}{then}");
                    self.screen.protocol_notice(&text)?;
                }
                if let Some(why) = self.state.nothing_left() {
                    return Err(End::Refused(why));
                }
                if which == Which::Next && self.state.is_fed_by(id) {
                    self.move_over().await?;
                }
            }
            _ => {
                self.screen.raw(text)?;
                self.told(which, &message)?;
            }
        }
        Ok(())
    }

    /// Handles what is not about a topic.
    fn told(&mut self, which: Which, message: &Message<'_>) -> Result<(), End> {
        match message {
            Message::Status { broker } => {
                self.screen.protocol_notice(&format!("status broker {broker}"))?;
            }
            Message::Goaway { reconnect_in_ms } => {
                let mut delay = Duration::from_millis(*reconnect_in_ms);
                if let Some(link) = self.links.get(which) {
                    if link.age() >= GOOD_CONNECTION {
                        self.backoff.reset();
                    } else {
                        // Sent away again at once: the way to other nodes is not known yet, so no hurry.
                        delay += self.backoff.next();
                    }
                }
                self.links.leave_at(which, Instant::now() + delay);
                let seconds = delay.as_secs_f64();
                self.screen.protocol_notice(&format!("goaway in {seconds:.1} s"))?;
            }
            Message::Error { code, message } => {
                self.screen.protocol_notice(&format!("error ({code}) {message}"))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The next connection has everything, so the one before is left.
    async fn move_over(&mut self) -> Result<(), End> {
        if let Some(mut before) = self.links.promote() {
            self.screen.notice("moved to another connection")?;
            before.writer.send_close().await;
        }
        Ok(())
    }

    /// The gateway has closed a connection: its code says whether to come back.
    fn closed(&mut self, which: Which, code: CloseCode, reason: &str) -> Result<(), End> {
        let number = code.number();
        let word = if reason.is_empty() { code.reason() } else { reason };
        let why = format!("closed by the gateway: {number} {}", super::client::printable(word));
        match code.retry() {
            Retry::DoNotRetry => Err(End::Refused(format!("{why}; it does not want a retry"))),
            Retry::Retry => self.lost(which, &why, Duration::ZERO),
            Retry::RetryAfter => {
                self.lost(which, &why, Duration::ZERO)?;
                if let Next::At(at) = &mut self.links.next {
                    *at += RETRY_AFTER;
                }
                Ok(())
            }
        }
    }

    /// A connection is gone. `spread` is the least time over which its first successors are spread.
    fn lost(&mut self, which: Which, why: &str, spread: Duration) -> Result<(), End> {
        let age = self.links.get(which).map_or(Duration::ZERO, |link| Link::age(link));
        if age >= GOOD_CONNECTION {
            self.backoff.reset();
        }
        match which {
            Which::Next => self.links.next = Next::None,
            Which::Current => self.links.current = None,
        }
        match &self.links.next {
            Next::None => {
                let spread = if self.backoff.attempts() == 0 { spread } else { Duration::ZERO };
                let delay = self.backoff.next_from(spread);
                self.reconnect(why, delay)
            }
            // A node that goes away has spread its clients' returns; the jitter is already in its number.
            Next::At(at) => {
                let delay = at.saturating_duration_since(Instant::now());
                self.reconnect(why, delay)
            }
            Next::Opening(_) => Ok(self.screen.notice(&format!("{why}; reconnecting"))?),
            Next::Open(_) => {
                self.links.promote();
                Ok(self.screen.notice("moved to another connection")?)
            }
        }
    }
}

/// The result of a future, if it has one without waiting.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
