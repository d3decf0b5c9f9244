//! The feed as lines of `{"topic":…,"data":…}`, each read when it is due: what `tickcast pub --demo` publishes.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::Feed;

/// A reader that is later than this goes on from now: after an outage the missed updates of a demo are worth nothing.
const LATENESS_MAX: Duration = Duration::from_secs(1);

/// A feed that is read in real time. It has no end, and reading it blocks until the next update.
#[derive(Debug)]
pub struct Lines {
    feed: Feed,
    due: Instant,
    /// What was due and has not been read.
    text: Vec<u8>,
    read: usize,
}

impl Lines {
    /// Begins now.
    pub fn new(feed: Feed) -> Self {
        Self { feed, due: Instant::now(), text: Vec::new(), read: 0 }
    }

    /// Waits for the next updates and writes them down.
    fn fill(&mut self) {
        self.text.clear();
        self.read = 0;
        // The feed has no end; if it had one, this would be the end of the input.
        let Some((delay, updates)) = self.feed.next() else { return };
        self.due = next_due(self.due, delay, Instant::now());
        loop {
            let left = self.due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Whoever else wakes this thread does not make it read early.
            std::thread::park_timeout(left);
        }
        for (topic, payload) in updates {
            // Topics of the feed are plain words, and payloads are JSON.
            let line = format!("{{\"topic\":\"{topic}\",\"data\":{payload}}}\n");
            self.text.extend_from_slice(line.as_bytes());
        }
    }
}

/// When what comes `delay` after `before` is due, as seen from `now`.
fn next_due(before: Instant, delay: Duration, now: Instant) -> Instant {
    let due = before + delay;
    if due + LATENESS_MAX < now { now } else { due }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.text.len() {
            self.fill();
        }
        let rest = &self.text[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    #[test]
    fn lines_are_the_updates_of_the_feed() {
        let updates = Feed::new(4).flat_map(|(_, updates)| updates).take(70);
        let expected =
            updates.map(|(topic, payload)| format!(r#"{{"topic":"{topic}","data":{payload}}}"#));
        let lines = BufReader::new(Lines::new(Feed::new(4))).lines().map(Result::unwrap);
        assert!(lines.take(70).eq(expected), "62 at once and a few that are waited for");
    }

    #[test]
    fn a_little_lateness_is_caught_up_and_much_is_not() {
        let start = Instant::now();
        let [tick, late, lost] = [10, 500, 5_000].map(Duration::from_millis);
        assert_eq!(next_due(start, tick, start), start + tick);
        assert_eq!(next_due(start, tick, start + late), start + tick);
        assert_eq!(next_due(start, tick, start + lost), start + lost);
    }
}
