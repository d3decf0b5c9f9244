//! A strict reader of client frames (RFC 6455, sections 5 and 8.1), without I/O.
//!
//! It works inside the worker's shared read buffer. Only what is incomplete at the end of a read is kept, so an idle
//! connection has no reader at all, and no cut between two reads can confuse it: there is nothing to cancel.

use tickcast_protocol::{CloseCode, Opcode};

/// Fragments of one message. Real clients send commands in one frame; proxies cut them into a handful.
pub(crate) const FRAGMENTS_MAX: u32 = 64;

/// Frames that one call reads. The smallest have 6 bytes, and ten thousand of them in one read would keep others waiting.
const FRAMES_MAX: usize = 1024;

/// Room that a reader may hold beyond what is in it before it gives the rest back, in bytes.
const SPARE_BYTES: usize = 4096;

/// What one read may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of a message: checked on the header, before anything is kept.
    pub(crate) message_max: usize,
    /// Fragments of a message.
    pub(crate) fragments_max: u32,
    /// The second in which it happens, by the worker's clock.
    pub(crate) second: u32,
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message, which no command is.
    Binary(&'a [u8]),
    /// A ping to be answered with the same payload.
    Ping(&'a [u8]),
    /// A pong, with the payload of the ping that it answers.
    Pong(&'a [u8]),
    /// The closing handshake, with the peer's code if it gave one.
    Close(Option<CloseCode>),
}

/// Whether to go on after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// With the next frame.
    Continue,
    /// Later: the rest of the input is kept.
    Pause,
    /// Never: the rest of the input is dropped.
    Stop,
}

/// A breach of the protocol; the connection is closed with this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: CloseCode,
    pub(crate) reason: &'static str,
}

/// What is left between two reads. Exists only while something is incomplete.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Bytes of frames that are not complete or not handled yet.
    input: Vec<u8>,
    message: Option<Message>,
    /// The second in which the oldest of what is incomplete began.
    begun: u32,
}

/// A fragmented message that is not complete yet.
#[derive(Debug)]
struct Message {
    is_text: bool,
    fragments: u32,
    payload: Vec<u8>,
    /// Bytes of the payload that are known to be whole characters.
    checked: usize,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the header itself.
    length: usize,
    payload: usize,
}

impl Reader {
    /// Reads the frames in `input` and what `slot` kept of earlier reads, and hands each event to `handle`.
    ///
    /// Nothing is allocated for a length that a header declares: what is kept is what has come. True if there are more
    /// frames than one call reads: they are read by the next.
    pub(crate) fn read(
        slot: &mut Option<Box<Self>>,
        input: &mut [u8],
        bounds: Bounds,
        mut handle: impl FnMut(Event<'_>) -> Flow,
    ) -> Result<bool, Violation> {
        let fresh = || Self { begun: bounds.second, ..Self::default() };
        let Self { input: mut kept, mut message, begun } =
            slot.take().map_or_else(fresh, |reader| *reader);
        let mut frames = Frames {
            message: &mut message,
            bounds,
            is_done: false,
            has_more: false,
            handle: &mut handle,
        };
        if kept.is_empty() {
            let (used, flow) = frames.read(input)?;
            if flow != Flow::Stop {
                kept.extend_from_slice(&input[used..]);
            }
        } else {
            kept.extend_from_slice(input);
            let (used, flow) = frames.read(&mut kept)?;
            if flow == Flow::Stop {
                kept.clear();
            } else {
                drop(kept.drain(..used));
            }
            if kept.capacity() - kept.len() > kept.len() + SPARE_BYTES {
                kept.shrink_to_fit();
            }
        }
        let has_more = frames.has_more;
        let begun = if frames.is_done { bounds.second } else { begun };
        if !kept.is_empty() || message.is_some() {
            *slot = Some(Box::new(Self { input: kept, message, begun }));
        }
        Ok(has_more)
    }

    /// The second in which the oldest of what is incomplete began.
    pub(crate) const fn begun(&self) -> u32 {
        self.begun
    }

    /// Counts the time anew: it was this side that did not read.
    pub(crate) const fn restart(&mut self, second: u32) {
        self.begun = second;
    }

    /// Bytes of memory that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.input.capacity()
            + self.message.as_ref().map_or(0, |message| message.payload.capacity())
    }

    /// Bytes of frames that are not complete or not handled yet.
    #[cfg(feature = "testing")]
    pub(crate) fn unread_bytes(&self) -> usize {
        self.input.len()
    }
}

struct Frames<'a, H> {
    message: &'a mut Option<Message>,
    bounds: Bounds,
    /// A message is complete, or a control frame outside of one.
    is_done: bool,
    /// As many frames were read as may be, and the input was not at its end.
    has_more: bool,
    handle: &'a mut H,
}

