//! Notices that the master has moved: by what the Sentinels publish, and, as that may be lost, by asking now and then.

use std::sync::Arc;
use std::time::Duration;

use redis::PushInfo;
use redis::PushKind;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tracing::{debug, info, warn};

use super::{Patience, ask};
use crate::redis::address::{HostPort, Place, Sentinels};
use crate::redis::dial::{DIAL_TIMEOUT, DialError, Dialer, Failure, open_sentinel, push_sender};

/// How often the Sentinels are asked, whatever they publish.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Between two attempts to listen to a Sentinel: doubled each time, with jitter, without an end.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

const SWITCHED: &str = "+switch-master";

/// Calls `moved` with the new address whenever most Sentinels name another master than the one of the session.
///
/// `session` is the [address](crate::redis::dial::ServerFacts::address) of the server that the link uses, or none
/// while it has none: then only what a Sentinel publishes counts, because each dial asks them itself. A healthy session
/// is given up only for a majority of the Sentinels that answer, so one with an outdated view does no harm; and `moved`
/// may come again until the session has changed. Runs for ever, except that it returns at once for a URL without
/// Sentinels. Dropping it ends it.
pub(crate) async fn watch(
    dialer: Arc<Dialer>,
    session: impl Fn() -> Option<String>,
    moved: impl Fn(&str),
) {
    let Place::Sentinels(sentinels) = dialer.url().place() else { return };
    // One permit however many hints: the answer to one question covers them all.
    let hint = Arc::new(Notify::new());
    let mut listeners = JoinSet::new();
    for sentinel in &sentinels.hosts {
        listeners.spawn(listen(Arc::clone(&dialer), sentinel.clone(), Arc::clone(&hint)));
    }
    let mut clock = interval(ASK_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_hinted = tokio::select! {
            () = hint.notified() => true,
            _ = clock.tick() => false,
        };
        let before = session();
        // A link that waits before its next attempt is told that there is somewhere to go now.
        if before.is_none() && !is_hinted {
            continue;
        }
        let Some(master) = current_master(&dialer, sentinels).await else { continue };
        // The link may have followed while the Sentinels were asked.
        if before.as_ref() != Some(&master) && session() == before {
            info!(from = before, to = master, "the Sentinels name another master");
            moved(&master);
        }
    }
}

async fn current_master(dialer: &Dialer, sentinels: &Sentinels) -> Option<String> {
    let until = Instant::now() + DIAL_TIMEOUT;
    let tls = match dialer.connector(until).await {
        Ok(tls) => tls,
        Err(error) => {
            debug!(%error, "the Sentinels cannot be asked");
            return None;
        }
    };
    let answers = ask(sentinels, tls.as_ref(), until, Patience::Majority).await;
    answers.majority().map(HostPort::to_string)
}

/// Listens to one Sentinel for ever.
async fn listen(dialer: Arc<Dialer>, sentinel: HostPort, hint: Arc<Notify>) {
    let mut retry = RETRY_MIN;
    let mut reported = false;
    loop {
        let error = match hear(&dialer, &sentinel, &hint).await {
            Ok(()) => {
                retry = RETRY_MIN;
                reported = false;
                debug!(%sentinel, "the connection to a Sentinel is lost");
                None
            }
            Err(error) => Some(error),
        };
        match error {
            // Once, until it was there again: the other Sentinels still do the work.
            Some(error) if !reported => {
                warn!(%error, "cannot listen to a Sentinel; trying for ever");
                reported = true;
            }
            Some(error) => debug!(%error, "cannot listen to a Sentinel"),
            None => {}
        }
        sleep(retry.mul_f64(rand::random_range(0.5..=1.0))).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// Listens until the connection is lost.
async fn hear(dialer: &Dialer, sentinel: &HostPort, hint: &Arc<Notify>) -> Result<(), DialError> {
    let Place::Sentinels(sentinels) = dialer.url().place() else { return Ok(()) };
    let until = Instant::now() + DIAL_TIMEOUT;
    let tls = dialer.connector(until).await?;
    let push = {
        let (hint, begin) = (Arc::clone(hint), format!("{} ", sentinels.master));
        push_sender(move |push| {
            if is_about(&push, begin.as_bytes()) {
                hint.notify_one();
            }
        })
    };
    let login = sentinels.login.as_ref();
    let (mut connection, task) =
        open_sentinel(sentinel, login, tls.as_ref(), Some(push), until).await?;
    match timeout_at(until, connection.subscribe(SWITCHED)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Failure::of_reply(&error, Some(sentinel)).at(sentinel)),
        Err(_) => return Err(Failure::no_reply().at(sentinel)),
    }
    // The master may have moved while nobody listened.
    hint.notify_one();
    task.await;
    Ok(())
}

/// `+switch-master` says: name of the master, old host and port, new host and port.
fn is_about(push: &PushInfo, begin: &[u8]) -> bool {
    push.kind == PushKind::Message
        && matches!(push.data.last(), Some(redis::Value::BulkString(text)) if text.starts_with(begin))
}
