//! WebSocket as RFC 6455 has it, below the client protocol.

mod bounds;
mod frames;
mod handshake;
mod liveness;
