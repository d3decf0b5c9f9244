//! Topic options as a test sets them: defaults, and exceptions by name.

use std::collections::BTreeMap;
use std::time::Duration;

use tickcast_hub::{LogBounds, TopicOptions, TopicRules};
use tickcast_protocol::Mode;

/// Options by topic name.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) default: TopicOptions,
    pub(crate) exceptions: BTreeMap<String, TopicOptions>,
}

impl Default for Rules {
    fn default() -> Self {
        let log = LogBounds { publications: 1000, bytes: 1 << 20, age: Duration::from_secs(300) };
        let default = TopicOptions {
            mode: Mode::All,
            max_rate: None,
            flush_interval_ms: 0,
            keeps_value: true,
            log,
        };
        Self { default, exceptions: BTreeMap::new() }
    }
}

impl TopicRules for Rules {
    fn options(&self, topic: &str) -> TopicOptions {
        self.exceptions.get(topic).copied().unwrap_or(self.default)
    }
}