impl<H: FnMut(Event<'_>) -> Flow> Frames<'_, H> {
    /// Reads whole frames; answers how many bytes they took and whether to go on.
    fn read(&mut self, input: &mut [u8]) -> Result<(usize, Flow), Violation> {
        let (mut used, mut count) = (0, 0);
        while let Some(header) = self.header(&input[used..])? {
            if count == FRAMES_MAX {
                self.has_more = true;
                break;
            }
            count += 1;
            let start = used + header.length;
            let Some(payload) = input.get_mut(start..start + header.payload) else { break };
            fastwebsockets::unmask(payload, header.mask);
            used = start + header.payload;
            match self.frame(header, &input[start..used])? {
                Flow::Continue => {}
                flow => return Ok((used, flow)),
            }
        }
        Ok((used, Flow::Continue))
    }

    /// Reads and checks a header; none if it is not complete.
    fn header(&self, input: &[u8]) -> Result<Option<Header>, Violation> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(protocol_error("reserved bits are set"));
        }
        let opcode =
            Opcode::from_number(first & 0x0F).ok_or(protocol_error("the opcode is reserved"))?;
        if second & 0x80 == 0 {
            return Err(protocol_error("a client frame must be masked"));
        }
        let is_final = first & 0x80 != 0;
        let short = usize::from(second & 0x7F);
        if opcode.is_control() && (!is_final || short > 125) {
            return Err(protocol_error("a control frame must be whole and at most 125 bytes"));
        }
        let (extended, payload) = match (short, rest) {
            (126, [a, b, ..]) => (2, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            (126 | 127, _) => return Ok(None),
            (short, _) => (0, short as u64),
        };
        if (extended == 2 && payload < 126) || (extended == 8 && payload <= u64::from(u16::MAX)) {
            return Err(protocol_error("the length is not in its shortest form"));
        }
        self.check_data(opcode, payload)?;
        let Some([a, b, c, d]) = rest.get(extended..extended + 4) else { return Ok(None) };
        let payload = usize::try_from(payload).map_err(|_out_of_range| too_big())?;
        Ok(Some(Header { is_final, opcode, mask: [*a, *b, *c, *d], length: 6 + extended, payload }))
    }

    /// Checks a data frame's place and size as soon as its length is known.
    fn check_data(&self, opcode: Opcode, payload: u64) -> Result<(), Violation> {
        match (opcode, &*self.message) {
            (Opcode::Ping | Opcode::Pong | Opcode::Close, _) => Ok(()),
            (Opcode::Continuation, None) => Err(protocol_error("a continuation continues nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                Err(protocol_error("a new message starts inside a fragmented one"))
            }
            (_, message) => {
                let before = message.as_ref().map_or(0, |message| message.payload.len());
                if payload.saturating_add(before as u64) > self.bounds.message_max as u64 {
                    return Err(too_big());
                }
                Ok(())
            }
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<Flow, Violation> {
        self.is_done |= self.message.is_none() && (header.opcode.is_control() || header.is_final);
        match header.opcode {
            Opcode::Ping => Ok((self.handle)(Event::Ping(payload))),
            Opcode::Pong => Ok((self.handle)(Event::Pong(payload))),
            Opcode::Close => {
                let code = close_code(payload)?;
                (self.handle)(Event::Close(code));
                Ok(Flow::Stop)
            }
            opcode if header.is_final && self.message.is_none() => {
                self.message_event(opcode == Opcode::Text, payload)
            }
            opcode => self.fragment(opcode, header.is_final, payload),
        }
    }

    fn fragment(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: &[u8],
    ) -> Result<Flow, Violation> {
        let mut message = self.message.take().unwrap_or(Message {
            is_text: opcode == Opcode::Text,
            fragments: 0,
            payload: Vec::new(),
            checked: 0,
        });
        message.fragments += 1;
        if message.fragments > self.bounds.fragments_max {
            return Err(Violation {
                code: CloseCode::POLICY,
                reason: "more than 64 fragments in one message",
            });
        }
        message.payload.extend_from_slice(payload);
        message.check_text()?;
        if is_final {
            self.is_done = true;
            return self.message_event(message.is_text, &message.payload);
        }
        *self.message = Some(message);
        Ok(Flow::Continue)
    }

    fn message_event(&mut self, is_text: bool, payload: &[u8]) -> Result<Flow, Violation> {
        if !is_text {
            return Ok((self.handle)(Event::Binary(payload)));
        }
        let text = std::str::from_utf8(payload).map_err(|_not_text| invalid_text())?;
        Ok((self.handle)(Event::Text(text)))
    }
}

impl Message {
    /// Finds what is no text in the fragment where it stands, so that no more of it is kept.
    fn check_text(&mut self) -> Result<(), Violation> {
        if !self.is_text {
            return Ok(());
        }
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            // A character may be cut between two fragments.
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(invalid_text()),
        }
        Ok(())
    }
}

fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(protocol_error("a close payload of one byte")),
        [high, low, reason @ ..] => {
            let code = CloseCode::new(u16::from_be_bytes([*high, *low]));
            if !code.is_valid_on_wire() {
                return Err(protocol_error("the close code is reserved"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(Violation {
                    code: CloseCode::INVALID_TEXT,
                    reason: "the close reason is not UTF-8",
                });
            }
            Ok(Some(code))
        }
    }
}

const fn protocol_error(reason: &'static str) -> Violation {
    Violation { code: CloseCode::PROTOCOL_ERROR, reason }
}

const fn invalid_text() -> Violation {
    Violation { code: CloseCode::INVALID_TEXT, reason: "text is not UTF-8" }
}

const fn too_big() -> Violation {
    Violation { code: CloseCode::TOO_BIG, reason: "the message is larger than a command may be" }
}

#[cfg(test)]
mod tests;
