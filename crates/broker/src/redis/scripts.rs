//! The scripts that Redis runs: their texts, what they are given, and what they reply.
//!
//! What a script does, and how its arguments lie, is written at its top. Every script begins with `fence.lua`,
//! and those that do not publish go on with `settle.lua`.
//! They run on Redis 6.2 and later.

use std::str::Split;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, RedisWrite as _, ToRedisArgs, Value};
use tickcast_protocol::{Epoch, Position};

use super::envelope::{EnvelopeError, Record, clock, parse_position};
use crate::{HistoryRequest, ReadRequest, Retention};

macro_rules! script {
    ($($name:literal),+) => {
        LazyLock::new(|| {
            Script::new(concat!(include_str!("scripts/fence.lua"), $(include_str!($name)),+))
        })
    };
}

pub(crate) static PUBLISH: LazyLock<Script> = script!("scripts/publish.lua");
pub(crate) static READ: LazyLock<Script> = script!("scripts/settle.lua", "scripts/read.lua");
pub(crate) static COMPARE: LazyLock<Script> = script!("scripts/settle.lua", "scripts/compare.lua");

/// Items of one run; the script writes their number as one digit of a kind.
pub(crate) const RUN_ITEMS_MAX: usize = 64;

/// The longest time to live that is set: more than 60 years, and far from what Redis refuses.
const TTL_MAX: Duration = Duration::from_secs(2_000_000_000);

/// A script of Redis.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    sha1: String,
}

/// How a command names its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// By its hash: Redis must know it already.
    Hash,
    /// By its text, which Redis then knows.
    Text,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, sha1: sha1_smol::Sha1::from(text).digest().to_string() }
    }

    /// Makes Redis know the script.
    pub(crate) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.text);
        command
    }

    /// The beginning of a call, with room for so many arguments and bytes beside the script.
    fn call(&self, by: By, keys: usize, arguments: usize, bytes: usize) -> Cmd {
        let (verb, script) = match by {
            By::Hash => ("EVALSHA", self.sha1.as_str()),
            By::Text => ("EVAL", self.text),
        };
        let mut command = Cmd::with_capacity(3 + arguments, verb.len() + script.len() + 8 + bytes);
        command.arg(verb).arg(script).arg(keys);
        command
    }
}

/// What every script begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence<'a> {
    /// The replication id of the Redis, as far as this node knows; empty to have it looked up.
    pub(crate) replication_id: &'a str,
    /// The epoch for topics that need a new one.
    pub(crate) candidate: Epoch,
}

impl Fence<'_> {
    fn write(&self, command: &mut Cmd) {
        command.arg(self.replication_id);
        command.write_arg_fmt(self.candidate);
    }
}

/// Times to live that the scripts set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ttls {
    pub(crate) topic: Duration,
    pub(crate) unpublished: Duration,
    pub(crate) idempotency: Duration,
}

/// In whole seconds, rounded up.
fn seconds(ttl: Duration) -> u64 {
    let ttl = ttl.min(TTL_MAX);
    (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1)
}

/// Items of one topic, one after the other, retained alike, and all with a key or all without.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) topic_key: String,
    pub(crate) channel: String,
    pub(crate) retention: Retention,
    /// The list for the history and how long it lives, if `retention` keeps one.
    pub(crate) history: Option<(String, Duration)>,
    /// Are the times to live to be renewed?
    pub(crate) renew: bool,
    /// Have the items keys?
    pub(crate) keyed: bool,
    /// At most [`RUN_ITEMS_MAX`].
    pub(crate) items: Vec<RunItem<'a>>,
}

/// One item of a run.
#[derive(Debug)]
pub(crate) struct RunItem<'a> {
    pub(crate) record: Record<'a>,
    /// If it has a key: where the answer to it is kept.
    pub(crate) answer_key: Option<String>,
}

impl Run<'_> {
    /// The first digit of the script's five says whether to keep the value, and so on.
    fn digits(&self) -> [u8; 5] {
        let count = u8::try_from(self.items.len().min(RUN_ITEMS_MAX)).unwrap_or_default();
        let keeps = u8::from(self.retention.value);
        [keeps, self.renew.into(), self.history.is_some().into(), self.keyed.into(), count]
            .map(|digit| b'0' + digit)
    }

    fn write_keys(&self, command: &mut Cmd) {
        command.arg(&self.topic_key);
        if let Some((list, _)) = &self.history {
            command.arg(list);
        }
        for key in self.items.iter().filter_map(|item| item.answer_key.as_ref()) {
            command.arg(key);
        }
    }

    fn write_arguments(&self, command: &mut Cmd) {
        command.arg(&self.channel).arg(&self.digits());
        if let Some((_, ttl)) = &self.history {
            let Retention { history, history_bytes, history_age, .. } = self.retention;
            let age_ms = history_age.min(TTL_MAX).as_millis();
            command.arg(history).arg(history_bytes);
            command.write_arg_fmt(age_ms);
            command.arg(seconds(*ttl));
        }
        for item in &self.items {
            command.arg(item.record);
            if self.keyed {
                command.write_arg_fmt(sha1_smol::Sha1::from(item.record.data).digest());
            }
        }
    }
}

