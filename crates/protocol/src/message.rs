//! What a node says to a client, apart from publications: acknowledgements, notices and errors.

use serde::{Serialize, Serializer};

use crate::code::{ErrorCode, GapReason, ResetReason};
use crate::command::Id;
use crate::frame::{Opcode, append_frame};
use crate::mode::{Mode, Rate};
use crate::position::{Epoch, Position};
use crate::topic::Topic;

/// A message of the client protocol `tickcast.v1` from the node to the client.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerMessage<'a> {
    /// The one reply to a subscribe command, before the first data of its topics.
    Subscribed {
        /// The command's id, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id>,
        /// The topics that are subscribed now.
        topics: &'a [Subscribed],
        /// The topics that are not, and why.
        errors: &'a [Rejection],
    },
    /// The reply to an unsubscribe command.
    Unsubscribed {
        /// The command's id, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id>,
        /// The topics that are not subscribed any more.
        topics: &'a [Topic],
        /// The names that are not topics.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        errors: &'a [Rejection],
    },
    /// The reply to a publish command.
    Published {
        /// The command's id, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id>,
        /// The topic published to.
        topic: &'a Topic,
        /// The epoch of the publication.
        epoch: Epoch,
        /// The offset of the publication.
        offset: u64,
    },
    /// Publications `from` to `to` are skipped (mode `all` only).
    Gap {
        /// The topic.
        topic: &'a Topic,
        /// First offset that is skipped.
        from: u64,
        /// Last offset that is skipped.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// Offsets start anew: what the client holds of this topic is no base for what follows.
    Reset {
        /// The topic.
        topic: &'a Topic,
        /// The epoch that is valid now.
        epoch: Epoch,
        /// The offset of the publication that follows.
        offset: u64,
        /// Why.
        reason: ResetReason,
    },
    /// The reply to an auth command: from here on the connection has the rights of the key.
    Authenticated {
        /// The command's id, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id>,
    },
    /// The node's link to the broker changed.
    Status {
        /// `up` or `down`.
        broker: &'static str,
    },
    /// The node will close this connection; connect elsewhere after the delay.
    Goaway {
        /// When to reconnect, in milliseconds from now.
        reconnect_in_ms: u64,
    },
    /// A command could not be carried out.
    Error {
        /// The command's id, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id>,
        /// What went wrong.
        code: ErrorCode,
        /// What, where, the value and the fix, for people.
        message: &'a str,
    },
    /// The reply to a ping command.
    Pong {
        /// The command's id, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id>,
    },
}

/// One topic of a `subscribed` acknowledgement, with the options that are in effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subscribed {
    /// The topic.
    pub topic: Topic,
    /// Its epoch and last offset.
    #[serde(flatten)]
    pub position: AckPosition,
    /// The mode in effect.
    pub mode: Mode,
    /// The rate in effect, in Hz.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_rate")]
    pub max_rate: Option<Rate>,
}

/// A [`Position`] as two keys of the object around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AckPosition {
    /// The topic's epoch.
    pub epoch: Epoch,
    /// The topic's last offset.
    pub offset: u64,
}

impl From<Position> for AckPosition {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset }
    }
}

/// One name of a command that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The name as the client wrote it, cut to a sensible length.
    pub topic: String,
    /// What is wrong.
    pub code: ErrorCode,
    /// What, where, the value and the fix, for people.
    pub message: String,
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn serialize_rate<S: Serializer>(rate: &Option<Rate>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(rate) = rate else { return serializer.serialize_none() };
    // `4` reads better than `4.0`, and whole rates are what people ask for.
    let hz = rate.hz();
    if hz.fract() == 0.0 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole and from 1 to 1,000"
        )]
        serializer.serialize_u32(hz as u32)
    } else {
        serializer.serialize_f64(hz)
    }
}

impl ServerMessage<'_> {
    /// The JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        // None of the types above can fail to serialize: no maps, no foreign implementations.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Appends the message as a WebSocket text frame.
    pub fn append_frame(&self, out: &mut Vec<u8>) {
        append_frame(out, Opcode::Text, &self.to_json());
    }
}
