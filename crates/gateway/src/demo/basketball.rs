//! A basketball match: four quarters of twelve minutes, overtime after a draw, then the next match.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{MATCH_PAUSE, MATCH_SPEED, Update};

const TOPIC: &str = "nba.LAL-BOS.score";
const TEAMS: [&str; 2] = ["LAL", "BOS"];
const QUARTER_SECONDS: u32 = 12 * 60;
const OVERTIME_SECONDS: u32 = 5 * 60;

/// One match after the other.
#[derive(Debug)]
pub(super) struct Basketball {
    score: [u32; 2],
    /// 1 to 4, and 5 and up for overtime.
    period: u32,
    /// Seconds left in the period.
    clock: u32,
    last: String,
    over: bool,
    /// Seconds on the clock until the next score.
    next: u32,
}

impl Basketball {
    pub(super) fn new() -> Self {
        let last = "tip-off".to_owned();
        Self { score: [0, 0], period: 1, clock: QUARTER_SECONDS, last, over: false, next: 0 }
    }

    /// The time to the next step.
    pub(super) fn delay(&mut self, random: &mut StdRng) -> Duration {
        if self.over {
            return MATCH_PAUSE;
        }
        // A possession takes about 14 seconds and about half of them end in points.
        self.next = random.random_range(8..44).min(self.clock.max(1));
        Duration::from_secs_f64(f64::from(self.next) / MATCH_SPEED)
    }

    /// Points, the end of a period, or a new match.
    pub(super) fn step(&mut self, random: &mut StdRng) {
        if self.over {
            *self = Self::new();
        } else if self.clock <= self.next {
            self.clock = 0;
            self.end_period();
        } else {
            self.clock -= self.next;
            self.add_points(random);
        }
    }

    fn add_points(&mut self, random: &mut StdRng) {
        let team = usize::from(random.random_bool(0.49));
        let points = match random.random::<f64>() {
            chance if chance < 0.2 => 1,
            chance if chance < 0.7 => 2,
            _ => 3,
        };
        self.score[team] += points;
        self.last = format!(
            "{} {}",
            TEAMS[team],
            ["free throw", "2 points", "3 points"][points as usize - 1]
        );
    }

    fn end_period(&mut self) {
        let [home, away] = self.score;
        self.over = self.period >= 4 && home != away;
        self.last = format!("end of {}", self.period_name());
        if !self.over {
            self.period += 1;
            self.clock = if self.period <= 4 { QUARTER_SECONDS } else { OVERTIME_SECONDS };
        }
    }

    fn period_name(&self) -> String {
        match self.period {
            1..=4 => format!("Q{}", self.period),
            5 => "OT".to_owned(),
            _ => format!("{}OT", self.period - 4),
        }
    }

    pub(super) fn update(&self) -> Update {
        let payload = format!(
            concat!(
                r#"{{"home":"{}","away":"{}","home_score":{},"away_score":{},"#,
                r#""period":"{}","clock":"{}:{:02}","last":"{}","status":"{}"}}"#,
            ),
            TEAMS[0],
            TEAMS[1],
            self.score[0],
            self.score[1],
            self.period_name(),
            self.clock / 60,
            self.clock % 60,
            self.last,
            if self.over { "final" } else { "live" },
        );
        (TOPIC.to_owned(), payload)
    }
}
