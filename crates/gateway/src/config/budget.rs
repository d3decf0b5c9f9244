//! Budgets that follow from the memory that the process may use, unless a setting names one.

use super::Config;
use super::check::Findings;
use super::setting::Size;
use crate::memory;

/// The least that a setting may name.
const LEAST: Size = Size::mib(1);

/// What something gets of the memory while its setting is 0.
#[derive(Debug)]
pub(super) struct Budget {
    /// The `share`th part: connections, requests and what is under way need the rest.
    share: u64,
    /// More is of no use unless somebody asks for it.
    most: Size,
}

/// For the logs of all topics.
pub(super) const LOGS: Budget = Budget { share: 4, most: Size::mib(256) };

/// For what the broker inside the node keeps. Publications that are in a log as well exist once.
pub(super) const BROKER: Budget = Budget { share: 2, most: Size::mib(1024) };

/// For bodies that come slowly, and once more for answers that are not taken.
pub(super) const HTTP: Budget = Budget { share: 16, most: Size::mib(64) };

/// Connections get this part of the memory.
const CONNECTIONS_SHARE: u64 = 4;

/// What a connection costs, in bytes: about 5 KiB in the kernel while its buffers are empty, below 1 KiB in the node while
/// it is an idle WebSocket, and a share of those that are in the middle of a request (up to 32 KiB) or do not take what
/// they are sent.
const CONNECTION_BYTES: u64 = 8 * 1024;

/// However little memory there is, so many connections may be tried.
const CONNECTIONS_MIN: u64 = 256;

/// Connections for which so much memory is enough; without a known limit any number.
pub(super) fn connections(allowed: Option<u64>) -> usize {
    allowed.map_or(usize::MAX, |bytes| {
        let fitting = (bytes / CONNECTIONS_SHARE / CONNECTION_BYTES).max(CONNECTIONS_MIN);
        usize::try_from(fitting).unwrap_or(usize::MAX)
    })
}

impl Budget {
    /// What a setting means on this machine.
    pub(super) fn resolve(&self, setting: Size) -> Size {
        match setting.bytes() {
            0 => self.fitting(memory::allowed()),
            _ => setting,
        }
    }

    /// The part of so much memory, in whole MiB; without a known limit the most.
    fn fitting(&self, allowed: Option<u64>) -> Size {
        let part = allowed.and_then(|bytes| usize::try_from(bytes / self.share).ok());
        part.map_or(self.most, |bytes| Size::mib(bytes >> 20).clamp(LEAST, self.most))
    }
}

/// More connections than there is memory for are the operator's choice, made knowingly.
fn check_connections(config: &Config, allowed: Option<u64>, findings: &mut Findings) {
    let (count, fitting) = (config.server.max_connections, connections(allowed));
    if count > fitting {
        findings.warning(
            "server.max_connections",
            format!(
                "`server.max_connections` = {count} is more than a quarter of the memory is good for at {CONNECTION_BYTES} bytes each, {fitting}: \
                 if they all come, the node may be ended for want of memory"
            ),
            "lower it, or give the node more memory",
        );
    }
}

/// A budget is 0 or large enough to be of use.
pub(super) fn check(config: &Config, findings: &mut Findings) {
    check_connections(config, memory::allowed(), findings);
    let settings = [
        ("hub.log_memory", config.hub.log_memory),
        ("broker.memory.memory", config.broker.memory.memory),
        ("http.memory", config.http.memory),
    ];
    for (key, size) in
        settings.into_iter().filter(|(_, size)| (1..LEAST.bytes()).contains(&size.bytes()))
    {
        let text = format!("`{key}` = \"{size}\" is less than \"{LEAST}\"");
        findings.problem(key, text, "raise it, or use 0 for what fits the machine");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_part_of_the_memory_within_bounds() {
        let check = |allowed: Option<u64>, logs: &str, broker: &str| {
            let fitting = [LOGS, BROKER].map(|budget| budget.fitting(allowed).to_string());
            assert_eq!(fitting, [logs, broker], "{allowed:?}");
        };
        check(None, "256MiB", "1GiB");
        check(Some(u64::MAX), "256MiB", "1GiB");
        check(Some(2 << 30), "256MiB", "1GiB");
        check(Some((1 << 30) - 1), "255MiB", "511MiB");
        check(Some(256 << 20), "64MiB", "128MiB");
        check(Some(200_000_000), "47MiB", "95MiB");
        check(Some(0), "1MiB", "1MiB");
    }

    #[test]
    fn connections_take_a_quarter_of_the_memory() {
        assert_eq!(connections(None), usize::MAX);
        for (mib, count) in
            [(0, 256), (8, 256), (9, 288), (512, 16_384), (4096, 131_072), (32_768, 1_048_576)]
        {
            assert_eq!(connections(Some(mib << 20)), count, "{mib} MiB");
        }
    }

    #[test]
    fn without_a_setting_connections_are_bounded_by_memory_too() {
        let mut config = Config::default();
        assert!(config.max_connections() <= connections(memory::allowed()));
        config.server.max_connections = 2;
        assert_eq!(config.max_connections(), 2);
    }

    #[test]
    fn more_connections_than_memory_are_a_warning() {
        let warnings = |count: usize, allowed: Option<u64>| {
            let (mut config, mut findings) = (Config::default(), Findings::default());
            config.server.max_connections = count;
            check_connections(&config, allowed, &mut findings);
            findings.texts(crate::config::Level::Warning).len()
        };
        let allowed = Some(512 << 20);
        assert_eq!([warnings(0, allowed), warnings(16_384, allowed)], [0, 0]);
        assert_eq!([warnings(16_385, allowed), warnings(16_385, None)], [1, 0]);
    }

    #[test]
    fn a_setting_wins() {
        assert_eq!(LOGS.resolve(Size::mib(512)), Size::mib(512));
        assert_eq!(LOGS.resolve(Size::new(0)), LOGS.fitting(memory::allowed()));
    }

    #[test]
    fn a_budget_that_is_named_is_not_too_small() {
        let problems = |logs: Size, broker: Size| {
            let (mut config, mut findings) = (Config::default(), Findings::default());
            config.hub.log_memory = logs;
            config.broker.memory.memory = broker;
            check(&config, &mut findings);
            findings.0.into_iter().map(|problem| problem.text).collect::<Vec<_>>()
        };
        assert!(problems(Size::new(0), LEAST).is_empty());
        let expected = [
            "`hub.log_memory` = \"1B\" is less than \"1MiB\"",
            "`broker.memory.memory` = \"1023KiB\" is less than \"1MiB\"",
        ];
        assert_eq!(problems(Size::new(1), Size::kib(1023)), expected);
    }
}
