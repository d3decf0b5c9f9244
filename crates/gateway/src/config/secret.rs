//! A text that must never be shown: not in the log, not in an error, not in a page about the configuration.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use toml::Value;

use super::setting::{Form, Setting};

/// What stands where a secret would be.
const HIDDEN: &str = "***";

/// What is shown in the place of a value that must not be.
pub(super) fn hidden() -> Value {
    Value::String(HIDDEN.to_owned())
}

/// A text that is shown, written and debugged as `***`. Whoever needs it must say [`Secret::reveal`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text that is not to be shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "" } else { HIDDEN })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

/// From a flag.
impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "a text in quotes";
    const FORM: Form = Form::Text;
    const IS_SECRET: bool = true;

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(Self::new)
    }

    /// A configuration that is written out does not tell its secrets.
    fn write(&self) -> Value {
        Value::String(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let secret = Secret::new("redis://:hunter2@localhost");
        for shown in [format!("{secret}"), format!("{secret:?}"), secret.write().to_string()] {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("***"), "{shown}");
        }
        assert_eq!(secret.reveal(), "redis://:hunter2@localhost");
        assert_eq!(format!("{}{:?}", Secret::default(), Secret::default()), "\"\"");
    }
}
