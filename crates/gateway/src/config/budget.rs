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

/// A budget is 0 or large enough to be of use.
pub(super) fn check(config: &Config, findings: &mut Findings) {
    let settings = [
        ("hub.log_memory", config.hub.log_memory),
        ("broker.memory.memory", config.broker.memory.memory),
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
