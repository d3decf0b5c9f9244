//! WebSocket frames as a server writes them: unmasked and never fragmented (RFC 6455, section 5.2).

use crate::code::CloseCode;
use crate::limits::CONTROL_BYTES_MAX;

/// The frame types of RFC 6455, section 11.8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of a fragmented message.
    Continuation = 0x0,
    /// UTF-8 text.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode with this number; none for the reserved ones.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Control frames may come between the fragments of a message and are never fragmented themselves.
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// Appends the header of a final, unmasked frame with `length` bytes of payload.
#[expect(
    clippy::cast_possible_truncation,
    reason = "each cast follows the comparison that makes it exact"
)]
pub fn append_header(out: &mut Vec<u8>, opcode: Opcode, length: usize) {
    out.push(0x80 | opcode as u8);
    if length < 126 {
        out.push(length as u8);
    } else if length <= usize::from(u16::MAX) {
        out.push(126);
        out.extend_from_slice(&(length as u16).to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// Appends a whole frame.
pub fn append_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    append_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// A text frame of its own.
pub fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    append_frame(&mut frame, Opcode::Text, payload);
    frame
}

/// A close frame; a reason longer than a control frame can carry is cut at a character boundary.
pub fn close_frame(code: CloseCode, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    let mut frame = Vec::with_capacity(reason.len() + 4);
    append_header(&mut frame, Opcode::Close, reason.len() + 2);
    frame.extend_from_slice(&code.number().to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lengths() {
        let check = |length: usize, expected: &[u8]| {
            let mut out = Vec::new();
            append_header(&mut out, Opcode::Text, length);
            assert_eq!(out, expected);
        };
        check(0, &[0x81, 0]);
        check(125, &[0x81, 125]);
        check(126, &[0x81, 126, 0, 126]);
        check(65_535, &[0x81, 126, 0xff, 0xff]);
        check(65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_long_close_reason_is_cut_between_characters() {
        let frame = close_frame(CloseCode::PROTOCOL_ERROR, &"\u{20ac}".repeat(100));
        assert_eq!(frame[..2], [0x88, 2 + 123]);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
