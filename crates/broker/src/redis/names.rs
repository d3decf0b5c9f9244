//! What keys and channels are called.
//!
//! A topic belongs to one of 256 partitions, and every name of the topic carries the hash tag of its partition. In a
//! Redis Cluster all keys and the channel of a topic are therefore on one node, and so are all topics of a partition,
//! which is what lets one script touch several of them. The same names serve a single Redis.

use tickcast_protocol::Topic;

/// Never to be changed: the names of everything that is stored depend on it.
const PARTITIONS: usize = 256;

/// Hash slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// All tags have this length, so that a topic begins at a fixed place in the names of its keys and channel.
const TAG_BYTES: usize = 2;

/// For each partition a text whose hash slot lies in that partition's 256th of all slots, so that the partitions are
/// spread evenly over the nodes of a cluster.
const TAGS: [[u8; TAG_BYTES]; PARTITIONS] = tags();

const CRC16: [u16; 256] = crc16_table();

/// Makes the names.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
    /// Where a topic begins in the name of its channel.
    topic_at: usize,
}

impl Names {
    /// Names that begin with `prefix`. It must hold no braces: they would be taken for the hash tag.
    pub(crate) fn new(prefix: &str) -> Self {
        let topic_at = prefix.len() + ":{".len() + TAG_BYTES + "}:c:".len();
        Self { prefix: prefix.to_owned(), topic_at }
    }

    /// The hash with the topic's epoch, offset and last value.
    pub(crate) fn topic(&self, topic: &Topic) -> String {
        self.name('t', topic.as_str(), "")
    }

    /// The list with the topic's history.
    pub(crate) fn history(&self, topic: &Topic) -> String {
        self.name('h', topic.as_str(), "")
    }

    /// The string with the answer to what was published to the topic under an idempotency key.
    pub(crate) fn answer(&self, topic: &Topic, key: &str) -> String {
        self.name('i', topic.as_str(), key)
    }

    /// The channel on which the topic's publications travel.
    pub(crate) fn channel(&self, topic: &Topic) -> String {
        self.name('c', topic.as_str(), "")
    }

    /// The channel of one node, for what only this node wants to hear.
    pub(crate) fn node_channel(&self, node: &str) -> String {
        format!("{}:node:{node}", self.prefix)
    }

    /// The hash that a node's probes write to. The `$` keeps it apart from every topic.
    pub(crate) fn node_topic(&self, node: &str) -> String {
        self.name('t', &format!("$node.{node}"), "")
    }

    /// Which topic's channel this is, unless it is something else. Called for every message received.
    pub(crate) fn topic_of<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        let (head, topic) = channel.split_at_checked(self.topic_at)?;
        let rest = head.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":{")?;
        if topic.is_empty() || rest.get(TAG_BYTES..)? != b"}:c:" {
            return None;
        }
        std::str::from_utf8(topic).ok()
    }

    /// `#` is not in the alphabet of topics, so no topic and key make the same name as another topic and key.
    fn name(&self, kind: char, topic: &str, key: &str) -> String {
        let mut name = String::with_capacity(self.topic_at + topic.len() + 1 + key.len());
        name.push_str(&self.prefix);
        name.push_str(":{");
        name.extend(TAGS[partition(topic)].map(char::from));
        name.push_str("}:");
        name.push(kind);
        name.push(':');
        name.push_str(topic);
        if !key.is_empty() {
            name.push('#');
            name.push_str(key);
        }
        name
    }
}

fn partition(topic: &str) -> usize {
    usize::from(crc16(topic.as_bytes())) % PARTITIONS
}

