//! Sixty symbols: a few busy, many quiet, moving in bursts.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Update, exponential, normal};

/// Symbol and opening price in cents, busiest first.
const SYMBOLS: [(&str, u32); 60] = [
    ("SPY", 68_120),
    ("QQQ", 61_340),
    ("NVDA", 17_882),
    ("TSLA", 39_105),
    ("AAPL", 27_149),
    ("AMZN", 22_069),
    ("MSFT", 47_212),
    ("META", 59_425),
    ("AMD", 20_378),
    ("GOOGL", 29_966),
    ("NFLX", 10_431),
    ("AVGO", 34_020),
    ("PLTR", 15_475),
    ("INTC", 3_450),
    ("MU", 20_737),
    ("BAC", 5_150),
    ("COIN", 24_041),
    ("UBER", 8_383),
    ("JPM", 29_802),
    ("XOM", 11_708),
    ("ORCL", 19_876),
    ("CRM", 22_711),
    ("ADBE", 32_455),
    ("QCOM", 16_320),
    ("CSCO", 7_610),
    ("DIS", 10_428),
    ("BA", 17_902),
    ("PFE", 2_505),
    ("KO", 7_125),
    ("WMT", 10_532),
    ("C", 9_870),
    ("F", 1_286),
    ("GM", 7_045),
    ("T", 2_577),
    ("VZ", 4_133),
    ("JNJ", 20_390),
    ("PG", 15_068),
    ("V", 32_801),
    ("MA", 53_403),
    ("HD", 34_317),
    ("COST", 89_933),
    ("PEP", 14_612),
    ("MCD", 30_985),
    ("NKE", 6_273),
    ("SBUX", 8_409),
    ("IBM", 29_765),
    ("GE", 28_740),
    ("CAT", 55_118),
    ("DE", 47_562),
    ("MMM", 16_730),
    ("UNH", 31_987),
    ("LLY", 105_970),
    ("MRK", 9_783),
    ("ABBV", 23_634),
    ("CVX", 14_981),
    ("GS", 77_403),
    ("AXP", 34_129),
    ("BLK", 100_275),
    ("SPGI", 49_107),
    ("BRK.B", 50_429),
];

/// Ranks 1 to 20 are the symbols' own; the other 40 stand for ranks up to 1,000 of a whole market, evenly in the logarithm.
const HEAD: u32 = 20;
const RANK_LAST: f64 = 1000.0;

/// Moments per second at which something trades, in a market of average activity.
const MOMENTS_PER_SECOND: f64 = 45.0;
/// Chance that one more symbol updates in the same moment: two on average.
const CHANCE_OF_ONE_MORE: f64 = 0.5;

/// Activity of the whole market and how long it lasts on average, in seconds. Bursts hit all symbols at once.
const CALM: (f64, f64) = (0.6, 8.0);
const BUSY: (f64, f64) = (1.2, 6.0);
const BURST: (f64, f64) = (7.0, 0.6);

/// The market: all symbols and how busy it is.
#[derive(Debug)]
pub(super) struct Stocks {
    symbols: Vec<Symbol>,
    weight_total: f64,
    activity: f64,
    /// Time left in this state of activity.
    activity_left: Duration,
}

#[derive(Debug)]
struct Symbol {
    name: &'static str,
    /// Sum of the weights up to and including this symbol: a random number below the total picks one.
    weight_up_to: f64,
    open: i64,
    price: i64,
    spread: i64,
    size: u32,
    volume: u64,
}

impl Stocks {
    pub(super) fn new(random: &mut StdRng) -> Self {
        let mut weight_total = 0.0;
        let symbols = (1..).zip(SYMBOLS).map(|(place, (name, cents))| {
            weight_total += weight(rank(place));
            let open = i64::from(cents);
            Symbol {
                name,
                weight_up_to: weight_total,
                open,
                price: open,
                spread: 1 + open / 20_000,
                size: 100,
                volume: random.random_range(10_000..5_000_000),
            }
        });
        let symbols = symbols.collect();
        Self { symbols, weight_total, activity: 1.0, activity_left: Duration::ZERO }
    }

