//! What a server says when it is asked.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use super::{
    BufferLimit, Clients, Clock, Facts, Memory, Persistence, Reading, Role, SentinelFacts,
    Unreadable, permissions,
};
use crate::redis::dial::{Dialed, info_field, said};

/// Of several questions the quickest one tells most about the distance and the clock.
const ROUNDS: usize = 5;

/// Asks everything. The error is that of a lost connection.
pub(super) async fn read(
    dialed: Dialed,
    prefix: &str,
    sentinels: Vec<SentinelFacts>,
) -> Result<Facts, String> {
    let Dialed { mut connection, task: _task, server, client_id } = dialed;
    let connection = &mut connection;
    let mut info = Sections::default();
    for name in ["server", "clients", "memory", "persistence", "replication"] {
        info.0.push((name, text(ask(connection, redis::cmd("INFO").arg(name)).await?)));
    }
    let (round_trip, clock) = measure(connection).await?;
    let output_buffers = config(connection, "client-output-buffer-limit").await?;
    let max_clients = match info.number("clients", "maxclients") {
        Err(_) => config(connection, "maxclients").await?.and_then(|text| number(&text)),
        known => known,
    };
    let min_replicas = config(connection, "min-replicas-to-write").await?;
    let save = config(connection, "save").await?;
    let permissions = permissions::read(connection, prefix, client_id).await?;
    Ok(Facts {
        address: server.address,
        peer: server.peer,
        version: info.field("server", "redis_version"),
        mode: info.field("server", "redis_mode"),
        role: info.role(),
        replicas: info.number("replication", "connected_slaves"),
        min_replicas_to_write: min_replicas.and_then(|text| number(&text)),
        memory: Memory {
            used: info.number("memory", "used_memory"),
            max: info.number("memory", "maxmemory"),
            policy: info.field("memory", "maxmemory_policy"),
        },
        clients: Clients {
            connected: info.number("clients", "connected_clients"),
            max: max_clients,
        },
        pubsub_buffer: output_buffers.and_then(|text| buffer_limit(&text, "pubsub")),
        persistence: Persistence {
            save,
            append_only: info.field("persistence", "aof_enabled").map(|text| text == "1"),
            last_write_ok: info.last_write_ok(),
        },
        round_trip,
        clock,
        permissions,
        sentinels,
    })
}

/// Sends one command. A refusal is an answer; only a lost connection is an error.
pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Reading<Value>, String> {
    match connection.send_packed_command(command).await {
        Ok(Value::ServerError(error)) => Ok(Err(Unreadable(said(&error.into())))),
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_unrecoverable_error() => {
            Err(format!("the connection was lost while the server was asked ({error})"))
        }
        Err(error) => Ok(Err(Unreadable(said(&error)))),
    }
}

fn missing(what: &str) -> Unreadable {
    Unreadable(format!("the server does not say `{what}`"))
}

fn text(value: Reading<Value>) -> Reading<String> {
    match value? {
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => Ok(text),
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        _ => Err(Unreadable("the server did not answer with a text".to_owned())),
    }
}

fn number(text: &str) -> Reading<u64> {
    text.parse().map_err(|error| Unreadable(format!("`{text}` is not a number ({error})")))
}

async fn config(
    connection: &mut MultiplexedConnection,
    name: &str,
) -> Result<Reading<String>, String> {
    let answer = ask(connection, redis::cmd("CONFIG").arg("GET").arg(name)).await?;
    Ok(answer.and_then(|value| {
        let pairs: Vec<(String, String)> =
            redis::from_redis_value(value).map_err(|error| Unreadable(error.to_string()))?;
        pairs
            .into_iter()
            .find(|(known, _)| known == name)
            .map_or_else(|| Err(missing(name)), |(_, value)| Ok(value))
    }))
}

/// Asks for the time: how far away is the server, and what does its clock say?
async fn measure(
    connection: &mut MultiplexedConnection,
) -> Result<(Duration, Reading<Clock>), String> {
    let mut best: Option<(Duration, Reading<Clock>)> = None;
    for _ in 0..ROUNDS {
        let sent_at = SystemTime::now();
        let sent = Instant::now();
        let answer = ask(connection, &redis::cmd("TIME")).await?;
        let round_trip = sent.elapsed();
        if best.as_ref().is_none_or(|(shortest, _)| round_trip < *shortest) {
            let clock = answer.and_then(|time| clock(time, sent_at, round_trip));
            best = Some((round_trip, clock));
        }
    }
    Ok(best.unwrap_or_else(|| (Duration::ZERO, Err(missing("TIME")))))
}

