//! What a client says to a node: one JSON object per text frame, read in two steps.
//!
//! The first step reads `type` and `id` only, so that even a malformed command is answered under its id; the second
//! reads the command's own keys strictly. Payloads stay slices of the frame: they are validated, never rebuilt.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::code::ErrorCode;
use crate::limits::{ID_BYTES_MAX, KEY_BYTES_MAX, TOPIC_BYTES_MAX, TOPICS_PER_COMMAND_MAX, is_key};
use crate::message::Rejection;
use crate::mode::{Mode, Rate};
use crate::position::Epoch;
use crate::topic::{Topic, TopicError};

/// A request's id, chosen by the client and echoed in the one reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number.
    Number(u64),
    /// A text of at most [`ID_BYTES_MAX`] bytes.
    Text(Box<str>),
}

/// A command of the client protocol `tickcast.v1`.
#[derive(Debug, PartialEq)]
pub enum Command<'a> {
    /// Subscribe to topics, or change the options of topics already held.
    Subscribe {
        /// Each topic with its options, or why it cannot be one. In the client's order.
        items: Vec<Result<SubscribeItem, Rejection>>,
    },
    /// Give topics back.
    Unsubscribe {
        /// Each topic, or why the name cannot be one.
        topics: Vec<Result<Topic, Rejection>>,
    },
    /// Publish through the socket.
    Publish(PublishCommand<'a>),
    /// Present a key, whose rights the connection then has.
    Auth(Token),
    /// Ask for a pong: browsers cannot send WebSocket pings.
    Ping,
}

/// One topic of a subscribe command.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscribeItem {
    /// The topic.
    pub topic: Topic,
    /// The mode asked for; none for the topic's default.
    pub mode: Option<Mode>,
    /// The rate asked for.
    pub max_rate: Option<Rate>,
    /// Where the client left off; none for a fresh start.
    pub since: Option<Since>,
}

/// Where a resuming client left off. What cannot be read names no epoch that exists and leads to a `reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The epoch, if the text was the name of one.
    pub epoch: Option<Epoch>,
    /// The last offset the client has seen.
    pub offset: u64,
}

/// A publish command.
#[derive(Debug, PartialEq)]
pub struct PublishCommand<'a> {
    /// The topic.
    pub topic: Topic,
    /// The payload: one JSON text, verbatim.
    pub data: &'a [u8],
    /// The idempotency key.
    pub key: Option<String>,
}

/// What an auth command presents. It is not shown by `Debug`, so that no log line can hold it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The text, as it came.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Why a frame is not a command.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandError {
    /// The id to answer under, if one could be read.
    pub id: Option<Id>,
    /// What is wrong.
    pub code: ErrorCode,
    /// What, where, the value and the fix.
    pub message: String,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Topics<'a> {
    #[serde(rename = "type", borrow)]
    _kind: &'a RawValue,
    #[serde(rename = "id", borrow)]
    _id: Option<&'a RawValue>,
    #[serde(borrow)]
    topics: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish<'a> {
    #[serde(rename = "type", borrow)]
    _kind: &'a RawValue,
    #[serde(rename = "id", borrow)]
    _id: Option<&'a RawValue>,
    topic: String,
    #[serde(borrow)]
    data: &'a RawValue,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth<'a> {
    #[serde(rename = "type", borrow)]
    _kind: &'a RawValue,
    #[serde(rename = "id", borrow)]
    _id: Option<&'a RawValue>,
    token: String,
}

/// A command without keys of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bare<'a> {
    #[serde(rename = "type", borrow)]
    _kind: &'a RawValue,
    #[serde(rename = "id", borrow)]
    _id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    topic: String,
    mode: Option<String>,
    #[serde(borrow)]
    max_rate: Option<&'a RawValue>,
    #[serde(borrow)]
    since: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named {
    topic: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SinceFields<'a> {
    #[serde(borrow)]
    epoch: &'a RawValue,
    #[serde(borrow)]
    offset: &'a RawValue,
}

const COMMANDS: &str = "subscribe, unsubscribe, publish, auth, ping";

impl<'a> Command<'a> {
    /// Reads one command from the text of one frame.
    ///
    /// # Errors
    /// [`CommandError`] with the id to answer under. A bad topic inside a list is no error of the command: it is
    /// reported in its place in the list.
    pub fn decode(text: &'a str) -> Result<(Option<Id>, Self), CommandError> {
        let head = read_head(text).map_err(|error| {
            let is_json = error.as_ref().is_none_or(serde_json::Error::is_data);
            let code = if is_json { ErrorCode::BadCommand } else { ErrorCode::BadJson };
            let why = error.map_or_else(String::new, |error| format!(": {}", explain(&error)));
            CommandError { id: None, code, message: format!("expected one JSON object{why}") }
        })?;
        let id = read_id(head.id)?;
        match Self::decode_body(text, head.kind) {
            Ok(command) => Ok((id, command)),
            Err((code, message)) => Err(CommandError { id, code, message }),
        }
    }

