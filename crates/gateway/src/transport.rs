//! Client wire kinds: bytes to commands and back. WebSocket is the first.

pub(crate) mod websocket;
