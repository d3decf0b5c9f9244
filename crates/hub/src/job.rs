//! What the hub asks of the broker, and what comes back.

use std::sync::Arc;

use tickcast_protocol::{Position, Publication, Topic};

/// What the hub needs from the broker. At most one job of each kind is open per topic.
///
/// Whoever runs them ends one job of a topic before beginning the next one of that topic, so that an answer never comes
/// to a later life of the topic than it was asked for, and drops a job whose topic the hub no longer
/// [holds](crate::Hub::holds).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// A first subscriber came: subscribe, then read, then [`Hub::opened`](crate::Hub::opened).
    Open {
        /// The topic.
        topic: Topic,
    },
    /// A publication is missing or the epoch changed: read after this offset, then [`Hub::repaired`](crate::Hub::repaired).
    Repair {
        /// The topic.
        topic: Topic,
        /// The last offset that the log has.
        after: u64,
    },
    /// A client resumes from before the log: read the whole history, then [`Hub::history_loaded`](crate::Hub::history_loaded).
    History {
        /// The topic.
        topic: Topic,
    },
    /// A client has seen more than the log: read the position, then [`Hub::position_read`](crate::Hub::position_read).
    Position {
        /// The topic.
        topic: Topic,
    },
    /// The last subscriber went: after the grace period, [`Hub::close_if_idle`](crate::Hub::close_if_idle).
    Idle {
        /// The topic.
        topic: Topic,
    },
}

/// What a read of the broker brought.
#[derive(Debug, Clone)]
pub struct State {
    /// The topic's epoch and last offset.
    pub position: Position,
    /// The last value, if retained.
    pub value: Option<Arc<Publication>>,
    /// Retained publications, oldest first, as far as they were asked for.
    pub history: Vec<Arc<Publication>>,
    /// Whether `history` is everything that is retained.
    pub complete: bool,
}
