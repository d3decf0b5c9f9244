//! Client commands: any text is a command or an error, and what a client reads of the answer is bounded.

use serde_json::Value;
use tickcast_protocol::limits::{
    ID_BYTES_MAX, KEY_BYTES_MAX, TOPIC_BYTES_MAX, TOPICS_PER_COMMAND_MAX,
};
use tickcast_protocol::{Command, Id, Rejection, ServerMessage, Topic};

use super::json;

/// Longest message of an error: a text of the client is quoted at most once, cut to this.
const MESSAGE_BYTES_MAX: usize = 3 * TOPIC_BYTES_MAX;

/// Longest reply to one command that is an error: each byte of it may have to be escaped.
const REPLY_BYTES_MAX: usize = 6 * (MESSAGE_BYTES_MAX + ID_BYTES_MAX) + 100;

pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (id, is_taken) = match Command::decode(text) {
        Ok((id, command)) => {
            assert!(json::is_text(input), "a command that is not JSON: {text}");
            check_command(&command, text);
            (id, true)
        }
        Err(error) => {
            assert!(error.message.len() <= MESSAGE_BYTES_MAX, "{}", error.message);
            let (id, code, message) = (error.id.as_ref(), error.code, &*error.message);
            check_reply(&ServerMessage::Error { id, code, message });
            (error.id, false)
        }
    };
    // What a lenient reader sees. It does not mind doubled keys, of which the last one counts.
    let seen: Option<Value> = serde_json::from_str(text).ok();
    assert!(!is_taken || seen.as_ref().is_none_or(Value::is_object), "no object: {text}");
    if let (Some(id), Some(seen)) = (id, seen.and_then(|value| value.get("id").cloned())) {
        if let Id::Text(text) = &id {
            assert!(text.len() <= ID_BYTES_MAX);
        }
        let echoed = serde_json::to_value(&id).unwrap_or_default();
        assert_eq!(echoed, seen, "another id: {text}");
    }
}

fn check_command(command: &Command<'_>, text: &str) {
    match command {
        Command::Subscribe { items } => {
            assert!(items.len() <= TOPICS_PER_COMMAND_MAX);
            items.iter().for_each(|item| match item {
                Ok(item) => check_topic(&item.topic),
                Err(rejection) => check_rejection(rejection),
            });
        }
        Command::Unsubscribe { topics } => {
            assert!(topics.len() <= TOPICS_PER_COMMAND_MAX);
            topics.iter().for_each(|topic| match topic {
                Ok(topic) => check_topic(topic),
                Err(rejection) => check_rejection(rejection),
            });
        }
        Command::Publish(publish) => {
            check_topic(&publish.topic);
            let start = (publish.data.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
            let slice = text.as_bytes().get(start..start + publish.data.len());
            assert_eq!(slice, Some(publish.data), "the payload is no slice of the frame");
            assert!(json::is_text(publish.data));
            assert_eq!(publish.data, publish.data.trim_ascii());
            let key = publish.key.as_deref().unwrap_or("k");
            assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
            assert!(key.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Command::Auth(token) => {
            assert_eq!(format!("{token:?}"), "Token(***)", "a secret is shown");
        }
        Command::Ping => {}
    }
}

/// Names need no escaping anywhere, so they must not have what would be escaped.
fn check_topic(topic: &Topic) {
    assert_eq!(serde_json::to_string(topic.as_str()).ok(), Some(format!("\"{topic}\"")));
    assert!((1..=TOPIC_BYTES_MAX).contains(&topic.as_str().len()));
}

fn check_rejection(rejection: &Rejection) {
    assert!(rejection.topic.len() <= TOPIC_BYTES_MAX);
    assert!(rejection.message.len() <= MESSAGE_BYTES_MAX);
    assert!(serde_json::to_vec(rejection).is_ok_and(|reply| json::is_text(&reply)));
}

fn check_reply(reply: &ServerMessage<'_>) {
    let reply = serde_json::to_vec(reply).unwrap_or_default();
    assert!(json::is_text(&reply));
    assert!(reply.len() <= REPLY_BYTES_MAX, "{} bytes", reply.len());
}
