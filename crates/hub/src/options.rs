//! What the hub needs to know about a topic, resolved from the configuration by its owner.

use std::fmt;
use std::time::Duration;

use tickcast_protocol::{Mode, Rate};

/// Bounds of one topic's log. Whichever is reached first lets the oldest publications go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Publications kept; at least 1.
    pub publications: usize,
    /// Bytes kept. The newest publication stays whatever its size.
    pub bytes: usize,
    /// How long a publication is kept. The newest stays if the topic keeps its value.
    pub age: Duration,
}

/// How one topic behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopicOptions {
    /// The mode of a subscription that names none.
    pub mode: Mode,
    /// The fastest rate of any subscription in mode `latest`; none for no bound.
    pub max_rate: Option<Rate>,
    /// How long a worker may wait to gather more before it writes, in milliseconds; 0 writes at once.
    pub flush_interval_ms: u32,
    /// A new subscriber first gets the last value.
    pub keeps_value: bool,
    /// Bounds of the log.
    pub log: LogBounds,
}

/// Resolves a topic's options; called once when a topic is opened, never per publication.
pub trait TopicRules: Send + Sync + fmt::Debug {
    /// The options of the topic with this name.
    fn options(&self, topic: &str) -> TopicOptions;
}
