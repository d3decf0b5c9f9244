//! Where the master is, as its Sentinels say.
//!
//! All Sentinels are asked at once and the majority counts: one that was away, or is cut off, may name the old master
//! for a while. What it names is still only believed if the server itself says that it is the master.

mod watch;

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::{HostPort, Sentinels};
use super::dial::{DialError, Failure, open_sentinel};
pub(crate) use watch::watch;

/// For one Sentinel. A master that has to be dialled afterwards needs the rest of the dial's time.
const ASK_TIMEOUT: Duration = Duration::from_millis(800);

/// Reasons that an error repeats, of Sentinels that did not answer.
const REASONS_MAX: usize = 3;

/// How many answers to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until more than half of all Sentinels name one address.
    Majority,
    /// Until every Sentinel has answered or failed.
    All,
}

/// What the Sentinels said.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// By the order of the URL. Without those that were not waited for.
    pub(crate) by_sentinel: Vec<(HostPort, Answer)>,
}

/// What one Sentinel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The master is there.
    Master(HostPort),
    /// It watches no master of this name.
    Unknown,
    /// It did not answer.
    Failed(DialError),
}

/// Asks all Sentinels where the master is.
pub(crate) async fn ask(
    sentinels: &Sentinels,
    tls: Option<&TlsConnector>,
    until: Instant,
    patience: Patience,
) -> Answers {
    let until = until.min(Instant::now() + ASK_TIMEOUT);
    let shared = Arc::new(sentinels.clone());
    let mut asked = JoinSet::new();
    for index in 0..sentinels.hosts.len() {
        let (sentinels, tls) = (Arc::clone(&shared), tls.cloned());
        asked.spawn(async move { (index, ask_one(&sentinels, index, tls.as_ref(), until).await) });
    }
    let mut answers: Vec<Option<Answer>> = vec![None; sentinels.hosts.len()];
    while let Some(Ok((index, answer))) = asked.join_next().await {
        if let Some(slot) = answers.get_mut(index) {
            *slot = Some(answer);
        }
        let named = answers.iter().flatten().filter_map(Answer::master);
        if patience == Patience::Majority
            && votes(named).iter().any(|(_, votes)| votes * 2 > sentinels.hosts.len())
        {
            break;
        }
    }
    let by_sentinel = sentinels.hosts.iter().cloned().zip(answers);
    let by_sentinel = by_sentinel.filter_map(|(host, answer)| Some((host, answer?))).collect();
    Answers { by_sentinel }
}

async fn ask_one(
    sentinels: &Sentinels,
    index: usize,
    tls: Option<&TlsConnector>,
    until: Instant,
) -> Answer {
    let Some(host) = sentinels.hosts.get(index) else { return Answer::Unknown };
    let opened = open_sentinel(host, sentinels.login.as_ref(), tls, None, until).await;
    let (mut connection, _task) = match opened {
        Ok(opened) => opened,
        Err(error) => return Answer::Failed(error),
    };
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(&sentinels.master);
    match timeout_at(until, connection.send_packed_command(&question)).await {
        Ok(Ok(value)) => read_answer(value, host),
        Ok(Err(error)) => Answer::Failed(Failure::of_reply(&error, Some(host)).at(host)),
        Err(_) => Answer::Failed(Failure::no_reply().at(host)),
    }
}

fn read_answer(value: Value, sentinel: &HostPort) -> Answer {
    if value == Value::Nil {
        return Answer::Unknown;
    }
    match redis::from_redis_value::<(String, u16)>(value) {
        Ok((host, port)) if !host.is_empty() && port != 0 => {
            Answer::Master(HostPort { host, port })
        }
        Ok(_) => Answer::Unknown,
        Err(error) => Answer::Failed(Failure::Other(error.to_string()).at(sentinel)),
    }
}

impl Answer {
    pub(crate) fn master(&self) -> Option<&HostPort> {
        match self {
            Self::Master(master) => Some(master),
            Self::Unknown | Self::Failed(_) => None,
        }
    }
}

impl Answers {
    /// The address that most of those that name one agree on: more than half of them.
    pub(crate) fn majority(&self) -> Option<&HostPort> {
        let votes = votes(self.masters());
        let (first, most) = votes.first()?;
        (most * 2 > self.masters().count()).then_some(*first)
    }

    /// What is worth dialling: the address with the most votes; of several with equally many, each.
    ///
    /// # Errors
    /// If none was named.
    pub(crate) fn candidates(&self, sentinels: &Sentinels) -> Result<Vec<HostPort>, DialError> {
        let votes = votes(self.masters());
        let Some((_, most)) = votes.first() else {
            return Err(self.why_none().at(format_args!("master `{}`", sentinels.master)));
        };
        let best = votes.iter().filter(|(_, count)| count == most);
        Ok(best.map(|(master, _)| (*master).clone()).collect())
    }

    fn masters(&self) -> impl Iterator<Item = &HostPort> {
        self.by_sentinel.iter().filter_map(|(_, answer)| answer.master())
    }

    fn why_none(&self) -> Failure {
        let mut reasons = Vec::new();
        for (_, answer) in &self.by_sentinel {
            match answer {
                Answer::Failed(error) => reasons.push(error.to_string()),
                Answer::Master(_) | Answer::Unknown => return Failure::UnknownMaster,
            }
        }
        reasons.truncate(REASONS_MAX);
        Failure::NoSentinel(reasons.join(" | "))
    }
}

/// Who was named how often, the most often first.
fn votes<'a>(named: impl Iterator<Item = &'a HostPort>) -> Vec<(&'a HostPort, usize)> {
    let mut votes: Vec<(&HostPort, usize)> = Vec::new();
    for master in named {
        match votes.iter_mut().find(|(known, _)| *known == master) {
            Some((_, count)) => *count += 1,
            None => votes.push((master, 1)),
        }
    }
    votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    votes
}

#[cfg(test)]
mod tests;
