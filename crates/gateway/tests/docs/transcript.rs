//! Dialogues of the client protocol, as pages show them: `> ` is what a client writes, `< ` what a node writes.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use serde_json::value::RawValue;
use tickcast_protocol::{Command, CommandError};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

use crate::compare;

/// Time for a node to say the next line.
const PATIENCE: Duration = Duration::from_secs(20);

/// Types of messages that a node sends. A publication has none.
const TYPES: &[&str] = &[
    "subscribed",
    "unsubscribed",
    "published",
    "authenticated",
    "error",
    "gap",
    "reset",
    "status",
    "goaway",
    "pong",
];

/// What differs from one run to the next, and is compared by kind alone.
const VOLATILE: &[&str] = &["epoch", "offset", "time", "from", "to", "data", "reconnect_in_ms"];

/// Every line is one of the protocol. A command that is a mistake must be followed by the error that names it.
pub(crate) fn read(text: &str) -> Result<(), String> {
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if let Some(command) = line.strip_prefix("> ") {
            let Err(error) = Command::decode(command) else { continue };
            let answer = lines.get(at + 1).and_then(|line| line.strip_prefix("< "));
            let answer: Value =
                answer.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            if answer["code"] != error_code(&error) {
                return Err(format!("not a command: {command}\n{}", error.message));
            }
        } else if let Some(message) = line.strip_prefix("< ") {
            check_message(message).map_err(|why| format!("not a message: {message}\n{why}"))?;
        } else {
            return Err(format!("neither `> ` nor `< `, and not marked as something else: {line}"));
        }
    }
    Ok(())
}

fn error_code(error: &CommandError) -> &'static str {
    error.code.as_str()
}

/// A message must be JSON unless something is left out in it.
fn check_message(text: &str) -> Result<(), String> {
    if text.contains('…') {
        return Ok(());
    }
    // Numbers that no `f64` holds are fine.
    let message: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let is_known = match message.get("type") {
        Some(kind) => TYPES.contains(&kind.get().trim_matches('"')),
        None => ["topic", "offset", "time", "data"].iter().all(|key| message.contains_key(*key)),
    };
    if is_known { Ok(()) } else { Err("a node sends nothing like it".to_owned()) }
}

/// Speaks the dialogue with a node. Between the lines shown the node may say more.
pub(crate) fn play(text: &str, node: SocketAddr) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(speak(text, node))
}

async fn speak(text: &str, node: SocketAddr) -> Result<(), String> {
    let uri = format!("ws://{node}/v1/ws").parse().expect("a URI");
    let connected = ClientBuilder::from_uri(uri).connect().await;
    let (mut socket, _) = connected.map_err(|error| format!("cannot connect: {error}"))?;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let sent = socket.send(Message::text(command.to_owned())).await;
            sent.map_err(|error| format!("cannot write: {error}"))?;
        } else if let Some(shown) = line.strip_prefix("< ") {
            let mut heard = Vec::new();
            let hearing = tokio::time::timeout(PATIENCE, hear(&mut socket, shown, &mut heard));
            if hearing.await != Ok(true) {
                return Err(format!("the node did not say\n{shown}\nbut\n{}", heard.join("\n")));
            }
        }
    }
    Ok(())
}

/// Waits until the node says what is shown; false if it ends before.
async fn hear(
    socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>,
    shown: &str,
    heard: &mut Vec<String>,
) -> bool {
    while let Some(Ok(message)) = socket.next().await {
        match message.as_text() {
            Some(said) if says(shown, said) => return true,
            Some(said) => heard.push(said.to_owned()),
            None => {}
        }
        // A node with a feed never stops; the first lines tell enough.
        heard.truncate(5);
    }
    false
}

/// Whether a node says what a page shows, apart from what differs from run to run.
fn says(shown: &str, said: &str) -> bool {
    match (serde_json::from_str(shown), serde_json::from_str(said)) {
        (Ok(shown), Ok(said)) => is_alike(&shown, &said, ""),
        _ => compare::line_matches(&without_volatile(shown), said),
    }
}

/// A line with `…` for every value that differs from run to run and is no object.
fn without_volatile(line: &str) -> String {
    let mut line = line.to_owned();
    for key in VOLATILE {
        let mark = format!("\"{key}\":");
        let parts: Vec<&str> = line.split(&mark).collect();
        let value = |part: &str| part.find([',', '}']).filter(|_| !part.starts_with(['{', '[']));
        let rest = parts[1..].iter().map(|part| match value(part) {
            Some(end) => format!("{mark}…{}", &part[end..]),
            None => format!("{mark}{part}"),
        });
        line = parts[0].to_owned() + &rest.collect::<String>();
    }
    line
}

fn is_alike(shown: &Value, said: &Value, key: &str) -> bool {
    match (shown, said) {
        _ if VOLATILE.contains(&key) => discriminant(shown) == discriminant(said),
        (Value::Object(shown), Value::Object(said)) => {
            shown.len() == said.len()
                && shown.iter().all(|(key, value)| {
                    said.get(key).is_some_and(|other| is_alike(value, other, key))
                })
        }
        (Value::Array(shown), Value::Array(said)) => {
            shown.len() == said.len() && shown.iter().zip(said).all(|(a, b)| is_alike(a, b, key))
        }
        _ => shown == said,
    }
}

#[test]
fn dialogues() {
    let publication = r#"< {"topic":"a","offset":1,"time":2,"data":{}}"#;
    assert_eq!(read(publication), Ok(()));
    assert_eq!(read("> {\"type\":\"ping\"}\n< {\"type\":\"pong\"}"), Ok(()));
    assert_eq!(
        read("> hello\n< {\"type\":\"error\",\"code\":\"bad_json\",\"message\":\"\"}"),
        Ok(())
    );
    assert!(read("> hello\n< {\"type\":\"pong\"}").is_err());
    assert!(read("< {\"type\":\"fly\"}").is_err() && read("< {\"topic\":\"a\"}").is_err());
    assert!(read("a drawing").is_err());
    let shown = r#"{"topic":"a","offset":1,"data":{"px":1}}"#;
    assert!(says(shown, r#"{"topic":"a","offset":7,"data":{"px":3}}"#));
    assert!(!says(shown, r#"{"topic":"b","offset":1,"data":{"px":1}}"#));
    assert!(!says(shown, r#"{"topic":"a","offset":"x","data":{"px":1}}"#));
    assert!(says(r#"{"topic":"a",…}"#, shown));
    assert!(says(r#"{"topic":"a","offset":9,…}"#, shown));
    assert!(!says(r#"{"topic":"b","offset":9,…}"#, shown));
}
