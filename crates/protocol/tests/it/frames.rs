//! How texts travel: `testdata/frames.json`, whole WebSocket frames of every length class.

use std::fmt::Write as _;

use serde::Serialize;
use tickcast_protocol::{CloseCode, Opcode, ServerMessage, append_frame, close_frame, text_frame};

use crate::golden;
use crate::server::publication;

/// Bytes up to which a frame is written out. A longer one shows its beginning and its end.
const WHOLE_MAX: usize = 64;
const HEAD: usize = 14;
const TAIL: usize = 4;

/// A frame as it is on the wire.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    about: &'static str,
    /// The payload is this text, so many times in a row. A close frame's is its reason.
    text: String,
    times: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_code: Option<u16>,
    /// Length of the whole frame, in bytes.
    bytes: usize,
    hex: String,
}

impl golden::Row for Row {
    fn name(&self) -> &str {
        self.name
    }
}

fn row(name: &'static str, about: &'static str, (text, times): (&str, usize), frame: &[u8]) -> Row {
    let text = text.to_owned();
    Row { name, about, text, times, close_code: None, bytes: frame.len(), hex: hex(frame) }
}

fn hex(frame: &[u8]) -> String {
    let digits = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut digits, byte| {
            write!(digits, "{byte:02x}").unwrap();
            digits
        })
    };
    if frame.len() <= WHOLE_MAX {
        return digits(frame);
    }
    format!("{}...{}", digits(&frame[..HEAD]), digits(&frame[frame.len() - TAIL..]))
}

fn rows() -> Vec<Row> {
    let sevens = |name, about, times| {
        row(name, about, ("7", times), &text_frame("7".repeat(times).as_bytes()))
    };
    let publication = publication("stocks.AAPL", 1042, 1_795_525_552_123, r#"{"price":189.30}"#);
    let json = std::str::from_utf8(publication.json()).unwrap();
    let mut pong = Vec::new();
    ServerMessage::Pong { id: None }.append_frame(&mut pong);
    let mut ping = Vec::new();
    append_frame(&mut ping, Opcode::Ping, &[]);
    let mut echo = Vec::new();
    append_frame(&mut echo, Opcode::Pong, b"now");
    let close = |name, about, code: CloseCode, reason: &str| Row {
        close_code: Some(code.number()),
        ..row(name, about, (reason, 1), &close_frame(code, reason))
    };
    let long = "\u{20ac}".repeat(42);
    vec![
        row(
            "publication",
            "A publication, as all its subscribers get it.",
            (json, 1),
            publication.frame(),
        ),
        row("reply", "A reply: one text frame.", (r#"{"type":"pong"}"#, 1), &pong),
        sevens("empty", "The shortest frame.", 0),
        sevens("longest_7_bit", "Up to 125 bytes the length is one byte.", 125),
        sevens("shortest_16_bit", "From 126 on it is 126 and two bytes.", 126),
        sevens("longest_16_bit", "Up to 65,535.", 65_535),
        sevens("shortest_64_bit", "From 65,536 on it is 127 and eight bytes.", 65_536),
        row(
            "ping",
            "What a node sends into silence. Browsers answer by themselves.",
            ("", 1),
            &ping,
        ),
        row("pong", "The answer to a client's ping has its payload.", ("now", 1), &echo),
        close(
            "close",
            "Two bytes of code, then the reason, for people.",
            CloseCode::SLOW_CONSUMER,
            "slow consumer",
        ),
        close("close_no_reason", "A reason may be missing.", CloseCode::NORMAL, ""),
        close(
            "close_cut",
            "A reason is cut to 123 bytes, between characters.",
            CloseCode::PROTOCOL_ERROR,
            &long,
        ),
    ]
}

#[test]
fn frames_of_every_length() {
    golden::check("frames.json", &rows());
}
