//! The plan of a run, decided before the first connection: who subscribes to what, and when each request is due.
//!
//! Both halves are pure arithmetic, so that no table is needed to find the subscription of a frame and no clock to know
//! when a publication should have left. Latency is measured from the planned time (see [`Schedule`]).

use std::ops::Range;

use crate::units::{SECOND_NS, seconds_to_nanos, to_u64};
use crate::wire::leading_number;

/// Which topics exist and which of them each connection subscribes to.
///
/// Connection `c` takes `per_connection` neighbours beginning at topic `c * per_connection`, modulo the number of
/// topics: every topic gets the same number of subscribers, give or take one round.
#[derive(Debug, Clone)]
pub struct TopicPlan {
    prefix: String,
    topics: u64,
    per_connection: u64,
}

impl TopicPlan {
    /// A plan over `topics` topics named `prefix.0`, `prefix.1`, …; `per_connection` is at most `topics`, both at least 1.
    #[must_use]
    pub fn new(prefix: &str, topics: u32, per_connection: u32) -> Self {
        let topics = u64::from(topics.max(1));
        let per_connection = u64::from(per_connection).clamp(1, topics);
        Self { prefix: format!("{prefix}."), topics, per_connection }
    }

    /// The number of topics.
    #[must_use]
    pub fn topics(&self) -> u64 {
        self.topics
    }

    /// Subscriptions of one connection.
    #[must_use]
    pub fn per_connection(&self) -> u64 {
        self.per_connection
    }

    /// The name of a topic.
    #[must_use]
    pub fn name(&self, topic: u64) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The topic of that name; `None` for a name that is not of this plan.
    #[must_use]
    pub fn topic(&self, name: &[u8]) -> Option<u64> {
        match leading_number(name.strip_prefix(self.prefix.as_bytes())?)? {
            (topic, []) if topic < self.topics => Some(topic),
            _ => None,
        }
    }

    /// The topics of a connection, in the order of its subscriptions.
    pub fn topics_of(&self, connection: u64) -> impl Iterator<Item = u64> + use<'_> {
        (0..self.per_connection).map(move |place| self.topic_at(connection, place))
    }

    /// The topic of one subscription of a connection, counted from 0.
    #[must_use]
    pub fn topic_at(&self, connection: u64, place: u64) -> u64 {
        (self.first_of(connection) + place) % self.topics
    }

    /// Which subscription of the connection a topic is, counted from 0; `None` if it did not subscribe to it.
    #[must_use]
    pub fn place(&self, connection: u64, topic: u64) -> Option<u64> {
        let place = (topic + self.topics - self.first_of(connection)) % self.topics;
        (place < self.per_connection).then_some(place)
    }

    fn first_of(&self, connection: u64) -> u64 {
        (connection % self.topics) * self.per_connection % self.topics
    }
}

/// When each publish request is due, in nanoseconds after the start of the schedule.
///
/// The schedule is open: it never waits for an answer or for a late request. Request `n` is due at `n` periods, whatever
/// happened before, and carries `per_request` publications. Warm-up and window are rounded up to whole periods, so that
/// both edges of the window lie just before a request is due: the quietest moment there is.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    period_ns: f64,
    per_request: u32,
    warmup_requests: u64,
    window_requests: u64,
}

impl Schedule {
    /// `rate` publications per second (above 0) in requests of `per_request` (at least 1); durations in seconds.
    #[must_use]
    pub fn new(rate: f64, per_request: u32, warmup_s: f64, window_s: f64) -> Self {
        let per_request = per_request.max(1);
        let period_ns = f64::from(per_request) * SECOND_NS as f64 / rate;
        let periods = |seconds: f64| to_u64((seconds * SECOND_NS as f64 / period_ns).ceil());
        Self {
            period_ns,
            per_request,
            warmup_requests: periods(warmup_s),
            window_requests: periods(window_s).max(1),
        }
    }

    /// When request `number` is due.
    #[must_use]
    pub fn due_ns(&self, number: u64) -> u64 {
        to_u64(self.period_ns * number as f64)
    }

    /// Publications in each request.
    #[must_use]
    pub fn per_request(&self) -> u32 {
        self.per_request
    }

    /// Requests of warm-up and window together; the schedule ends there.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.warmup_requests + self.window_requests
    }

    /// Publications planned for the whole schedule.
    #[must_use]
    pub fn publications(&self) -> u64 {
        self.requests() * u64::from(self.per_request)
    }

    /// The measured window: from the first request after the warm-up to the moment the next one would be due.
    #[must_use]
    pub fn window_ns(&self) -> Range<u64> {
        self.due_ns(self.warmup_requests)..self.due_ns(self.requests())
    }
}

/// The longest schedule, in seconds: a day. Beyond it a typing error is more likely than a plan.
pub const RUN_SECONDS_MAX: f64 = 86_400.0;

/// Seconds from the command line as nanoseconds, cut at [`RUN_SECONDS_MAX`].
#[must_use]
pub fn bounded_nanos(seconds: f64) -> u64 {
    seconds_to_nanos(seconds.min(RUN_SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subscription_is_found_by_arithmetic() {
        for (topics, per_connection) in [(1, 1), (20, 20), (7, 3), (100, 1)] {
            let plan = TopicPlan::new("load", topics, per_connection);
            for connection in 0..50 {
                let mine: Vec<u64> = plan.topics_of(connection).collect();
                for topic in 0..u64::from(topics) {
                    let expected = mine.iter().position(|own| *own == topic);
                    let found = plan.place(connection, topic).map(crate::units::index);
                    assert_eq!(found, expected, "connection {connection}, topic {topic}");
                }
            }
        }
    }

    #[test]
    fn subscribers_are_spread_evenly() {
        let plan = TopicPlan::new("load", 10, 2);
        let mut subscribers = [0; 10];
        for topic in (0..50).flat_map(|connection| plan.topics_of(connection).collect::<Vec<_>>()) {
            subscribers[crate::units::index(topic)] += 1;
        }
        assert_eq!(subscribers, [10; 10]);
    }

    #[test]
    fn names_lead_back_to_their_topics() {
        let plan = TopicPlan::new("load", 12, 1);
        assert_eq!(plan.topic(plan.name(11).as_bytes()), Some(11));
        for foreign in ["load.12", "load.", "load.1x", "stocks.1", ""] {
            assert_eq!(plan.topic(foreign.as_bytes()), None);
        }
    }

    #[test]
    fn requests_are_due_on_the_grid_whatever_happens() {
        let schedule = Schedule::new(100.0, 20, 0.3, 1.0);
        assert_eq!(schedule.due_ns(0), 0);
        assert_eq!(schedule.due_ns(1), 200_000_000);
        // 0.3 s of warm-up are two periods of 0.2 s.
        assert_eq!(schedule.window_ns(), 400_000_000..1_400_000_000);
        assert_eq!((schedule.requests(), schedule.publications()), (7, 140));
    }

    #[test]
    fn a_schedule_has_at_least_one_request() {
        let schedule = Schedule::new(0.5, 1, 0.0, 0.1);
        assert_eq!(schedule.window_ns(), 0..2_000_000_000);
        assert_eq!(schedule.publications(), 1);
    }
}