/// CRC-16/XMODEM, by which a Redis Cluster maps keys to slots.
const fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut at = 0;
    while at < bytes.len() {
        crc = (crc << 8) ^ CRC16[((crc >> 8) ^ bytes[at] as u16) as usize];
        at += 1;
    }
    crc
}

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// Takes for each partition the first text of two digits in base 36 that belongs there.
const fn tags() -> [[u8; TAG_BYTES]; PARTITIONS] {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut tags = [[0; TAG_BYTES]; PARTITIONS];
    let mut number = 0;
    while number < DIGITS.len() * DIGITS.len() {
        let tag = [DIGITS[number / DIGITS.len()], DIGITS[number % DIGITS.len()]];
        let partition = crc16(&tag) as usize % SLOTS / (SLOTS / PARTITIONS);
        if tags[partition][0] == 0 {
            tags[partition] = tag;
        }
        number += 1;
    }
    tags
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn slot(tag: [u8; TAG_BYTES]) -> usize {
        usize::from(crc16(&tag)) % SLOTS
    }

    #[test]
    fn the_check_value_of_the_crc() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn tags_spread_evenly_over_the_slots() {
        for (partition, &tag) in TAGS.iter().enumerate() {
            assert_eq!(slot(tag) / 64, partition, "{tag:?}");
        }
        assert_eq!(TAGS.iter().collect::<HashSet<_>>().len(), PARTITIONS);
    }

    #[test]
    fn tags_never_change() {
        let pinned = [(0, b"cv"), (1, b"14"), (2, b"6y"), (100, b"1y"), (200, b"7u"), (255, b"fv")];
        for (partition, tag) in pinned {
            assert_eq!(&TAGS[partition], tag, "{partition}");
        }
    }

    #[test]
    fn names_never_change() {
        let names = Names::new("tickcast");
        let aapl = topic("stocks.AAPL");
        assert_eq!(names.topic(&aapl), "tickcast:{2t}:t:stocks.AAPL");
        assert_eq!(names.history(&aapl), "tickcast:{2t}:h:stocks.AAPL");
        assert_eq!(names.channel(&aapl), "tickcast:{2t}:c:stocks.AAPL");
        assert_eq!(names.answer(&aapl, "order-1"), "tickcast:{2t}:i:stocks.AAPL#order-1");
        assert_eq!(names.topic(&topic("a")), "tickcast:{6s}:t:a");
        assert_eq!(Names::new("x:y").channel(&topic("nba.LAL-BOS")), "x:y:{1t}:c:nba.LAL-BOS");
        assert_eq!(names.node_channel("k3f9"), "tickcast:node:k3f9");
        assert_eq!(names.node_topic("k3f9"), "tickcast:{18}:t:$node.k3f9");
    }

    #[test]
    fn a_channel_leads_back_to_its_topic() {
        for prefix in ["tickcast", "", "a:b"] {
            let names = Names::new(prefix);
            for name in ["a", "stocks.AAPL", "a/b@c=d:e_f", &"t".repeat(200)] {
                let channel = names.channel(&topic(name));
                assert_eq!(names.topic_of(channel.as_bytes()), Some(name));
            }
        }
    }

    #[test]
    fn other_channels_lead_nowhere() {
        let names = Names::new("tickcast");
        let foreign: [&[u8]; 9] = [
            b"",
            b"tickcast",
            b"tickcast:node:k3f9",
            b"tickcast:{2t}:t:stocks.AAPL",
            b"tickcast:{2t}:c:",
            b"tickcasu:{2t}:c:stocks.AAPL",
            b"tickcast:{2t}xc:stocks.AAPL",
            b"tickcast:{2t}:c:\xff",
            b"other:{2t}:c:stocks.AAPL",
        ];
        for channel in foreign {
            assert_eq!(names.topic_of(channel), None, "{channel:?}");
        }
    }

    #[test]
    fn no_two_things_share_a_name() {
        let names = Names::new("tickcast");
        let mut seen = HashSet::new();
        for name in ["a", "b", "a:b", "a:b:c", "t:a", "h:a", "i:a", "c:a"] {
            let topic = topic(name);
            assert!(seen.insert(names.topic(&topic)));
            assert!(seen.insert(names.history(&topic)));
            assert!(seen.insert(names.channel(&topic)));
            for key in ["a", "b", "a:b", "#", "a#b", "b#a", "}:i:a", "{x}"] {
                assert!(seen.insert(names.answer(&topic, key)), "{name} {key}");
            }
        }
    }
}
