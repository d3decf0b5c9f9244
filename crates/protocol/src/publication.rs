//! One published item, with its wire frame made once and shared by every subscriber.

use std::fmt;
use std::io::Write as _;

use crate::frame::{Opcode, append_header};
use crate::position::{Epoch, Position};
use crate::topic::Topic;

/// A published item at its place in its topic.
///
/// The publisher's JSON is kept in one place only: inside the finished WebSocket frame. That frame is what subscribers
/// get, its text is what every other transport carries, and [`Publication::data`] is a view into it. Frames of a server
/// are unmasked, so one copy serves every connection of a node, and retaining a publication costs no second buffer.
pub struct Publication {
    topic: Topic,
    position: Position,
    time_ms: u64,
    frame: Box<[u8]>,
    header_length: u8,
    data_start: u32,
}

impl Publication {
    /// Builds the frame around `data`, which must be one valid JSON text; its bytes are carried unchanged.
    ///
    /// `time_ms` is the publishing node's clock in milliseconds since 1970: for people, never for decisions.
    pub fn new(topic: Topic, position: Position, time_ms: u64, data: &[u8]) -> Self {
        let name = topic.as_str();
        // Two writes into vectors of sufficient size: the head is short and its length decides the frame header.
        let mut head = Vec::with_capacity(name.len() + 80);
        let written = write!(
            head,
            "{{\"topic\":\"{name}\",\"offset\":{},\"time\":{time_ms},\"data\":",
            position.offset
        );
        debug_assert!(written.is_ok(), "writing into a vector cannot fail");
        let length = head.len() + data.len() + 1;
        let mut frame = Vec::with_capacity(length + 10);
        append_header(&mut frame, Opcode::Text, length);
        let header_length = frame.len();
        frame.extend_from_slice(&head);
        frame.extend_from_slice(data);
        frame.push(b'}');
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a header has at most 10 bytes, a head at most 300"
        )]
        Self {
            topic,
            position,
            time_ms,
            frame: frame.into_boxed_slice(),
            header_length: header_length as u8,
            data_start: (header_length + head.len()) as u32,
        }
    }

    /// The topic it was published to.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Its epoch and offset.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Its offset.
    pub fn offset(&self) -> u64 {
        self.position.offset
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.position.epoch
    }

    /// The publishing node's clock in milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The finished WebSocket frame.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The JSON text of the frame: `{"topic":…,"offset":…,"time":…,"data":…}`.
    pub fn json(&self) -> &[u8] {
        &self.frame[usize::from(self.header_length)..]
    }

    /// The publisher's bytes.
    pub fn data(&self) -> &[u8] {
        &self.frame[self.data_start as usize..self.frame.len() - 1]
    }

    /// What keeping this publication costs, in bytes: the frame and the fixed parts.
    pub fn cost(&self) -> usize {
        self.frame.len() + size_of::<Self>() + 2 * size_of::<usize>()
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.json()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_verbatim_at_every_length() {
        let topic = Topic::new("stocks.AAPL").unwrap();
        for size in [1usize, 40, 60, 61, 62, 63, 125, 126, 65_000, 65_470, 65_480, 65_490, 70_000] {
            let data = "7".repeat(size);
            let position = Position { epoch: Epoch::new(937_557), offset: 1042 };
            let publication =
                Publication::new(topic.clone(), position, 1_795_525_552_123, data.as_bytes());
            assert_eq!(publication.data(), data.as_bytes());
            let expected = format!(
                r#"{{"topic":"stocks.AAPL","offset":1042,"time":1795525552123,"data":{data}}}"#
            );
            assert_eq!(publication.json(), expected.as_bytes());
            assert_eq!(publication.frame(), crate::text_frame(expected.as_bytes()));
        }
    }
}
