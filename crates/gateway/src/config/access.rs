//! Keys: who may publish, subscribe to closed topics and administer. What a key is allowed is decided in `crate::access`.

use std::collections::HashMap;
use std::fmt;

use ring::digest;
use tickcast_protocol::Topic;
use toml::Value;

use super::check::Findings;
use super::setting::{self, Form, Section, Setting, either, section};
use super::{Access, Config};

/// Keys at once, inline and in the file together. One takes about 300 bytes.
pub(super) const KEYS_MAX: usize = 10_000;

/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 64;

section! {
    /// A key of a machine: `tickcast key new` prints this table and the key itself.
    "access.key" AccessKey

    /// How the log calls the key: 1 to 64 of the characters `A-Z a-z 0-9 _ - .`, different from all others.
    name: KeyName = KeyName::default();

    /// `sha256:` and the SHA-256 of the key in 64 hexadecimal digits. The key itself is stored nowhere.
    hash: KeyHash = KeyHash::default();

    /// What may be done with it: `publish`, `subscribe` (to closed topics), `admin` (the routes under `/admin/`).
    rights: Rights = Rights::default();

    /// The topics it may be done to: exact names, or the beginning of names followed by `*`. It has no meaning for `admin`.
    topics: Vec<String> = vec!["*".to_owned()];

    /// Publications per second at each node; 0 means no limit. One second's worth may come at once.
    /// Beyond it the answer is 429 `rate_limited`.
    rate: usize = 0, in 0..=1_000_000;
}

/// The name of a key, fit for a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The name, if it is one.
    pub fn new(name: &str) -> Option<Self> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_good);
        fits.then(|| Self(name.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for KeyName {
    const EXPECTED: &'static str = "1 to 64 of the characters A-Z a-z 0-9 _ - .";
    const FORM: Form = Form::Pattern("^[A-Za-z0-9_.-]{1,64}$");

    fn read(value: &Value) -> Option<Self> {
        Self::new(value.as_str()?)
    }

    fn write(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// The SHA-256 of a key.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of this key.
    pub fn of(key: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, key.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Setting for KeyHash {
    const EXPECTED: &'static str =
        "\"sha256:\" and 64 hexadecimal digits, as `tickcast key new` prints them";
    const FORM: Form = Form::Pattern("^sha256:[0-9a-fA-F]{64}$");
    /// A hash is no secret, but who mistakes it for the key writes the key here.
    const IS_SECRET: bool = true;

    fn read(value: &Value) -> Option<Self> {
        let digits = value.as_str()?.strip_prefix("sha256:")?.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex(pair[0])? << 4) | hex(pair[1])?;
        }
        Some(Self(bytes))
    }

    fn write(&self) -> Value {
        Value::String(self.to_string())
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// One thing that may be done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Publish to the key's topics.
    Publish,
    /// Subscribe to and read the key's topics where they are closed.
    Subscribe,
    /// Use the routes under `/admin/`.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Admin];

    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Admin => "admin",
        }
    }
}

/// Some of the rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Whether this right is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// Each of them.
    pub(crate) fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |bits, right| bits | (1 << right as u8)))
    }
}

impl Setting for Rights {
    const EXPECTED: &'static str =
        "a list of at least one of \"publish\", \"subscribe\" and \"admin\"";
    const FORM: Form = Form::List {
        least: 1,
        items: &Form::Words(&[
            Right::Publish.as_str(),
            Right::Subscribe.as_str(),
            Right::Admin.as_str(),
        ]),
    };

    fn read(value: &Value) -> Option<Self> {
        let right = |word: &Value| {
            let word = word.as_str()?;
            Right::ALL.into_iter().find(|right| right.as_str() == word)
        };
        let rights: Self = value.as_array()?.iter().map(right).collect::<Option<_>>()?;
        (rights != Self::default()).then_some(rights)
    }

    fn write(&self) -> Value {
        let word = |right: Right| Value::String(right.as_str().to_owned());
        Value::Array(self.iter().map(word).collect())
    }
}

/// Who may subscribe to a topic and read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SubscribeRule {
    /// Everybody.
    #[default]
    Open,
    /// Who has a key with the right `subscribe` for it.
    Closed,
}

either!(SubscribeRule: Open => "open", Closed => "closed");

/// Whether a pattern of topic names, which is an exact name or the beginning of names and `*`, has this one.
pub(crate) fn pattern_matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => topic.starts_with(prefix),
        None => topic == pattern,
    }
}