    /// The time to the next moment at which something trades.
    pub(super) fn delay(&mut self, random: &mut StdRng) -> Duration {
        if self.activity_left.is_zero() {
            let (activity, seconds) = match random.random::<f64>() {
                chance if chance < 0.45 => CALM,
                chance if chance < 0.85 => BUSY,
                _ => BURST,
            };
            self.activity = activity;
            self.activity_left = exponential(random, Duration::from_secs_f64(seconds));
        }
        let mean = Duration::from_secs_f64(1.0 / (MOMENTS_PER_SECOND * self.activity));
        let delay = exponential(random, mean);
        self.activity_left = self.activity_left.saturating_sub(delay);
        delay
    }

    /// One moment: a few symbols trade.
    pub(super) fn step(&mut self, random: &mut StdRng) -> Vec<Update> {
        let mut updates = Vec::new();
        loop {
            let at = random.random_range(0.0..self.weight_total);
            if let Some(symbol) = self.symbols.iter_mut().find(|symbol| at < symbol.weight_up_to) {
                symbol.trade(random);
                updates.push(symbol.update());
            }
            if !random.random_bool(CHANCE_OF_ONE_MORE) {
                return updates;
            }
        }
    }

    /// Every symbol as it stands.
    pub(super) fn all(&self) -> Vec<Update> {
        self.symbols.iter().map(Symbol::update).collect()
    }
}

impl Symbol {
    /// A step of a random walk in whole cents, drawn back gently to the opening price so that it walks for ever.
    fn trade(&mut self, random: &mut StdRng) {
        let cents = |number: i64| f64::from(i32::try_from(number).unwrap_or(i32::MAX));
        let volatility = (cents(self.price) * 0.0002).max(0.7);
        let pull = cents(self.open - self.price) * 0.002;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a few dollars in cents; the cast saturates"
        )]
        let step = (normal(random) * volatility + pull).round() as i64;
        self.price = (self.price + step).max(self.spread + 1);
        self.spread = 1 + self.open / 20_000 + i64::from(random.random_bool(0.3));
        self.size = 100 * random.random_range(1..=8);
        self.volume += u64::from(self.size);
    }

    fn update(&self) -> Update {
        let bid = self.price - self.spread / 2;
        let payload = format!(
            r#"{{"px":{},"bid":{},"ask":{},"sz":{},"vol":{},"chg":{}}}"#,
            decimal(self.price),
            decimal(bid),
            decimal(bid + self.spread),
            self.size,
            self.volume,
            // Hundredths of a percent are to percent what cents are to dollars.
            decimal((self.price - self.open) * 10_000 / self.open),
        );
        (format!("stocks.{}", self.name), payload)
    }
}

/// Hundredths as a number with two decimals.
fn decimal(hundredths: i64) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let number = hundredths.unsigned_abs();
    format!("{sign}{}.{:02}", number / 100, number % 100)
}

/// The rank in a whole market that the symbol in this place stands for.
fn rank(place: u32) -> f64 {
    let (head, place) = (f64::from(HEAD), f64::from(place));
    let tail = SYMBOLS.len().saturating_sub(20);
    let step = (RANK_LAST / head).powf(1.0 / f64::from(u32::try_from(tail).unwrap_or(1)));
    if place <= head { place } else { head * step.powf(place - head) }
}

/// Share of the traffic by rank. On a log-log scale it falls by 0.53 to rank 100 and by 0.77 from there to 1,000:
/// the shape of one day of best-price changes of a whole exchange.
fn weight(rank: f64) -> f64 {
    if rank <= 100.0 { rank.powf(-0.53) } else { 100_f64.powf(-0.53) * (rank / 100.0).powf(-0.77) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        let check = |hundredths, expected: &str| assert_eq!(decimal(hundredths), expected);
        check(18_930, "189.30");
        check(7, "0.07");
        check(0, "0.00");
        check(-7, "-0.07");
        check(-150, "-1.50");
    }

    #[test]
    fn ranks_and_weights_follow_the_table() {
        assert!((rank(1) - 1.0).abs() < 1e-9);
        assert!((rank(20) - 20.0).abs() < 1e-9);
        assert!((rank(60) - 1000.0).abs() < 1e-6);
        assert!((weight(1.0) / weight(100.0) - 100_f64.powf(0.53)).abs() < 1e-9);
        assert!(weight(1000.0) < weight(100.0) / 5.0);
    }
}
