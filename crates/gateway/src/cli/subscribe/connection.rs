//! A WebSocket connection to a gateway, as a reader and a writer.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fastwebsockets::handshake::generate_key;
use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocket, WebSocketError, WebSocketRead, WebSocketWrite,
};
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tickcast_protocol::CloseCode;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::cli::client::{Answer, ClientError, Stream, Target};

/// A gateway answers a handshake at once; ten seconds leave room for slow networks.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Payloads are at most 16 MiB on any gateway; the rest is room for the frame around them.
const MESSAGE_BYTES_MAX: usize = 17 << 20;
/// Writes are small; one that takes that long has no reader any more, which reading will show.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

type Socket = TokioIo<Upgraded>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer that is not a WebSocket.
    #[error("the gateway refused the connection: {}", .0.problem())]
    Refused(Answer),
}

impl OpenError {
    /// Why, in few words: what to do about a gateway that was never there helps nobody who was connected before.
    pub(super) fn reason(&self) -> String {
        let text = self.to_string();
        match self {
            // Behind the semicolon stands what to do.
            Self::Client(ClientError::Unreachable { .. }) => {
                text.split_once("; ").map_or(text.as_str(), |(what, _)| what).to_owned()
            }
            _ => text,
        }
    }

    /// How long the gateway wants clients to stay away, if it has said so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Client(_) => None,
            Self::Refused(answer) => answer.retry_after,
        }
    }

    /// Has a gateway answered that another time may be better?
    pub(super) fn is_for_now(&self) -> bool {
        matches!(self, Self::Refused(answer) if answer.is_temporary())
    }

    /// Would the same happen again?
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Client(error) => matches!(error, ClientError::Request(_)),
            Self::Refused(answer) => answer.status.is_client_error() && !answer.is_temporary(),
        }
    }
}

/// Opens a connection that speaks `tickcast.v1`.
pub(super) async fn open(target: &Target) -> Result<(Reader, Writer), OpenError> {
    let stream = target.connect().await?;
    let opened = timeout(HANDSHAKE_TIMEOUT, handshake(target, stream)).await;
    match opened.unwrap_or(Err(ClientError::Timeout.into())) {
        Err(OpenError::Client(error)) => Err(target.explain(error).await.into()),
        opened => opened,
    }
}

async fn handshake(
    target: &Target,
    stream: Box<dyn Stream>,
) -> Result<(Reader, Writer), OpenError> {
    let lost = |error: hyper::Error| ClientError::Lost(error.to_string());
    let mut request = target.request(Method::GET, "/v1/ws", Bytes::new())?;
    let key = HeaderValue::from_str(&generate_key());
    let key = key.map_err(|error| ClientError::Request(error.to_string()))?;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("tickcast.v1"));
    headers.insert(SEC_WEBSOCKET_KEY, key);

    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // Drives the handshake and ends with it.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let response = sender.send_request(request).await.map_err(lost)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(OpenError::Refused(Answer::read(response).await?));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(lost)?;
    let mut socket = WebSocket::after_handshake(TokioIo::new(upgraded), Role::Client);
    socket.set_max_message_size(MESSAGE_BYTES_MAX);
    socket.set_auto_close(false);
    socket.set_auto_pong(false);
    let (read, write) = socket.split(tokio::io::split);
    Ok((Reader::new(read), Writer(write)))
}

/// Something that arrived.
#[derive(Debug)]
pub(super) enum Received {
    /// A message.
    Text(Bytes),
    /// A ping, to be answered with its payload.
    Ping(Bytes),
    /// Something that needs no answer.
    Other,
    /// The gateway closes the connection.
    Closed { code: CloseCode, reason: String },
    /// The connection broke.
    Lost(String),
}

type Reading = Pin<Box<dyn Future<Output = (Received, WebSocketRead<ReadHalf<Socket>>)>>>;

/// The reading half. Holds the reading that is under way, so that nothing is lost when whoever waits gives up.
pub(super) struct Reader(Reading);

impl Reader {
    fn new(half: WebSocketRead<ReadHalf<Socket>>) -> Self {
        Self(Box::pin(read(half)))
    }

    /// The next thing to arrive. May be given up and called again.
    pub(super) async fn next(&mut self) -> Received {
        let (received, half) = (&mut self.0).await;
        self.0 = Box::pin(read(half));
        received
    }
}

async fn read(
    mut half: WebSocketRead<ReadHalf<Socket>>,
) -> (Received, WebSocketRead<ReadHalf<Socket>>) {
    // Pongs and closes are sent by the writer, so the reader has nothing to send by itself.
    let mut send_nothing = |_frame: Frame<'_>| std::future::ready(Ok::<(), Infallible>(()));
    let received = match half.read_frame(&mut send_nothing).await {
        Ok(frame) => received(frame.opcode, into_bytes(frame.payload)),
        Err(error) => Received::Lost(reason(&error)),
    };
    (received, half)
}

/// The library's words; its advice to programmers is left out.
fn reason(error: &WebSocketError) -> String {
    match error {
        // TLS may be ended with a word or without; no frame is cut off unnoticed.
        WebSocketError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            WebSocketError::UnexpectedEOF.to_string().to_lowercase()
        }
        error => error.to_string().to_lowercase(),
    }
}

fn received(opcode: OpCode, payload: Bytes) -> Received {
    match opcode {
        OpCode::Text => Received::Text(payload),
        OpCode::Ping => Received::Ping(payload),
        OpCode::Close => {
            let (code, reason) = payload.split_at_checked(2).unwrap_or_default();
            // 1005 is "no code was given".
            let code = code.try_into().map_or(1005, u16::from_be_bytes);
            let reason = String::from_utf8_lossy(reason).into_owned();
            Received::Closed { code: CloseCode::new(code), reason }
        }
        OpCode::Pong | OpCode::Binary | OpCode::Continuation => Received::Other,
    }
}

fn into_bytes(payload: Payload<'_>) -> Bytes {
    match payload {
        Payload::Bytes(bytes) => bytes.freeze(),
        other => Bytes::copy_from_slice(&other),
    }
}

/// The writing half. Errors are not told: the reader meets the same end.
pub(super) struct Writer(WebSocketWrite<WriteHalf<Socket>>);

impl Writer {
    /// Sends a command.
    pub(super) async fn send_text(&mut self, text: String) {
        self.send(Frame::text(Payload::Owned(text.into_bytes()))).await;
    }

    /// Says that nothing more is wanted.
    pub(super) async fn send_close(&mut self) {
        self.send(Frame::close(CloseCode::NORMAL.number(), b"")).await;
    }

    /// Answers a ping.
    pub(super) async fn send_pong(&mut self, payload: Bytes) {
        self.send(Frame::pong(Payload::Bytes(BytesMut::from(payload)))).await;
    }

    async fn send(&mut self, frame: Frame<'static>) {
        let sent = timeout(WRITE_TIMEOUT, async {
            self.0.write_frame(frame).await?;
            // TLS keeps what the socket does not take.
            self.0.flush().await
        });
        drop(sent.await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::GatewayUrl;

    #[test]
    fn advice_for_the_beginning_is_not_given_again() {
        let url: GatewayUrl = "http://127.0.0.1:1".parse().unwrap();
        let source = io::ErrorKind::ConnectionRefused.into();
        let error = OpenError::Client(ClientError::Unreachable { url, source });
        assert!(error.to_string().contains("; is a gateway running there?"), "{error}");
        assert_eq!(error.reason(), "cannot reach http://127.0.0.1:1: connection refused");
        let error = OpenError::Client(ClientError::Lost("a; b".to_owned()));
        assert_eq!(error.reason(), error.to_string());
    }
}
