//! The live demo feed of `tickcast dev` and `tickcast pub --demo`, and the page that `dev` prints.
//!
//! [`Feed`] is a pure generator: a seed in, an endless, repeatable run of updates with delays out. The caller sleeps and
//! publishes, through the same door as everybody else. Rates follow measurements of real feeds: a flat head of busy
//! symbols, a long quiet tail, bursts that hit many symbols at once, and matches that move every few seconds.
//! Prices and results are invented.

mod basketball;
mod lines;
mod stocks;
mod tennis;
mod welcome;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use basketball::Basketball;
use stocks::Stocks;
use tennis::Tennis;

pub use lines::Lines;
pub use welcome::{Welcome, program};

/// Matches run that much faster than real ones, so that somebody who looks for a minute sees them move.
/// A real match has one update in half a minute and lasts hours.
const MATCH_SPEED: f64 = 6.0;

/// How long the final result of a match stands before the next match begins.
const MATCH_PAUSE: Duration = Duration::from_secs(20);

/// An update: the topic and its JSON payload.
pub type Update = (String, String);

/// An endless run of `(delay, updates)`: wait for the delay, then publish the updates together.
///
/// The first step has no delay and a value for every topic, so that no subscriber looks at an empty screen.
#[derive(Debug)]
pub struct Feed {
    random: StdRng,
    /// Time since the start of the feed.
    now: Duration,
    opened: bool,
    stocks: Stocks,
    basketball: Basketball,
    tennis: Tennis,
    /// When each of the three above is due.
    due: [Duration; 3],
}

impl Feed {
    /// The feed of this seed. Equal seeds give equal feeds.
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let stocks = Stocks::new(&mut random);
        Self {
            random,
            now: Duration::ZERO,
            opened: false,
            stocks,
            basketball: Basketball::new(),
            tennis: Tennis::new(),
            due: [Duration::ZERO; 3],
        }
    }

    fn open(&mut self) -> Vec<Update> {
        self.opened = true;
        let random = &mut self.random;
        self.due =
            [self.stocks.delay(random), self.basketball.delay(random), self.tennis.delay(random)];
        let mut updates = self.stocks.all();
        updates.extend([self.basketball.update(), self.tennis.update()]);
        updates
    }

    fn step(&mut self) -> (Duration, Vec<Update>) {
        let [stocks, basketball, tennis] = self.due;
        let due = stocks.min(basketball).min(tennis);
        let random = &mut self.random;
        let updates = if due == stocks {
            let updates = self.stocks.step(random);
            self.due[0] += self.stocks.delay(random);
            updates
        } else if due == basketball {
            self.basketball.step(random);
            self.due[1] += self.basketball.delay(random);
            vec![self.basketball.update()]
        } else {
            self.tennis.step(random);
            self.due[2] += self.tennis.delay(random);
            vec![self.tennis.update()]
        };
        let delay = due.saturating_sub(self.now);
        self.now = due;
        (delay, updates)
    }
}

impl Iterator for Feed {
    type Item = (Duration, Vec<Update>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.opened { Some(self.step()) } else { Some((Duration::ZERO, self.open())) }
    }
}

/// The time to the next event of a Poisson process.
fn exponential(random: &mut StdRng, mean: Duration) -> Duration {
    let uniform: f64 = random.random();
    mean.mul_f64(-(1.0 - uniform).ln())
}

