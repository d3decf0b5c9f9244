//! The WebSocket side of the public wire, as little of it as a load generator needs.
//!
//! Frames are found by their headers and the few bytes before a publication's offset; nothing is copied unless a frame
//! is split between two reads, and nothing is parsed as JSON. The floor uses the same code to build its frames.
//! What is not here: masking (the generator only ever sends empty or echoed control frames), fragmentation, extensions.

use memchr::memchr;

/// Longest frame payload taken from a server, in bytes. A server's default batch limit is 1 MiB; the rest is envelope.
pub const FRAME_BYTES_MAX: usize = 2 << 20;

/// Text frame.
pub const OPCODE_TEXT: u8 = 1;
/// Binary frame.
pub const OPCODE_BINARY: u8 = 2;
/// Close frame.
pub const OPCODE_CLOSE: u8 = 8;
/// Ping frame.
pub const OPCODE_PING: u8 = 9;
/// Pong frame.
pub const OPCODE_PONG: u8 = 10;

/// First byte of an unfragmented frame, the only kind that is taken.
const FIN: u8 = 0x80;
/// Second byte: the payload is masked. Servers must not mask.
const MASKED: u8 = 0x80;

/// Bytes from a server that are not the frames this program understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The server masked a frame.
    #[error("a masked frame from a server")]
    Masked,
    /// A reserved bit is set, or the message is split over several frames.
    #[error(
        "first frame byte {0:#04x}: fragments, extensions and unknown opcodes are not supported"
    )]
    Unsupported(u8),
    /// The frame is longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes, more than {FRAME_BYTES_MAX}")]
    TooLong(u64),
}

/// One complete frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// One of the `OPCODE_` constants.
    pub opcode: u8,
    /// The payload, borrowed from the read buffer or from the scanner's carry.
    pub payload: &'a [u8],
}

/// Length of header and payload of the frame that begins at `bytes[0]`; `None` until the header is complete.
fn frame_lengths(bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let known = matches!(
        first ^ FIN,
        OPCODE_TEXT | OPCODE_BINARY | OPCODE_CLOSE | OPCODE_PING | OPCODE_PONG
    );
    if !known {
        return Err(FrameError::Unsupported(*first));
    }
    if second & MASKED != 0 {
        return Err(FrameError::Masked);
    }
    let (header, payload) = match (second, rest) {
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        }
        (126 | 127, _) => return Ok(None),
        (short, _) => (2, u64::from(*short)),
    };
    match usize::try_from(payload) {
        Ok(length) if length <= FRAME_BYTES_MAX => Ok(Some((header, length))),
        _ => Err(FrameError::TooLong(payload)),
    }
}

/// Finds frames in a byte stream that arrives in arbitrary pieces.
///
/// Frames that lie whole in one read are handed out in place. Only the piece of a frame that a read cut off is copied,
/// into a carry that keeps its capacity: no allocation per frame, and 24 bytes for a connection that was never cut.
#[derive(Debug, Default)]
pub struct FrameScanner {
    carry: Vec<u8>,
}

impl FrameScanner {
    /// Takes the next bytes of the stream and calls `on_frame` for each frame completed by them, in order.
    ///
    /// # Errors
    /// On bytes that cannot be a frame of a server; the stream is then unreadable and must be closed.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_frame: impl FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        if !self.carry.is_empty() {
            bytes = self.finish_carried(bytes, &mut on_frame)?;
        }
        while let Some((header, length)) = frame_lengths(bytes)? {
            let Some((whole, rest)) = bytes.split_at_checked(header + length) else { break };
            on_frame(Frame { opcode: whole[0] ^ FIN, payload: &whole[header..] });
            bytes = rest;
        }
        self.carry.extend_from_slice(bytes);
        Ok(())
    }

    /// Completes the carried frame as far as `bytes` reach, and returns the bytes behind it.
    fn finish_carried<'a>(
        &mut self,
        mut bytes: &'a [u8],
        on_frame: &mut impl FnMut(Frame<'_>),
    ) -> Result<&'a [u8], FrameError> {
        loop {
            let lengths = frame_lengths(&self.carry)?;
            // Until the header is whole its own length is unknown: take one byte at a time, nine at most.
            let missing = lengths
                .map_or(1, |(header, length)| (header + length).saturating_sub(self.carry.len()));
            if let Some((header, _)) = lengths
                && missing == 0
            {
                on_frame(Frame { opcode: self.carry[0] ^ FIN, payload: &self.carry[header..] });
                self.carry.clear();
                return Ok(bytes);
            }
            if bytes.is_empty() {
                return Ok(bytes);
            }
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            self.carry.extend_from_slice(taken);
            bytes = rest;
        }
    }
}

/// What the generator reads of a publication frame `{"topic":"…","offset":n,"time":ms,"data":…}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicationHead<'a> {
    /// The topic's name.
    pub topic: &'a [u8],
    /// The publication's number within its topic.
    pub offset: u64,
    /// Everything behind the offset: time and data.
    pub rest: &'a [u8],
}

/// Reads the head of a publication; `None` if the payload is any other message.
///
/// The key order is part of the public wire, so a fixed prefix scan is enough: about ten nanoseconds.
#[must_use]
pub fn publication_head(payload: &[u8]) -> Option<PublicationHead<'_>> {
    let from_name = payload.strip_prefix(b"{\"topic\":\"")?;
    let (topic, behind) = from_name.split_at_checked(memchr(b'"', from_name)?)?;
    let (offset, rest) = leading_number(behind.strip_prefix(b"\",\"offset\":")?)?;
    Some(PublicationHead { topic, offset, rest })
}

