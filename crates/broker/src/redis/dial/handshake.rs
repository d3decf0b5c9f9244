//! The first words with a server: HELLO, and who it is.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError, Value,
};

use super::error::Failure;
use super::stream::Stream;
use super::{DriverTask, Purpose, ServerFacts};
use crate::redis::address::Login;

/// Requests that may wait for the driver task. Bytes are bounded elsewhere; this bounds the number.
const REQUESTS_MAX: usize = 1024;

/// The driver task gathers at least this much before it waits for the socket.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// Older servers miss commands and reply forms that the link relies on.
const OLDEST: (u32, u32) = (6, 2);

/// What HELLO says.
pub(super) struct Greeting<'a> {
    pub(super) login: Option<&'a Login>,
    pub(super) database: u32,
    pub(super) push: Option<Arc<dyn AsyncPushSender>>,
}

/// Says HELLO, authenticates, chooses the database, and lets a task carry the connection.
pub(super) async fn greet(
    stream: Box<dyn Stream>,
    greeting: Greeting<'_>,
) -> Result<(MultiplexedConnection, DriverTask), RedisError> {
    let mut info = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(i64::from(greeting.database))
        .set_skip_set_lib_name();
    if let Some(login) = greeting.login {
        info = info.set_password(&login.password);
        if let Some(user) = &login.user {
            info = info.set_username(user);
        }
    }
    // Deadlines are the callers': one that the library keeps would leave requests of unknown outcome behind.
    let mut config = AsyncConnectionConfig::new()
        .set_response_timeout(None::<Duration>)
        .set_pipeline_buffer_size(REQUESTS_MAX)
        .set_write_backpressure_boundary(WRITE_BUFFER_BYTES);
    if let Some(push) = greeting.push {
        config = config.set_push_sender(push);
    }
    let (connection, driver) =
        MultiplexedConnection::new_with_config(&info, stream, config).await?;
    Ok((connection, DriverTask::spawn(driver)))
}

/// What a server says about itself.
pub(super) struct Introduction {
    pub(super) client_id: Option<u64>,
    server: String,
    replication: String,
    /// Empty where the user may not see it; then a server that is loading answers so to the first command.
    persistence: String,
}

/// Names the connection and asks the server who it is. Only what the link cannot do without must be allowed.
pub(super) async fn introduce(
    connection: &mut MultiplexedConnection,
    purpose: Purpose,
) -> Result<Introduction, RedisError> {
    let mut questions = redis::pipe();
    questions.cmd("CLIENT").arg("SETNAME").arg(purpose.name());
    questions.cmd("CLIENT").arg("ID");
    for section in ["server", "replication", "persistence"] {
        questions.cmd("INFO").arg(section);
    }
    let answers = connection.send_packed_commands(&questions, 0, questions.len()).await?;
    let Ok([_, client_id, server, replication, persistence]) = <[Value; 5]>::try_from(answers)
    else {
        return Err((ErrorKind::UnexpectedReturnType, "answers are missing").into());
    };
    let client_id = match client_id {
        Value::Int(id) => u64::try_from(id).ok(),
        _ => None,
    };
    Ok(Introduction {
        client_id,
        server: text(server)?,
        replication: text(replication)?,
        persistence: text(persistence).unwrap_or_default(),
    })
}

fn text(value: Value) -> Result<String, RedisError> {
    match value {
        Value::VerbatimString { text, .. } => Ok(text),
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Value::ServerError(error) => Err(error.into()),
        _ => Err((ErrorKind::UnexpectedReturnType, "INFO did not answer with a text").into()),
    }
}

/// The value of a field in the answer to INFO.
pub(crate) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

impl Introduction {
    /// What matters later, if the server can serve the purpose.
    pub(super) fn facts(
        &self,
        purpose: Purpose,
        address: String,
        peer: String,
    ) -> Result<ServerFacts, Failure> {
        if purpose != Purpose::Inspect {
            self.check()?;
        }
        let field = |info, name| info_field(info, name).unwrap_or_default().to_owned();
        Ok(ServerFacts {
            address,
            peer,
            run_id: field(&self.server, "run_id"),
            replid: field(&self.replication, "master_replid"),
            version: field(&self.server, "redis_version"),
        })
    }

    fn check(&self) -> Result<(), Failure> {
        let mode = info_field(&self.server, "redis_mode");
        let version = info_field(&self.server, "redis_version").unwrap_or_default();
        if mode == Some("sentinel") {
            return Err(Failure::Sentinel);
        }
        if is_too_old(version) {
            return Err(Failure::TooOld(version.to_owned()));
        }
        if mode == Some("cluster") {
            return Err(Failure::Cluster);
        }
        let replication = |name| info_field(&self.replication, name);
        if replication("role") != Some("master") {
            let master = replication("master_host").zip(replication("master_port"));
            let of = master.map(|(host, port)| format!(" of {host}:{port}"));
            return Err(Failure::NotMaster(of.unwrap_or_default()));
        }
        if info_field(&self.persistence, "loading") == Some("1") {
            return Err(Failure::Loading);
        }
        if replication("master_replid").is_none_or(str::is_empty) {
            return Err(Failure::NoIdentity);
        }
        Ok(())
    }
}

/// Only if it is certain: what imitates Redis numbers its versions as it likes.
fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST,
        _ => false,
    }
}
