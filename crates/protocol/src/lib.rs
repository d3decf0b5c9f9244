//! What a Tickcast client and a Tickcast node say to each other, as values.
//!
//! Everything on the wire has its type here: [`Topic`] names, [`Publication`]s with their ready-made frames, client
//! [`Command`]s, [`ServerMessage`]s, error and close codes, and the limits that both sides may rely on.
//! The crate is pure: no I/O, no clock, no async. It neither knows who is subscribed nor how bytes travel.

#![forbid(unsafe_code)]

mod code;
mod command;
mod frame;
pub mod limits;
mod message;
mod mode;
mod position;
mod publication;
mod topic;

pub use code::{CloseCode, ErrorCode, GapReason, ResetReason, Retry};
pub use command::{Command, CommandError, Id, PublishCommand, Since, SubscribeItem, Token};
pub use frame::{Opcode, append_frame, append_header, close_frame, text_frame};
pub use message::{AckPosition, Rejection, ServerMessage, Subscribed};
pub use mode::{Mode, Rate, RateError};
pub use position::{Epoch, EpochError, Position};
pub use publication::Publication;
pub use topic::{Topic, TopicError};
