//! The WebSocket transport: the handshake and the frame reader of RFC 6455.
//!
//! Writing needs no code here: publications and replies carry their finished frames.

pub(crate) mod handshake;
pub(crate) mod reader;
