//! The kinds of values that a setting can have, and the macro that declares a section of settings.
//!
//! A section is written once: the macro makes the struct, its defaults, its (de)serialization and the table of
//! [`Key`]s from the same lines, so the reference page, the checks and the code cannot disagree.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tickcast_protocol::Mode;
use toml::Value;

use super::reload::Change;

/// A number of bytes, written as `"64KiB"`, `"1MiB"`, `"2GiB"`, `"100B"` or a plain whole number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Size(usize);

impl Size {
    /// That many bytes.
    pub const fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// That many KiB.
    pub(super) const fn kib(count: usize) -> Self {
        Self(count << 10)
    }

    /// That many MiB.
    pub(super) const fn mib(count: usize) -> Self {
        Self(count << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().find(|unit| self.0 >= unit.1 && self.0.is_multiple_of(unit.1));
        let (name, bytes) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / bytes)
    }
}

const SIZE_UNITS: [(&str, usize); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Units of durations in milliseconds, largest first. `ms` comes before `m` and `s` where suffixes are tried in turn.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// How a node writes its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Compact,
    /// One JSON object per event.
    Json,
}

/// What values look like, for programs that have not this one's types: the JSON Schema, and guesses at what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`.
    Truth,
    /// A whole number that is not negative.
    Number,
    /// A number of bytes, as a text with a unit or as a number.
    Size,
    /// A text with a unit of time.
    Duration,
    /// Any text.
    Text,
    /// A text that matches a regular expression.
    Pattern(&'static str),
    /// One of these texts.
    Words(&'static [&'static str]),
    /// A list.
    List {
        /// So many items at least.
        least: usize,
        /// What each looks like.
        items: &'static Self,
    },
}

/// A type that a setting can have: how it is read from and written to TOML.
pub trait Setting: Sized {
    /// What a good value looks like, to follow the word "expected".
    const EXPECTED: &'static str;

    /// What values look like.
    const FORM: Form;

    /// A value that must never be shown, not even when it is wrong.
    const IS_SECRET: bool = false;

    /// The value, if it is of this kind.
    fn read(value: &Value) -> Option<Self>;

    /// The value as it is written in a file.
    fn write(&self) -> Value;
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    const FORM: Form = Form::Truth;

    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn write(&self) -> Value {
        Value::Boolean(*self)
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number";
    const FORM: Form = Form::Number;

    fn read(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|number| Self::try_from(number).ok())
    }

    fn write(&self) -> Value {
        Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Setting for Size {
    const EXPECTED: &'static str = "a size such as \"64KiB\" or \"1MiB\"";
    const FORM: Form = Form::Size;

    fn read(value: &Value) -> Option<Self> {
        let Value::String(text) = value else {
            return usize::read(value).map(Self);
        };
        let (digits, unit) = split_number(text)?;
        let bytes = match unit {
            "" => 1,
            _ => SIZE_UNITS.iter().find(|known| known.0 == unit)?.1,
        };
        digits.parse::<usize>().ok()?.checked_mul(bytes).map(Self)
    }

    fn write(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str =
        "a duration such as \"250ms\", \"25s\", \"5m\", \"1h\" or \"7d\"";
    const FORM: Form = Form::Duration;

    fn read(value: &Value) -> Option<Self> {
        let (digits, unit) = split_number(value.as_str()?)?;
        let milliseconds = TIME_UNITS.iter().find(|known| known.0 == unit)?.1;
        digits.parse::<u64>().ok()?.checked_mul(milliseconds).map(Self::from_millis)
    }

    fn write(&self) -> Value {
        Value::String(duration_text(*self))
    }
}

/// A duration as it is written in a file, in the largest unit that keeps it whole. Below a millisecond it is cut off.
pub(super) fn duration_text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = TIME_UNITS.iter().find(|unit| milliseconds >= unit.1 && milliseconds % unit.1 == 0);
    let (name, length) = unit.copied().unwrap_or(("ms", 1));
    format!("{}{name}", milliseconds / length)
}

/// Splits `"64KiB"` into `("64", "KiB")`; `None` without leading digits.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (at > 0).then(|| (&text[..at], text[at..].trim_start()))
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str =
        "an IP address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"";
    const FORM: Form = Form::Pattern(r"^([0-9.]+|\[[0-9a-fA-F:.]+(%[0-9]+)?\]):[0-9]{1,5}$");

    fn read(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }

    fn write(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a text in quotes";
    const FORM: Form = Form::Text;

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }

    fn write(&self) -> Value {
        Value::String(self.clone())
    }
}

/// Empty means none.
impl Setting for PathBuf {
    const EXPECTED: &'static str = "the path of a file in quotes";
    const FORM: Form = Form::Text;

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }

    fn write(&self) -> Value {
        Value::String(self.display().to_string())
    }
}

impl Setting for Vec<String> {
    const EXPECTED: &'static str = "a list of texts such as [\"https://example.com\"]";
    const FORM: Form = Form::List { least: 0, items: &Form::Text };

    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(String::read).collect()
    }

    fn write(&self) -> Value {
        Value::Array(self.iter().map(String::write).collect())
    }
}

/// Makes an enum of two words a kind of setting.
macro_rules! either {
    ($kind:ty: $first:ident => $first_word:literal, $second:ident => $second_word:literal) => {
        impl $crate::config::Setting for $kind {
            const EXPECTED: &'static str =
                concat!("\"", $first_word, "\" or \"", $second_word, "\"");
            const FORM: $crate::config::Form =
                $crate::config::Form::Words(&[$first_word, $second_word]);

            fn read(value: &toml::Value) -> Option<Self> {
                match value.as_str()? {
                    $first_word => Some(Self::$first),
                    $second_word => Some(Self::$second),
                    _ => None,
                }
            }

            fn write(&self) -> toml::Value {
                let word = match self {
                    Self::$first => $first_word,
                    Self::$second => $second_word,
                };
                toml::Value::String(word.to_owned())
            }
        }
    };
}
pub(super) use either;

either!(Mode: All => "all", Latest => "latest");
either!(LogFormat: Compact => "compact", Json => "json");

/// `#[serde(with)]`: a setting is serialized as it is written in a file.
pub(super) fn serialize<T: Setting, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.write().serialize(serializer)
}

/// `#[serde(with)]`: a setting is read as in a file.
pub(super) fn deserialize<'de, T: Setting, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    T::read(&value).ok_or_else(|| {
        let shown = if T::IS_SECRET { String::new() } else { format!("{value}: ") };
        serde::de::Error::custom(format_args!("{shown}expected {}", T::EXPECTED))
    })
}

/// Looks at a value: `Err` has the words that follow "expected".
pub(super) type Check = fn(&Value) -> Result<(), String>;

/// One row of the table of all settings.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The full name, such as `websocket.ping_interval`.
    pub name: &'static str,
    /// The lines of the description.
    pub docs: &'static [&'static str],
    /// The default, as it is written in a file.
    pub default: fn() -> Value,
    /// A reload does not change it: the new value counts from the next start on.
    pub needs_restart: bool,
    /// What values look like.
    pub form: Form,
    /// Its values must not be shown.
    pub(super) is_secret: bool,
    /// Can a value be taken?
    pub(super) check: Check,
    /// Lowest and highest value, if there are bounds.
    pub(super) bounds: fn() -> Option<(Value, Value)>,
}

impl Key {
    /// Whether a value is of the right kind and inside the bounds.
    pub fn takes(&self, value: &Value) -> bool {
        (self.check)(value).is_ok()
    }
}

/// Takes values of the right kind only.
pub(super) fn check_kind<T: Setting>(value: &Value) -> Result<(), String> {
    T::read(value).map(drop).ok_or_else(|| T::EXPECTED.to_owned())
}

/// Takes values of the right kind inside the bounds only.
pub(super) fn check_range<T: Setting + PartialOrd>(
    value: &Value,
    range: &RangeInclusive<T>,
) -> Result<(), String> {
    if T::read(value).is_some_and(|value| range.contains(&value)) {
        return Ok(());
    }
    Err(format!("{} from {} to {}", T::EXPECTED, range.start().write(), range.end().write()))
}

