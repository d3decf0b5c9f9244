//! `tickcast sub`: prints what arrives on topics, for as long as one likes to look.
//!
//! One WebSocket connection at a time. Every topic's position is kept, so that after a lost connection it resumes
//! exactly where it was, on whichever node answers. What is skipped on the way is said, never hidden.

mod connection;
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
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Backoff, Target};
use super::{Failure, SubscribeArgs, colors, runtime};
use connection::{Received, Writer};
use message::Message;
use screen::Screen;
use state::State;

const BACKOFF_BASE: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// Added where the gateway asks for more than the usual back-off: "a few seconds".
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// A connection that lived that long was a good one: the back-off begins anew.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

/// After that much silence a ping asks whether the gateway is still there. A gateway pings after 25 s by default.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// And after that much the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Runs the verb until Ctrl-C.
pub(super) fn run(args: SubscribeArgs) -> Result<(), Failure> {
    let (out, messages) = (io::stdout(), io::stderr());
    let paint = [colors(&out), colors(&messages)];
    let screen = Screen::new(&args, Box::new(out), Box::new(messages), paint);
    let watch = Watch::new(args, screen);
    runtime()?.block_on(watch.run(async {
        // Without a signal handler Ctrl-C still ends the program, only without the summary.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }))
}

/// Everything that outlives a connection.
struct Watch {
    target: Target,
    state: State,
    screen: Screen,
    backoff: Backoff,
    /// Publications still to be printed before the end, if there is one.
    remaining: Option<u64>,
}

/// How a connection ended.
enum End {
    /// Nothing more is wanted.
    Done,
    /// The connection is gone; connect again after the delay.
    Lost { why: String, delay: Duration },
}

/// Why watching ends before anybody wanted it to.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
}

impl Watch {
    fn new(args: SubscribeArgs, screen: Screen) -> Self {
        Self {
            target: args.client.url.clone(),
            remaining: args.count,
            state: State::new(args),
            screen,
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
        }
    }

    /// Watches until `stop`, the wanted number of publications, or an error that trying again would not mend.
    async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let mut stop = pin!(stop);
        let outcome = self.watch(stop.as_mut()).await.and_then(|()| Ok(self.screen.finish()?));
        match outcome {
            Ok(()) => Ok(()),
            // Whoever read the output has seen enough.
            Err(WatchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::Failed(error.to_string())),
        }
    }

    async fn watch(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), WatchError> {
        let mut connected_before = false;
        loop {
            let opened = tokio::select! {
                opened = connection::open(&self.target) => opened,
                () = stop.as_mut() => return Ok(()),
            };
            let end = match opened {
                Ok((reader, writer)) => {
                    if connected_before {
                        self.screen.notice("reconnected")?;
                    }
                    connected_before = true;
                    self.serve(reader, writer, stop.as_mut()).await?
                }
                Err(error) if !connected_before || error.is_final() => {
                    return Err(WatchError::Refused(error.to_string()));
                }
                Err(error) => End::Lost { why: error.to_string(), delay: self.backoff.next() },
            };
            let End::Lost { why, delay } = end else { return Ok(()) };
            self.screen.notice(&format!("{why}; reconnecting in {:.1} s", delay.as_secs_f64()))?;
            tokio::select! {
                () = sleep(delay) => {}
                () = stop.as_mut() => return Ok(()),
            }
        }
    }

    /// Subscribes on a fresh connection and handles what arrives until it ends.
    async fn serve(
        &mut self,
        mut reader: connection::Reader,
        writer: Writer,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<End, WatchError> {
        let mut live = Live::new(writer);
        for command in self.state.subscribe_all() {
            live.writer.send_text(command).await;
        }
        loop {
            let mut next = pin!(reader.next());
            // What has arrived is printed before anything waits; only then is it shown.
            let received = match poll_once(next.as_mut()).await {
                Some(received) => received,
                None => {
                    self.screen.flush()?;
                    loop {
                        tokio::select! {
                            received = next.as_mut() => break received,
                            () = stop.as_mut() => return Ok(End::Done),
                            () = sleep_until(live.wake(&self.state)) => {
                                if let Some(end) = self.tick(&mut live).await {
                                    return Ok(end);
                                }
                            }
                        }
                    }
                }
            };
            live.heard = Instant::now();
            let end = match received {
                Received::Text(text) => self.handle(&text, &mut live)?,
                Received::Ping(payload) => {
                    live.writer.send_pong(payload).await;
                    None
                }
                Received::Other => None,
                Received::Closed { code, reason } => Some(self.closed(&live, code, &reason)?),
                Received::Lost(why) => Some(self.lost(&live, format!("connection lost: {why}"))),
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Time has passed: subscribe again to what was not available, ask a silent gateway, leave one that wants it.
    async fn tick(&mut self, live: &mut Live) -> Option<End> {
        let now = Instant::now();
        if live.leave_at.is_some_and(|leave_at| now >= leave_at) {
            return Some(End::Lost { why: "the node goes away".to_owned(), delay: Duration::ZERO });
        }
        if now >= live.heard + SILENCE_MAX {
            return Some(self.lost(live, "the gateway is silent".to_owned()));
        }
        if now >= live.heard + QUIET_MAX && !live.asked {
            live.asked = true;
            live.writer.send_text(r#"{"type":"ping"}"#.to_owned()).await;
        }
        for command in self.state.subscribe_due(now) {
            live.writer.send_text(command).await;
        }
        None
    }

    fn handle(&mut self, text: &[u8], live: &mut Live) -> Result<Option<End>, WatchError> {
        live.asked = false;
        self.screen.raw(text)?;
        let Some(message) = Message::parse(text) else {
            self.screen.notice("a message that is not JSON or of no known kind")?;
            return Ok(None);
        };
        match &message {
            Message::Publication(publication) => {
                let arrival = self.state.publication(publication);
                self.screen.publication(publication, &arrival)?;
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(1));
                return Ok((self.remaining == Some(0)).then_some(End::Done));
            }
            Message::Subscribed { topics, errors } => {
                self.state.subscribed(topics, errors, Instant::now());
                for error in errors {
                    let text = format!("error {} ({}) {}", error.topic, error.code, error.message);
                    self.screen.protocol_notice(&text)?;
                }
                if let Some(why) = self.state.nothing_left() {
                    return Err(WatchError::Refused(why));
                }
            }
            Message::Gap { topic, from, to, reason } => {
                self.state.gap(topic, *to);
                self.screen.gap(&format!("gap {topic} {from}..{to} ({reason})"))?;
            }
            Message::Reset { topic, epoch, offset, reason } => {
                self.state.reset(topic, *epoch, *offset);
                self.screen
                    .protocol_notice(&format!("reset {topic} to {epoch}:{offset} ({reason})"))?;
            }
            Message::Status { broker } => {
                self.screen.protocol_notice(&format!("status broker {broker}"))?;
            }
            Message::Goaway { reconnect_in_ms } => {
                let delay = Duration::from_millis(*reconnect_in_ms);
                live.leave_at = Some(Instant::now() + delay);
                let seconds = delay.as_secs_f64();
                self.screen.protocol_notice(&format!("goaway in {seconds:.1} s"))?;
            }
            Message::Error { code, message } => {
                self.screen.protocol_notice(&format!("error ({code}) {message}"))?;
            }
            Message::Other => {}
        }
        Ok(None)
    }

    /// The gateway has closed the connection: its code says whether to come back.
    fn closed(&mut self, live: &Live, code: CloseCode, reason: &str) -> Result<End, WatchError> {
        let number = code.number();
        let word = if reason.is_empty() { code.reason() } else { reason };
        let why = format!("closed by the gateway: {number} {}", super::client::printable(word));
        match code.retry() {
            Retry::DoNotRetry => {
                Err(WatchError::Refused(format!("{why}; it does not want a retry")))
            }
            Retry::Retry => Ok(self.lost(live, why)),
            Retry::RetryAfter => match self.lost(live, why) {
                End::Lost { why, delay } => Ok(End::Lost { why, delay: delay + RETRY_AFTER }),
                End::Done => Ok(End::Done),
            },
        }
    }

    fn lost(&mut self, live: &Live, why: String) -> End {
        if live.since.elapsed() >= GOOD_CONNECTION {
            self.backoff.reset();
        }
        // A node that goes away has spread its clients' returns; the jitter is already in its number.
        let promised = live.leave_at.map(|at| at.saturating_duration_since(Instant::now()));
        End::Lost { why, delay: promised.unwrap_or_else(|| self.backoff.next()) }
    }
}

/// What is only true for one connection.
struct Live {
    writer: Writer,
    since: Instant,
    /// When something arrived last.
    heard: Instant,
    /// Was a ping sent since?
    asked: bool,
    /// When the node wants this connection to be gone.
    leave_at: Option<Instant>,
}

impl Live {
    fn new(writer: Writer) -> Self {
        let now = Instant::now();
        Self { writer, since: now, heard: now, asked: false, leave_at: None }
    }

    /// When something has to be done although nothing arrives.
    fn wake(&self, state: &State) -> Instant {
        let patience = if self.asked { SILENCE_MAX } else { QUIET_MAX };
        let quiet = self.heard + patience;
        [self.leave_at, state.due()].into_iter().flatten().fold(quiet, Instant::min)
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
