//! What the settings of Redis must be, beyond their kinds. Nothing here connects to it.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use tickcast_broker::redis::{AddressError, RedisUrl, TlsFiles};

use super::check::Findings;
use super::file;
use super::report::{Origin, Problem};
use super::setting::Setting as _;
use super::source::Settings;
use super::{RedisBroker, Secret};

/// A URL with a long user and password is below 1 KiB; what is larger is some other file.
const URL_FILE_BYTES_MAX: u64 = 4096;

/// Longest `broker.redis.prefix`: it is part of every key and channel name.
const PREFIX_BYTES_MAX: usize = 32;

const URL: &str = "broker.redis.url";
const URL_FILE: &str = "broker.redis.url_file";
/// The files of certificates.
const FILES: [&str; 3] =
    ["broker.redis.ca_file", "broker.redis.certificate_file", "broker.redis.key_file"];

impl RedisBroker {
    /// Where Redis is; none if the broker is inside the node.
    ///
    /// # Errors
    /// What is wrong with the URL. In a checked configuration nothing is.
    pub fn address(&self) -> Result<Option<RedisUrl>, AddressError> {
        if self.url.is_empty() { Ok(None) } else { self.url.reveal().parse().map(Some) }
    }

    /// The certificates.
    pub fn tls(&self) -> TlsFiles {
        let named = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
        TlsFiles {
            ca: named(&self.ca_file),
            certificate: named(&self.certificate_file),
            key: named(&self.key_file),
        }
    }
}

/// Takes the URL from its file. If the URL is set as well, the later source wins, as everywhere.
pub(super) fn read_url_file(redis: &mut RedisBroker, settings: &mut Settings) -> Option<Problem> {
    if redis.url_file.as_os_str().is_empty() {
        return None;
    }
    let rank = |key: &str| settings.get(key).map_or(0, |(_, origin)| origin.rank());
    let file = redis.url_file.display();
    match rank(URL).cmp(&rank(URL_FILE)) {
        std::cmp::Ordering::Greater => {
            redis.url_file.clear();
            settings.remove(URL_FILE);
            None
        }
        std::cmp::Ordering::Equal if !redis.url.is_empty() => {
            let text = format!("`{URL}` is set, and so is `{URL_FILE}` = \"{file}\"");
            Some(Problem::error(URL_FILE, text, "remove one of the two"))
        }
        _ => match read_url(&redis.url_file) {
            Ok(url) => {
                let origin = Origin::File { path: redis.url_file.clone(), place: None };
                settings.insert(URL.to_owned(), (url.write(), origin));
                redis.url = url;
                None
            }
            Err(error) => {
                let text = format!("`{URL_FILE}` = \"{file}\" cannot be used: {error}");
                let fix = "name a file that this user may read and that holds nothing but the URL";
                Some(Problem::error(URL_FILE, text, fix))
            }
        },
    }
}

fn read_url(path: &Path) -> io::Result<Secret> {
    match file::read(path, URL_FILE_BYTES_MAX)?.trim() {
        "" => Err(io::Error::other("it is empty")),
        url => Ok(Secret::new(url)),
    }
}

/// Checks the URL, the prefix and the certificates.
pub(super) fn check(redis: &RedisBroker, findings: &mut Findings) {
    check_prefix(&redis.prefix, findings);
    check_files(redis, findings);
    match redis.address() {
        Ok(url) => check_url(url.as_ref(), redis, findings),
        Err(error) => {
            let (key, place) = if redis.url_file.as_os_str().is_empty() {
                (URL, String::new())
            } else {
                (URL_FILE, format!(" from \"{}\"", redis.url_file.display()))
            };
            let text = format!("`{URL}`{place} cannot be used: {}", error.text());
            findings.problem(key, text, error.fix());
        }
    }
}

fn check_prefix(prefix: &str, findings: &mut Findings) {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=PREFIX_BYTES_MAX).contains(&prefix.len()) || !prefix.bytes().all(is_good) {
        findings.problem(
            "broker.redis.prefix",
            format!("`broker.redis.prefix` = \"{prefix}\" cannot be used"),
            format!("expected 1 to {PREFIX_BYTES_MAX} of the characters A-Z a-z 0-9 _ - ."),
        );
    }
}

/// Every certificate file must be there; whether it holds what it should is for the broker to say.
fn check_files(redis: &RedisBroker, findings: &mut Findings) {
    let TlsFiles { ca, certificate, key } = redis.tls();
    let files = FILES.into_iter().zip([&ca, &certificate, &key]);
    for (name, file) in files.filter_map(|(name, file)| Some((name, file.as_ref()?))) {
        if let Err(error) = File::open(file) {
            findings.problem(
                name,
                format!("`{name}` = \"{}\" cannot be read: {error}", file.display()),
                "name a PEM file that this user may read",
            );
        }
    }
    let (given, missing) = match (certificate, key) {
        (Some(_), None) => (FILES[1], FILES[2]),
        (None, Some(_)) => (FILES[2], FILES[1]),
        _ => return,
    };
    let text = format!("`{given}` is set without `{missing}`");
    findings.problem(given, text, format!("set `{missing}` as well: they go together"));
}

