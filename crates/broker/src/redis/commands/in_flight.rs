//! The bound on bytes that were sent and not yet answered.
//!
//! A caller who gives up does not take back what he sent: it waits in the buffers of the connection until it is written
//! or the connection is closed. So the bytes of an abandoned request stay counted until a request that was sent later
//! is answered, because Redis answers in order. Probes are answered too, so that this comes to pass also when there is no
//! room for another request.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Counts bytes in flight, and makes callers wait for room.
#[derive(Debug)]
pub(super) struct InFlight {
    bytes_max: usize,
    room: Semaphore,
    /// Requests so far.
    requests: AtomicU64,
    /// What callers gave up on, as numbers of requests with their bytes.
    abandoned: Mutex<Vec<(u64, u32)>>,
}

impl InFlight {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            room: Semaphore::new(bytes_max),
            requests: AtomicU64::new(0),
            abandoned: Mutex::default(),
        }
    }

    /// Waits for room for a request. One that is larger than the bound waits until it is alone.
    pub(super) async fn admit(&self, bytes: usize) -> Ticket<'_> {
        let bytes = u32::try_from(bytes.min(self.bytes_max)).unwrap_or(u32::MAX);
        if let Ok(permit) = self.room.acquire_many(bytes).await {
            permit.forget();
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        Ticket { owner: self, number, bytes, settled: false }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.room.available_permits())
    }

    /// The connection is closed, and its buffers are gone.
    pub(super) fn forget_abandoned(&self) {
        self.release_before(u64::MAX);
    }

    /// All requests so far have smaller numbers.
    pub(super) fn mark(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests with smaller numbers that were given up are over.
    pub(super) fn release_before(&self, number: u64) {
        let mut released = 0;
        self.abandoned.lock().retain(|(abandoned, bytes)| {
            let is_gone = *abandoned < number;
            released += if is_gone { *bytes as usize } else { 0 };
            !is_gone
        });
        self.room.add_permits(released);
    }
}

/// The room that one request takes.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    owner: &'a InFlight,
    number: u64,
    bytes: u32,
    settled: bool,
}

impl Ticket<'_> {
    /// The request was answered, or not sent at all.
    pub(super) fn settle(mut self, answered: bool) {
        self.settled = true;
        self.owner.room.add_permits(self.bytes as usize);
        if answered {
            self.owner.release_before(self.number);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.owner.abandoned.lock().push((self.number, self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn admit(in_flight: &InFlight, bytes: usize) -> Option<Ticket<'_>> {
        let future = std::pin::pin!(in_flight.admit(bytes));
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ticket) => Some(ticket),
            Poll::Pending => None,
        }
    }

    #[test]
    fn room_comes_back_with_the_answer() {
        let in_flight = InFlight::new(100);
        let ticket = admit(&in_flight, 60).unwrap();
        assert_eq!(in_flight.bytes(), 60);
        assert!(admit(&in_flight, 41).is_none());
        admit(&in_flight, 40).unwrap().settle(false);
        ticket.settle(true);
        assert_eq!(in_flight.bytes(), 0);
        admit(&in_flight, usize::MAX).unwrap().settle(true);
        assert_eq!(in_flight.bytes(), 0);
    }

    #[test]
    fn what_was_given_up_counts_until_a_later_answer() {
        let in_flight = InFlight::new(100);
        let earlier = admit(&in_flight, 1).unwrap();
        drop(admit(&in_flight, 50));
        earlier.settle(true);
        assert_eq!(in_flight.bytes(), 50);
        admit(&in_flight, 1).unwrap().settle(false);
        assert_eq!(in_flight.bytes(), 50, "what was not sent proves nothing");
        admit(&in_flight, 1).unwrap().settle(true);
        assert_eq!(in_flight.bytes(), 0);
        drop(admit(&in_flight, 70));
        in_flight.forget_abandoned();
        assert_eq!(in_flight.bytes(), 0);
    }
}
