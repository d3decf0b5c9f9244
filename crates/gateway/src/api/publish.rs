//! `POST /v1/topics/{topic}`: publish one payload. The body is the payload.

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use serde_json::value::RawValue;
use tickcast_broker::PublishError;
use tickcast_protocol::ErrorCode;
use tickcast_protocol::limits::{self, KEY_BYTES_MAX};

use super::problem::Problem;
use super::text::near;
use super::upload::{Bound, Upload};
use super::{Answer, append_place, expect_no_query, json, read_topic};
use crate::access::{self, Asker, Key, Refusal};
use crate::node::{Item, Node};
use crate::server::Peer;

/// Names the publication, so that sending it again cannot publish it again.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that the answer is the one to an earlier request with the same key.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Publishes the body to the topic that `raw_topic` names, percent-encoded.
pub(crate) async fn publish<B>(
    node: &Node,
    client: Peer,
    raw_topic: &str,
    parts: &Parts,
    upload: &mut Upload<B>,
) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let who = access::of_request(node, client, &parts.headers)?;
    let topic = read_topic(raw_topic)?;
    expect_no_query(&parts.uri)?;
    let asker = Asker::of_request(client, &parts.headers);
    let judge = |who: Option<&Key>| {
        let allowed = node.access.current().may_publish(who, &topic);
        allowed.map_err(|denied| denied.noted(node, asker, who, Some(&topic)))
    };
    judge(who.as_deref())?;
    let key = read_key(&parts.headers)?.map(str::to_owned);
    let config = node.config();
    let limit = config.limits.payload_bytes.bytes();
    let bound = Bound { bytes: limit, code: ErrorCode::PayloadTooLarge };
    let body = upload.read(&parts.headers, bound, config.http.body_timeout).await?;
    let data = read_payload(&body)?;
    let who = renew(node, asker, who)?;
    judge(who.as_deref())?;
    admit(node, asker, who.as_deref(), 1)?;

    let results = node.publish(vec![Item { topic: topic.clone(), data, key }]).await;
    // One item has one result; without it nobody could say what became of the publication.
    let published = results.into_iter().next().unwrap_or(Err(PublishError::OutcomeUnknown))?;
    let mut body = Vec::with_capacity(topic.as_str().len() + 80);
    append_place(&mut body, &topic, published.position);
    body.push(b'}');
    let mut answer = json(StatusCode::OK, body);
    if published.duplicate {
        // In a header, because the body promises to be the same as the first time.
        answer.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// Who publishes, by the keys as they are now that the body is there.
pub(super) fn renew(
    node: &Node,
    asker: Asker,
    who: Option<Arc<Key>>,
) -> Result<Option<Arc<Key>>, Refusal> {
    node.access.renew(who).map_err(|denied| denied.noted(node, asker, None, None))
}

/// Takes publications from the rate of a key.
pub(super) fn admit(
    node: &Node,
    asker: Asker,
    who: Option<&Key>,
    publications: usize,
) -> Result<(), Refusal> {
    let admitted = who.map_or(Ok(()), |key| key.admit(publications));
    admitted.map_err(|denied| denied.noted(node, asker, who, None))
}

/// Reads the idempotency key of a request.
pub(crate) fn read_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).into_iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::new(ErrorCode::BadKey, "there is more than one `Idempotency-Key`"));
    }
    match first.to_str() {
        Ok(key) if limits::is_key(key) => Ok(Some(key)),
        _ => Err(Problem::new(
            ErrorCode::BadKey,
            format!("`Idempotency-Key` must be 1 to {KEY_BYTES_MAX} visible ASCII characters"),
        )),
    }
}

/// Checks that the body is exactly one JSON text in UTF-8, once, and gives it without the white space around it.
///
/// What lies between the first and the last byte of the JSON text is never changed.
pub(crate) fn read_payload(body: &Bytes) -> Result<Bytes, Problem> {
    if body.is_empty() {
        return Err(Problem::new(ErrorCode::BadJson, "the body is empty; it is the payload"));
    }
    let payload: &RawValue = serde_json::from_slice(body).map_err(|error| {
        let near = near(body, &error);
        Problem::new(ErrorCode::BadJson, format!("the body is not one JSON text: {error}{near}"))
    })?;
    Ok(body.slice_ref(payload.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_verbatim() {
        let check = |body: &'static [u8], expected: &str| {
            let body = Bytes::from_static(body);
            assert_eq!(read_payload(&body).unwrap(), expected, "{body:?}");
        };
        check(b"1", "1");
        check(b"null", "null");
        check(b"\"\\ud800\"", "\"\\ud800\"");
        check(b"-0.00e+007", "-0.00e+007");
        check(b"1e400", "1e400");
        check(b"12345678901234567890123456789.10", "12345678901234567890123456789.10");
        check(b" \r\n\t{\"a\" : 1.10,\r\n \"a\":2}\n", "{\"a\" : 1.10,\r\n \"a\":2}");
        check("\"\u{e4}\"".as_bytes(), "\"\u{e4}\"");
    }

    #[test]
    fn what_is_no_payload() {
        let check = |body: &'static [u8], expected: &str| {
            let problem = read_payload(&Bytes::from_static(body)).unwrap_err();
            assert_eq!(problem.code(), ErrorCode::BadJson);
            assert!(problem.detail().contains(expected), "{}", problem.detail());
        };
        check(b"hello", "at line 1 column 1, where `hello` stands");
        check(b"{\"a\":\n1,}", ", where `}` stands");
        check(b"", "empty");
        check(b" ", "line 1 column 1");
        check(b"hello", "line 1 column 1");
        check(b"{\"a\":\n1,}", "line 2 column 3");
        check(b"{} {}", "line 1 column 4");
        check(b"01", "line 1 column 2");
        check(b"NaN", "line 1 column 1");
        check(b"\"a\nb\"", "control character");
        check(b"\"a\0b\"", "control character");
        check(b"[\"\xff\"]", "line 1 column 3");
        check(b"\"\xed\xa0\x80\"", "unicode");
        check(b"\xef\xbb\xbf{}", "line 1 column 1");
    }

    #[test]
    fn a_payload_is_a_slice_of_the_body() {
        let body = Bytes::from_static(b" {} ");
        assert_eq!(read_payload(&body).unwrap().as_ptr(), body[1..].as_ptr());
    }

    #[test]
    fn keys() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap());
            }
            read_key(&headers).map(|key| key.map(str::to_owned)).map_err(|problem| problem.code())
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["k-1"]), Ok(Some("k-1".to_owned())));
        for values in [&[""][..], &["a b"], &["\u{e4}"], &["a", "a"], &[&"k".repeat(129)]] {
            assert_eq!(read(values), Err(ErrorCode::BadKey), "{values:?}");
        }
    }
}