    fn decode_body(text: &'a str, kind: Option<&RawValue>) -> Result<Self, (ErrorCode, String)> {
        let bad = |message| (ErrorCode::BadCommand, message);
        let Some(kind) = kind else {
            return Err(bad(format!("the key `type` is missing; it is one of {COMMANDS}")));
        };
        let fields = |error: serde_json::Error| bad(explain(&error));
        match serde_json::from_str(kind.get()).unwrap_or(std::borrow::Cow::Borrowed("")).as_ref() {
            "subscribe" => {
                let topics = read_topics(text).map_err(bad)?;
                Ok(Self::Subscribe { items: topics.into_iter().map(read_item).collect() })
            }
            "unsubscribe" => {
                let topics = read_topics(text).map_err(bad)?;
                Ok(Self::Unsubscribe { topics: topics.into_iter().map(read_name).collect() })
            }
            "publish" => {
                let body: Publish<'_> = serde_json::from_str(text).map_err(fields)?;
                let topic = Topic::new(&body.topic)
                    .map_err(|error| (ErrorCode::BadTopic, error.to_string()))?;
                check_key(body.key.as_deref())?;
                Ok(Self::Publish(PublishCommand {
                    topic,
                    data: body.data.get().as_bytes(),
                    key: body.key,
                }))
            }
            "auth" => {
                let body: Auth<'_> = serde_json::from_str(text).map_err(fields)?;
                Ok(Self::Auth(Token(body.token)))
            }
            "ping" => {
                let Bare { .. } = serde_json::from_str(text).map_err(fields)?;
                Ok(Self::Ping)
            }
            _ => Err(bad(format!("`type` is {}; it is one of {COMMANDS}", shorten(kind.get())))),
        }
    }
}

fn check_key(key: Option<&str>) -> Result<(), (ErrorCode, String)> {
    if key.is_none_or(is_key) {
        return Ok(());
    }
    let message = format!("`key` must be 1 to {KEY_BYTES_MAX} visible ASCII characters");
    Err((ErrorCode::BadKey, message))
}

/// Reads the list of a subscribe or unsubscribe command.
fn read_topics(text: &str) -> Result<Vec<&RawValue>, String> {
    let Topics { topics, .. } = serde_json::from_str(text).map_err(|error| explain(&error))?;
    if topics.len() > TOPICS_PER_COMMAND_MAX {
        return Err(format!(
            "`topics` has {} entries; one command may name {TOPICS_PER_COMMAND_MAX}",
            topics.len()
        ));
    }
    Ok(topics)
}

/// Fails without an error for JSON that is no object: an array in particular, in which serde would look for the fields.
fn read_head(text: &str) -> Result<Head<'_>, Option<serde_json::Error>> {
    if text.trim_start().starts_with('{') {
        return Ok(serde_json::from_str(text)?);
    }
    serde_json::from_str::<&RawValue>(text)?;
    Err(None)
}

fn read_id(raw: Option<&RawValue>) -> Result<Option<Id>, CommandError> {
    let Some(raw) = raw else { return Ok(None) };
    match serde_json::from_str(raw.get()) {
        Ok(Id::Text(text)) if text.len() > ID_BYTES_MAX => {}
        Ok(id) => return Ok(Some(id)),
        Err(_) => {}
    }
    Err(CommandError {
        id: None,
        code: ErrorCode::BadCommand,
        message: format!(
            "`id` is {}; it must be a whole number or a text of at most {ID_BYTES_MAX} bytes",
            shorten(raw.get())
        ),
    })
}

fn read_name(raw: &RawValue) -> Result<Topic, Rejection> {
    let name: String = serde_json::from_str(raw.get()).map_err(|_wrong_type| {
        reject(raw.get(), ErrorCode::BadTopic, "a topic is named by a JSON string")
    })?;
    read_topic(&name)
}

fn read_topic(name: &str) -> Result<Topic, Rejection> {
    Topic::new(name)
        .map_err(|error: TopicError| reject(name, ErrorCode::BadTopic, &error.to_string()))
}

fn read_item(raw: &RawValue) -> Result<SubscribeItem, Rejection> {
    if !raw.get().starts_with('{') {
        let topic = read_name(raw)?;
        return Ok(SubscribeItem { topic, mode: None, max_rate: None, since: None });
    }
    let item: Item<'_> = serde_json::from_str(raw.get()).map_err(|error| {
        // The client knows the item by its name, whatever else is wrong with it.
        let named = serde_json::from_str::<Named>(raw.get()).map(|named| named.topic);
        let name = named.as_deref().unwrap_or(raw.get());
        reject(name, ErrorCode::BadOption, &explain(&error))
    })?;
    let option = |message: String| reject(&item.topic, ErrorCode::BadOption, &message);
    let topic = read_topic(&item.topic)?;
    let max_rate = item.max_rate.map(|raw| read_rate(raw.get())).transpose().map_err(option)?;
    let mode = Mode::choose(item.mode.as_deref(), max_rate).map_err(option)?;
    let since = item.since.map(|raw| read_since(raw.get())).transpose().map_err(option)?;
    Ok(SubscribeItem { topic, mode, max_rate, since })
}