/// Declares a section: `name: kind = default, in lowest..=highest, needs restart;` per setting, with its reference text
/// above it, then perhaps the word `sections` and the sections inside it. `needs restart` marks a setting that a running
/// node cannot change.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $(#[derive($extra:ident)])?
        $section:literal $struct:ident
        $(
            $(#[doc = $doc:literal])+
            $field:ident: $kind:ty = $default:expr $(, in $range:expr)? $(, needs $restart:ident)?;
        )+
        $(sections
            $(
                $(#[doc = $inner_doc:literal])+
                $(#[serde($($inner_serde:tt)+)])?
                $inner:ident: $inner_kind:ty,
            )+
        )?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize $(, $extra)?)]
        #[serde(deny_unknown_fields, default)]
        pub struct $struct {
            $(
                $(#[doc = $doc])+
                #[serde(with = "setting")]
                pub $field: $kind,
            )+
            $($(
                $(#[doc = $inner_doc])+
                $(#[serde($($inner_serde)+)])?
                pub $inner: $inner_kind,
            )+)?
        }

        impl Default for $struct {
            fn default() -> Self {
                Self {
                    $($field: $default,)+
                    $($($inner: Default::default(),)+)?
                }
            }
        }

        impl $struct {
            /// What the section is about, and its settings in reading order.
            pub(in crate::config) const SECTION: Section = Section {
                name: $section,
                docs: &[$($about),+],
                keys: &[$(setting::Key {
                    name: concat!($section, ".", stringify!($field)),
                    docs: &[$($doc),+],
                    default: || <$kind as setting::Setting>::write(&$default),
                    needs_restart: section!(@needs $($restart)?),
                    form: <$kind as setting::Setting>::FORM,
                    is_secret: <$kind as setting::Setting>::IS_SECRET,
                    check: section!(@check $kind $(, $range)?),
                    bounds: section!(@bounds $kind $(, $range)?),
                }),+],
            };
        }

        impl setting::Compare for $struct {
            fn changes(&self, after: &mut Self, changes: &mut Vec<$crate::config::Change>) {
                let mut keys = Self::SECTION.keys.iter();
                $(
                    if let Some(key) = keys.next() && self.$field != after.$field {
                        changes.push($crate::config::Change::of(key, &self.$field, &after.$field));
                        if key.needs_restart {
                            after.$field.clone_from(&self.$field);
                        }
                    }
                )+
                $($(setting::Compare::changes(&self.$inner, &mut after.$inner, changes);)+)?
            }
        }
    };
    (@needs) => { false };
    (@needs restart) => { true };
    (@check $kind:ty) => { setting::check_kind::<$kind> };
    (@check $kind:ty, $range:expr) => { |value| setting::check_range::<$kind>(value, &($range)) };
    (@bounds $kind:ty) => { || None };
    (@bounds $kind:ty, $range:expr) => {
        || {
            let range: std::ops::RangeInclusive<$kind> = $range;
            Some((setting::Setting::write(range.start()), setting::Setting::write(range.end())))
        }
    };
}
pub(super) use section;

/// A part of the configuration that a reload can find different.
pub(super) trait Compare {
    /// Appends what is different in `after`, and puts back there what a running node cannot change.
    fn changes(&self, after: &mut Self, changes: &mut Vec<Change>);
}

/// A section of the configuration and its settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    /// Its name in the file, such as `broker.memory`.
    pub(super) name: &'static str,
    /// The lines of its description.
    pub(super) docs: &'static [&'static str],
    /// Its settings.
    pub(super) keys: &'static [Key],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn durations() {
        let check = |written: &str, milliseconds: Option<u64>, canonical: &str| {
            let read = Duration::read(&text(written));
            assert_eq!(read, milliseconds.map(Duration::from_millis), "{written}");
            if let Some(read) = read {
                assert_eq!(duration_text(read), canonical);
            }
        };
        check("250ms", Some(250), "250ms");
        check("25s", Some(25_000), "25s");
        check("60s", Some(60_000), "1m");
        check("5m", Some(300_000), "5m");
        check("1h", Some(3_600_000), "1h");
        check("7d", Some(604_800_000), "7d");
        check("0ms", Some(0), "0ms");
        check("25 s", Some(25_000), "25s");
        for bad in ["", "s", "25", "-1s", "1.5s", "25 parsecs", "99999999999999999999s", "1d1h"] {
            check(bad, None, "");
        }
        assert_eq!(Duration::read(&Value::Integer(25)), None);
    }

    #[test]
    fn sizes() {
        let check = |written: Value, bytes: Option<usize>, canonical: &str| {
            let read = Size::read(&written);
            assert_eq!(read.map(Size::bytes), bytes, "{written}");
            assert_eq!(read.map(|size| size.to_string()).unwrap_or_default(), canonical);
        };
        check(text("64KiB"), Some(65_536), "64KiB");
        check(text("1MiB"), Some(1 << 20), "1MiB");
        check(text("2GiB"), Some(2 << 30), "2GiB");
        check(text("100"), Some(100), "100B");
        check(Value::Integer(65_537), Some(65_537), "65537B");
        check(Value::Integer(0), Some(0), "0B");
        for bad in ["64KB", "64kib", "KiB", "1.5MiB", "-1", "99999999999999GiB"] {
            check(text(bad), None, "");
        }
        check(Value::Integer(-1), None, "");
    }
}
