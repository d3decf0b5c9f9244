//! Limits of the wire format. They are part of the contract; what an operator may tune lives in the configuration.

/// Longest topic name, in bytes.
pub const TOPIC_BYTES_MAX: usize = 200;

/// Longest textual request id, in bytes. Long enough for a UUID, short enough to be echoed for free.
pub const ID_BYTES_MAX: usize = 64;

/// Longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// Topics that one subscribe or unsubscribe command may name: bounds the one reply to it.
pub const TOPICS_PER_COMMAND_MAX: usize = 1000;

/// Whether a text may be an idempotency key: 1 to [`KEY_BYTES_MAX`] visible ASCII characters. Spaces are out because a
/// header loses them at its ends.
pub fn is_key(text: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Fastest `max_rate` that is told apart from "unlimited", in Hz: workers keep time in milliseconds.
pub const RATE_HZ_MAX: f64 = 1000.0;

/// Slowest `max_rate`, in Hz: one update in 100 seconds.
pub const RATE_HZ_MIN: f64 = 0.01;

/// Largest payload of a control frame (RFC 6455, section 5.5), in bytes.
pub const CONTROL_BYTES_MAX: usize = 125;

/// Most that one client command may take beyond the payload it carries, in bytes: a subscribe command that names 100
/// topics of 200 bytes with all their options fits.
pub const COMMAND_OVERHEAD_BYTES_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for key in ["a", "~!{}", "3f8b4c", &"k".repeat(128)] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "a b", " ", "\u{e4}", "a\tb", "\u{7f}", &"k".repeat(129)] {
            assert!(!is_key(key), "{key}");
        }
    }
}
