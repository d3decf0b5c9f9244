//! Timers of one worker: a hashed wheel of one-millisecond slots (Varghese and Lauck, 1987, scheme 6).

/// Slots of the wheel; a timer further away than this many milliseconds is looked at once per revolution.
const SLOTS: usize = 1024;
const WORDS: usize = SLOTS / 64;

/// A set of timers that are due at a millisecond. Adding and firing take constant time; there is no removal: owners
/// check on firing whether the timer still means anything.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Vec<Vec<(u64, T)>>,
    /// One bit per slot that is not empty.
    occupied: [u64; WORDS],
    /// Everything due at or before this millisecond has fired.
    now: u64,
    len: usize,
}

impl<T: Copy> Wheel<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; WORDS],
            now: 0,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a timer; one that is due already fires at the next [`Wheel::advance`] to a later millisecond.
    pub(crate) fn add(&mut self, due: u64, timer: T) {
        let due = due.max(self.now + 1);
        let slot = slot_of(due);
        self.slots[slot].push((due, timer));
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
    }

    /// When to call [`Wheel::advance`] next: never later than the earliest timer, at times earlier.
    pub(crate) fn next_due(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        // The first occupied slot after `now`. Its timers may belong to a later revolution, which costs one idle turn.
        (1..=SLOTS as u64).map(|ahead| self.now + ahead).find(|at| {
            let slot = slot_of(*at);
            self.occupied[slot / 64] & (1 << (slot % 64)) != 0
        })
    }

    /// Moves the time on and appends the timers that are due to `fired`.
    pub(crate) fn advance(&mut self, now: u64, fired: &mut Vec<T>) {
        // After a long pause each slot needs one look only.
        let steps = now.saturating_sub(self.now).min(SLOTS as u64);
        for at in (now + 1 - steps)..=now {
            let slot = slot_of(at);
            if self.occupied[slot / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            let before = self.slots[slot].len();
            self.slots[slot].retain(|(due, timer)| {
                let is_due = *due <= now;
                if is_due {
                    fired.push(*timer);
                }
                !is_due
            });
            self.len -= before - self.slots[slot].len();
            if self.slots[slot].is_empty() {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
        self.now = self.now.max(now);
    }

    /// Removes every timer that `keep` does not want.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.len = 0;
        for (slot, timers) in self.slots.iter_mut().enumerate() {
            timers.retain(|(_, timer)| keep(timer));
            self.len += timers.len();
            if timers.is_empty() {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the remainder is below SLOTS")]
fn slot_of(at: u64) -> usize {
    (at % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a sorted list: every timer fires once, never early, and at the first advance at or after its time.
        #[test]
        fn timers_fire_once_and_on_time(
            dues in prop::collection::vec(1u64..5_000, 0..50),
            steps in prop::collection::vec(1u64..3_000, 1..20),
        ) {
            let mut wheel = Wheel::new();
            for (index, due) in dues.iter().enumerate() {
                wheel.add(*due, index);
            }
            let (mut now, mut fired_before) = (0, vec![false; dues.len()]);
            for step in steps {
                if let Some(due) = wheel.next_due() {
                    let earliest = dues.iter().zip(&fired_before).filter(|(_, f)| !**f).map(|(d, _)| *d).min();
                    prop_assert!(Some(due) <= earliest);
                }
                now += step;
                let mut fired = Vec::new();
                wheel.advance(now, &mut fired);
                for index in fired {
                    prop_assert!(!fired_before[index] && dues[index] <= now);
                    fired_before[index] = true;
                }
                for (index, due) in dues.iter().enumerate() {
                    prop_assert_eq!(fired_before[index], *due <= now);
                }
            }
            prop_assert_eq!(wheel.len(), fired_before.iter().filter(|f| !**f).count());
        }
    }
}
