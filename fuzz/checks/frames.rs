//! The frame reader: the same bytes mean the same however they are cut, and the same as to `tokio-websockets`.

use futures_util::{FutureExt as _, StreamExt as _};
use tickcast::fuzzing::{Message, Stream, read_frames};
use tokio_websockets::proto::ProtocolError;
use tokio_websockets::{Error, Limits, ServerBuilder};

/// Longest header of a client's frame.
const HEADER_BYTES_MAX: usize = 14;

/// Close codes; the first is about the bound on fragments.
const FRAGMENTS: u16 = 1008;
const PROTOCOL_ERROR: u16 = 1002;
const TOO_BIG: u16 = 1009;

/// A script makes no more once it has made this much: enough for a message at the largest bound.
const STREAM_BYTES_MAX: usize = 100_000;

/// The first byte chooses the bound, the cut, and whether bytes follow as they come or a script of frames.
pub(crate) fn check(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let bytes = if choice & 1 == 0 { rest.to_vec() } else { compose(rest) };
    let message_max = [125, 126, 1000, 70_000][usize::from(choice >> 1 & 3)];

    let whole = read_frames([&*bytes], message_max, false);
    let same = |other: &Stream| {
        assert_eq!((&other.messages, other.breach), (&whole.messages, whole.breach));
        assert_eq!((other.is_waiting, other.unread), (whole.is_waiting, whole.unread));
        // Memory follows what has come, never what a header declares.
        assert!(other.held_max <= 4 * bytes.len() + 64, "{} bytes held", other.held_max);
    };
    same(&read_frames([&*bytes], message_max, true));
    same(&read_frames(bytes.chunks(2 + usize::from(choice >> 3)), message_max, choice & 8 == 0));
    if bytes.len() <= 1024 {
        let slowly = read_frames(bytes.chunks(1), message_max, false);
        same(&slowly);
        assert!(slowly.held_max <= 4 * (message_max + HEADER_BYTES_MAX), "{}", slowly.held_max);
    }
    compare(&whole, &Theirs::read(&bytes, message_max));
}

/// What `tokio-websockets` makes of a stream.
#[derive(Debug)]
struct Theirs {
    messages: Vec<Message>,
    refused: Option<Refused>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// Text that is none. It is found in the frame that is being read.
    Text,
    Size,
    Other,
}

impl Theirs {
    fn read(bytes: &[u8], message_max: usize) -> Self {
        let socket = tokio::io::join(bytes, tokio::io::sink());
        let limits = Limits::default().max_payload_len(Some(message_max));
        let mut stream = ServerBuilder::new().limits(limits).serve(socket);
        let mut theirs = Self { messages: Vec::new(), refused: None };
        // Everything is there and everything is taken, so nothing has to be waited for.
        while let Some(Some(next)) = stream.next().now_or_never() {
            match next {
                Ok(message) => {
                    let payload = message.as_payload().to_vec();
                    let Some(message) = Self::message(&message, payload) else {
                        theirs.refused = Some(Refused::Text);
                        break;
                    };
                    theirs.messages.push(message);
                }
                // It ends in the middle of a frame.
                Err(Error::Io(_)) => break,
                Err(error) => {
                    theirs.refused = Some(match error {
                        Error::Protocol(ProtocolError::InvalidUtf8) => Refused::Text,
                        Error::PayloadTooLong { .. } => Refused::Size,
                        _ => Refused::Other,
                    });
                    break;
                }
            }
        }
        theirs
    }

    /// None for a text that is none: version 0.13 lets one through that ends in half a character before an empty fragment.
    fn message(message: &tokio_websockets::Message, payload: Vec<u8>) -> Option<Message> {
        Some(if message.is_text() {
            Message::Text(String::from_utf8(payload).ok()?)
        } else if message.is_binary() {
            Message::Binary(payload)
        } else if message.is_ping() {
            Message::Ping(payload)
        } else if message.is_pong() {
            Message::Pong(payload)
        } else {
            Message::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code)))
        })
    }
}

/// Both take the same messages and refuse the same streams. They differ in how early they refuse, and in one bound.
fn compare(ours: &Stream, theirs: &Theirs) {
    let is_control = |message: &Message| !matches!(message, Message::Text(_) | Message::Binary(_));
    match (ours.breach, theirs.refused) {
        // The bound that they do not have.
        (Some(FRAGMENTS), _) if theirs.messages.starts_with(&ours.messages) => {}
        // They look into a text frame that is not complete. Until we have all of it, control frames may come.
        (_, Some(Refused::Text)) => {
            let more = ours.messages.strip_prefix(&*theirs.messages);
            assert!(more.is_some_and(|more| more.iter().all(is_control)), "{ours:?} {theirs:?}");
            let is_closed = matches!(ours.messages.last(), Some(Message::Close(_)));
            assert!(ours.breach.is_some() || ours.is_waiting || is_closed, "{ours:?} {theirs:?}");
        }
        // We wait for a whole header where two bytes of it told them enough.
        (None, Some(Refused::Other)) => {
            assert_eq!(ours.messages, theirs.messages);
            assert!((2..HEADER_BYTES_MAX).contains(&ours.unread), "{ours:?} {theirs:?}");
        }
        // We refuse a sum by its last header; they wait for the frame.
        (Some(TOO_BIG) | None, None)
        | (Some(TOO_BIG), Some(Refused::Size))
        | (Some(PROTOCOL_ERROR), Some(Refused::Other)) => {
            assert_eq!(ours.messages, theirs.messages);
        }
        _ => panic!("only one refuses it, or for another reason: {ours:?} {theirs:?}"),
    }
}

/// Makes frames of a script, which reaches deeper than bytes alone: first byte, form, length and payload of each.
fn compose(mut script: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [first, form, length, rest @ ..] = script {
        if bytes.len() > STREAM_BYTES_MAX {
            break;
        }
        let (payload, next) = rest.split_at(rest.len().min(usize::from(*length)));
        script = next;
        let times = [1, 1, 1, 1, 2, 16, 64, 300][usize::from(form >> 5)];
        let payload = payload.repeat(times);
        // Mostly without the reserved bits, with an opcode that exists, and masked.
        bytes.push(if form & 0x0C == 0x0C { *first } else { first & 0x8B });
        let declared = payload.len() + usize::from(form & 0x1F == 0x1F);
        let is_masked = if form & 0x1E == 0x1E { 0 } else { 0x80 };
        let (short, extended) = match (form & 3, declared) {
            (1, 0..65_536) | (_, 126..65_536) => (126, declared.to_be_bytes()[6..].to_vec()),
            (2, _) | (_, 65_536..) => (127, declared.to_be_bytes().to_vec()),
            (_, short) => (u8::try_from(short).unwrap_or_default(), Vec::new()),
        };
        bytes.push(is_masked | short);
        bytes.extend(extended);
        let mask = if is_masked == 0 { [0; 4] } else { [*first, *form, *length, 0xA5] };
        if is_masked != 0 {
            bytes.extend(mask);
        }
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    bytes
}