fn check_url(url: Option<&RedisUrl>, redis: &RedisBroker, findings: &mut Findings) {
    let TlsFiles { ca, certificate, key } = redis.tls();
    let mut files = FILES.into_iter().zip([ca, certificate, key]);
    let given = files.find(|(_, file)| file.is_some()).map(|(name, _)| name);
    let prefix = (redis.prefix != RedisBroker::default().prefix).then_some("broker.redis.prefix");
    match (url, given, prefix) {
        (None, Some(name), _) | (None, None, Some(name)) => findings.warning(
            name,
            "`broker.redis` has no effect without a URL: the broker is inside the node".to_owned(),
            format!("set `{URL}`, or pass --redis"),
        ),
        (Some(url), Some(name), _) if !url.uses_tls() => findings.warning(
            name,
            format!(
                "the certificate files of `broker.redis` have no effect: {url} is not encrypted"
            ),
            "use rediss:// for TLS",
        ),
        _ => {}
    }
    if let Some(url) = url.filter(|url| shows_password(url)) {
        findings.warning(
            URL,
            format!(
                "the password of {url} crosses the network in plain text, and so does every payload"
            ),
            "use rediss:// for TLS",
        );
    }
}

/// Reads the certificates as the link to Redis does at its start, and refuses what it would refuse.
pub(super) fn check_certificates(redis: &RedisBroker, findings: &mut Findings) {
    let uses_tls = |url: RedisUrl| url.uses_tls();
    if !redis.address().ok().flatten().is_some_and(uses_tls) {
        return;
    }
    if let Err(error) = redis.tls().check() {
        let key = error.setting().unwrap_or(FILES[0]);
        findings.problem(key, error.to_string(), "name PEM files that fit each other");
    }
}

/// Whether a password is sent unencrypted to another machine. Reads the URL as it is shown, whose form is fixed.
fn shows_password(url: &RedisUrl) -> bool {
    let shown = url.to_string();
    let Some((_, rest)) = shown.split_once("://").filter(|_| !url.uses_tls()) else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    shown.contains("***") && hosts.split(',').any(|host| !host.is_empty() && !is_loopback(host))
}

/// Whether `host:port` is on this machine.
fn is_loopback(host: &str) -> bool {
    let host = host.rsplit_once(':').map_or(host, |(host, _port)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Level;

    fn findings(change: impl FnOnce(&mut RedisBroker)) -> Findings {
        let mut redis = RedisBroker::default();
        change(&mut redis);
        let mut findings = Findings::default();
        check(&redis, &mut findings);
        findings
    }

    #[test]
    fn passwords_in_the_clear_are_a_warning() {
        let check = |url: &str, is_warned: bool| {
            let findings = findings(|redis| redis.url = Secret::new(url));
            assert_eq!(findings.texts(Level::Error), [""; 0], "{url}");
            let warnings = findings.texts(Level::Warning);
            assert_eq!(warnings.len(), usize::from(is_warned), "{url}: {findings:?}");
            assert!(!format!("{findings:?}").contains("hunter2"), "{findings:?}");
        };
        check("redis://localhost:6379", false);
        check("redis://redis.internal:6379", false);
        check("redis://:hunter2@localhost:6379", false);
        check("redis://:hunter2@127.0.0.1/3", false);
        check("redis://app:hunter2@[::1]:6379", false);
        check("unix:///run/redis.sock?user=a&pass=hunter2", false);
        check("rediss://app:hunter2@redis.internal:6379", false);
        check("redis://app:hunter2@redis.internal:6379", true);
        check("redis://:hunter2@10.0.0.7", true);
        check("redis+sentinel://:hunter2@localhost:26379,10.0.0.7:26379/main", true);
        check("redis+sentinel://10.0.0.7/main?sentinel_password=hunter2", true);
        check("redis+sentinel://:hunter2@localhost,[::1]:26380/main", false);
    }

    #[test]
    fn the_prefix_is_a_short_plain_word() {
        let check = |prefix: &str, is_good: bool| {
            let findings = findings(|redis| {
                redis.url = Secret::new("redis://localhost");
                prefix.clone_into(&mut redis.prefix);
            });
            assert_eq!(findings.0.is_empty(), is_good, "{prefix}: {findings:?}");
        };
        check("tickcast", true);
        check("T-1_a.b", true);
        check(&"x".repeat(32), true);
        for bad in ["", "a:b", "a{b}", "a b", "ä", &"x".repeat(33)] {
            check(bad, false);
        }
    }

    #[test]
    fn certificates_are_there_and_go_together() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pem");
        std::fs::write(&file, "").unwrap();
        let url = || Secret::new("rediss://localhost");
        let good = findings(|redis| {
            redis.url = url();
            (redis.ca_file, redis.certificate_file, redis.key_file) =
                (file.clone(), file.clone(), file.clone());
        });
        assert!(good.0.is_empty(), "{good:?}");

        let missing = findings(|redis| {
            (redis.url, redis.ca_file) = (url(), folder.path().join("b.pem"));
        });
        assert!(missing.0[0].text.contains("b.pem\" cannot be read: No such"), "{missing:?}");

        let alone = findings(|redis| (redis.url, redis.key_file) = (url(), file.clone()));
        let text = "`broker.redis.key_file` is set without `broker.redis.certificate_file`";
        assert_eq!(alone.0[0].text, text);

        let plain = findings(|redis| {
            (redis.url, redis.ca_file) = (Secret::new("redis://localhost"), file.clone());
        });
        assert!(plain.0[0].text.contains("is not encrypted"), "{plain:?}");
        let unused = findings(|redis| redis.ca_file = file.clone());
        assert!(unused.0[0].text.contains("no effect without a URL"), "{unused:?}");
    }
}
