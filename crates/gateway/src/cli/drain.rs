//! `tickcast drain`: has a node send its clients away and end, and shows how that goes.

use std::io::{self, Write, stdout};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::client::{ClientError, HttpConnection, Target, printable, thousands};
use super::{DrainArgs, Failure, runtime};

/// How often the node is asked how it is getting on.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The longest `drain.timeout`, and what the end of a process may take.
const WAIT_MAX: Duration = Duration::from_secs(3660);

/// What the node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Status {
    life: String,
    connections: Connections,
    /// A node of before does not say it.
    departed: Option<Departed>,
    /// Tells a node from its successor at the same address.
    started: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Connections {
    http: u64,
    websocket: u64,
}

/// How WebSocket connections have ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Departed {
    followed: u64,
    closed: u64,
    lost: u64,
    cut: u64,
}

/// Runs the verb.
pub(super) fn run(args: &DrainArgs) -> Result<(), Failure> {
    let target = args.admin.target()?;
    runtime()?.block_on(async {
        let started = Instant::now();
        let status = ask(&target, Method::POST, "/admin/drain").await?;
        say(&status)?;
        if args.wait { wait(&target, status, started).await } else { Ok(()) }
    })
}

/// Shows how the number of clients falls, until the node has ended.
async fn wait(target: &Target, mut shown: Status, started: Instant) -> Result<(), Failure> {
    while started.elapsed() < WAIT_MAX {
        sleep(LOOK_INTERVAL).await;
        let status = match ask(target, Method::GET, "/admin/status").await {
            Ok(status) => Some(status).filter(|status| status.started == shown.started),
            Err(AskError::Client(error)) if error.is_gone() => None,
            Err(error) => return Err(error.into()),
        };
        // It has ended, or another one has taken its place.
        let Some(status) = status else {
            let ended = format!("ended after {:.1} s", started.elapsed().as_secs_f64());
            return print(&(ended + &farewell(&shown)));
        };
        if (&status.life, &status.connections) != (&shown.life, &shown.connections) {
            say(&status)?;
        }
        shown = status;
    }
    Err(Failure::Failed(format!("the node has not ended within {} s", WAIT_MAX.as_secs())))
}

/// How the clients have gone, as far as it was seen.
fn farewell(last: &Status) -> String {
    let Some(Departed { followed, closed, lost, cut }) = &last.departed else {
        return String::new();
    };
    let [followed, closed, lost, cut] =
        [followed, closed, lost, cut].map(|count| thousands(*count));
    let seen = format!(": {followed} followed, {closed} closed, {lost} lost, {cut} cut");
    match last.connections.websocket {
        0 => seen,
        left => format!("{seen}, {} left when it was last asked", thousands(left)),
    }
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the node refuses: {0}")]
    Refused(String),
    #[error("the answer is not that of a node: {0}")]
    Foreign(String),
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Failed(error.to_string())
    }
}

async fn ask(target: &Target, method: Method, path: &str) -> Result<Status, AskError> {
    let request = target.request(method, path, Bytes::new())?;
    let answer = HttpConnection::new(target).send(request).await?;
    match answer.status {
        StatusCode::OK | StatusCode::ACCEPTED => serde_json::from_slice(&answer.body)
            .map_err(|error| AskError::Foreign(error.to_string())),
        _ => Err(AskError::Refused(answer.problem())),
    }
}

fn say(status: &Status) -> Result<(), Failure> {
    let Connections { http, websocket } = status.connections;
    let (connections, others) = (count(websocket, "WebSocket connection"), count(http, "other"));
    let life = printable(&status.life);
    print(&format!("{life}: {connections}, {others}"))
}

/// So many of these.
fn count(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {what}{ending}", thousands(number))
}

fn print(line: &str) -> Result<(), Failure> {
    match writeln!(stdout(), "{line}") {
        // Nobody reads on, but the node is to be waited for.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(error.to_string()))
        }
        _ => Ok(()),
    }
}
