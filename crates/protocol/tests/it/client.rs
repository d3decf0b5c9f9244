//! What a client may say: `testdata/client.json`, each text with what a node takes it for.

use serde::Serialize;
use tickcast_protocol::{
    Command, ErrorCode, Id, Mode, PublishCommand, Rate, Rejection, SubscribeItem, Topic,
};

use crate::golden;

/// A text that a client writes.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    pub(crate) text: String,
    #[serde(flatten)]
    outcome: Outcome,
}

impl golden::Row for Row {
    fn name(&self) -> &str {
        self.name
    }
}

impl Row {
    /// Whether a node takes it for a command.
    pub(crate) fn is_command(&self) -> bool {
        matches!(self.outcome, Outcome::Means { .. })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// A command.
    Means {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Id>,
        #[serde(flatten)]
        command: Meaning,
    },
    /// The error reply.
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Id>,
        code: ErrorCode,
    },
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Meaning {
    Subscribe {
        topics: Vec<Subscription>,
    },
    Unsubscribe {
        topics: Vec<Name>,
    },
    Publish {
        topic: Topic,
        data: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    Auth {
        token: String,
    },
    Ping,
}

/// A topic with its options, or why it is none. `interval_ms` is what `max_rate` comes to.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Subscription {
    Good {
        topic: Topic,
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<Mode>,
        #[serde(skip_serializing_if = "Option::is_none")]
        interval_ms: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<Since>,
    },
    Bad(Bad),
}

/// A topic, or why it is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Name {
    Good(Topic),
    Bad(Bad),
}

#[derive(Debug, Serialize)]
struct Bad {
    topic: String,
    code: ErrorCode,
}

/// No epoch means: one that does not exist, which leads to a reset.
#[derive(Debug, Serialize)]
struct Since {
    epoch: Option<String>,
    offset: u64,
}

impl From<Rejection> for Bad {
    fn from(Rejection { topic, code, .. }: Rejection) -> Self {
        Self { topic, code }
    }
}

impl From<Result<SubscribeItem, Rejection>> for Subscription {
    fn from(item: Result<SubscribeItem, Rejection>) -> Self {
        match item {
            Ok(SubscribeItem { topic, mode, max_rate, since }) => Self::Good {
                topic,
                mode,
                interval_ms: max_rate.map(Rate::interval_ms),
                since: since.map(|since| Since {
                    epoch: since.epoch.map(|epoch| epoch.to_string()),
                    offset: since.offset,
                }),
            },
            Err(rejection) => Self::Bad(rejection.into()),
        }
    }
}

impl From<Command<'_>> for Meaning {
    fn from(command: Command<'_>) -> Self {
        match command {
            Command::Subscribe { items } => {
                Self::Subscribe { topics: items.into_iter().map(Subscription::from).collect() }
            }
            Command::Unsubscribe { topics } => {
                let name = |topic: Result<Topic, Rejection>| {
                    topic.map_or_else(|rejection| Name::Bad(rejection.into()), Name::Good)
                };
                Self::Unsubscribe { topics: topics.into_iter().map(name).collect() }
            }
            Command::Publish(PublishCommand { topic, data, key }) => {
                Self::Publish { topic, data: String::from_utf8(data.to_vec()).unwrap(), key }
            }
            Command::Auth(token) => Self::Auth { token: token.reveal().to_owned() },
            Command::Ping => Self::Ping,
        }
    }
}

