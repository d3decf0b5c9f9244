//! What a client says to become a WebSocket.

/// The lines of a good handshake; one for the request, the others for its headers.
pub(crate) const LINES: [&str; 6] = [
    "GET /v1/ws HTTP/1.1",
    "Host: localhost",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
];

/// The head of a request that consists of these lines.
pub(crate) fn head(lines: &[&str]) -> String {
    lines.join("\r\n") + "\r\n\r\n"
}