fn read_rate(raw: &str) -> Result<Rate, String> {
    let hz: f64 = serde_json::from_str(raw)
        .map_err(|_not_a_number| format!("`max_rate` is {}; it must be a number", shorten(raw)))?;
    Rate::from_hz(hz).map_err(|error| error.to_string())
}

/// Reads a `since`. Only its shape can be wrong: values that no node ever gave out lead to a `reset`, not to an error,
/// because a client whose cursor is damaged needs the current value, not a reason to stop.
fn read_since(raw: &str) -> Result<Since, String> {
    if !raw.starts_with('{') {
        return Err(format!("`since` is {}; it must be {{\"epoch\",\"offset\"}}", shorten(raw)));
    }
    let fields: SinceFields<'_> = serde_json::from_str(raw).map_err(|error| {
        format!("`since` must be {{\"epoch\",\"offset\"}}: {}", explain(&error))
    })?;
    let epoch: Option<String> = serde_json::from_str(fields.epoch.get()).ok();
    let epoch = epoch.and_then(|text| text.parse().ok());
    match serde_json::from_str(fields.offset.get()) {
        Ok(offset) => Ok(Since { epoch, offset }),
        Err(_) => Ok(Since { epoch: None, offset: 0 }),
    }
}

fn reject(topic: &str, code: ErrorCode, message: &str) -> Rejection {
    Rejection { topic: shorten(topic).to_owned(), code, message: message.to_owned() }
}

/// What serde says, which may quote the client's text whole.
fn explain(error: &serde_json::Error) -> String {
    shorten(&error.to_string()).to_owned()
}

