//! A tennis match: best of three sets with tie-breaks, then the next match.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{MATCH_PAUSE, MATCH_SPEED, Update, normal};

const TOPIC: &str = "tennis.ALC-SIN.score";
const PLAYERS: [&str; 2] = ["ALC", "SIN"];
const SETS_TO_WIN: usize = 2;
/// The server wins about two points in three.
const SERVER_WINS: f64 = 0.64;

/// Seconds between two points in reality: the median of several hundred recorded matches; 90 % are below a minute.
const POINT_SECONDS_MEDIAN: f64 = 33.0;
const POINT_SECONDS_SPREAD: f64 = 0.47;

/// One match after the other. Arrays of two are in the order of [`PLAYERS`].
#[derive(Debug)]
pub(super) struct Tennis {
    /// Games of each finished set.
    sets: Vec<[u32; 2]>,
    games: [u32; 2],
    points: [u32; 2],
    server: usize,
    /// Who won the last point.
    point: Option<usize>,
    over: bool,
}

impl Tennis {
    pub(super) fn new() -> Self {
        let (games, points) = ([0, 0], [0, 0]);
        Self { sets: Vec::new(), games, points, server: 0, point: None, over: false }
    }

    /// The time to the next step.
    pub(super) fn delay(&self, random: &mut StdRng) -> Duration {
        if self.over {
            return MATCH_PAUSE;
        }
        let seconds = POINT_SECONDS_MEDIAN * (normal(random) * POINT_SECONDS_SPREAD).exp();
        Duration::from_secs_f64(seconds / MATCH_SPEED)
    }

    /// One point, or a new match.
    pub(super) fn step(&mut self, random: &mut StdRng) {
        if self.over {
            *self = Self::new();
            return;
        }
        let server_wins = random.random_bool(SERVER_WINS);
        let winner = if server_wins { self.server } else { 1 - self.server };
        self.point = Some(winner);
        self.points[winner] += 1;
        let tie_break = self.is_tie_break();
        let played = self.points[0] + self.points[1];
        if leads(self.points, winner, if tie_break { 7 } else { 4 }, 2) {
            self.win_game(winner, tie_break);
        } else if tie_break && played % 2 == 1 {
            // In a tie-break the serve changes after the first point and then after every second one.
            self.server = 1 - self.server;
        }
    }

    fn is_tie_break(&self) -> bool {
        self.games == [6, 6]
    }

    fn win_game(&mut self, winner: usize, tie_break: bool) {
        self.points = [0, 0];
        self.games[winner] += 1;
        self.server = 1 - self.server;
        if tie_break || leads(self.games, winner, 6, 2) {
            self.sets.push(self.games);
            self.games = [0, 0];
            let won = self.sets.iter().filter(|set| set[winner] > set[1 - winner]).count();
            self.over = won == SETS_TO_WIN;
        }
    }

    /// Points as they are called: 0, 15, 30, 40, A; plain numbers in a tie-break.
    fn call(&self, player: usize) -> String {
        let (own, other) = (self.points[player], self.points[1 - player]);
        match (self.is_tie_break(), own) {
            (true, _) => own.to_string(),
            (_, 0..=2) => (own * 15).to_string(),
            _ if own > other && own > 3 => "A".to_owned(),
            _ => "40".to_owned(),
        }
    }

    pub(super) fn update(&self) -> Update {
        let current = (!self.over).then_some(&self.games);
        let sets = self.sets.iter().chain(current).map(|[one, two]| format!("[{one},{two}]"));
        let sets = sets.collect::<Vec<_>>().join(",");
        let payload = format!(
            concat!(
                r#"{{"players":["{}","{}"],"sets":[{}],"points":["{}","{}"],"#,
                r#""server":"{}","point":"{}","status":"{}"}}"#,
            ),
            PLAYERS[0],
            PLAYERS[1],
            sets,
            self.call(0),
            self.call(1),
            PLAYERS[self.server],
            self.point.map_or("", |player| PLAYERS[player]),
            if self.over { "final" } else { "live" },
        );
        (TOPIC.to_owned(), payload)
    }
}

/// Has the player at least `enough`, and a lead of at least `by`?
fn leads(score: [u32; 2], player: usize, enough: u32, by: u32) -> bool {
    score[player] >= enough && score[player] >= score[1 - player] + by
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn with(games: [u32; 2], points: [u32; 2]) -> Tennis {
        Tennis { games, points, ..Tennis::new() }
    }

    #[test]
    fn points_are_called_as_in_tennis() {
        let check = |points, expected: [&str; 2]| {
            let tennis = with([0, 0], points);
            assert_eq!([tennis.call(0), tennis.call(1)], expected, "{points:?}");
        };
        check([0, 0], ["0", "0"]);
        check([1, 2], ["15", "30"]);
        check([3, 3], ["40", "40"]);
        check([4, 3], ["A", "40"]);
        check([6, 7], ["40", "A"]);
        let tie_break = with([6, 6], [7, 6]);
        assert_eq!([tie_break.call(0), tie_break.call(1)], ["7", "6"]);
    }

    #[test]
    fn every_finished_set_is_a_possible_one() {
        let mut random = StdRng::seed_from_u64(4);
        let mut tennis = Tennis::new();
        let mut matches = 0;
        while matches < 50 {
            tennis.step(&mut random);
            if tennis.over {
                matches += 1;
                assert!((2..=3).contains(&tennis.sets.len()), "{tennis:?}");
            }
            for set in &tennis.sets {
                let (high, low) = (set[0].max(set[1]), set[0].min(set[1]));
                assert!(
                    (high == 6 && low <= 4) || (high == 7 && (5..=6).contains(&low)),
                    "{set:?}"
                );
            }
        }
    }
}