/// Why a pattern matches no topic at all, if so.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    // A prefix need not be a whole name, so a letter is added to complete it.
    let sample = pattern.strip_suffix('*').map(|prefix| format!("{prefix}x"));
    Topic::check(sample.as_deref().unwrap_or(pattern)).map_err(|error| error.to_string())
}

/// Checks the keys, alone and together.
pub(super) fn check(config: &Config, findings: &mut Findings) {
    let Access { keys, .. } = &config.access;
    if keys.len() > KEYS_MAX {
        let text = format!("there are {} keys; at most {KEYS_MAX} are allowed", keys.len());
        findings.problem("access.keys_file", text, "give machines that do the same one key");
    }
    let (mut names, mut hashes) = (HashMap::new(), HashMap::new());
    for (number, key) in keys.iter().enumerate() {
        let path = |key: &str| format!("access.key[{number}].{key}");
        check_key(key, &path, findings);
        let name = key.name.as_str();
        // What is missing has its own problem, and is equal everywhere.
        if !name.is_empty() && names.insert(name, number).is_some() {
            let text = format!("there are two keys with `name` = \"{name}\"");
            findings.problem(&path("name"), text, "give each its own name");
        }
        let known = hashes.insert(key.hash, name).filter(|_| key.hash != KeyHash::default());
        if let Some(first) = known {
            let text = format!("the keys \"{first}\" and \"{name}\" have one hash");
            findings.problem(&path("hash"), text, "make a new key with `tickcast key new`");
        }
    }
    warn_of_shut_topics(config, findings);
}

fn check_key(key: &AccessKey, path: &impl Fn(&str) -> String, findings: &mut Findings) {
    let AccessKey { rights, topics, rate, .. } = key;
    let name = key.name.as_str();
    if topics.is_empty() {
        let text = format!("the key \"{name}\" has no topics");
        findings.problem(&path("topics"), text, "name some, or leave `topics` out for all");
    }
    for pattern in topics {
        if let Err(error) = check_pattern(pattern) {
            findings.problem(
                &path("topics"),
                format!("`topics` of the key \"{name}\" has \"{pattern}\", which matches no topic: {error}"),
                "use exact topic names, or the beginning of some followed by `*`",
            );
        }
    }
    if *rate > 0 && *rights != Rights::default() && !rights.has(Right::Publish) {
        findings.warning(
            &path("rate"),
            format!("`rate` of the key \"{name}\" has no effect: it is about publishing, and the key may not publish"),
            "remove it, or give the key the right `publish`",
        );
    }
}

/// Topics that nobody may subscribe to are hardly meant.
fn warn_of_shut_topics(config: &Config, findings: &mut Findings) {
    let may_subscribe = |key: &AccessKey| key.rights.has(Right::Subscribe);
    let Some(key) = config.topics.first_closed() else { return };
    if !config.access.keys.iter().any(may_subscribe) {
        findings.warning(
            &key,
            format!("`{key}` = \"closed\", and no key has the right `subscribe`: nobody can subscribe to those topics"),
            "make a key with `tickcast key new NAME --subscribe`",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes() {
        // The test vector of FIPS 180-2.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = |text: &str| Value::String(text.to_owned());
        assert_eq!(KeyHash::of("abc").to_string(), abc);
        assert_eq!(KeyHash::read(&text(abc)), Some(KeyHash::of("abc")));
        let upper = abc.to_uppercase().replace("SHA256", "sha256");
        assert_eq!(KeyHash::read(&text(&upper)), Some(KeyHash::of("abc")));
        for bad in
            ["", "sha256:", &abc[7..], &abc[..70], &format!("{abc}0"), &abc.replace('b', "g")]
        {
            assert_eq!(KeyHash::read(&text(bad)), None, "{bad}");
        }
    }

    #[test]
    fn rights() {
        let words = |words: &[&str]| {
            Rights::read(&Value::Array(words.iter().map(|&word| word.into()).collect()))
        };
        let both = words(&["admin", "publish", "admin"]).unwrap();
        assert!(both.has(Right::Publish) && both.has(Right::Admin) && !both.has(Right::Subscribe));
        assert_eq!(both.write().to_string(), r#"["publish", "admin"]"#);
        assert_eq!(words(&[]), None);
        assert_eq!(words(&["write"]), None);
        assert_eq!(Rights::read(&Value::String("publish".to_owned())), None);
    }
}
