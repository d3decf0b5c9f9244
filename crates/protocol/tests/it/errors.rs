//! Every error code: where a client meets it, what it means, and how a message with it reads.

use tickcast_protocol::{Command, ErrorCode};

/// An error code as documented.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) code: ErrorCode,
    pub(crate) place: Place,
    pub(crate) about: &'static str,
    pub(crate) message: &'static str,
}

/// Where a client meets an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In an `error` reply.
    Reply,
    /// In the `errors` of an acknowledgement.
    Topic,
    /// In both.
    Both,
    /// In HTTP answers only, also those to a handshake.
    Http,
}

impl Place {
    /// The words of the documentation; none for what the protocol does not have.
    pub(crate) const fn words(self) -> Option<&'static str> {
        match self {
            Self::Reply => Some("`error`"),
            Self::Topic => Some("`errors`"),
            Self::Both => Some("both"),
            Self::Http => None,
        }
    }
}

const HTTP: &str = "Only over HTTP.";

const fn of(
    code: ErrorCode,
    place: Place,
    about: &'static str,
    message: &'static str,
) -> Described {
    Described { code, place, about, message }
}

/// Every code, in the order of their declaration.
pub(crate) const ERRORS: &[Described] = &[
    of(
        ErrorCode::BadJson,
        Place::Reply,
        "The text is not JSON. The reply has no `id`, because none could be read.",
        "expected one JSON object: expected value at line 1 column 1",
    ),
    of(
        ErrorCode::BadCommand,
        Place::Reply,
        "JSON, but no command: an unknown `type`, a key that is missing, unknown or of the wrong kind.",
        "`type` is \"fly\"; it is one of subscribe, unsubscribe, publish, auth, ping",
    ),
    of(
        ErrorCode::BadTopic,
        Place::Both,
        "The name breaks a rule of topic names.",
        "' ' at byte 1 is not allowed in a topic name; allowed are A-Z a-z 0-9 _ - . : / = @",
    ),
    of(
        ErrorCode::BadOption,
        Place::Topic,
        "`mode`, `max_rate` or `since` cannot be what it is, or there is no such option.",
        "`max_rate` is 0; it must be a number of updates per second from 0.01 up",
    ),
    of(
        ErrorCode::BadKey,
        Place::Reply,
        "`key` of a publish is empty, too long, or not printable ASCII without spaces.",
        "`key` must be 1 to 128 visible ASCII characters",
    ),
    of(
        ErrorCode::PayloadTooLarge,
        Place::Reply,
        "`data` of a publish is larger than the node takes.",
        "the payload has 70000 bytes; at most 65536 are allowed",
    ),
    of(
        ErrorCode::BatchTooLarge,
        Place::Http,
        HTTP,
        "the batch has more than 1000 items; send it in parts",
    ),
    of(
        ErrorCode::TooManySubscriptions,
        Place::Topic,
        "The connection holds as many topics as it may. Give some back, or open another connection.",
        "the connection holds 100 subscriptions; at most 100 are allowed",
    ),
    of(
        ErrorCode::Unauthorized,
        Place::Both,
        "A key is needed for this, or yours is wrong.",
        "the key is not known here",
    ),
    of(
        ErrorCode::Forbidden,
        Place::Both,
        "Your key has no right to this. Without keys: this node takes no publications over WebSocket.",
        "the key has no right to publish to this topic",
    ),
    of(
        ErrorCode::RateLimited,
        Place::Reply,
        "Your key has published as much as it may for now, or your connection has sent as many commands. The message says when to go on.",
        "the key has used up its rate; try again in 2 s",
    ),
    of(
        ErrorCode::NotConfigured,
        Place::Reply,
        "This node has no keys. Go on without `auth`.",
        "this node has no keys; go on without `auth`",
    ),
    of(ErrorCode::NoValue, Place::Http, HTTP, "nothing was published to this topic yet"),
    of(
        ErrorCode::IdempotencyConflict,
        Place::Reply,
        "The `key` of a publish was used with other `data`.",
        "the idempotency key was used before with another body",
    ),
    of(
        ErrorCode::Unavailable,
        Place::Both,
        "The topic could not be settled within a second, or too many subscribe commands wait. Try again in a moment.",
        "the topic could not be settled within a second; try again",
    ),
    of(
        ErrorCode::Unsubscribed,
        Place::Topic,
        "You unsubscribed the topic before its subscribe was answered.",
        "unsubscribed before the command was answered",
    ),
    of(
        ErrorCode::BrokerUnavailable,
        Place::Reply,
        "Nothing was published. Trying again is safe.",
        "the broker cannot be reached; nothing was published",
    ),
    of(
        ErrorCode::OutcomeUnknown,
        Place::Reply,
        "It may have been published or not. Try again with the same `key`.",
        "the broker did not answer in time; the publication may still be delivered",
    ),
    of(
        ErrorCode::BrokerFull,
        Place::Reply,
        "Nothing was published: the broker holds as much as it may.",
        "the broker is full: topics_max",
    ),
    of(ErrorCode::NotFound, Place::Http, HTTP, "there is no such route"),
    of(ErrorCode::MethodNotAllowed, Place::Http, HTTP, "this route has other methods"),
    of(ErrorCode::RequestTimeout, Place::Http, HTTP, "the body did not arrive in time"),
    of(ErrorCode::BadRequest, Place::Http, HTTP, "exactly one `Host` is needed"),
    of(ErrorCode::UriTooLong, Place::Http, HTTP, "the path with its query has 9000 bytes"),
    of(
        ErrorCode::UnsupportedMediaType,
        Place::Http,
        HTTP,
        "`Content-Encoding` must be `identity` or left out: send the body uncompressed",
    ),
    of(
        ErrorCode::TooManyConnections,
        Place::Http,
        HTTP,
        "this node has as many connections as it may",
    ),
    of(
        ErrorCode::TooManyFromAddress,
        Place::Http,
        HTTP,
        "your address has as many connections as it may",
    ),
    of(ErrorCode::BadOrigin, Place::Http, HTTP, "pages of this origin may not connect here"),
    of(ErrorCode::BadHandshake, Place::Http, HTTP, "`Connection: Upgrade` is missing"),
];

