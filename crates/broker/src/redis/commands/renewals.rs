//! Which topics had their times to live renewed lately.
//!
//! A renewal costs Redis as much as a fifth of a publication. Once in [`INTERVAL`] per topic and node is enough,
//! because every time to live is set that much longer. The table may forget, and then renews too often; it never claims
//! a renewal that was not sent.

use std::cell::RefCell;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Times to live are renewed once in this time, and set longer by it.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// Topics that are remembered. 512 KiB; a power of two.
const SLOTS: usize = 1 << 16;

/// Low bits of a slot that hold the number of the interval: enough for five years. The others hold the topic.
const INTERVAL_MASK: u64 = (1 << 24) - 1;

#[derive(Debug)]
pub(super) struct Renewals {
    hasher: ahash::RandomState,
    began: Instant,
    /// Part of every hash, so that raising it forgets everything.
    generation: AtomicU64,
    slots: Box<[AtomicU64]>,
}

impl Renewals {
    pub(super) fn new() -> Self {
        Self {
            hasher: ahash::RandomState::new(),
            began: Instant::now(),
            generation: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Before asking what is due.
    pub(super) fn promise(&self) -> Promise<'_> {
        Promise { renewals: self, now: Instant::now(), marks: RefCell::default() }
    }

    /// The slot and its mark if it is due.
    fn mark(&self, what: impl Hash, now: Instant) -> Option<(usize, u64)> {
        let generation = self.generation.load(Ordering::Relaxed);
        let hash = self.hasher.hash_one((generation, what));
        let interval = now.saturating_duration_since(self.began).as_secs() / INTERVAL.as_secs();
        // Never 0, which an unused slot holds.
        let mark = (hash & !INTERVAL_MASK) | (interval + 1).min(INTERVAL_MASK);
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash do")]
        let slot = hash as usize % SLOTS;
        (self.slots[slot].swap(mark, Ordering::Relaxed) != mark).then_some((slot, mark))
    }

    /// Redis may be another one, or have gone back in time.
    pub(super) fn forget(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

/// A caller who asks what is due promises to renew it: the next callers are told that it is done. What was asked under a
/// promise that is not kept is due again.
#[derive(Debug)]
pub(super) struct Promise<'a> {
    renewals: &'a Renewals,
    now: Instant,
    marks: RefCell<Vec<(usize, u64)>>,
}

impl Promise<'_> {
    /// Is it time to renew this?
    pub(super) fn is_due(&self, what: impl Hash) -> bool {
        let mark = self.renewals.mark(what, self.now);
        self.marks.borrow_mut().extend(mark);
        mark.is_some()
    }

    /// All that was due has been renewed.
    pub(super) fn keep(self) {
        self.marks.take();
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        for (slot, mark) in self.marks.take() {
            // If another caller has marked it since, that is his promise.
            let _other = self.renewals.slots[slot].compare_exchange(
                mark,
                0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_per_interval_and_thing() {
        let renewals = Renewals::new();
        let start = renewals.began;
        let due =
            |what, seconds| renewals.mark(what, start + Duration::from_secs(seconds)).is_some();
        assert!(due("a", 0));
        assert!(!due("a", 0));
        assert!(!due("a", 9));
        assert!(due("b", 9));
        assert!(due("a", 10));
        assert!(!due("a", 19));
        assert!(due("a", 1 << 20));
        let promise = renewals.promise();
        assert!(promise.is_due("c") && !promise.is_due("c"));
        promise.keep();
        assert!(!renewals.promise().is_due("c"), "kept");
        assert!(renewals.promise().is_due("d"));
        assert!(renewals.promise().is_due("d"), "not kept");
        assert!(!renewals.promise().is_due("c"), "another's promise");
        renewals.forget();
        assert!(renewals.promise().is_due("c"));
    }
}
