//! A node's registry and fan-out: topic logs, subscriptions, cursors.
//!
//! Two halves. [`Hub`] is node-wide: it keeps one bounded [`TopicLog`] per topic that has subscribers here, takes in
//! publications ([`Hub::deliver`]), finds holes and hands everything on to the workers' [`Inbox`]es. [`Fanout`] belongs to
//! one worker: it mirrors the logs of the topics its connections hold, keeps a cursor per subscription, and says what
//! each connection should be sent next ([`Fanout::gather`], [`Fanout::commit`]).
//!
//! There is no message queue per connection. Live delivery, catching up after a full socket, rate limiting and resume
//! are one operation: read the log from the cursor. The crate sees no socket, no broker, no clock and no runtime.

#![forbid(unsafe_code)]

mod fanout;
mod hub;
mod inbox;
mod job;
mod log;
mod options;
mod wheel;

pub use fanout::{Committed, ConnectionId, Counters, Fanout, FanoutLimits, Gaps, Plan, Replies};
pub use hub::{Hub, HubLimits, HubStats};
pub use inbox::{Inbox, Item, LocalTopic};
pub use job::{Job, State};
pub use log::{Next, TopicLog};
pub use options::{LogBounds, TopicOptions, TopicRules};
