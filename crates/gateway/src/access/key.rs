//! A key: its rights, and how much may still be published with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tickcast_protocol::Topic;

use super::Denied;
use crate::config::access::pattern_matches;
use crate::config::{AccessKey, KeyHash, Right, Rights};

/// What every key begins with, so that people and scanners of leaked secrets know it for one.
const PREFIX: &str = "tck_";

/// Random bytes in a key, and the characters that they become.
pub(crate) const RANDOM_BYTES: usize = 32;
const RANDOM_CHARACTERS: usize = 43;

/// Writes random bytes as a key.
pub(crate) fn write_key(random: &[u8; RANDOM_BYTES]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut key = PREFIX.to_owned();
    for group in random.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        let digits = (0..=group.len()).map(|place| DIGITS[bits >> (18 - 6 * place) & 63]);
        key.extend(digits.map(char::from));
    }
    key
}

/// Whether a text has the form of a key: the prefix, and 256 bits in base64url.
pub(crate) fn is_key(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let random = text.strip_prefix(PREFIX).filter(|random| random.len() == RANDOM_CHARACTERS);
    random.is_some_and(|random| random.bytes().all(is_digit))
}

/// A key in force.
#[derive(Debug)]
pub(crate) struct Key {
    name: Box<str>,
    hash: KeyHash,
    rights: Rights,
    topics: Box<[String]>,
    /// Publications per second; 0 for no limit.
    rate: u64,
    /// Outlives the configuration that the key was read from, as the next one does.
    bucket: Arc<Bucket>,
    /// How often it was presented.
    uses: Arc<AtomicU64>,
}

impl Key {
    /// The key of these settings, which goes on where the one with its hash has got to.
    pub(super) fn new<'a>(
        settings: &AccessKey,
        previous: impl FnOnce(&KeyHash) -> Option<&'a Arc<Self>>,
    ) -> Self {
        let (bucket, uses) = previous(&settings.hash)
            .map(|key| (Arc::clone(&key.bucket), Arc::clone(&key.uses)))
            .unwrap_or_default();
        Self {
            name: settings.name.as_str().into(),
            hash: settings.hash,
            rights: settings.rights,
            topics: settings.topics.clone().into(),
            rate: settings.rate as u64,
            bucket,
            uses,
        }
    }

    /// It was presented.
    pub(super) fn count_use(&self) {
        self.uses.fetch_add(1, Relaxed);
    }

    /// How often it was presented since it is in force.
    pub(crate) fn uses(&self) -> u64 {
        self.uses.load(Relaxed)
    }

    /// What the log calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Publications per second; 0 for no limit.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// What is stored of it.
    pub(crate) fn hash(&self) -> &KeyHash {
        &self.hash
    }

    /// Whether it has the right, for this topic if the right is about topics.
    pub(super) fn may(&self, right: Right, topic: Option<&Topic>) -> bool {
        let has = |topic: &Topic| {
            self.topics.iter().any(|pattern| pattern_matches(pattern, topic.as_str()))
        };
        self.rights.has(right) && topic.is_none_or(has)
    }

    /// Lets so many publications through, or none of them.
    pub(crate) fn admit(&self, publications: usize) -> Result<(), Denied> {
        match self.rate {
            0 => Ok(()),
            rate => self.bucket.take(publications as u64, rate, self.bucket.started.elapsed()),
        }
    }
}

/// How much a key has published of late, as a debt of time: each publication costs a second divided by the rate, and
/// what is paid off is forgotten. One second's worth may be owed beside the next publication; a batch that begins
/// within it is let through whole.
#[derive(Debug)]
struct Bucket {
    started: Instant,
    /// When everything is paid off, in nanoseconds since the start.
    paid_at: AtomicU64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { started: Instant::now(), paid_at: AtomicU64::new(0) }
    }
}

const SECOND: u64 = 1_000_000_000;

impl Bucket {
    fn take(&self, publications: u64, rate: u64, now: Duration) -> Result<(), Denied> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        // The bound on the rate keeps it far above 0.
        let price = SECOND / rate;
        let mut wait = 0;
        let taken = self.paid_at.fetch_update(Relaxed, Relaxed, |paid_at| {
            let owed = paid_at.saturating_sub(now);
            wait = (owed + price).saturating_sub(SECOND);
            let debt = publications.saturating_mul(price);
            (wait == 0 || publications == 0).then(|| paid_at.max(now).saturating_add(debt))
        });
        let seconds = u32::try_from(wait.div_ceil(SECOND)).unwrap_or(u32::MAX);
        taken.map(drop).map_err(|_owed| Denied::RateLimited(seconds.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes from the bucket at a millisecond.
    fn take(bucket: &Bucket, publications: u64, rate: u64, at_ms: u64) -> Result<(), u32> {
        match bucket.take(publications, rate, Duration::from_millis(at_ms)) {
            Ok(()) => Ok(()),
            Err(Denied::RateLimited(seconds)) => Err(seconds),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_seconds_worth_may_come_at_once() {
        for rate in [1, 3, 10, 1000, 1_000_000] {
            let bucket = Bucket::default();
            for number in 0..rate {
                assert_eq!(take(&bucket, 1, rate, 5), Ok(()), "{number} of {rate}");
            }
            assert_eq!(take(&bucket, 1, rate, 5), Err(1), "{rate}");
            assert_eq!(take(&bucket, 1, rate, 5 + 1000 / rate + 1), Ok(()), "{rate}");
            assert_eq!(take(&bucket, 1, rate, 10_000), Ok(()), "{rate}");
        }
    }

    #[test]
    fn a_batch_is_let_through_whole_and_paid_for() {
        let bucket = Bucket::default();
        assert_eq!(take(&bucket, 35, 10, 0), Ok(()));
        // 3.5 seconds are owed; one may be, and the next publication costs a tenth.
        assert_eq!(take(&bucket, 1, 10, 0), Err(3));
        assert_eq!(take(&bucket, 1, 10, 1700), Err(1));
        assert_eq!(take(&bucket, 1, 10, 2599), Err(1));
        assert_eq!(take(&bucket, 1, 10, 2600), Ok(()));
        assert_eq!(take(&bucket, 1, 10, 2600), Err(1));
    }

    #[test]
    fn nothing_costs_nothing_and_is_always_let_through() {
        let bucket = Bucket::default();
        assert_eq!(take(&bucket, 50, 1, 0), Ok(()));
        assert_eq!(take(&bucket, 0, 1, 0), Ok(()));
        assert_eq!(take(&bucket, 1, 1, 0), Err(50));
    }

    #[test]
    fn random_bytes_become_a_key() {
        let check = |random: [u8; 32], expected: &str| {
            let key = write_key(&random);
            assert_eq!(key, format!("tck_{expected}"));
            assert!(is_key(&key));
        };
        check([0; 32], &"A".repeat(43));
        check([0xFF; 32], &format!("{}8", "_".repeat(42)));
        let counting = std::array::from_fn(|place| u8::try_from(place).unwrap());
        check(counting, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
    }

    #[test]
    fn what_has_the_form_of_a_key() {
        let key = format!("tck_{}", "aZ9-_".repeat(9))[..47].to_owned();
        assert!(is_key(&key));
        for bad in ["", "tck_", &key[..46], &format!("{key}a"), &key.replace('9', "+"), &key[4..]] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
