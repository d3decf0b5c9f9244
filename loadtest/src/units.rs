//! Conversions between the units of this program, in one place so that no rounding hides elsewhere.
//!
//! Inside, time is whole nanoseconds (`u64`) and memory whole bytes; milliseconds, percent and thousands separators
//! exist only in what people read. All conversions saturate, none panics.

use std::time::Duration;

/// Nanoseconds in one second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A duration in nanoseconds; saturates after 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A finite, non-negative number of seconds in nanoseconds; anything else is 0.
#[must_use]
pub fn seconds_to_nanos(seconds: f64) -> u64 {
    to_u64(seconds * SECOND_NS as f64)
}

/// The nearest whole number; NaN and negative numbers are 0, too large ones saturate.
#[must_use]
pub fn to_u64(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "float to integer casts saturate, and NaN becomes 0: exactly what is promised here"
    )]
    let whole = value.round() as u64;
    whole
}

/// Nanoseconds as milliseconds.
#[must_use]
pub fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Nanoseconds as microseconds.
#[must_use]
pub fn us(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Nanoseconds as seconds.
#[must_use]
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / SECOND_NS as f64
}

/// `part / whole`, and 0 when there is no whole: a rate over nothing is shown as nothing.
#[must_use]
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// An index or a length as `u64`; never truncates on the platforms Rust runs on.
#[must_use]
pub fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A wire or plan number as an index; a number that no memory could hold becomes `usize::MAX`, which no table has.
#[must_use]
pub fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant figures at most, as people read a measurement: `0.031`, `1.4`, `26`, `1,830`.
#[must_use]
pub fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1000.0 && value > 0.0 {
        thousands(to_u64(value))
    } else if magnitude >= 10.0 {
        format!("{value:.0}")
    } else if magnitude >= 1.0 {
        format!("{value:.1}")
    } else if magnitude >= 0.1 {
        format!("{value:.2}")
    } else if magnitude == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_get_separators() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(60_000_000), "60,000,000");
    }

    #[test]
    fn figures_keep_what_a_reader_needs() {
        let cases = [
            (0.0, "0"),
            (0.031, "0.031"),
            (0.25, "0.25"),
            (1.44, "1.4"),
            (26.3, "26"),
            (1830.4, "1,830"),
            (-3.26, "-3.3"),
        ];
        for (value, expected) in cases {
            assert_eq!(figure(value), expected);
        }
    }

    #[test]
    fn conversions_saturate_instead_of_panicking() {
        assert_eq!(to_u64(-1.0), 0);
        assert_eq!(to_u64(f64::NAN), 0);
        assert_eq!(to_u64(f64::INFINITY), u64::MAX);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
        assert!(ratio(1.0, 0.0).abs() < f64::EPSILON);
    }
}
