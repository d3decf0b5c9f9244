//! Where a topic stands: an offset inside an epoch.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// One continuous run of offsets of one topic, written as lower-case base 36, such as `k3f9`.
///
/// A topic gets a new, random epoch whenever its offsets cannot be trusted to continue (the state was lost or rewound),
/// so equal epochs mean comparable offsets. Epochs are compared for equality only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(u64);

/// A publication's place in its topic: offsets rise by one inside an epoch. Offset 0 is "before the first".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The run of offsets.
    pub epoch: Epoch,
    /// The place in the run.
    pub offset: u64,
}

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// `u64::MAX` has 13 digits in base 36.
const DIGITS_MAX: usize = 13;

impl Epoch {
    /// The epoch with this number. Random numbers of 40 bits give 8 characters on the wire.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number behind the name.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; DIGITS_MAX];
        let mut at = DIGITS_MAX;
        let mut rest = self.0;
        loop {
            at -= 1;
            // The remainder is below 36, so the index is in range and the cast loses nothing.
            text[at] = DIGITS[(rest % 36) as usize & 63];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&text[at..]).unwrap_or_default())
    }
}

/// The text is not the canonical name of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an epoch: expected 1 to 13 characters of 0-9 a-z without a leading zero")]
pub struct EpochError;

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        let number = match text.as_bytes() {
            [b'0'] => 0,
            [] | [b'0', ..] => return Err(EpochError),
            bytes if bytes.len() > DIGITS_MAX => return Err(EpochError),
            bytes => bytes.iter().try_fold(0u64, |number, byte| {
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    b'a'..=b'z' => byte - b'a' + 10,
                    _ => return Err(EpochError),
                };
                number
                    .checked_mul(36)
                    .and_then(|n| n.checked_add(u64::from(digit)))
                    .ok_or(EpochError)
            })?,
        };
        Ok(Self(number))
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_round_trip(number: u64) {
            let epoch = Epoch::new(number);
            prop_assert_eq!(epoch.to_string().parse(), Ok(epoch));
        }

        #[test]
        fn any_text_is_refused_or_canonical(text in "[0-9a-zA-Z]{0,15}") {
            if let Ok(epoch) = text.parse::<Epoch>() {
                prop_assert_eq!(epoch.to_string(), text);
            }
        }
    }

    #[test]
    fn the_name_in_the_documentation() {
        assert_eq!("k3f9".parse(), Ok(Epoch::new(937_557)));
        assert_eq!(Epoch::new(u64::MAX).to_string(), "3w5e11264sgsf");
        assert_eq!("3w5e11264sgsg".parse::<Epoch>(), Err(EpochError));
    }
}
