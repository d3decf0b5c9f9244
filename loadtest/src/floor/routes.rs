//! What the floor is asked and what it answers: requests read from HTTP messages, responses as ready bytes.
//!
//! Nothing is validated beyond what is needed to answer; a body is not even looked at unless it is a batch.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::http::Message;
use crate::wire::{OPCODE_TEXT, accept_key, append_header};

/// One epoch for the life of the process: the floor keeps nothing that could outlive it.
const EPOCH: &str = "floor";

/// One publication of a batch.
#[derive(Debug, Deserialize)]
pub(super) struct Item<'a> {
    pub(super) topic: &'a str,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
}

/// What a client asked for.
#[derive(Debug)]
pub(super) enum Request<'a> {
    Publish { topic: &'a str, data: &'a [u8] },
    Batch(Vec<Item<'a>>),
    Subscribe { topics: Vec<&'a str>, key: &'a str },
    Health,
    Stats,
}

impl<'a> Request<'a> {
    /// Reads a request; what cannot be served is answered with the response in `Err`.
    pub(super) fn read(message: &Message<'a>) -> Result<Self, Response> {
        let (method, target) = message.request().ok_or_else(|| refuse("400 Bad Request"))?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match (method, path) {
            ("POST", "/v1/publish") => serde_json::from_slice(message.body)
                .map(Request::Batch)
                .map_err(|_invalid| refuse("400 Bad Request")),
            ("POST", _) => path
                .strip_prefix("/v1/topics/")
                .map(|topic| Request::Publish { topic, data: message.body })
                .ok_or_else(|| refuse("404 Not Found")),
            ("GET", "/v1/ws") => {
                let topics = query.split('&').find_map(|pair| pair.strip_prefix("topics="));
                let key = message.field("sec-websocket-key");
                match (topics, key) {
                    (Some(topics), Some(key)) if !topics.is_empty() => {
                        Ok(Request::Subscribe { topics: topics.split(',').collect(), key })
                    }
                    _ => Err(refuse("400 Bad Request")),
                }
            }
            ("GET", "/healthz") => Ok(Request::Health),
            ("GET", "/stats") => Ok(Request::Stats),
            _ => Err(refuse("404 Not Found")),
        }
    }
}

/// A position in a topic, as acknowledgements show it.
#[derive(Debug, Serialize)]
struct Position<'a> {
    topic: &'a str,
    epoch: &'static str,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
}

impl<'a> Position<'a> {
    fn new((topic, offset): (&'a str, u64)) -> Self {
        Self { topic, epoch: EPOCH, offset, mode: None }
    }
}

/// Bytes to write in one piece.
#[derive(Debug)]
pub(super) struct Response(Vec<u8>);

impl Response {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn ok(body: &str) -> Self {
        http("200 OK", body)
    }

    /// The answer to a single publication.
    pub(super) fn published(topic: &str, offset: u64) -> Self {
        Self::ok(&json(&Position::new((topic, offset))))
    }

    /// The answer to a batch, in the order of its items.
    pub(super) fn batch(offsets: &[(&str, u64)]) -> Self {
        #[derive(Serialize)]
        struct Batch<'a> {
            results: Vec<Position<'a>>,
        }
        Self::ok(&json(&Batch { results: offsets.iter().copied().map(Position::new).collect() }))
    }

    /// The switch to WebSocket and the acknowledgement behind it, in one write.
    pub(super) fn subscribed(key: &str, offsets: &[(&str, u64)]) -> Self {
        #[derive(Serialize)]
        struct Ack<'a> {
            r#type: &'static str,
            topics: Vec<Position<'a>>,
            errors: [(); 0],
        }
        let topics = offsets
            .iter()
            .map(|position| Position { mode: Some("all"), ..Position::new(*position) })
            .collect();
        let ack = json(&Ack { r#type: "subscribed", topics, errors: [] });
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(key)
        )
        .into_bytes();
        append_header(&mut bytes, OPCODE_TEXT, ack.len());
        bytes.extend_from_slice(ack.as_bytes());
        Self(bytes)
    }
}

/// These types always serialize: they hold only text and numbers.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn refuse(status: &str) -> Response {
    http(status, "")
}

fn http(status: &str, body: &str) -> Response {
    Response(
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> Result<String, String> {
        let message = Message::read(request.as_bytes()).expect("http").expect("complete");
        Request::read(&message)
            .map(|request| format!("{request:?}"))
            .map_err(|response| String::from_utf8_lossy(response.bytes()).into_owned())
    }

    #[test]
    fn requests_are_told_apart() {
        let single = ask("POST /v1/topics/a/b HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}");
        assert!(single.expect("publish").contains("topic: \"a/b\""));
        let batch = "[{\"topic\":\"a\",\"data\":{}},{\"topic\":\"b\",\"data\":1}]";
        let length = batch.len();
        let batch =
            ask(&format!("POST /v1/publish HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{batch}"));
        assert!(batch.expect("batch").contains("topic: \"b\""));
        let socket = ask("GET /v1/ws?mode=all&topics=a,b HTTP/1.1\r\nSec-WebSocket-Key: k\r\n\r\n");
        assert!(socket.expect("subscribe").contains("[\"a\", \"b\"]"));
        for refused in [
            "GET /v1/ws?topics= HTTP/1.1\r\nSec-WebSocket-Key: k\r\n\r\n",
            "GET /v1/ws?topics=a HTTP/1.1\r\n\r\n",
            "POST /v1/publish HTTP/1.1\r\ncontent-length: 1\r\n\r\n{",
            "DELETE / HTTP/1.1\r\n\r\n",
        ] {
            assert!(ask(refused).expect_err("refused").starts_with("HTTP/1.1 40"));
        }
    }

    #[test]
    fn responses_have_the_shape_of_the_public_wire() {
        let published = String::from_utf8(Response::published("a", 7).0).expect("text");
        assert!(published.ends_with("{\"topic\":\"a\",\"epoch\":\"floor\",\"offset\":7}"));
        let batch = String::from_utf8(Response::batch(&[("a", 1), ("b", 2)]).0).expect("text");
        assert!(
            batch.contains("{\"results\":[{\"topic\":\"a\",\"epoch\":\"floor\",\"offset\":1},")
        );
        let ack = String::from_utf8_lossy(&Response::subscribed("k", &[("a", 3)]).0).into_owned();
        assert!(ack.ends_with(
            "{\"type\":\"subscribed\",\"topics\":[{\"topic\":\"a\",\"epoch\":\"floor\",\"offset\":3,\"mode\":\"all\"}],\"errors\":[]}"
        ));
    }
}
