//! A panic while one connection is served ends that connection, and nothing else.
//!
//! Whatever a worker does for one connection goes through [`State::shield`]: reading and carrying out its commands,
//! writing to it, looking at its age. What all connections share is put in order after a panic; the hub's half of the
//! connection is detached, which asks nothing of the subscription that was in the middle of changing. What a worker does
//! for all connections at once (taking in the hub's items, firing timers) is not shielded: a panic there leaves nobody
//! to blame, and ends the node.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use tickcast_hub::{ConnectionId, Plan};

use super::core::State;
use crate::metrics::CloseReason;

/// What a panic says.
pub(super) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

/// Runs a future. If it panics, the result is what the panic says.
///
/// It comes pinned, because a future that is taken by value is held twice, and there is one per connection.
pub(super) async fn catch<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, String> {
    // A future that panicked is not polled again, so nobody sees what it left half done.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(message(&*panic).to_owned())),
    })
    .await
}

impl State {
    /// Does something for one connection; none if that panicked and the connection is gone.
    pub(super) fn shield<R>(
        &mut self,
        connection: ConnectionId,
        work: impl FnOnce(&mut Self) -> R,
    ) -> Option<R> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(result) => Some(result),
            Err(panic) => {
                self.give_up(connection, message(&*panic));
                None
            }
        }
    }

    /// Drops a connection whose work panicked, and repairs what it shares with the others.
    ///
    /// A second panic in here is not caught: if not even the connection can be taken out, nothing of this worker's state
    /// can be relied on, and the node ends.
    pub(super) fn give_up(&mut self, connection: ConnectionId, panic: &str) {
        self.counters.panics += 1;
        tracing::error!(panic, "serving a connection panicked; it is closed, the others go on");
        self.restore_scratch();
        // The next connection must not be sent what was gathered half for this one.
        self.plan = Plan::default();
        self.remove(connection, CloseReason::Internal);
        // If the panic came from inside the removal, the session is gone already and this is what was left to do.
        self.fanout.detach(connection);
        // Replies to others that were made on the way are not to wait for their next event.
        self.queue_replies();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_with_its_words() {
        let quiet = async {
            yield_now().await;
            5
        };
        assert_eq!(catch(pin!(quiet)).await, Ok(5));
        let number = 7;
        let formatted = async {
            yield_now().await;
            panic!("number {number}")
        };
        let plain = async { panic!("plain") };
        let other = async { std::panic::panic_any(7) };
        let words = |text: &str| Err::<(), _>(text.to_owned());
        assert_eq!(catch(pin!(formatted)).await, words("number 7"));
        assert_eq!(catch(pin!(plain)).await, words("plain"));
        assert_eq!(catch(pin!(other)).await, words("a panic without a message"));
    }
}
