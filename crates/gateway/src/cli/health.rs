//! `tickcast health`: asks a node, says its answer in one line, and ends with it.

use std::io::{Write as _, stdout};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::client::{HttpConnection, printable};
use super::{Failure, HealthArgs, Purpose, runtime};

/// What a node says of its health. Of `/livez` only the status, and what hangs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    status: String,
    reasons: Vec<String>,
    worker: Option<u32>,
}

/// Runs the verb.
pub(super) fn run(args: &HealthArgs) -> Result<(), Failure> {
    let path = match args.purpose {
        Purpose::Publish => "/readyz",
        Purpose::Subscribe => "/readyz?for=subscribe",
        Purpose::Live => "/livez",
    };
    let target = args.admin.target()?;
    let asked = async {
        let request = target.request(Method::GET, path, Bytes::new())?;
        HttpConnection::new(&target).send(request).await
    };
    let answer = runtime()?.block_on(asked).map_err(|error| Failure::Failed(error.to_string()))?;
    let line = describe(answer.status, &answer.body).map_err(Failure::Failed)?;
    // A closed standard output is no illness of the node.
    drop(writeln!(stdout(), "{line}"));
    Ok(())
}

/// The line for a healthy node; what is wrong with another one.
fn describe(status: StatusCode, body: &[u8]) -> Result<String, String> {
    let report: Report = serde_json::from_slice(body).unwrap_or_default();
    let hanging = report.worker.map(|worker| format!("worker {worker} does not respond"));
    let reasons: Vec<_> = report.reasons.into_iter().chain(hanging).collect();
    let word = report.status.replace('_', " ");
    let line = match reasons.as_slice() {
        [] => word,
        reasons => printable(&format!("{word}: {}", reasons.join(", "))),
    };
    match status {
        StatusCode::OK if !line.is_empty() => Ok(line),
        StatusCode::SERVICE_UNAVAILABLE if !line.is_empty() => Err(line),
        _ => Err(format!("no node answers there, but something with HTTP {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_one_line() {
        let check = |status: u16, body: &str, expected: Result<&str, &str>| {
            let line = describe(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            let line = line.as_deref().map_err(String::as_str);
            assert_eq!(line, expected, "{body}");
        };
        check(200, r#"{"status":"ok"}"#, Ok("ok"));
        check(200, r#"{"status":"ready","reasons":[]}"#, Ok("ready"));
        check(200, r#"{"status":"ready","reasons":["broker_down"]}"#, Ok("ready: broker_down"));
        let down = r#"{"status":"not_ready","reasons":["draining","broker_down"]}"#;
        check(503, down, Err("not ready: draining, broker_down"));
        let hanging = r#"{"status":"hanging","worker":1,"silent_seconds":40}"#;
        check(503, hanging, Err("hanging: worker 1 does not respond"));
        check(200, "<html>", Err("no node answers there, but something with HTTP 200 OK"));
        check(502, "", Err("no node answers there, but something with HTTP 502 Bad Gateway"));
    }
}