/// The decimal number at the front of `bytes` and what follows it; `None` without a digit or beyond 64 bits.
#[must_use]
pub fn leading_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let (digits, rest) = bytes.split_at(digits);
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    Some((number, rest))
}

/// Appends the header of an unmasked, unfragmented frame with a payload of `length` bytes.
pub fn append_header(out: &mut Vec<u8>, opcode: u8, length: usize) {
    out.push(FIN | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&crate::units::count(length).to_be_bytes());
        }
    }
}

/// The answer to a ping.
///
/// Control payloads are 125 bytes at most; a longer one is cut.
#[must_use]
pub fn pong(payload: &[u8]) -> Vec<u8> {
    masked(OPCODE_PONG, &payload[..payload.len().min(125)])
}

/// A message of a client.
#[must_use]
pub fn command(text: &str) -> Vec<u8> {
    masked(OPCODE_TEXT, text.as_bytes())
}

/// The close of a client that wants nothing more.
#[must_use]
pub fn farewell() -> Vec<u8> {
    masked(OPCODE_CLOSE, &1000_u16.to_be_bytes())
}

/// A frame of a client, with the mask 0 that leaves the payload as it is.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    append_header(&mut frame, opcode, payload.len());
    frame[1] |= MASKED;
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Standard base64 with padding: the two places of the handshake need nothing more of the format.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |position: usize| u32::from(chunk.get(position).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4_usize {
            let sextet = group >> (18 - 6 * position) & 63;
            let letter = ALPHABET[usize::try_from(sextet).unwrap_or(0)];
            text.push(if position <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
#[must_use]
pub fn accept_key(key: &str) -> String {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(&sha1.digest().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        append_header(&mut frame, OPCODE_TEXT, payload.len());
        frame.extend_from_slice(payload);
        frame
    }

    fn collect(scanner: &mut FrameScanner, bytes: &[u8], frames: &mut Vec<(u8, Vec<u8>)>) {
        scanner
            .feed(bytes, |frame| frames.push((frame.opcode, frame.payload.to_vec())))
            .expect("well-formed frames");
    }

    #[test]
    fn frames_survive_a_cut_at_every_byte() {
        let payloads = [vec![b'a'; 3], vec![], vec![b'b'; 126], vec![b'c'; 70_000], vec![b'd'; 1]];
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| text(payload)).collect();
        let expected: Vec<_> =
            payloads.iter().map(|payload| (OPCODE_TEXT, payload.clone())).collect();
        let near_borders = (0..200).chain(stream.len() - 200..=stream.len());
        for cut in near_borders {
            let mut scanner = FrameScanner::default();
            let mut frames = Vec::new();
            collect(&mut scanner, &stream[..cut], &mut frames);
            collect(&mut scanner, &stream[cut..], &mut frames);
            assert!(frames == expected, "cut at {cut}");
        }
    }

    #[test]
    fn frames_survive_single_bytes() {
        let stream: Vec<u8> = [text(b"one"), text(&[b'x'; 300]), text(b"")].concat();
        let mut scanner = FrameScanner::default();
        let mut frames = Vec::new();
        for byte in &stream {
            collect(&mut scanner, &[*byte], &mut frames);
        }
        let lengths: Vec<_> = frames.iter().map(|(_, payload)| payload.len()).collect();
        assert_eq!(lengths, [3, 300, 0]);
    }

    #[test]
    fn hostile_frames_are_named() {
        let cases: [(&[u8], FrameError); 4] = [
            (&[0x81, 0x85], FrameError::Masked),
            (&[0x01, 0x01], FrameError::Unsupported(0x01)),
            (&[0xC1, 0x01], FrameError::Unsupported(0xC1)),
            (&[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0], FrameError::TooLong(1 << 32)),
        ];
        for (bytes, expected) in cases {
            let mut scanner = FrameScanner::default();
            assert_eq!(scanner.feed(bytes, |_| ()), Err(expected));
        }
    }

    #[test]
    fn topic_and_offset_are_read_without_json() {
        let payload =
            br#"{"topic":"load.7","offset":1043,"time":1795525552301,"data":{"price":1.50}}"#;
        let head = publication_head(payload).expect("a publication");
        assert_eq!((head.topic, head.offset), (&b"load.7"[..], 1043));
        assert_eq!(head.rest, br#","time":1795525552301,"data":{"price":1.50}}"#);
    }

    #[test]
    fn other_messages_are_not_publications() {
        let others: [&[u8]; 6] = [
            br#"{"type":"gap","topic":"a","from":1,"to":2,"reason":"slow_consumer"}"#,
            br#"{"topic":"a","offset":"#,
            br#"{"topic":"a","offset":99999999999999999999}"#,
            br#"{"topic":"a"}"#,
            b"",
            b"{\"topic\":\"",
        ];
        for payload in others {
            assert_eq!(publication_head(payload), None);
        }
    }

    #[test]
    fn the_accept_key_is_the_one_of_the_standard() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(base64(b"foo"), "Zm9v");
    }

    #[test]
    fn a_pong_is_masked_and_echoes() {
        assert_eq!(pong(b"hi"), [0x8A, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(pong(&[0; 200]).len(), 6 + 125);
    }
}
