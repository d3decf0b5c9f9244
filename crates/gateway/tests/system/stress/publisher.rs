//! Publishers on threads of their own, each with its topics and one connection.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::Http;
use crate::oracle::{Oracle, Place};

const PUBLISHERS: usize = 3;

/// The name of a topic.
pub(crate) fn topic(index: usize) -> String {
    format!("stress.{index}")
}

/// Publishers at work.
pub(crate) struct Publishers {
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Publishers {
    /// Starts publishing to all topics in turn, at this rate together.
    pub(crate) fn start(
        address: SocketAddr,
        topics: usize,
        per_second: u32,
        oracle: &Arc<Mutex<Oracle>>,
    ) -> Self {
        let pause = Duration::from_secs(1) * u32::try_from(PUBLISHERS).expect("few") / per_second;
        let start = |publisher: usize| {
            let (stop, stopped) = channel();
            let topics: Vec<_> = (publisher..topics).step_by(PUBLISHERS).map(topic).collect();
            let oracle = Arc::clone(oracle);
            let publish = move || publish(address, &topics, pause, &oracle, &stopped);
            (stop, std::thread::spawn(publish))
        };
        let (stop, threads) = (0..PUBLISHERS).map(start).unzip();
        Self { stop, threads }
    }

    /// Stops all of them; the oracle knows all that they have published.
    pub(crate) fn stop(self) {
        drop(self.stop);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a publisher panicked"));
    }
}

fn publish(
    address: SocketAddr,
    topics: &[String],
    pause: Duration,
    oracle: &Mutex<Oracle>,
    stopped: &Receiver<()>,
) {
    let mut connection = Http::connect(address);
    let mut due = Instant::now();
    for (number, topic) in (0_u64..).zip(topics.iter().cycle()) {
        let payload = payload(number);
        let answer = connection.publish(topic, &payload);
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let place = Place {
            epoch: answer["epoch"].as_str().expect("an epoch").to_owned(),
            offset: answer["offset"].as_u64().expect("an offset"),
        };
        oracle.lock().expect("nobody has panicked").published(topic, &place, &payload);
        due += pause;
        // A publisher that is late catches up, within bounds.
        due = due.max(Instant::now() - 10 * pause);
        let pause = due.saturating_duration_since(Instant::now());
        if stopped.recv_timeout(pause) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Several hundred bytes, different each time.
fn payload(number: u64) -> String {
    let depth = (0..12).map(|level| {
        let price = number.wrapping_mul(7919).wrapping_add(level * 104_729) % 100_000;
        format!(r#"{{"bid":{}.{:02},"size":{}}}"#, price / 100, price % 100, 1 + price % 997)
    });
    format!(r#"{{"n":{number},"book":[{}]}}"#, depth.collect::<Vec<_>>().join(","))
}
