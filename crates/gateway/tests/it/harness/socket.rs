//! A WebSocket client that is not ours, with the client protocol on top.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::within;
use crate::oracle::Place;

/// One WebSocket connection.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    next_id: u64,
}

/// A publication as a client receives it, the payload as it came.
#[derive(Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) topic: String,
    pub(crate) offset: u64,
    pub(crate) data: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateFrame<'a> {
    topic: &'a str,
    offset: u64,
    time: u64,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Socket {
    pub(crate) async fn open(address: SocketAddr, target: &str) -> Self {
        Self::open_with(address, target, &[]).await
    }

    /// A connection whose handshake has these headers besides.
    pub(crate) async fn open_with(
        address: SocketAddr,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Self {
        let stream = within("connection", TcpStream::connect(address)).await.expect("it listens");
        Self::on(stream, address, target, headers).await
    }

    /// A connection whose kernel takes little before its reader does.
    pub(crate) async fn narrow(address: SocketAddr, target: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = within("connection", socket.connect(address)).await.expect("it listens");
        Self::on(stream, address, target, &[]).await
    }

    async fn on(
        stream: TcpStream,
        address: SocketAddr,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Self {
        let builder = ClientBuilder::new().uri(&format!("ws://{address}{target}")).expect("a URI");
        let builder = headers.iter().fold(builder, |builder, (name, value)| {
            let value = HeaderValue::from_str(value).expect("a header");
            builder.add_header(HeaderName::from_static(name), value).expect("not its own header")
        });
        let (stream, _answer) =
            within("handshake", builder.connect_on(stream)).await.expect("an upgrade");
        Self { stream, next_id: 1 }
    }

    /// Sends a message as it is.
    pub(crate) async fn send(&mut self, message: Message) {
        within("room in the socket", self.stream.send(message)).await.expect("an open connection");
    }

    /// Sends a command.
    pub(crate) async fn command(&mut self, command: &Value) {
        self.send(Message::text(command.to_string())).await;
    }

    /// Sends a command under a new id; the next message must be the reply to it.
    pub(crate) async fn ask(&mut self, mut command: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = id.into();
        self.command(&command).await;
        let reply = self.value().await;
        assert_eq!(reply["id"], id, "{reply}");
        reply
    }

    /// Subscribes; every topic must be accepted. Answers with the `topics` of the acknowledgement.
    pub(crate) async fn subscribe(&mut self, topics: Value) -> Value {
        let mut reply = self.ask(json!({"type": "subscribe", "topics": topics})).await;
        assert_eq!((&reply["type"], &reply["errors"]), (&json!("subscribed"), &json!([])));
        reply["topics"].take()
    }

    /// Subscribes to one topic after a place in it.
    pub(crate) async fn resume(&mut self, topic: &str, epoch: &str, offset: u64) -> Value {
        let since = json!({"epoch": epoch, "offset": offset});
        self.subscribe(json!([{"topic": topic, "since": since}])).await[0].take()
    }

    /// The next message, whatever it is; none at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let message = within("message", self.stream.next()).await;
        message.map(|message| message.expect("frames that keep to RFC 6455"))
    }

    /// The text of the next message.
    pub(crate) async fn text(&mut self) -> String {
        let message = self.next().await.expect("a message, not the end");
        message.as_text().unwrap_or_else(|| panic!("not text: {message:?}")).to_owned()
    }

    /// The next message, which is one JSON object.
    pub(crate) async fn value(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The next message, which is a publication and nothing else.
    pub(crate) async fn update(&mut self) -> Update {
        let text = self.text().await;
        let frame: UpdateFrame<'_> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(frame.time > 1_700_000_000_000, "{text}");
        let (topic, data) = (frame.topic.to_owned(), frame.data.get().to_owned());
        Update { topic, offset: frame.offset, data }
    }

    /// The next messages are these offsets of a topic, in order, whose payloads are their offsets.
    pub(crate) async fn expect_numbers(
        &mut self,
        topic: &str,
        numbers: std::ops::RangeInclusive<u64>,
    ) {
        for offset in numbers {
            assert_eq!(self.update().await, Update::new(topic, offset, &offset.to_string()));
        }
    }

    /// The next message is exactly this.
    pub(crate) async fn expect(&mut self, message: Value) {
        assert_eq!(self.value().await, message);
    }

    /// Nothing but this reply has come: whatever the node had to say before it would be in front of it.
    pub(crate) async fn expect_quiet(&mut self) {
        assert_eq!(self.ask(json!({"type": "ping"})).await["type"], "pong");
    }

    /// Reads up to the close frame: its code, and its reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            let message = self.next().await.expect("a close frame before the end");
            if let Some((code, reason)) = message.as_close() {
                return (u16::from(code), reason.to_owned());
            }
        }
    }
}

impl Update {
    pub(crate) fn new(topic: &str, offset: u64, data: &str) -> Self {
        Self { topic: topic.to_owned(), offset, data: data.to_owned() }
    }
}

/// The place that an acknowledgement, or the answer to a publication, names.
impl From<&Value> for Place {
    fn from(message: &Value) -> Self {
        let epoch = message["epoch"].as_str().expect("an epoch").to_owned();
        Self { epoch, offset: message["offset"].as_u64().expect("an offset") }
    }
}