fn row((name, text): &(&'static str, &str)) -> Row {
    let outcome = match Command::decode(text) {
        Ok((id, command)) => Outcome::Means { id, command: command.into() },
        Err(error) => Outcome::Error { id: error.id, code: error.code },
    };
    Row { name, text: (*text).to_owned(), outcome }
}

/// Every row, in the order of the file.
pub(crate) fn rows() -> Vec<Row> {
    let long_id = format!(r#"{{"type":"ping","id":"{}"}}"#, "i".repeat(64));
    let longer_id = format!(r#"{{"type":"ping","id":"{}"}}"#, "i".repeat(65));
    let long_key =
        format!(r#"{{"type":"publish","id":4,"topic":"t","data":1,"key":"{}"}}"#, "k".repeat(129));
    let texts = [
        ("id_longest", long_id.as_str()),
        ("id_too_long", &longer_id),
        ("publish_key_too_long", &long_key),
    ];
    COMMANDS.iter().chain(&texts).chain(ERRORS).map(row).collect()
}

const COMMANDS: &[(&str, &str)] = &[
    ("subscribe_one", r#"{"type":"subscribe","id":1,"topics":["stocks.AAPL"]}"#),
    (
        "subscribe_options",
        r#"{"type":"subscribe","id":1,"topics":["stocks.AAPL",{"topic":"nba.LAL-BOS","mode":"latest","max_rate":4}]}"#,
    ),
    (
        "subscribe_since",
        r#"{"type":"subscribe","id":1,"topics":[{"topic":"stocks.AAPL","since":{"epoch":"k3f9","offset":1043}}]}"#,
    ),
    (
        "subscribe_everything",
        r#"{"type":"subscribe","id":1,"topics":["stocks.AAPL",{"topic":"nba.LAL-BOS","mode":"latest","max_rate":4,"since":{"epoch":"k3f9","offset":40}}]}"#,
    ),
    ("subscribe_no_id", r#"{"type":"subscribe","topics":[{"topic":"stocks.AAPL","mode":"all"}]}"#),
    ("subscribe_nothing", r#"{"type":"subscribe","id":1,"topics":[]}"#),
    (
        "subscribe_nulls",
        r#"{"type":"subscribe","id":null,"topics":[{"topic":"t","mode":null,"max_rate":null,"since":null}]}"#,
    ),
    (
        "subscribe_rates",
        r#"{"type":"subscribe","topics":[{"topic":"a","max_rate":0.5},{"topic":"b","max_rate":3},{"topic":"c","max_rate":5000},{"topic":"d","max_rate":0.01}]}"#,
    ),
    (
        "subscribe_damaged_since",
        r#"{"type":"subscribe","topics":[{"topic":"a","since":{"epoch":"K3F9","offset":40}},{"topic":"b","since":{"epoch":7,"offset":40}},{"topic":"c","since":{"epoch":"k3f9","offset":-1}},{"topic":"d","since":{"epoch":null,"offset":null}}]}"#,
    ),
    (
        "subscribe_bad_names",
        r#"{"type":"subscribe","topics":["","a b","stocks.*","$sys","a//b","a/../b",7,null,["a"],{"topic":"a b"},"good"]}"#,
    ),
    (
        "subscribe_bad_options",
        r#"{"type":"subscribe","topics":[{"topic":"a","mode":"fast"},{"topic":"b","mode":"all","max_rate":4},{"topic":"c","max_rate":0},{"topic":"d","max_rate":"4"},{"topic":"e","max_rate":1e400},{"topic":"f","since":"k3f9"},{"topic":"g","since":{"epoch":"k3f9"}},{"topic":"h","since":["k3f9",40]},{"topic":"i","rate":4},{"mode":"all"},"good"]}"#,
    ),
    ("unsubscribe_one", r#"{"type":"unsubscribe","id":2,"topics":["stocks.AAPL"]}"#),
    (
        "unsubscribe_bad_names",
        r#"{"type":"unsubscribe","id":2,"topics":["stocks.AAPL","a b",{"topic":"a"}]}"#,
    ),
    (
        "publish_key",
        r#"{"type":"publish","id":4,"topic":"chat.lobby","data":{"text":"hello"},"key":"3f8b4c1e"}"#,
    ),
    ("publish_verbatim", r#"{"type":"publish","topic":"t","data": {"px":1.10, "n":1e400} }"#),
    ("publish_null", r#"{"type":"publish","topic":"t","data":null}"#),
    ("auth", r#"{"type":"auth","id":3,"token":"tck_R2x1ZS1leGFtcGxlLW5vdC1hLXJlYWwta2V5LTAwMDE"}"#),
    ("auth_wrong", r#"{"type":"auth","id":7,"token":"hello"}"#),
    ("auth_escapes", r#"{"type":"auth","token":"\u0061\"b"}"#),
    ("auth_empty", r#"{"type":"auth","token":""}"#),
    ("ping", r#"{"type":"ping"}"#),
    ("ping_id", r#"{"type":"ping","id":1}"#),
    ("ping_text_id", r#"{"type":"ping","id":"c0ffee-1"}"#),
    ("ping_largest_id", r#"{"type":"ping","id":18446744073709551615}"#),
    ("ping_spaces_and_escapes", " { \"id\" : 1 ,\n \"t\\u0079pe\" : \"pin\\u0067\" } "),
];

const ERRORS: &[(&str, &str)] = &[
    ("not_json", "hello"),
    ("empty", ""),
    ("half", r#"{"type":"subscribe","id":7,"topics":["stocks.AAPL""#),
    ("more_than_one", r#"{"type":"ping"} {"type":"ping"}"#),
    ("not_an_object", r#""ping""#),
    ("array", r#"[{"type":"ping"}]"#),
    ("array_of_fields", r#"["subscribe",7,["stocks.AAPL"]]"#),
    ("doubled_key", r#"{"type":"ping","id":7,"id":8}"#),
    ("no_type", r#"{"id":7}"#),
    ("unknown_type", r#"{"type":"fly","id":7}"#),
    ("type_not_text", r#"{"type":1,"id":"seven"}"#),
    ("type_in_capitals", r#"{"type":"Ping","id":7}"#),
    ("id_negative", r#"{"type":"ping","id":-1}"#),
    ("id_fraction", r#"{"type":"ping","id":7.5}"#),
    ("id_object", r#"{"type":"ping","id":{}}"#),
    ("subscribe_no_topics", r#"{"type":"subscribe","id":7}"#),
    ("subscribe_topics_not_a_list", r#"{"type":"subscribe","id":7,"topics":"stocks.AAPL"}"#),
    (
        "subscribe_unknown_key",
        r#"{"type":"subscribe","id":7,"topics":["stocks.AAPL"],"mode":"latest"}"#,
    ),
    ("unsubscribe_no_topics", r#"{"type":"unsubscribe","id":7}"#),
    ("auth_no_token", r#"{"type":"auth","id":7}"#),
    ("auth_token_not_text", r#"{"type":"auth","id":7,"token":5}"#),
    ("auth_unknown_key", r#"{"type":"auth","id":7,"token":"t","scheme":"x"}"#),
    ("publish_no_topic", r#"{"type":"publish","id":7,"data":1}"#),
    ("publish_no_data", r#"{"type":"publish","id":7,"topic":"t"}"#),
    ("publish_bad_topic", r#"{"type":"publish","id":7,"topic":"a b","data":1}"#),
    ("publish_empty_key", r#"{"type":"publish","id":7,"topic":"t","data":1,"key":""}"#),
    ("publish_key_with_space", r#"{"type":"publish","id":7,"topic":"t","data":1,"key":"a b"}"#),
    ("publish_key_not_text", r#"{"type":"publish","id":7,"topic":"t","data":1,"key":5}"#),
    ("publish_unknown_key", r#"{"type":"publish","id":7,"topic":"t","data":1,"ttl":5}"#),
];

#[test]
fn everything_a_client_may_say() {
    golden::check("client.json", &rows());
}
