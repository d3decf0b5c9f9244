//! Keys: who may publish, subscribe and administer, over every transport.

mod admin;
mod command_line;
mod http;
mod reload;
mod socket;

use tickcast::config::{
    AccessKey, Config, KeyHash, KeyName, Right, SubscribeRule, TopicOptions, TopicPattern,
};

use crate::harness::Node;

/// May publish to `stocks.*` and `closed.*`.
const FEED: &str = "tck_feedAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// May subscribe to `closed.*`.
const VIEW: &str = "tck_viewAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// May administer.
const OPS: &str = "tck_opsAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// May publish two publications per second, to any topic.
const SLOW: &str = "tck_slowAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Nobody's.
const WRONG: &str = "tck_wrongAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The line of a request that presents a key.
fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn key(name: &str, text: &str, right: Right, topics: &[&str]) -> AccessKey {
    AccessKey {
        name: KeyName::new(name).unwrap(),
        hash: KeyHash::of(text),
        rights: [right].into_iter().collect(),
        topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        rate: 0,
    }
}

/// The keys above, and `closed.*` closed.
fn guard(config: &mut Config) {
    config.access.keys = vec![
        key("feed", FEED, Right::Publish, &["stocks.*", "closed.*"]),
        key("view", VIEW, Right::Subscribe, &["closed.*"]),
        key("ops", OPS, Right::Admin, &["*"]),
        AccessKey { rate: 2, ..key("slow", SLOW, Right::Publish, &["*"]) },
    ];
    let options = TopicOptions { subscribe: SubscribeRule::Closed, ..config.topics.defaults };
    config.topics.patterns = vec![TopicPattern { matches: "closed.*".to_owned(), options }];
}

/// A node with those.
async fn guarded() -> Node {
    Node::with(guard).await
}

/// How often a reason was counted.
async fn failures(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("tickcast_auth_failures_total{{reason=\"{reason}\"}}")).await
}