/// Cuts what a client wrote to a length that is safe to echo.
fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(TOPIC_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(topic: &str) -> SubscribeItem {
        SubscribeItem { topic: Topic::new(topic).unwrap(), mode: None, max_rate: None, since: None }
    }

    fn subscribe_one(item: &str) -> Result<SubscribeItem, Rejection> {
        let text = format!(r#"{{"type":"subscribe","topics":[{item}]}}"#);
        match Command::decode(&text).unwrap().1 {
            Command::Subscribe { mut items } => items.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_example_of_the_documentation() {
        let text = r#"{"type":"subscribe","id":1,"topics":["stocks.AAPL",{"topic":"nba.LAL-BOS","mode":"latest","max_rate":4,"since":{"epoch":"k3f9","offset":40}}]}"#;
        let (id, command) = Command::decode(text).unwrap();
        assert_eq!(id, Some(Id::Number(1)));
        let second = SubscribeItem {
            mode: Some(Mode::Latest),
            max_rate: Some(Rate::from_hz(4.0).unwrap()),
            since: Some(Since { epoch: Some(Epoch::new(937_557)), offset: 40 }),
            ..item("nba.LAL-BOS")
        };
        assert_eq!(
            command,
            Command::Subscribe { items: vec![Ok(item("stocks.AAPL")), Ok(second)] }
        );
    }

    #[test]
    fn a_rate_without_a_mode_means_latest() {
        assert_eq!(
            subscribe_one(r#"{"topic":"a","max_rate":0.5}"#).unwrap().mode,
            Some(Mode::Latest)
        );
    }

    #[test]
    fn damaged_cursors_name_no_epoch() {
        for since in [
            r#"{"epoch":"K3F9","offset":40}"#,
            r#"{"epoch":7,"offset":40}"#,
            r#"{"epoch":"k3f9","offset":-1}"#,
            r#"{"epoch":"k3f9","offset":1e400}"#,
            r#"{"epoch":"k3f9","offset":18446744073709551616}"#,
            r#"{"epoch":null,"offset":null}"#,
        ] {
            let item = subscribe_one(&format!(r#"{{"topic":"a","since":{since}}}"#)).unwrap();
            assert_eq!(item.since.unwrap().epoch, None, "{since}");
        }
    }

    #[test]
    fn bad_items_are_reported_in_their_place() {
        let check = |text: &str, code: ErrorCode| {
            assert_eq!(subscribe_one(text).unwrap_err().code, code, "{text}");
        };
        check(r#""a b""#, ErrorCode::BadTopic);
        check(r#""""#, ErrorCode::BadTopic);
        check("7", ErrorCode::BadTopic);
        check("null", ErrorCode::BadTopic);
        check(r#"{"topic":"*"}"#, ErrorCode::BadTopic);
        check(r#"{"topic":"a","mode":"fast"}"#, ErrorCode::BadOption);
        check(r#"{"topic":"a","mode":"all","max_rate":1}"#, ErrorCode::BadOption);
        check(r#"{"topic":"a","max_rate":0}"#, ErrorCode::BadOption);
        check(r#"{"topic":"a","max_rate":"4"}"#, ErrorCode::BadOption);
        check(r#"{"topic":"a","since":"k3f9"}"#, ErrorCode::BadOption);
        check(r#"{"topic":"a","since":["k3f9",40]}"#, ErrorCode::BadOption);
        check(r#"{"topic":"a","sinse":1}"#, ErrorCode::BadOption);
        check(r#"{"mode":"all"}"#, ErrorCode::BadOption);
    }

    #[test]
    fn bad_commands_are_answered_under_their_id() {
        let check = |text: &str, id: Option<Id>, code: ErrorCode| {
            let error = Command::decode(text).unwrap_err();
            assert_eq!((error.id, error.code), (id, code), "{text}: {}", error.message);
        };
        let seven = || Some(Id::Number(7));
        check("hello", None, ErrorCode::BadJson);
        check("", None, ErrorCode::BadJson);
        check(r#"{"type":"ping"} x"#, None, ErrorCode::BadJson);
        check("[]", None, ErrorCode::BadCommand);
        check(r#" ["ping",7]"#, None, ErrorCode::BadCommand);
        check(r#"{"id":7}"#, seven(), ErrorCode::BadCommand);
        check(r#"{"id":7,"type":"fly"}"#, seven(), ErrorCode::BadCommand);
        check(r#"{"id":7,"type":1}"#, seven(), ErrorCode::BadCommand);
        check(r#"{"id":7,"type":"ping","x":1}"#, seven(), ErrorCode::BadCommand);
        check(r#"{"id":-1,"type":"ping"}"#, None, ErrorCode::BadCommand);
        check(r#"{"id":7,"type":"subscribe"}"#, seven(), ErrorCode::BadCommand);
        check(r#"{"id":7,"type":"subscribe","topics":"a"}"#, seven(), ErrorCode::BadCommand);
        check(r#"{"id":7,"type":"subscribe","topics":[],"x":1}"#, seven(), ErrorCode::BadCommand);
        check(r#"{"id":7,"type":"publish","topic":"a"}"#, seven(), ErrorCode::BadCommand);
        check(r#"{"id":7,"type":"publish","topic":"a b","data":1}"#, seven(), ErrorCode::BadTopic);
        check(
            r#"{"id":7,"type":"publish","topic":"a","data":1,"key":""}"#,
            seven(),
            ErrorCode::BadKey,
        );
        let deep = format!(r#"{{"id":7,"type":"subscribe","topics":{}}}"#, "[".repeat(10_000));
        assert_eq!(Command::decode(&deep).unwrap_err().code, ErrorCode::BadJson);
    }

    #[test]
    fn the_list_of_a_command_is_bounded() {
        let text = |count: usize| {
            format!(
                r#"{{"type":"unsubscribe","id":7,"topics":[{}"a"]}}"#,
                r#""a","#.repeat(count - 1)
            )
        };
        assert!(Command::decode(&text(TOPICS_PER_COMMAND_MAX)).is_ok());
        let error = Command::decode(&text(TOPICS_PER_COMMAND_MAX + 1)).unwrap_err();
        assert_eq!((error.id, error.code), (Some(Id::Number(7)), ErrorCode::BadCommand));
    }

    #[test]
    fn a_token_is_taken_as_it_is_and_never_shown() {
        let (id, command) =
            Command::decode(r#"{"type":"auth","id":3,"token":"a\u0062c"}"#).unwrap();
        assert_eq!(id, Some(Id::Number(3)));
        assert!(!format!("{command:?}").contains("abc"), "{command:?}");
        let Command::Auth(token) = command else { panic!() };
        assert_eq!(token.reveal(), "abc");
        for text in [r#"{"type":"auth"}"#, r#"{"type":"auth","token":7}"#] {
            assert_eq!(Command::decode(text).unwrap_err().code, ErrorCode::BadCommand, "{text}");
        }
    }

    #[test]
    fn a_payload_is_a_slice_of_the_frame() {
        let text = r#"{"type":"publish","id":"x","topic":"a","data": {"px":1.10, "n":1e400} }"#;
        let (id, command) = Command::decode(text).unwrap();
        assert_eq!(id, Some(Id::Text("x".into())));
        let Command::Publish(publish) = command else { panic!() };
        assert_eq!(publish.data, br#"{"px":1.10, "n":1e400}"#);
    }
}
