//! How much of a topic a subscriber wants: every publication, or the newest at a bounded rate.

use serde::{Deserialize, Serialize};

use crate::limits::{RATE_HZ_MAX, RATE_HZ_MIN, TOPIC_BYTES_MAX};

/// What a subscription receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every publication; a consumer that falls behind the topic's log gets a `gap`.
    #[default]
    All,
    /// The newest publication only, whenever the socket and the rate allow: conflated, never queued.
    Latest,
}

/// A bound on how often one subscription receives a value: a whole number of milliseconds between two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rate {
    interval_ms: u32,
}

/// The number is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("`max_rate` is {0}; it must be a number of updates per second from 0.01 up")]
pub struct RateError(pub f64);

impl Mode {
    /// The mode that a client asks for by name and rate; none for the topic's own. A rate alone means `latest`.
    ///
    /// # Errors
    /// A message for people: `all` has no rate, and there are no other modes.
    pub fn choose(name: Option<&str>, rate: Option<Rate>) -> Result<Option<Self>, String> {
        match (name, rate) {
            (None, None) => Ok(None),
            (None | Some("latest"), _) => Ok(Some(Self::Latest)),
            (Some("all"), None) => Ok(Some(Self::All)),
            (Some("all"), Some(_)) => {
                Err("`max_rate` needs mode `latest`: mode `all` skips nothing".to_owned())
            }
            (Some(other), _) => {
                let shown = &other[..other.floor_char_boundary(TOPIC_BYTES_MAX)];
                Err(format!("`mode` is `{shown}`; it is `all` or `latest`"))
            }
        }
    }
}

impl Rate {
    /// The rate of at most `hz` updates per second. Above 1,000 Hz it is 1,000 Hz.
    ///
    /// The interval is rounded up to whole milliseconds, so the rate asked for is never exceeded.
    ///
    /// # Errors
    /// [`RateError`] for anything that is not a number from 0.01 up.
    pub fn from_hz(hz: f64) -> Result<Self, RateError> {
        if hz.is_nan() || hz < RATE_HZ_MIN {
            return Err(RateError(hz));
        }
        // The part in a million makes room for the rounding of [`Rate::hz`].
        let interval = (1000.0 / hz.min(RATE_HZ_MAX) * (1.0 - 1e-6)).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and 100,000 by the bounds above"
        )]
        Ok(Self { interval_ms: interval as u32 })
    }

    /// The rate of one update per `interval_ms`; none for 0.
    pub const fn from_interval_ms(interval_ms: u32) -> Option<Self> {
        if interval_ms == 0 { None } else { Some(Self { interval_ms }) }
    }

    /// Milliseconds between two values: 1 to 100,000.
    pub const fn interval_ms(self) -> u32 {
        self.interval_ms
    }

    /// The effective rate in Hz, rounded to seven digits: a client that sends it back gets the same rate again.
    pub fn hz(self) -> f64 {
        let hz = 1000.0 / f64::from(self.interval_ms);
        #[expect(clippy::cast_possible_truncation, reason = "the logarithm is between -2 and 3")]
        let scale = 10f64.powi(6 - hz.log10().floor() as i32);
        (hz * scale).round() / scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let check = |hz: f64, interval_ms: u32, effective: f64| {
            let rate = Rate::from_hz(hz).unwrap();
            assert_eq!((rate.interval_ms(), rate.hz()), (interval_ms, effective), "{hz}");
        };
        check(4.0, 250, 4.0);
        check(3.0, 334, 2.994_012);
        check(0.5, 2000, 0.5);
        check(0.01, 100_000, 0.01);
        check(1e9, 1, 1000.0);
        check(f64::INFINITY, 1, 1000.0);
        for interval_ms in 1..=100_000 {
            let rate = Rate { interval_ms };
            assert_eq!(Rate::from_hz(rate.hz()), Ok(rate));
        }
        for hz in [0.0, -1.0, 0.009, f64::NAN, f64::NEG_INFINITY] {
            assert!(Rate::from_hz(hz).is_err(), "{hz}");
        }
    }
}
