//! What the Sentinels say, each for itself.

use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, timeout_at};

use super::{Reading, SentinelFacts, Unreadable};
use crate::redis::address::{HostPort, Place, Sentinels};
use crate::redis::dial::{DIAL_TIMEOUT, Dialer, open_sentinel, said};
use crate::redis::sentinel::{Answer, Patience, ask};

/// For the second question to one Sentinel.
const QUORUM_TIMEOUT: Duration = Duration::from_millis(800);

/// Asks every Sentinel of the URL, if it names some.
pub(super) async fn read(dialer: &Dialer) -> Vec<SentinelFacts> {
    let Place::Sentinels(sentinels) = dialer.url().place() else { return Vec::new() };
    let until = Instant::now() + DIAL_TIMEOUT;
    // If the certificates cannot be read, the dial that follows says so.
    let Ok(tls) = dialer.connector(until).await else { return Vec::new() };
    let answers = ask(sentinels, tls.as_ref(), until, Patience::All).await;
    let mut facts = Vec::new();
    for (sentinel, answer) in answers.by_sentinel {
        let (master, quorum) = match answer {
            Answer::Failed(error) => (Err(Unreadable::from(&error)), Err(Unreadable::from(&error))),
            Answer::Unknown => (Ok(None), Err(Unreadable("it watches no such master".to_owned()))),
            Answer::Master(master) => {
                (Ok(Some(master.to_string())), quorum(dialer, sentinels, &sentinel).await)
            }
        };
        facts.push(SentinelFacts { address: sentinel.to_string(), master, quorum });
    }
    facts
}

async fn quorum(dialer: &Dialer, sentinels: &Sentinels, host: &HostPort) -> Reading<String> {
    let until = Instant::now() + QUORUM_TIMEOUT;
    let tls = dialer.connector(until).await.map_err(|error| Unreadable::from(&error))?;
    let opened = open_sentinel(host, sentinels.login.as_ref(), tls.as_ref(), None, until).await;
    let (mut connection, _task) = opened.map_err(|error| Unreadable::from(&error))?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("CKQUORUM").arg(&sentinels.master);
    match timeout_at(until, connection.send_packed_command(&question)).await {
        Ok(Ok(Value::SimpleString(text))) => Ok(text),
        Ok(Ok(Value::ServerError(error))) => Err(Unreadable(said(&error.into()))),
        Ok(Ok(_)) => Ok("OK".to_owned()),
        Ok(Err(error)) => Err(Unreadable(said(&error))),
        Err(_) => Err(Unreadable("no answer".to_owned())),
    }
}
