//! Publishers that post to any of the nodes, and send again with the same key until they have an answer.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use super::http::{Answer, Http};
use super::ledger::Sent;
use super::world::World;
use crate::oracle::Place;

/// The same choices every time.
const SEED: u64 = 20_261_126;

const PUBLISHERS: usize = 3;

/// Items of a batch.
const BATCH: usize = 3;

/// Every so many requests one is a batch.
const BATCH_EVERY: u64 = 4;

/// Pause before sending the same again.
const AGAIN: Duration = Duration::from_millis(50);

/// Time until an item must have been accepted: longer than any fault here.
const ACCEPTANCE: Duration = Duration::from_secs(45);

/// One request and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    /// `ok`, the code of the problem, or `lost` if the connection ended before the answer.
    pub(crate) result: String,
}

/// Publishers at work.
#[derive(Debug)]
pub(crate) struct Publishers {
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

/// A publication under way.
struct Item {
    topic: String,
    payload: String,
}

impl Publishers {
    /// Starts publishing to all topics in turn, so many requests per second together.
    pub(crate) fn start(world: &Arc<World>, topics: &[String], per_second: u32) -> Self {
        let attempts = Arc::<Mutex<Vec<Attempt>>>::default();
        let pause = Duration::from_secs(1) * u32::try_from(PUBLISHERS).expect("few") / per_second;
        let start = |number: usize| {
            let (stop, stopped) = channel();
            let mut publisher = Publisher {
                number,
                world: Arc::clone(world),
                topics: topics.to_vec(),
                attempts: Arc::clone(&attempts),
                connections: HashMap::new(),
                random: StdRng::seed_from_u64(SEED ^ number as u64),
            };
            (stop, std::thread::spawn(move || publisher.publish(pause, &stopped)))
        };
        let (stop, threads) = (0..PUBLISHERS).map(start).unzip();
        Self { stop, threads, attempts }
    }

    /// Everything that was tried from `since` on.
    pub(crate) fn attempts(&self, since: Instant) -> Vec<Attempt> {
        let attempts = self.attempts.lock();
        attempts.iter().filter(|attempt| attempt.at >= since).cloned().collect()
    }

    /// What became of everything that was tried from `since` on, counted.
    pub(crate) fn results(&self, since: Instant) -> BTreeMap<String, usize> {
        let mut results = BTreeMap::new();
        for attempt in self.attempts(since) {
            *results.entry(attempt.result).or_default() += 1;
        }
        results
    }

    /// The longest wait for an answer to anything that was tried from `since` on.
    pub(crate) fn slowest(&self, since: Instant) -> Duration {
        self.attempts(since).iter().map(|attempt| attempt.took).max().unwrap_or_default()
    }

    /// Stops them, once each has the answer to its last request.
    pub(crate) fn stop(mut self) {
        self.stop.clear();
        self.threads.drain(..).for_each(|thread| thread.join().expect("a publisher panicked"));
    }
}

/// One publisher.
struct Publisher {
    number: usize,
    world: Arc<World>,
    topics: Vec<String>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    connections: HashMap<SocketAddr, Http>,
    random: StdRng,
}

impl Publisher {
    fn publish(&mut self, pause: Duration, stopped: &Receiver<()>) {
        let mut due = Instant::now();
        let mut next = self.number;
        for request in 0.. {
            let count = if request % BATCH_EVERY == 0 { BATCH } else { 1 };
            let items: Vec<_> = (0..count).map(|index| self.item(next, index, request)).collect();
            next += count;
            self.until_accepted(&format!("{}-{request}", self.number), &items);
            due = (due + pause).max(Instant::now() - 10 * pause);
            let pause = due.saturating_duration_since(Instant::now());
            if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// A payload that no other is equal to.
    fn item(&self, next: usize, index: usize, request: u64) -> Item {
        let topic = self.topics[(next + index) % self.topics.len()].clone();
        let number = request * BATCH as u64 + index as u64;
        let payload = format!(r#"{{"by":{},"n":{number},"price":{}.50}}"#, self.number, next % 500);
        self.world.sends(&topic, &payload, Sent { publisher: self.number, number });
        Item { topic, payload }
    }

    /// Sends the same again and again, to any node, until all of it has been accepted.
    fn until_accepted(&mut self, key: &str, items: &[Item]) {
        let deadline = Instant::now() + ACCEPTANCE;
        loop {
            let address = self.world.node(self.random.random_range(0..usize::MAX));
            let at = Instant::now();
            let answer = self.request(address, key, items);
            let result = match &answer {
                None => "lost".to_owned(),
                Some(answer) => self.result(answer, items),
            };
            let is_accepted = result == "ok";
            self.attempts.lock().push(Attempt { at, took: at.elapsed(), result });
            if is_accepted {
                return;
            }
            assert!(Instant::now() < deadline, "never accepted: {answer:?}");
            std::thread::park_timeout(AGAIN);
            for Item { topic, payload } in items {
                self.world.sends_again(topic, payload);
            }
        }
    }

    /// One request over the connection to that node. None if the connection is lost.
    fn request(&mut self, address: SocketAddr, key: &str, items: &[Item]) -> Option<Answer> {
        let mut http = match self.connections.remove(&address) {
            Some(http) => http,
            None => Http::connect(address).ok()?.with_key(self.world.key()),
        };
        let answer = match items {
            [Item { topic, payload }] => http.post(&format!("/v1/topics/{topic}"), key, payload),
            items => {
                let lines = items.iter().map(|Item { topic, payload }| {
                    format!("{{\"topic\":\"{topic}\",\"data\":{payload}}}\n")
                });
                http.post("/v1/publish", key, &lines.collect::<String>())
            }
        };
        let answer = answer.ok()?;
        if !answer.head.to_ascii_lowercase().contains("connection: close") {
            self.connections.insert(address, http);
        }
        Some(answer)
    }

    /// Records the places of what was accepted: `ok` if all of it was, else the code of what was not.
    fn result(&self, answer: &Answer, items: &[Item]) -> String {
        if answer.status == 503 {
            assert!(answer.head.to_ascii_lowercase().contains("retry-after: "), "{answer:?}");
            return answer.code();
        }
        assert!(matches!(answer.status, 200 | 207), "{answer:?}");
        let mut body = answer.json();
        let results = match items {
            [_] => vec![body],
            _ => serde_json::from_value(body["results"].take()).expect("results"),
        };
        assert_eq!(results.len(), items.len(), "{answer:?}");
        let results = results.iter().zip(items).map(|(result, item)| self.accepted(result, item));
        results.filter_map(Result::err).next_back().unwrap_or_else(|| "ok".to_owned())
    }

    fn accepted(&self, result: &Value, item: &Item) -> Result<(), String> {
        if let Some(code) = result["error"]["code"].as_str() {
            let is_for_now = matches!(code, "broker_unavailable" | "outcome_unknown");
            assert!(is_for_now, "{result}");
            return Err(code.to_owned());
        }
        let Item { topic, payload } = item;
        assert_eq!(result["topic"], topic.as_str(), "{result}");
        self.world.published(topic, &place(result), payload);
        Ok(())
    }
}

/// The place that an answer names.
pub(crate) fn place(answer: &Value) -> Place {
    Place {
        epoch: answer["epoch"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned(),
        offset: answer["offset"].as_u64().unwrap_or_else(|| panic!("{answer}")),
    }
}
