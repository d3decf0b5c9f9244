//! The script call that a node makes for one request, taken down so that `redis-benchmark` can repeat it.
//!
//! The node is a black box, so what it asks of Redis is not known here but listened to: the very script, with its
//! arguments, payload and key names. Only the topics are replaced, by the number that the benchmark draws for each.

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt as _;

use memchr::memmem;

use super::cluster::Cluster;
use super::redis::{Monitored, Redis};
use super::requests::Requests;
use crate::error::LoadError;

/// What `redis-benchmark` replaces by a random number.
const RANDOM: &[u8; 12] = b"__rand_int__";
/// Publications of each topic before the call is taken: the first ones do more, such as setting a time to live.
const PRACTICE: usize = 5;

/// A script call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    words: Vec<Vec<u8>>,
    /// Publications that it makes.
    pub(super) publications: u64,
}

impl Call {
    /// Publishes some requests at the first node, one after another, and takes down the last script call.
    pub(super) fn record(cluster: &Cluster, requests: &Requests) -> Result<Self, LoadError> {
        let mut control = cluster.redis()?;
        let mut monitor = cluster.redis()?;
        monitor.ask(&["MONITOR"])?;
        for _ in 0..PRACTICE {
            cluster.publish(requests.longest())?;
        }
        // Everything before this marker has been executed, and nothing after it belongs here.
        let marker = "tickcast-load has seen enough";
        control.ask(&["ECHO", marker])?;
        let calls = script_calls(&mut monitor, marker, requests.prefix())?;
        let publications = requests.publications();
        if calls.len() != PRACTICE {
            return Err(LoadError::Server {
                place: "the script calls of a node".to_owned(),
                problem: format!("{} for {PRACTICE} requests of {publications}", calls.len()),
                fix: "choose a --batch that a node makes one script call of",
            });
        }
        let words = calls.into_iter().next_back().map(|call| call.words).unwrap_or_default();
        Ok(Self { words, publications })
    }

    /// The words of the call, with a random number in place of each topic that begins with `prefix`.
    pub(super) fn words<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = OsString> + 'a {
        let randomizer = Randomizer::new(&self.words, prefix);
        self.words.iter().map(move |word| OsString::from_vec(randomizer.apply(word)))
    }
}

/// The calls of a publishing script up to the marker: those that name a topic of this run.
fn script_calls(
    monitor: &mut Redis,
    marker: &str,
    prefix: &[u8],
) -> Result<Vec<Monitored>, LoadError> {
    let mut calls = Vec::new();
    loop {
        let seen = monitor.next_monitored()?;
        if seen.words.get(1).is_some_and(|word| word == marker.as_bytes()) {
            return Ok(calls);
        }
        let names_topic = || seen.words.iter().any(|word| memmem::find(word, prefix).is_some());
        if seen.is("EVALSHA") && !seen.by_script && names_topic() {
            calls.push(seen);
        }
    }
}

/// Makes the names of one call draw from the same topics: `redis-benchmark` must not have other keys for each place.
#[derive(Debug, PartialEq, Eq)]
struct Randomizer<'a> {
    prefix: &'a [u8],
    /// The hash tag for all names, since that of a drawn topic is not known. On a single Redis it does not matter.
    tag: Option<&'a [u8]>,
    /// Bytes of the prefix that stay before the random number, so that names are as long as the longest.
    front: usize,
}

impl<'a> Randomizer<'a> {
    fn new(words: &'a [Vec<u8>], prefix: &'a [u8]) -> Self {
        let named = || words.iter().filter_map(|word| Some((word, memmem::find(word, prefix)?)));
        let digits = named().map(|(word, at)| leading_digits(&word[at + prefix.len()..]));
        let longest = prefix.len() + digits.max().unwrap_or(0);
        Self {
            prefix,
            tag: named().find_map(|(word, at)| Some(&word[hash_tag(&word[..at])?])),
            front: longest.saturating_sub(RANDOM.len()).min(prefix.len()),
        }
    }

    /// The word with a random number in place of each topic.
    fn apply(&self, word: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = word;
        while let Some(at) = memmem::find(rest, self.prefix) {
            let (before, topic) = rest.split_at(at);
            match (hash_tag(before), self.tag) {
                (Some(own), Some(tag)) => {
                    out.extend_from_slice(&before[..own.start]);
                    out.extend_from_slice(tag);
                    out.extend_from_slice(&before[own.end..]);
                }
                _ => out.extend_from_slice(before),
            }
            out.extend_from_slice(&self.prefix[..self.front]);
            out.extend_from_slice(RANDOM);
            let behind = &topic[self.prefix.len()..];
            rest = &behind[leading_digits(behind)..];
        }
        out.extend_from_slice(rest);
        out
    }
}

/// Where the hash tag of a name is, between its first braces.
fn hash_tag(name: &[u8]) -> Option<Range<usize>> {
    let start = memchr::memchr(b'{', name)? + 1;
    Some(start..start + memchr::memchr(b'}', &name[start..])?)
}

fn leading_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn all_topics_of_a_call_are_drawn_from_the_same() {
        let call = words(&[
            "EVALSHA",
            "t:{zz}:t:publish-load.417",
            "t:{3p}:t:publish-load.7",
            "t:{3p}:c:publish-load.7",
            "{\"at\":1}\n",
            "",
        ]);
        let randomizer = Randomizer::new(&call, b"publish-load.");
        let changed: Vec<_> = call.iter().map(|word| randomizer.apply(word)).collect();
        let expected = words(&[
            "EVALSHA",
            "t:{zz}:t:publ__rand_int__",
            "t:{zz}:t:publ__rand_int__",
            "t:{zz}:c:publ__rand_int__",
            "{\"at\":1}\n",
            "",
        ]);
        assert_eq!(changed, expected);
        assert_eq!(changed[1].len(), call[1].len());
    }

    #[test]
    fn names_without_a_tag_and_several_in_one_word_are_replaced() {
        let call = words(&["a.1 a.12", "x"]);
        let randomizer = Randomizer::new(&call, b"a.");
        assert_eq!(randomizer.apply(&call[0]), b"__rand_int__ __rand_int__");
        assert_eq!(randomizer.apply(b"x"), b"x");
        assert_eq!(randomizer, Randomizer { prefix: b"a.", tag: None, front: 0 });
    }
}
