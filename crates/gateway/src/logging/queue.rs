//! The bounded queue between threads that log and the thread that writes.

use std::io::Write;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Room that the two buffers keep when they are empty.
const BYTES_KEPT: usize = 64 * 1024;

/// Lines that wait to be written, one behind the other in one buffer.
///
/// The writer takes the whole buffer at once and gives an empty one in its place, so a line costs no allocation and the
/// lock is held for the copy of a line or for a swap, never while something is written.
#[derive(Debug)]
pub(super) struct Queue {
    lines_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
    /// Notified when the queue stops being empty, and when it is closed.
    filled: Condvar,
    /// Notified when the writer has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    lines: usize,
    /// Lines that were dropped or could not be written, since the start.
    dropped: u64,
    /// Of those, how many a line in the log has named.
    dropped_named: u64,
    is_closed: bool,
    has_ended: bool,
}

impl Queue {
    /// A queue of at most that many lines and bytes.
    pub(super) fn new(lines_max: usize, bytes_max: usize) -> Self {
        Self {
            lines_max,
            bytes_max,
            state: Mutex::default(),
            filled: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    /// Queues a line, or drops it if there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let has_room =
            state.lines < self.lines_max && state.bytes.len() + line.len() <= self.bytes_max;
        if !has_room || state.is_closed {
            state.dropped += 1;
            return;
        }
        state.bytes.extend_from_slice(line);
        state.lines += 1;
        let is_first = state.lines == 1;
        drop(state);
        if is_first {
            self.filled.notify_one();
        }
    }

    /// Lines that were dropped or could not be written, since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// Writes what is queued until the queue is closed and empty. `note` makes the line that names dropped ones.
    pub(super) fn write_to(&self, mut output: impl Write, note: impl Fn(u64) -> String) {
        let mut bytes = Vec::new();
        while let Some(taken) = self.take(&mut bytes) {
            // Lines are dropped while the queue is full, so the missing ones came after those in it.
            if taken.dropped > 0 {
                bytes.extend_from_slice(note(taken.dropped).as_bytes());
            }
            if output.write_all(&bytes).and_then(|()| output.flush()).is_err() {
                // Standard error is gone. Nobody can be told but the metrics.
                self.state.lock().dropped += taken.lines as u64;
            }
        }
        self.state.lock().has_ended = true;
        self.ended.notify_all();
    }

    /// Waits for lines and takes them all; none once the queue is closed and empty.
    fn take(&self, bytes: &mut Vec<u8>) -> Option<Taken> {
        bytes.clear();
        // A burst is rare; its memory is given back.
        bytes.shrink_to(BYTES_KEPT);
        let mut state = self.state.lock();
        while state.lines == 0 {
            if state.is_closed {
                return None;
            }
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.bytes, bytes);
        let dropped = state.dropped - state.dropped_named;
        state.dropped_named = state.dropped;
        Some(Taken { lines: std::mem::take(&mut state.lines), dropped })
    }

    /// Takes no more lines and waits until the others are written, but no longer than `timeout`.
    pub(super) fn close(&self, timeout: Duration) {
        let mut state = self.state.lock();
        state.is_closed = true;
        self.filled.notify_one();
        self.ended.wait_while_for(&mut state, |state| !state.has_ended, timeout);
    }
}

/// What the writer took.
struct Taken {
    lines: usize,
    /// Lines that were dropped since the last time.
    dropped: u64,
}
