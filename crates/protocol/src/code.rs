//! Every stable word and number that a client may act on: error codes, close codes, reasons of gaps and resets.

use serde::Serialize;

/// What went wrong, as a stable word. HTTP problem documents and WebSocket error replies share this table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The text is not JSON.
    BadJson,
    /// JSON, but not a command or request that exists.
    BadCommand,
    /// The topic name breaks a rule of topic names.
    BadTopic,
    /// An option has a value it cannot have.
    BadOption,
    /// The idempotency key is empty, too long or not printable.
    BadKey,
    /// The payload is larger than the node takes.
    PayloadTooLarge,
    /// The request has too many items, or too many bytes as a whole.
    BatchTooLarge,
    /// The connection holds as many subscriptions as it may.
    TooManySubscriptions,
    /// A key is needed and none was given, or what was given is not a key.
    Unauthorized,
    /// Not allowed to do this.
    Forbidden,
    /// The key has published, or the connection has asked, as much as it may for now.
    RateLimited,
    /// The feature exists, but this node is not set up for it.
    NotConfigured,
    /// The topic keeps no value, or has none yet.
    NoValue,
    /// The same idempotency key was used with another body.
    IdempotencyConflict,
    /// The topic could not be settled within a second; try again.
    Unavailable,
    /// The subscription was taken back before the topic was ready.
    Unsubscribed,
    /// Nothing was published: the broker cannot be reached. Safe to try again.
    BrokerUnavailable,
    /// The publication may or may not be delivered; try again with the same idempotency key.
    OutcomeUnknown,
    /// The broker holds as much as it may.
    BrokerFull,
    /// No such route.
    NotFound,
    /// The route exists, with another method.
    MethodNotAllowed,
    /// The request took too long to arrive.
    RequestTimeout,
    /// The request breaks a rule of HTTP itself.
    BadRequest,
    /// The path of the request, with its query, is longer than the node takes.
    UriTooLong,
    /// The body is in a form that the node does not take, such as a content coding.
    UnsupportedMediaType,
    /// The node takes no more connections.
    TooManyConnections,
    /// The node takes no more connections from this address.
    TooManyFromAddress,
    /// The `Origin` of the request is not one that is allowed.
    BadOrigin,
    /// The WebSocket handshake breaks RFC 6455.
    BadHandshake,
}

impl ErrorCode {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadCommand => "bad_command",
            Self::BadTopic => "bad_topic",
            Self::BadOption => "bad_option",
            Self::BadKey => "bad_key",
            Self::PayloadTooLarge => "payload_too_large",
            Self::BatchTooLarge => "batch_too_large",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::NotConfigured => "not_configured",
            Self::NoValue => "no_value",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::Unavailable => "unavailable",
            Self::Unsubscribed => "unsubscribed",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::BrokerFull => "broker_full",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::BadRequest => "bad_request",
            Self::UriTooLong => "uri_too_long",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyFromAddress => "too_many_from_address",
            Self::BadOrigin => "bad_origin",
            Self::BadHandshake => "bad_handshake",
        }
    }
}

/// Why a run of offsets is skipped in mode `all`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The socket took less than was published, and the topic's log moved on.
    SlowConsumer,
    /// The `since` of a resuming client is older than what the topic retains.
    Expired,
    /// The broker lost publications and could not give them back.
    Lost,
}

/// Why offsets start anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// The broker's state was lost or rewound while the client was connected.
    BrokerRestart,
    /// The `since` names an epoch that is not the topic's.
    UnknownEpoch,
    /// The `since` lies beyond the topic's last offset.
    OffsetAhead,
}

/// What a client should do after its connection was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Connect again, with the usual back-off, and resume.
    Retry,
    /// Connect again, but not before a few seconds have passed.
    RetryAfter,
    /// Do not connect again: the same would happen.
    DoNotRetry,
}

/// A WebSocket close code: the standard ones that a node uses, and its own from 4000 on.
///
/// Of the own codes, 4000 to 4499 may be retried and 4500 to 4999 may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The peer asked for it.
    pub const NORMAL: Self = Self(1000);
    /// A frame breaks RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Text that is not UTF-8.
    pub const INVALID_TEXT: Self = Self(1007);
    /// A flood that the protocol allows but no client needs: of commands, of fragments, of pings, of wrong keys, of time.
    pub const POLICY: Self = Self(1008);
    /// A message larger than a command can be.
    pub const TOO_BIG: Self = Self(1009);
    /// The node shuts down.
    pub const RESTART: Self = Self(1012);
    /// The node holds as much of unfinished messages as it may.
    pub const TRY_LATER: Self = Self(1013);
    /// Nothing could be written for as long as the stall timeout although data was waiting.
    pub const SLOW_CONSUMER: Self = Self(4008);
    /// A ping was not answered.
    pub const PING_TIMEOUT: Self = Self(4009);
    /// The operator took a right away that the connection was using.
    pub const ACCESS_CHANGED: Self = Self(4010);
    /// The key of the connection is not valid any more.
    pub const KEY_REVOKED: Self = Self(4501);

    /// Every code that a node sends: number, reason word (also the metrics label) and what a client should do.
    pub const TABLE: &'static [(Self, &'static str, Retry)] = &[
        (Self::NORMAL, "client", Retry::DoNotRetry),
        (Self::PROTOCOL_ERROR, "protocol_error", Retry::DoNotRetry),
        (Self::INVALID_TEXT, "invalid_text", Retry::DoNotRetry),
        (Self::POLICY, "policy", Retry::RetryAfter),
        (Self::TOO_BIG, "too_big", Retry::DoNotRetry),
        (Self::RESTART, "restart", Retry::Retry),
        (Self::TRY_LATER, "try_later", Retry::RetryAfter),
        (Self::SLOW_CONSUMER, "slow_consumer", Retry::Retry),
        (Self::PING_TIMEOUT, "ping_timeout", Retry::Retry),
        (Self::ACCESS_CHANGED, "access_changed", Retry::Retry),
        (Self::KEY_REVOKED, "key_revoked", Retry::DoNotRetry),
    ];

    /// The code with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// May a peer send this code? RFC 6455, section 7.4, and the IANA registry.
    pub const fn is_valid_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// The reason word of this code; `other` for codes that a node never sends.
    pub fn reason(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).map_or("other", |row| row.1)
    }

    /// What a client should do after this code; unknown codes below 4500 may be retried.
    pub fn retry(self) -> Retry {
        let own = if self.0 >= 4500 { Retry::DoNotRetry } else { Retry::Retry };
        Self::TABLE.iter().find(|row| row.0 == self).map_or(own, |row| row.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_codes_keep_to_their_ranges() {
        for (code, reason, retry) in CloseCode::TABLE {
            assert!(code.is_valid_on_wire(), "{reason}");
            if code.number() >= 4000 {
                assert_eq!(code.number() >= 4500, *retry == Retry::DoNotRetry, "{reason}");
            }
        }
    }

    #[test]
    fn the_word_is_the_serialized_form() {
        for code in
            [ErrorCode::BadJson, ErrorCode::IdempotencyConflict, ErrorCode::TooManySubscriptions]
        {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
        }
    }
}
