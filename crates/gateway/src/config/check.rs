//! What settings must be to each other and to the machine, beyond the kind and bounds of each alone.

use std::net::SocketAddr;

use super::report::Problem;
use super::setting::{Setting, duration_text};
use super::{Config, ProxyProtocol, TopicOptions, access, budget, redis};

/// Files that a node needs besides its connections: listeners, epoll sets, the log, the broker.
const OPEN_FILES_RESERVE: u64 = 64;

/// Everything that the checks have found.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Problem>);

/// Checks a configuration, given the hard limit of open files if it is known.
pub(super) fn check(config: &Config, open_files_max: Option<u64>) -> Findings {
    let mut findings = Findings::default();
    check_listeners(config, &mut findings);
    check_proxies(config, &mut findings);
    check_open_files(config, open_files_max, &mut findings);
    check_sizes(config, &mut findings);
    budget::check(config, &mut findings);
    check_origins("cors.origins", &config.cors.origins, &mut findings);
    check_origins("access.origins", &config.access.origins, &mut findings);
    check_log_filter(&config.log.filter, &mut findings);
    check_patterns(config, &mut findings);
    check_topic_ttl(config, &mut findings);
    check_drain(config, &mut findings);
    access::check(config, &mut findings);
    redis::check(&config.broker.redis, &mut findings);
    findings
}

impl Findings {
    pub(super) fn problem(&mut self, key: &str, text: String, fix: impl Into<String>) {
        self.0.push(Problem::error(key, text, fix));
    }

    pub(super) fn warning(&mut self, key: &str, text: String, fix: impl Into<String>) {
        self.0.push(Problem::warning(key, text, fix));
    }

    #[cfg(test)]
    pub(super) fn texts(&self, level: super::Level) -> Vec<String> {
        let problems = self.0.iter().filter(|problem| problem.level == level);
        problems.map(|problem| format!("{}; {}", problem.text, problem.fix)).collect()
    }
}

fn check_listeners(config: &Config, findings: &mut Findings) {
    let server = &config.server;
    // The admin listener needs nothing: off loopback its actions need a key, whether there is one or not.
    if !server.insecure && !is_loopback(server.listen) && config.access.keys.is_empty() {
        findings.problem(
            "server.listen",
            format!("`server.listen` = \"{}\" is not a loopback address and there are no keys: anyone who can reach it may publish", server.listen),
            "add a key (`tickcast key new`), use 127.0.0.1, or pass --insecure (server.insecure = true) if a firewall or proxy decides who gets through",
        );
    }
    if server.listen == server.admin_listen && server.listen.port() != 0 {
        findings.problem(
            "server.admin_listen",
            format!("`server.listen` and `server.admin_listen` are both \"{}\"", server.listen),
            "give the admin listener its own port",
        );
    }
}

pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn check_proxies(config: &Config, findings: &mut Findings) {
    let server = &config.server;
    if server.proxy_protocol == ProxyProtocol::Required && server.trusted_proxies.is_empty() {
        findings.problem(
            "server.proxy_protocol",
            "`server.proxy_protocol` = \"required\" without `server.trusted_proxies`: every connection would be closed".to_owned(),
            "name the addresses of the proxies in `server.trusted_proxies`",
        );
    }
    for network in server.trusted_proxies.iter().filter(|network| network.is_everything()) {
        findings.warning(
            "server.trusted_proxies",
            format!("`server.trusted_proxies` has \"{network}\": every client can say that it is somebody else"),
            "name the addresses of the proxies alone",
        );
    }
}

fn check_open_files(config: &Config, open_files_max: Option<u64>, findings: &mut Findings) {
    let connections = u64::try_from(config.server.max_connections).unwrap_or(u64::MAX);
    let needed = connections.saturating_add(OPEN_FILES_RESERVE);
    if let Some(limit) = open_files_max.filter(|limit| *limit < needed) {
        findings.warning(
            "server.max_connections",
            format!(
                "`server.max_connections` = {connections} needs {needed} open files, but the hard limit is {limit}: \
                 connections beyond it will be refused"
            ),
            format!(
                "raise it (LimitNOFILE={needed} in a systemd unit, --ulimit nofile={needed} in Docker) \
                 or lower `server.max_connections`"
            ),
        );
    }
}

/// Connections that there are files for; without a known limit as many as `server.max_connections` may say.
pub(super) fn connections_that_fit(open_files_max: Option<u64>) -> usize {
    const MOST: u64 = 10_000_000;
    let fitting = open_files_max.unwrap_or(MOST).saturating_sub(OPEN_FILES_RESERVE).clamp(1, MOST);
    usize::try_from(fitting).unwrap_or(usize::MAX)
}

