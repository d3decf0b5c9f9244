//! What publishers have sent, so that the verdict holds across failovers.
//!
//! The oracle judges one epoch at a time. A broker that loses its state makes three things lawful that are not within
//! one epoch: a publication whose publisher never heard of it arrives, a publication is seen again at its offset in the
//! epoch that follows, and one that was sent again gets a second place there. The ledger says which those are, and
//! judges what remains: nothing arrives that was not sent to that topic, and within one epoch no payload comes twice
//! and none comes before an earlier one of the same publisher.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::oracle::{Oracle, Place};

/// The number of a payload: by whom, and the how manieth of his.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) publisher: usize,
    pub(crate) number: u64,
}

/// All payloads and all their places.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    topics: HashMap<String, Entries>,
    findings: Vec<String>,
}

#[derive(Debug, Default)]
struct Entries {
    sent: HashMap<Box<str>, (Sent, Instant)>,
    /// By epoch and offset; the first payload that was seen there.
    places: HashMap<String, BTreeMap<u64, Box<str>>>,
}

impl Ledger {
    /// A publisher is about to send a payload, which is like no other.
    pub(crate) fn sends(&mut self, topic: &str, payload: &str, sent: Sent) {
        let entries = self.topics.entry(topic.to_owned()).or_default();
        entries.sent.insert(payload.into(), (sent, Instant::now()));
    }

    /// It is about to send it once more: its age counts from here.
    pub(crate) fn sends_again(&mut self, topic: &str, payload: &str) {
        let entries = self.topics.get_mut(topic);
        if let Some((_, sent)) = entries.and_then(|entries| entries.sent.get_mut(payload)) {
            *sent = Instant::now();
        }
    }

    /// A publisher or a subscriber has seen a payload at a place. Returns its age.
    pub(crate) fn sees(&mut self, topic: &str, place: &Place, payload: &str) -> Option<Duration> {
        let entries = self.topics.entry(topic.to_owned()).or_default();
        let Some((_, sent)) = entries.sent.get(payload) else {
            self.findings.push(format!("{topic} {place}: nobody has sent {payload}"));
            return None;
        };
        let age = sent.elapsed();
        if !entries.places.contains_key(&place.epoch) {
            entries.places.insert(place.epoch.clone(), BTreeMap::new());
        }
        let epoch = entries.places.get_mut(&place.epoch).expect("just made");
        epoch.entry(place.offset).or_insert_with(|| payload.into());
        Some(age)
    }

    /// Tells the oracle of everything that was published, answered or not, and returns what is wrong.
    pub(crate) fn close(mut self, oracle: &mut Oracle) -> Vec<String> {
        let topics = std::mem::take(&mut self.topics);
        for (topic, entries) in &topics {
            for (epoch, places) in &entries.places {
                self.judge(topic, epoch, places, &entries.sent);
                for (offset, payload) in places {
                    let place = Place { epoch: epoch.clone(), offset: *offset };
                    oracle.published(topic, &place, payload);
                }
            }
        }
        self.findings
    }

    fn judge(
        &mut self,
        topic: &str,
        epoch: &str,
        places: &BTreeMap<u64, Box<str>>,
        sent: &HashMap<Box<str>, (Sent, Instant)>,
    ) {
        let mut last: HashMap<usize, (u64, u64)> = HashMap::new();
        for (offset, payload) in places {
            let (Sent { publisher, number }, _) = sent[payload];
            let before = last.insert(publisher, (number, *offset));
            let Some((earlier, place)) = before.filter(|(earlier, _)| *earlier >= number) else {
                continue;
            };
            let what = if earlier == number { "the same as" } else { "older than" };
            self.findings
                .push(format!("{topic} {epoch}:{offset}: {payload} is {what} that at {place}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, Sent};
    use crate::oracle::{Oracle, Place};

    /// What is found when payloads `n1`, `n2` and so on of one publisher are seen at these places.
    fn findings(seen: &[(&str, u64, &str)]) -> Vec<String> {
        let mut ledger = Ledger::default();
        (1..=3).for_each(|number| {
            ledger.sends("t", &format!("n{number}"), Sent { publisher: 0, number });
        });
        for (epoch, offset, payload) in seen {
            ledger.sees("t", &Place { epoch: (*epoch).to_owned(), offset: *offset }, payload);
        }
        ledger.close(&mut Oracle::default())
    }

    #[test]
    fn what_a_failover_may_do_is_found_good() {
        assert_eq!(findings(&[("e", 1, "n1"), ("e", 2, "n2"), ("e", 2, "n2")]), [""; 0]);
        // Seen again in the next epoch; sent again there, because nobody knew.
        assert_eq!(findings(&[("e", 2, "n1"), ("f", 2, "n1"), ("f", 3, "n2")]), [""; 0]);
    }

    #[test]
    fn what_nothing_excuses_is_found() {
        let found = |seen| findings(seen).concat();
        assert!(found(&[("e", 1, "forged")]).contains("nobody has sent forged"));
        assert!(found(&[("e", 1, "n1"), ("e", 2, "n1")]).contains("the same as"));
        assert!(found(&[("e", 1, "n2"), ("e", 2, "n1")]).contains("older than"));
    }
}