/// The server read its clock at some moment of the round trip; the middle is at most half of it away.
fn clock(time: Value, sent_at: SystemTime, round_trip: Duration) -> Reading<Clock> {
    let (seconds, micros): (i64, i64) =
        redis::from_redis_value(time).map_err(|error| Unreadable(error.to_string()))?;
    let middle = (sent_at + round_trip / 2).duration_since(UNIX_EPOCH);
    let middle = middle.map_err(|error| Unreadable(format!("this machine's clock: {error}")))?;
    let here = i64::try_from(middle.as_micros()).unwrap_or(i64::MAX);
    let there = seconds.saturating_mul(1_000_000).saturating_add(micros);
    Ok(Clock { ahead_micros: there.saturating_sub(here), uncertainty: round_trip / 2 })
}

/// Reads `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`.
fn buffer_limit(text: &str, class: &str) -> Reading<BufferLimit> {
    let mut words = text.split_ascii_whitespace().skip_while(|word| *word != class).skip(1);
    let mut next = || words.next().map_or_else(|| Err(missing(class)), number);
    let (hard, soft) = (next()?, next()?);
    Ok(BufferLimit { hard, soft, soft_for: Duration::from_secs(next()?) })
}

/// The sections of INFO that were asked for.
#[derive(Default)]
struct Sections(Vec<(&'static str, Reading<String>)>);

impl Sections {
    fn field(&self, section: &str, name: &str) -> Reading<String> {
        match self.0.iter().find(|(known, _)| *known == section) {
            Some((_, Ok(info))) => {
                info_field(info, name).map(str::to_owned).ok_or_else(|| missing(name))
            }
            Some((_, Err(reason))) => Err(reason.clone()),
            None => Err(missing(section)),
        }
    }

    fn number(&self, section: &str, name: &str) -> Reading<u64> {
        self.field(section, name).and_then(|text| number(&text))
    }

    fn role(&self) -> Reading<Role> {
        if self.field("replication", "role")? == "master" {
            return Ok(Role::Master);
        }
        let host = self.field("replication", "master_host")?;
        let port = self.field("replication", "master_port")?;
        let link = self.field("replication", "master_link_status");
        Ok(Role::Replica { of: format!("{host}:{port}"), connected: link.as_deref() == Ok("up") })
    }

    fn last_write_ok(&self) -> Reading<bool> {
        let snapshot = self.field("persistence", "rdb_last_bgsave_status")?;
        let append = self.field("persistence", "aof_last_write_status")?;
        Ok(snapshot == "ok" && append == "ok")
    }
}

#[cfg(test)]
mod tests {
    use super::{BufferLimit, Duration, Value, buffer_limit, clock};
    use std::time::UNIX_EPOCH;

    #[test]
    fn reads_the_limit_of_a_class() {
        let text = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        let limit =
            BufferLimit { hard: 33_554_432, soft: 8_388_608, soft_for: Duration::from_secs(60) };
        assert_eq!(buffer_limit(text, "pubsub"), Ok(limit));
        assert!(buffer_limit("normal 0 0 0", "pubsub").is_err());
        assert!(buffer_limit("pubsub 1 x 3", "pubsub").is_err());
    }

    #[test]
    fn a_clock_is_compared_with_the_middle_of_the_round_trip() {
        let time = |seconds: &str, micros: &str| {
            Value::Array([seconds, micros].map(|t| Value::BulkString(t.into())).into())
        };
        let (sent, round_trip) = (UNIX_EPOCH + Duration::from_secs(100), Duration::from_millis(10));
        let clock = |seconds, micros| clock(time(seconds, micros), sent, round_trip);
        assert_eq!(clock("100", "5000").map(|clock| clock.ahead_micros), Ok(0));
        assert_eq!(clock("99", "4000").map(|clock| clock.ahead_micros), Ok(-1_001_000));
        assert_eq!(clock("101", "0").map(|clock| clock.uncertainty), Ok(Duration::from_millis(5)));
        assert!(clock("x", "0").is_err());
    }
}