/// A code more does not compile until it is here; if it is the last one, [`ERRORS`] must end with it.
const fn is_last(code: ErrorCode) -> bool {
    match code {
        ErrorCode::BadJson
        | ErrorCode::BadCommand
        | ErrorCode::BadTopic
        | ErrorCode::BadOption
        | ErrorCode::BadKey
        | ErrorCode::PayloadTooLarge
        | ErrorCode::BatchTooLarge
        | ErrorCode::TooManySubscriptions
        | ErrorCode::Unauthorized
        | ErrorCode::Forbidden
        | ErrorCode::RateLimited
        | ErrorCode::NotConfigured
        | ErrorCode::NoValue
        | ErrorCode::IdempotencyConflict
        | ErrorCode::Unavailable
        | ErrorCode::Unsubscribed
        | ErrorCode::BrokerUnavailable
        | ErrorCode::OutcomeUnknown
        | ErrorCode::BrokerFull
        | ErrorCode::NotFound
        | ErrorCode::MethodNotAllowed
        | ErrorCode::RequestTimeout
        | ErrorCode::BadRequest
        | ErrorCode::UriTooLong
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::TooManyConnections
        | ErrorCode::TooManyFromAddress
        | ErrorCode::BadOrigin => false,
        ErrorCode::BadHandshake => true,
    }
}

#[test]
fn every_code_is_described() {
    for (place, described) in ERRORS.iter().enumerate() {
        assert_eq!(described.code as usize, place, "{:?} is out of order", described.code);
        assert_eq!(is_last(described.code), place + 1 == ERRORS.len());
        let word = serde_json::to_string(&described.code).unwrap();
        assert_eq!(word.trim_matches('"'), described.code.as_str());
    }
}

/// The messages above are what the decoder says, where it is the one that says them.
#[test]
fn the_decoder_says_so() {
    let check = |text: &str| {
        let (code, message) = match Command::decode(text) {
            Err(error) => (error.code, error.message),
            Ok((_, Command::Subscribe { mut items })) => {
                let rejection = items.remove(0).unwrap_err();
                (rejection.code, rejection.message)
            }
            Ok((_, other)) => panic!("{other:?}"),
        };
        let described = ERRORS.iter().find(|described| described.code == code).unwrap();
        assert_eq!(message, described.message);
    };
    check("hello");
    check(r#"{"type":"fly"}"#);
    check(r#"{"type":"publish","topic":"a b","data":1}"#);
    check(r#"{"type":"subscribe","topics":["a b"]}"#);
    check(r#"{"type":"subscribe","topics":[{"topic":"t","max_rate":0}]}"#);
    check(r#"{"type":"publish","topic":"t","data":1,"key":""}"#);
}
