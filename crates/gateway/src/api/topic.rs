//! `GET /v1/topics/{topic}`: what the topic holds now, for plain polling, and with `?history=n` how it came there.
//!
//! It reads the broker, so a publisher reads its own writes at every node. Payloads are copied in as they came.

use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tickcast_broker::{HistoryRequest, TopicState};
use tickcast_protocol::{ErrorCode, Position, Publication, Topic};

use super::problem::Problem;
use super::{Answer, append, append_place, json, read_topic, text};
use crate::access::{self, Asker};
use crate::node::Node;
use crate::server::Peer;

/// Reads the topic that `raw_topic` names, percent-encoded.
pub(crate) async fn read(
    node: &Node,
    client: Peer,
    raw_topic: &str,
    parts: &Parts,
) -> Result<Answer, Problem> {
    let who = access::of_request(node, client, &parts.headers)?;
    let topic = read_topic(raw_topic)?;
    let history_max = {
        let config = node.config();
        let allowed = node.access.current().may_subscribe(&config, who.as_deref(), &topic);
        let asker = Asker::of_request(client, &parts.headers);
        allowed.map_err(|denied| denied.noted(node, asker, who.as_deref(), Some(&topic)))?;
        config.for_topic(topic.as_str()).history
    };
    let history = read_history_option(parts.uri.query(), history_max)?;
    let request = history.map_or(HistoryRequest::None, HistoryRequest::Newest);
    let state = node.read(&topic, request).await?;
    // A topic that was only subscribed has an epoch but holds nothing: for a reader it is as if it did not exist.
    let state = state.filter(|state| state.position.offset > 0).ok_or_else(|| no_value(&topic))?;
    match (history, &state.value) {
        (Some(_), _) => {
            Ok(unless_held(&parts.headers, state.position, || history_body(&topic, &state)))
        }
        (None, Some(value)) => {
            Ok(unless_held(&parts.headers, value.position(), || value_body(&topic, value)))
        }
        (None, None) => Err(no_value(&topic)),
    }
}

fn no_value(topic: &Topic) -> Problem {
    Problem::new(ErrorCode::NoValue, format!("`{topic}` has no value, or none is kept"))
}

/// Reads `history`, the only option of this route.
pub(crate) fn read_history_option(
    query: Option<&str>,
    max: usize,
) -> Result<Option<usize>, Problem> {
    let bad = |detail: String| Err(Problem::new(ErrorCode::BadOption, detail));
    let mut history = None;
    for (key, value) in text::pairs(query) {
        if key != "history" {
            return bad(format!("there is no query option `{key}`; there is `history`"));
        }
        if history.is_some() {
            return bad("`history` is given twice".to_owned());
        }
        // Digits only: `parse` would also take a sign.
        let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if is_number && number <= max => history = Some(number),
            _ => {
                return bad(format!(
                    "`history` is `{value}`; for this topic it is a number from 0 to {max}"
                ));
            }
        }
    }
    Ok(history)
}

