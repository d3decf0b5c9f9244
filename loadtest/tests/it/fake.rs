//! A small server on threads that speaks the wire and breaks one promise, so that the account can be seen to notice.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use tickcast_load::http::Message;
use tickcast_load::wire::{OPCODE_TEXT, accept_key, append_header};

/// The promise that is broken. Deliveries are counted over all subscribers, from 1.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Every n-th delivery is not sent.
    Drop(u64),
    /// Every n-th delivery is sent twice.
    Repeat(u64),
    /// Each publication is held until the next one has been sent, to every subscriber.
    Swap,
    /// The acknowledgement refuses the topic.
    Reject,
    /// After the n-th publication every subscriber is asked to go elsewhere.
    Leave(u64),
    /// After the n-th publication every connection of a subscriber is cut.
    Cut(u64),
    /// After the n-th publication publishers are cut off.
    CutPublishers(u64),
}

/// One topic, all subscribers, one fault.
#[derive(Debug)]
struct State {
    fault: Fault,
    offset: u64,
    deliveries: u64,
    held: Option<Vec<u8>>,
    /// All frames, from offset 1.
    history: Vec<Vec<u8>>,
    subscribers: Vec<TcpStream>,
}

/// Starts it; it lives until the test process ends.
pub(crate) fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (history, subscribers) = (Vec::new(), Vec::new());
    let state = State { fault, offset: 0, deliveries: 0, held: None, history, subscribers };
    let state = Arc::new(Mutex::new(state));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, state) = (stream.expect("a client"), Arc::clone(&state));
            thread::spawn(move || serve(stream, &state));
        }
    });
    address
}

/// Serves one connection until it closes.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let (mut inbox, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        while let Ok(Some(message)) = Message::read(&inbox) {
            let length = message.length;
            let (method, target) = message.request().expect("a request");
            if method == "GET" {
                subscribe(stream, &message, state);
                return;
            }
            let topic = target.strip_prefix("/v1/topics/").expect("a single publication");
            let offset = state.lock().expect("no panic").publish(topic, message.body);
            let body = format!("{{\"topic\":\"{topic}\",\"epoch\":\"fake\",\"offset\":{offset}}}");
            let length_field = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length_field}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).expect("the publisher reads");
            inbox.drain(..length);
            let fault = state.lock().expect("no panic").fault;
            if matches!(fault, Fault::CutPublishers(last) if last <= offset) {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => inbox.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
}

fn subscribe(mut stream: TcpStream, message: &Message<'_>, state: &Mutex<State>) {
    let key = message.field("sec-websocket-key").expect("a key");
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    );
    stream.write_all(head.as_bytes()).expect("the client reads");
    let (_, target) = message.request().expect("a request");
    let since = (!target.contains("topics=")).then(|| asked(&mut stream));
    let mut state = state.lock().expect("no panic");
    let ack = match state.fault {
        Fault::Reject => r#"{"type":"subscribed","topics":[],"errors":[{"topic":"load.0","code":"forbidden","message":"no"}]}"#.to_owned(),
        _ => format!(
            r#"{{"type":"subscribed","topics":[{{"topic":"load.0","epoch":"fake","offset":{},"mode":"all"}}],"errors":[]}}"#,
            state.offset
        ),
    };
    let mut bytes = frame(ack.as_bytes());
    for missed in state.history.iter().skip(since.unwrap_or(usize::MAX)) {
        bytes.extend_from_slice(missed);
    }
    stream.write_all(&bytes).expect("the client reads");
    state.subscribers.push(stream);
}

/// The offset in the command of a client that comes back.
fn asked(stream: &mut TcpStream) -> usize {
    let mut header = [0; 2];
    stream.read_exact(&mut header).expect("a command");
    let mut rest = vec![0; usize::from(header[1] & 127) + 4];
    if header[1] & 127 == 126 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a command");
        rest = vec![0; usize::from(u16::from_be_bytes(length)) + 4];
    }
    stream.read_exact(&mut rest).expect("a command");
    let text = String::from_utf8(rest.split_off(4)).expect("a mask of 0");
    let (before, offset) = text.rsplit_once("\"offset\":").expect("a position");
    assert!(before.contains("\"since\":{\"epoch\":\"fake\""), "{text}");
    offset.trim_end_matches(['}', ']']).parse().expect("a number")
}

impl State {
    fn publish(&mut self, topic: &str, data: &[u8]) -> u64 {
        self.offset += 1;
        let head =
            format!("{{\"topic\":\"{topic}\",\"offset\":{},\"time\":1,\"data\":", self.offset);
        let frame = frame(&[head.as_bytes(), data, b"}"].concat());
        self.history.push(frame.clone());
        if let Fault::Swap = self.fault {
            let before = self.held.take();
            if before.is_none() {
                self.held = Some(frame);
                return self.offset;
            }
            self.deliver(&frame);
            self.deliver(&before.expect("held"));
        } else {
            self.deliver(&frame);
        }
        match self.fault {
            Fault::Leave(after) if after == self.offset => {
                let goaway = self::frame(br#"{"type":"goaway","reconnect_in_ms":5}"#);
                self.write(&goaway);
            }
            Fault::Cut(after) if after == self.offset => {
                for subscriber in self.subscribers.drain(..) {
                    subscriber.shutdown(Shutdown::Both).expect("an open connection");
                }
            }
            _ => {}
        }
        self.offset
    }

    fn write(&mut self, frame: &[u8]) {
        // A client that has moved has closed its first connection.
        self.subscribers.retain_mut(|subscriber| subscriber.write_all(frame).is_ok());
    }

    fn deliver(&mut self, frame: &[u8]) {
        if matches!(self.fault, Fault::Leave(_) | Fault::Cut(_)) {
            return self.write(frame);
        }
        for subscriber in &mut self.subscribers {
            self.deliveries += 1;
            let copies = match self.fault {
                Fault::Drop(every) if self.deliveries.is_multiple_of(every) => 0,
                Fault::Repeat(every) if self.deliveries.is_multiple_of(every) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                subscriber.write_all(frame).expect("the client reads");
            }
        }
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_header(&mut bytes, OPCODE_TEXT, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}
