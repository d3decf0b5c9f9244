//! Topic names: validated once at the edge, cheap to clone everywhere behind it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::limits::TOPIC_BYTES_MAX;

/// The subject of a subscription: 1 to 200 bytes of `A-Z a-z 0-9 _ - . : / = @`, such as `stocks.AAPL`.
///
/// No path segment may be empty, `.` or `..`, because the name is also the tail of an HTTP path. Every name behind the
/// edge is a `Topic`, so no text of a client can reach the broker or a JSON string unchecked, and none needs escaping.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a text is not a topic name. The message says what is wrong and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing at all.
    #[error("the topic name is empty; use for example `stocks.AAPL`")]
    Empty,
    /// More than [`TOPIC_BYTES_MAX`] bytes.
    #[error("the topic name has {0} bytes; at most 200 are allowed")]
    TooLong(usize),
    /// A byte outside the alphabet.
    #[error(
        "{found:?} at byte {at} is not allowed in a topic name; allowed are A-Z a-z 0-9 _ - . : / = @"
    )]
    Character {
        /// The offending character.
        found: char,
        /// Its position in bytes.
        at: usize,
    },
    /// An empty, `.` or `..` path segment.
    #[error("the topic name has an empty, `.` or `..` path segment at byte {0}")]
    Segment(usize),
}

impl Topic {
    /// Checks `name` and takes a copy of it.
    ///
    /// # Errors
    /// [`TopicError`] names the rule that is broken and the place.
    pub fn new(name: &str) -> Result<Self, TopicError> {
        Self::check(name)?;
        Ok(Self(name.into()))
    }

    /// Checks `name` without taking a copy.
    ///
    /// # Errors
    /// As [`Topic::new`].
    pub fn check(name: &str) -> Result<(), TopicError> {
        if name.is_empty() {
            return Err(TopicError::Empty);
        }
        if name.len() > TOPIC_BYTES_MAX {
            return Err(TopicError::TooLong(name.len()));
        }
        if let Some((at, found)) = name.char_indices().find(|(_, c)| !is_allowed(*c)) {
            return Err(TopicError::Character { found, at });
        }
        let mut at = 0;
        for segment in name.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(TopicError::Segment(at));
            }
            at += segment.len() + 1;
        }
        Ok(())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(c: char) -> bool {
    matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' | '.' | ':' | '/' | '=' | '@')
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0)
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for name in
            ["a", "stocks.AAPL", "nba.LAL-BOS.score", "a/b/c", "x@y=z:1_2", "...", &"t".repeat(200)]
        {
            assert_eq!(Topic::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn bad_names() {
        let check = |name: &str, expected: TopicError| assert_eq!(Topic::new(name), Err(expected));
        check("", TopicError::Empty);
        check(&"t".repeat(201), TopicError::TooLong(201));
        check("a b", TopicError::Character { found: ' ', at: 1 });
        check("a*", TopicError::Character { found: '*', at: 1 });
        check("$sys", TopicError::Character { found: '$', at: 0 });
        check("\u{e4}", TopicError::Character { found: '\u{e4}', at: 0 });
        check("a\r\nb", TopicError::Character { found: '\r', at: 1 });
        check("/a", TopicError::Segment(0));
        check("a//b", TopicError::Segment(2));
        check("a/", TopicError::Segment(2));
        check("a/../b", TopicError::Segment(2));
        check(".", TopicError::Segment(0));
    }
}