fn value_body(topic: &Topic, value: &Publication) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.as_str().len() + value.data().len() + 120);
    append_place(&mut body, topic, value.position());
    append(&mut body, format_args!(r#","time":{},"data":"#, value.time_ms()));
    body.extend_from_slice(value.data());
    body.push(b'}');
    body
}

fn history_body(topic: &Topic, state: &TopicState) -> Vec<u8> {
    let size: usize = state.history.iter().map(|publication| publication.data().len() + 50).sum();
    let mut body = Vec::with_capacity(topic.as_str().len() + size + 120);
    append_place(&mut body, topic, state.position);
    body.extend_from_slice(br#","publications":["#);
    for (index, publication) in state.history.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        append(&mut body, format_args!(r#"{{"offset":{},"data":"#, publication.offset()));
        body.extend_from_slice(publication.data());
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    body
}

/// The answer with its `ETag`, or 304 if the client holds just this; then no body is made.
fn unless_held(headers: &HeaderMap, position: Position, body: impl FnOnce() -> Vec<u8>) -> Answer {
    let tag = format!("\"{}:{}\"", position.epoch, position.offset);
    let mut answer = if is_held(headers, &tag) {
        let mut not_modified = Response::default();
        *not_modified.status_mut() = StatusCode::NOT_MODIFIED;
        not_modified
    } else {
        json(StatusCode::OK, body())
    };
    let headers = answer.headers_mut();
    // To be stored, but asked about every time: the value may change at any moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    answer
}

/// `If-None-Match` (RFC 9110, section 13.1.2): weak comparison with each of a list, or `*` for anything.
///
/// Splitting at commas is enough: a tag of somebody else that contains one cannot become one of ours by it.
pub(crate) fn is_held(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut candidates = values.flat_map(|value| value.split(',')).map(str::trim);
    candidates.any(|held| held == "*" || held.strip_prefix("W/").unwrap_or(held) == tag)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tickcast_protocol::Epoch;

    use super::*;

    fn position(offset: u64) -> Position {
        Position { epoch: Epoch::new(937_557), offset }
    }

    fn publication(offset: u64, data: &str) -> Arc<Publication> {
        let topic = Topic::new("stocks.AAPL").unwrap();
        Arc::new(Publication::new(topic, position(offset), 1_795_525_552_123, data.as_bytes()))
    }

    #[test]
    fn bodies_carry_payloads_verbatim() {
        let topic = Topic::new("stocks.AAPL").unwrap();
        let value = publication(7, r#"{"px": 1.10,"n":1e400}"#);
        assert_eq!(
            String::from_utf8(value_body(&topic, &value)).unwrap(),
            r#"{"topic":"stocks.AAPL","epoch":"k3f9","offset":7,"time":1795525552123,"data":{"px": 1.10,"n":1e400}}"#
        );
        let history = vec![publication(6, "null"), Arc::clone(&value)];
        let state = TopicState { position: position(7), value: Some(value), history };
        assert_eq!(
            String::from_utf8(history_body(&topic, &state)).unwrap(),
            r#"{"topic":"stocks.AAPL","epoch":"k3f9","offset":7,"publications":[{"offset":6,"data":null},{"offset":7,"data":{"px": 1.10,"n":1e400}}]}"#
        );
        let state = TopicState { history: Vec::new(), ..state };
        assert_eq!(
            String::from_utf8(history_body(&topic, &state)).unwrap(),
            r#"{"topic":"stocks.AAPL","epoch":"k3f9","offset":7,"publications":[]}"#
        );
    }

    #[test]
    fn history_options() {
        let check = |query: &str, expected: Result<Option<usize>, ErrorCode>| {
            let history = read_history_option(Some(query), 100).map_err(|problem| problem.code());
            assert_eq!(history, expected, "{query}");
        };
        check("", Ok(None));
        check("history=0", Ok(Some(0)));
        check("history=100", Ok(Some(100)));
        check("&history=7&", Ok(Some(7)));
        for query in [
            "history",
            "history=",
            "history=101",
            "history=-1",
            "history=+1",
            "history=1.0",
            "history=%31",
            "history=99999999999999999999999",
            "history=1&history=1",
            "History=1",
            "limit=1",
            "=1",
            "history=1&x",
        ] {
            check(query, Err(ErrorCode::BadOption));
        }
    }

    #[test]
    fn validators() {
        let check = |values: &[&str], is_held: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
            }
            let answer = unless_held(&headers, position(7), || b"{}".to_vec());
            assert_eq!(answer.status() == 304, is_held, "{values:?}");
            assert_eq!(answer.headers()[ETAG], "\"k3f9:7\"");
            assert_eq!(answer.headers()[CACHE_CONTROL], "no-cache");
        };
        check(&[], false);
        check(&["\"k3f9:7\""], true);
        check(&["W/\"k3f9:7\""], true);
        check(&["*"], true);
        check(&["\"a\", \"k3f9:7\""], true);
        check(&["\"a\"", "W/\"b\",W/\"k3f9:7\""], true);
        check(&["\"k3f9:8\""], false);
        check(&["\"m7q2:7\""], false);
        check(&["k3f9:7"], false);
        check(&["w/\"k3f9:7\""], false);
        check(&["\u{e4}"], false);
        check(&["\"a,k3f9:7\""], false);
    }
}
