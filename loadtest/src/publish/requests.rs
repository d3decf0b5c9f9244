//! The publish requests of a run, made before it begins: sending one is copying its bytes.
//!
//! All payloads are equal, which costs the server the same as if they were not, and the generator nothing. Topics come
//! in an order that is shuffled anew for every round: were it always the same, Redis would find the next topic where its
//! memory is fastest, next to the last one, and `redis-benchmark`, which draws them by chance, would not.

use crate::payload::Payload;
use crate::plan::TopicPlan;
use crate::units::{count, index};

/// Rounds over all topics before the same requests come again, as far as memory goes.
const ROUNDS: u64 = 16;
/// Memory for the requests, in bytes, unless a single round takes more.
const BYTES: usize = 64 << 20;

/// What a request publishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Topics of the run.
    pub(super) topics: u32,
    /// Publications per request; 1 is a single one.
    pub(super) batch: u32,
    /// Whether all publications of a request, and of the run, are of one topic.
    pub(super) hot: bool,
    /// Bytes of each payload.
    pub(super) size: usize,
}

/// The requests, which are sent in turn.
#[derive(Debug)]
pub(super) struct Requests {
    prefix: String,
    publications: u64,
    requests: Vec<Vec<u8>>,
}

impl Requests {
    /// Requests for topics that begin with `prefix` and a dot; together they publish to each topic equally often.
    pub(super) fn new(prefix: &str, shape: Shape) -> Self {
        let topics = if shape.hot { 1 } else { shape.topics.max(1) };
        let batch = u64::from(shape.batch.max(1));
        let plan = TopicPlan::new(prefix, topics, 1);
        let payload = Payload::new(shape.size);
        let request = |items: &[u64]| {
            let (path, body) = body(&plan, &payload, items);
            let mut bytes = format!(
                "POST {path} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            bytes.extend_from_slice(&body);
            bytes
        };
        // So many rounds end together with a request.
        let least = batch / greatest_common_divisor(plan.topics(), batch);
        let round_bytes = index(plan.topics()).saturating_mul(payload.size());
        let affordable = count(BYTES / round_bytes.max(1));
        let rounds = (affordable.min(ROUNDS) / least).max(1) * least;
        let items = shuffled_rounds(plan.topics(), rounds);
        Self {
            prefix: format!("{prefix}."),
            publications: batch,
            requests: items.chunks(index(batch)).map(request).collect(),
        }
    }

    /// The bytes of request `number` of a run.
    pub(super) fn get(&self, number: usize) -> &[u8] {
        &self.requests[number % self.requests.len()]
    }

    /// The bytes of the longest request, whose topics have the longest names.
    pub(super) fn longest(&self) -> &[u8] {
        self.requests.iter().max_by_key(|request| request.len()).map_or(&[], Vec::as_slice)
    }

    /// What all topics begin with; a number follows.
    pub(super) fn prefix(&self) -> &[u8] {
        self.prefix.as_bytes()
    }

    /// Publications per request.
    pub(super) fn publications(&self) -> u64 {
        self.publications
    }
}

/// Path and body of the request with a publication to each of these topics.
fn body(plan: &TopicPlan, payload: &Payload, topics: &[u64]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    if let [topic] = topics {
        payload.append(&mut body, 0);
        return (format!("/v1/topics/{}", plan.name(*topic)), body);
    }
    for topic in topics {
        body.push(if body.is_empty() { b'[' } else { b',' });
        let name = plan.name(*topic);
        body.extend_from_slice(format!("{{\"topic\":\"{name}\",\"data\":").as_bytes());
        payload.append(&mut body, 0);
        body.push(b'}');
    }
    body.push(b']');
    ("/v1/publish".to_owned(), body)
}

/// All topics, each once per round, in an order of its own for each round but the same for every run.
fn shuffled_rounds(topics: u64, rounds: u64) -> Vec<u64> {
    let mut state = 0;
    let mut items = Vec::new();
    for _ in 0..rounds {
        let begin = items.len();
        items.extend(0..topics);
        let round = &mut items[begin..];
        for place in (1..round.len()).rev() {
            round.swap(place, index(next_random(&mut state) % (count(place) + 1)));
        }
    }
    items
}

/// The next number of the sequence `SplitMix64`.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Message;

    fn shape(topics: u32, batch: u32, hot: bool) -> Shape {
        Shape { topics, batch, hot, size: 128 }
    }

    /// How often each of the topics is published to by one round of all requests.
    fn counts(requests: &Requests, topics: usize) -> Vec<usize> {
        let mut counts = vec![0; topics];
        for request in &requests.requests {
            let message = Message::read(request).expect("http").expect("complete");
            let (_, path) = message.request().expect("a request");
            if let Some(topic) = path.strip_prefix("/v1/topics/t.") {
                counts[topic.parse::<usize>().expect("a number")] += 1;
                continue;
            }
            let items: Vec<serde_json::Value> =
                serde_json::from_slice(message.body).expect("a batch");
            assert_eq!(items.len() as u64, requests.publications());
            for item in items {
                let topic = item["topic"].as_str().and_then(|topic| topic.strip_prefix("t."));
                counts[topic.expect("a topic").parse::<usize>().expect("a number")] += 1;
            }
        }
        counts
    }

    #[test]
    fn every_topic_is_published_to_equally_often() {
        let equal = |topics: u32, batch| {
            let counts = counts(&Requests::new("t", shape(topics, batch, false)), topics as usize);
            assert!(counts[0] >= 1 && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        };
        for (topics, batch) in [(3, 1), (4, 2), (3, 2), (2, 4), (1000, 20), (7, 64)] {
            equal(topics, batch);
        }
        let hot = Requests::new("t", shape(9, 4, true));
        assert_eq!(counts(&hot, 1), [hot.requests.len() * 4]);
    }

    #[test]
    fn every_round_has_an_order_of_its_own() {
        let items = shuffled_rounds(100, 2);
        let (first, second) = items.split_at(100);
        let mut sorted = first.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert!(first != second && first != sorted && second != sorted);
        assert_eq!(items, shuffled_rounds(100, 2));
    }

    #[test]
    fn requests_are_sent_in_turn_and_their_memory_is_bounded() {
        let requests = Requests::new("t", shape(20, 1, false));
        assert_eq!(requests.get(0), requests.get(20 * 16));
        assert_eq!(requests.prefix(), b"t.");
        assert!(
            requests.longest().len() > requests.requests.iter().map(Vec::len).min().unwrap_or(0)
        );
        let large = Shape { size: 60_000, ..shape(200, 1, false) };
        assert_eq!(Requests::new("t", large).requests.len(), 5 * 200);
    }
}
