//! Publications of one topic that came while its state was being read.

use std::collections::VecDeque;
use std::sync::Arc;

use tickcast_protocol::{Epoch, Publication};

/// At most so many publications, and so many bytes of them, wait per topic. Beyond either they are dropped, and the next
/// read, which is newer than they are, covers them.
const PUBLICATIONS_MAX: usize = 1024;
const BYTES_MAX: usize = 1 << 20;

/// A bounded queue. Some of it may be older than the read that is open.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Arc<Publication>>,
    bytes: usize,
    /// The first of them that the open read will know of: they came before it was asked for.
    known: usize,
}

impl Pending {
    pub(super) fn push(&mut self, publication: Arc<Publication>) {
        if self.queue.len() >= PUBLICATIONS_MAX || self.bytes >= BYTES_MAX {
            self.clear();
        }
        self.bytes += publication.cost();
        self.queue.push_back(publication);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A read begins: it will know of everything that is here.
    pub(super) fn begin_read(&mut self) {
        self.known = self.queue.len();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Publication>> {
        self.queue.iter()
    }

    /// Drops what came before the first publication of this epoch, if there is one.
    pub(super) fn drop_before(&mut self, epoch: Epoch) {
        if let Some(first) = self.queue.iter().position(|came| came.epoch() == epoch) {
            for _ in 0..first {
                self.pop();
            }
        }
    }

    /// The oldest, and whether the read that has ended knew of it.
    pub(super) fn peek(&self) -> Option<(&Arc<Publication>, bool)> {
        self.queue.front().map(|publication| (publication, self.known > 0))
    }

    pub(super) fn pop(&mut self) -> Option<Arc<Publication>> {
        let publication = self.queue.pop_front()?;
        self.bytes -= publication.cost();
        self.known = self.known.saturating_sub(1);
        Some(publication)
    }
}