/// A standard normal number, near enough for a demo: twelve dice.
fn normal(random: &mut StdRng) -> f64 {
    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tickcast_protocol::Topic;

    use super::*;

    /// The updates of the first `seconds`, with their times.
    fn run(seed: u64, seconds: u64) -> Vec<(Duration, Update)> {
        let mut now = Duration::ZERO;
        let mut all = Vec::new();
        for (delay, updates) in Feed::new(seed) {
            now += delay;
            if now > Duration::from_secs(seconds) {
                break;
            }
            all.extend(updates.into_iter().map(|update| (now, update)));
        }
        all
    }

    fn payload(update: &Update) -> serde_json::Value {
        serde_json::from_str(&update.1).unwrap_or_else(|error| panic!("{error}: {update:?}"))
    }

    #[test]
    fn equal_seeds_give_equal_feeds() {
        assert_eq!(run(7, 60), run(7, 60));
        assert_ne!(run(7, 60), run(8, 60));
    }

    #[test]
    fn every_topic_has_a_value_at_once() {
        let (delay, updates) = Feed::new(1).next().unwrap();
        assert_eq!(delay, Duration::ZERO);
        let topics: BTreeSet<_> = updates.iter().map(|update| update.0.as_str()).collect();
        assert_eq!(topics.len(), 62);
        for topic in ["stocks.AAPL", "stocks.MSFT", "nba.LAL-BOS.score", "tennis.ALC-SIN.score"] {
            assert!(topics.contains(topic), "{topic}");
        }
        for topic in topics {
            assert_eq!(Topic::check(topic), Ok(()));
        }
    }

    #[test]
    fn payloads_are_valid_and_prices_positive() {
        for (_, update) in run(3, 600) {
            let payload = payload(&update);
            if update.0.starts_with("stocks.") {
                let number = |key: &str| payload[key].as_f64().unwrap();
                assert!(number("bid") > 0.0 && number("bid") < number("ask"), "{update:?}");
                assert!(
                    number("bid") <= number("px") && number("px") <= number("ask"),
                    "{update:?}"
                );
                // Fixed decimals: "189.30", not "189.3".
                let px = update.1.split("\"px\":").nth(1).unwrap().split(',').next().unwrap();
                assert_eq!(px.split('.').nth(1).map(str::len), Some(2), "{update:?}");
            }
        }
    }

    #[test]
    fn rates_are_near_the_tables() {
        let seconds = 600;
        let mut counts = BTreeMap::<String, usize>::new();
        let mut per_second = vec![0_usize; 601];
        for (at, update) in run(5, seconds).into_iter().filter(|(at, _)| !at.is_zero()) {
            *counts.entry(update.0).or_default() += 1;
            per_second[usize::try_from(at.as_secs()).unwrap()] += 1;
        }
        let total = per_second.iter().sum::<usize>() / 600;
        assert!((50..=150).contains(&total), "{total}/s");
        let busiest = per_second.iter().max().copied().unwrap();
        assert!(busiest > 3 * total, "bursts: {busiest} against {total}");

        let rate = |topic: &str| counts[topic] as f64 / 600.0;
        assert!((4.0..16.0).contains(&rate("stocks.SPY")), "{}", rate("stocks.SPY"));
        let quietest =
            counts.iter().filter(|(topic, _)| topic.starts_with("stocks.")).map(|(_, n)| *n).min();
        assert!(quietest.is_some_and(|count| (10..200).contains(&count)), "{quietest:?}");
        // Points are half a minute apart in reality.
        let tennis = MATCH_SPEED / rate("tennis.ALC-SIN.score");
        assert!((25.0..60.0).contains(&tennis), "one point in {tennis} s");
        assert!((0.05..1.0).contains(&rate("nba.LAL-BOS.score")), "{}", rate("nba.LAL-BOS.score"));
    }

    #[test]
    fn matches_progress_end_and_restart() {
        for topic in ["nba.LAL-BOS.score", "tennis.ALC-SIN.score"] {
            let updates: Vec<_> =
                run(11, 7200).into_iter().filter(|(_, update)| update.0 == topic).collect();
            let states: Vec<_> =
                updates.iter().map(|(_, update)| payload(update)["status"].clone()).collect();
            let finals = states.iter().filter(|status| *status == "final").count();
            assert!((3..30).contains(&finals), "{topic}: {finals} matches in two hours");
            let first = states.iter().position(|status| *status == "final").unwrap();
            assert!(first > 40, "{topic}: over after {first} updates");
            assert_eq!(states[first + 1], "live", "{topic} starts again");
        }
    }

    #[test]
    fn a_basketball_score_never_falls_during_a_match() {
        let mut before = (0, 0);
        for (_, update) in
            run(2, 7200).into_iter().filter(|(_, update)| update.0.starts_with("nba."))
        {
            let payload = payload(&update);
            let score =
                (payload["home_score"].as_u64().unwrap(), payload["away_score"].as_u64().unwrap());
            assert!(score == (0, 0) || (score.0 >= before.0 && score.1 >= before.1), "{update:?}");
            before = score;
            if payload["status"] == "final" {
                assert_ne!(score.0, score.1, "no match ends in a draw");
                assert!(score.0 > 60 && score.0 < 180, "{update:?}");
            }
        }
    }
}