/// A call of the publish script.
pub(crate) fn publish(by: By, fence: Fence<'_>, ttls: Ttls, runs: &[Run<'_>]) -> Cmd {
    let items = || runs.iter().flat_map(|run| &run.items);
    let answers = items().filter(|item| item.answer_key.is_some()).count();
    let keys = answers + runs.len() + runs.iter().filter(|run| run.history.is_some()).count();
    let payload: usize = items().map(|item| item.record.data.len()).sum();
    // Rough upper bounds, so that usually nothing is copied again while the command grows.
    let arguments = 4 + keys + 6 * runs.len() + items().count() + answers;
    let bytes = payload + 64 * arguments;

    let mut command = PUBLISH.call(by, keys, arguments, bytes);
    runs.iter().for_each(|run| run.write_keys(&mut command));
    fence.write(&mut command);
    command.arg(seconds(ttls.topic)).arg(seconds(ttls.idempotency));
    runs.iter().for_each(|run| run.write_arguments(&mut command));
    command
}

impl ToRedisArgs for Record<'_> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        let written = self.write_to(&mut out.writer_for_next_arg());
        debug_assert!(written.is_ok(), "writing into memory cannot fail");
    }
}

/// A call of the read script.
pub(crate) fn read(
    by: By,
    fence: Fence<'_>,
    ttls: Ttls,
    keys: &[String; 2],
    request: ReadRequest,
) -> Cmd {
    // More entries than any history holds, and still a number that Redis takes.
    const NEWEST_MAX: usize = 1 << 30;
    let (part, number) = match request.history {
        HistoryRequest::None => ("none", 0),
        HistoryRequest::After(offset) => ("after", offset),
        HistoryRequest::Newest(count) => ("newest", count.min(NEWEST_MAX) as u64),
    };
    let mut command = READ.call(by, 2, 9, 512);
    command.arg(keys);
    fence.write(&mut command);
    command.arg(seconds(ttls.topic)).arg(seconds(ttls.unpublished));
    command.arg(u8::from(request.create)).arg(part).arg(number);
    command
}

/// A call of the compare script. Each topic is given by the key of its hash and its name.
pub(crate) fn compare(
    by: By,
    fence: Fence<'_>,
    ttls: Ttls,
    (channel, batch): (&str, u64),
    topics: &[(String, &str)],
) -> Cmd {
    let mut command = COMPARE.call(by, topics.len(), 6 + 2 * topics.len(), 64 * topics.len());
    for (key, _) in topics {
        command.arg(key);
    }
    fence.write(&mut command);
    command.arg(seconds(ttls.topic)).arg(seconds(ttls.unpublished)).arg(channel).arg(batch);
    for (_, name) in topics {
        command.arg(name);
    }
    command
}

/// Redis answered something that the script never says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reply that no script gives")]
pub(crate) struct Unexpected;

impl From<EnvelopeError> for Unexpected {
    fn from(_: EnvelopeError) -> Self {
        Self
    }
}

/// The text of a reply.
pub(crate) fn text(value: &Value) -> Result<&str, Unexpected> {
    std::str::from_utf8(bytes(value)?).ok().ok_or(Unexpected)
}

fn bytes(value: &Value) -> Result<&[u8], Unexpected> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(Unexpected),
    }
}

/// Reads a reply to the publish script: the true replication id if it was looked up, else empty; and the other lines.
pub(crate) fn publish_reply(value: &Value) -> Result<(&str, Split<'_, char>), Unexpected> {
    let mut lines = text(value)?.split('\n');
    let replication_id = lines.next().ok_or(Unexpected)?;
    Ok((replication_id, lines))
}

/// One line of a reply to the publish script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Published(Position),
    Duplicate(Position),
    Conflict,
    /// The run was refused with this error, and nothing of it was done.
    Refused(&'a str),
    /// The run failed half-way with this error.
    Failed(&'a str),
}

impl<'a> Line<'a> {
    pub(crate) fn parse(line: &'a str) -> Result<Self, Unexpected> {
        Ok(match line.as_bytes() {
            [b'-', ..] => Self::Refused(&line[1..]),
            [b'?', ..] => Self::Failed(&line[1..]),
            [b'=', ..] => Self::Duplicate(parse_position(&line[1..])?),
            b"!" => Self::Conflict,
            _ => Self::Published(parse_position(line)?),
        })
    }
}

/// A reply to the read script.
#[derive(Debug)]
pub(crate) struct ReadReply<'a> {
    /// The true replication id, if it was looked up, else empty.
    pub(crate) replication_id: &'a str,
    /// None if the topic does not exist.
    pub(crate) topic: Option<ReadTopic<'a>>,
}

/// What the read script found.
#[derive(Debug)]
pub(crate) struct ReadTopic<'a> {
    pub(crate) position: Position,
    /// The record of the last value; empty if none is kept.
    pub(crate) value: &'a [u8],
    /// The clock of Redis, since 1970.
    pub(crate) now: Duration,
    pub(crate) entries: &'a [Value],
}

impl<'a> ReadTopic<'a> {
    /// The entries, oldest first.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
        self.entries.iter().map(|entry| bytes(entry).unwrap_or_default())
    }
}

/// Reads a reply to the read script.
pub(crate) fn read_reply(value: &Value) -> Result<ReadReply<'_>, Unexpected> {
    let Value::Array(parts) = value else { return Err(Unexpected) };
    let topic = match parts.as_slice() {
        [_] => None,
        [_, state, value, seconds, micros, entries @ ..] => {
            let number = |value| text(value)?.parse::<u64>().ok().ok_or(Unexpected);
            // The bytes of the history, if there are any, come after the position.
            let state = text(state)?;
            let end = state.match_indices(' ').nth(1).map_or(state.len(), |(at, _)| at);
            Some(ReadTopic {
                position: parse_position(&state[..end])?,
                value: bytes(value)?,
                now: clock(number(seconds)?, number(micros)?).ok_or(Unexpected)?,
                entries,
            })
        }
        _ => return Err(Unexpected),
    };
    Ok(ReadReply { replication_id: parts.first().map_or(Ok(""), text)?, topic })
}