/// The hard limit of open files of this process; `None` if unlimited or unknown (only Linux tells in this way).
pub(super) fn open_files_max() -> Option<u64> {
    parse_open_files_max(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

fn parse_open_files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// One setting that may not exceed another.
fn check_sizes(config: &Config, findings: &mut Findings) {
    let pairs = [
        (
            "limits.payload_bytes",
            config.limits.payload_bytes,
            "limits.batch_bytes",
            config.limits.batch_bytes,
        ),
        ("http.uri_bytes", config.http.uri_bytes, "http.header_bytes", config.http.header_bytes),
        (
            "websocket.unsent_bytes",
            config.websocket.unsent_bytes,
            "websocket.send_buffer_bytes",
            config.websocket.send_buffer_bytes,
        ),
        (
            "topics.history_bytes",
            config.topics.defaults.history_bytes,
            "hub.log_memory",
            config.log_memory(),
        ),
    ];
    for (key, value, bound_key, bound) in pairs {
        if value > bound {
            let text = format!("`{key}` = \"{value}\" is larger than `{bound_key}` = \"{bound}\"");
            findings.problem(key, text, format!("lower `{key}` or raise `{bound_key}`"));
        }
    }
}

/// Whether it is an origin as browsers send it: scheme, host, perhaps a port; no path.
pub(crate) fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let bad =
        |c: char| c == '/' || c == '*' || c == '@' || c.is_whitespace() || c.is_ascii_uppercase();
    host.is_some_and(|host| !host.is_empty() && !host.contains(bad))
}

fn check_origins(key: &str, origins: &[String], findings: &mut Findings) {
    for origin in origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
        findings.problem(
            key,
            format!("`{key}` has \"{origin}\", which is not an origin"),
            "write it as browsers send it, such as \"https://example.com\", lower case, without a path; or \"*\" for any",
        );
    }
}

fn check_log_filter(filter: &str, findings: &mut Findings) {
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(filter) {
        let text = format!("`log.filter` = \"{filter}\" cannot be used: {error}");
        findings.problem(
            "log.filter",
            text,
            "expected for example \"info\" or \"info,tickcast=debug\"",
        );
    }
}

fn check_patterns(config: &Config, findings: &mut Findings) {
    let patterns = &config.topics.patterns;
    for (number, pattern) in patterns.iter().enumerate() {
        let key = format!("topics.pattern[{number}].match");
        let text = &pattern.matches;
        if let Err(error) = access::check_pattern(text) {
            findings.problem(
                &key,
                format!("`match` = \"{text}\" matches no topic: {error}"),
                "use an exact topic name, or the beginning of one followed by `*`",
            );
        }
        let prefix = text.strip_suffix('*').unwrap_or(text);
        let covers = |earlier: &&super::TopicPattern| match earlier.matches.strip_suffix('*') {
            Some(earlier_prefix) => prefix.starts_with(earlier_prefix),
            None => earlier.matches == *text,
        };
        if let Some(earlier) = patterns.iter().take(number).find(covers) {
            findings.warning(
                &key,
                format!(
                    "the topic pattern \"{text}\" is never used: the earlier pattern \"{}\" matches first",
                    earlier.matches
                ),
                "move it up",
            );
        }
    }
}

/// A topic must outlive its history and its idempotency keys, or resuming and retrying would break silently.
fn check_topic_ttl(config: &Config, findings: &mut Findings) {
    let broker = &config.broker;
    let ages = |key: String, options: &TopicOptions| (key, options.history_age);
    let patterns = config.topics.patterns.iter().enumerate();
    let mut longest = vec![
        ("broker.idempotency_ttl".to_owned(), broker.idempotency_ttl),
        ages("topics.history_age".to_owned(), &config.topics.defaults),
    ];
    longest.extend(patterns.map(|(number, pattern)| {
        ages(format!("topics.pattern[{number}].history_age"), &pattern.options)
    }));
    for (key, age) in longest.into_iter().filter(|(_, age)| *age > broker.topic_ttl) {
        findings.problem(
            "broker.topic_ttl",
            format!(
                "`broker.topic_ttl` = {} is shorter than `{key}` = {}",
                broker.topic_ttl.write(),
                duration_text(age)
            ),
            "raise `broker.topic_ttl`",
        );
    }
}

/// All of a drain has to fit into its time, and load balancers are to notice first.
fn check_drain(config: &Config, findings: &mut Findings) {
    let drain = &config.drain;
    if drain.delay > drain.timeout {
        let text = format!(
            "`drain.delay` = {} is longer than `drain.timeout` = {}",
            drain.delay.write(),
            drain.timeout.write()
        );
        findings.problem("drain.delay", text, "lower `drain.delay` or raise `drain.timeout`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_waits_no_longer_than_it_may_take() {
        let check = |delay: u64, timeout: u64| {
            let mut config = Config::default();
            config.drain.delay = std::time::Duration::from_secs(delay);
            config.drain.timeout = std::time::Duration::from_secs(timeout);
            let problems = check(&config, None).0;
            problems.into_iter().map(|problem| problem.text).collect::<Vec<_>>()
        };
        assert!(check(0, 0).is_empty() && check(45, 45).is_empty());
        assert_eq!(check(6, 5), ["`drain.delay` = \"6s\" is longer than `drain.timeout` = \"5s\""]);
    }

    #[test]
    fn the_hard_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(parse_open_files_max(limits), Some(524_288));
        assert_eq!(parse_open_files_max("Max open files  1024  unlimited  files"), None);
        assert_eq!(parse_open_files_max(""), None);
    }

    #[test]
    fn too_few_open_files_are_a_warning() {
        let mut config = Config::default();
        config.server.max_connections = 1000;
        let warnings = |limit| check(&config, limit).texts(crate::config::Level::Warning);
        assert_eq!(warnings(Some(1064)), [""; 0]);
        assert_eq!(warnings(None), [""; 0]);
        let warnings = warnings(Some(1063));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("needs 1064 open files, but the hard limit is 1063"));
    }
}
