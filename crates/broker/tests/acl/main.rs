//! The rights that the manual tells operators to give: a node can do all its work with them, and needs each of them.
//!
//! The rule is read from the manual itself, so that the two cannot drift apart.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admin;
#[path = "../dial/support/server.rs"]
#[expect(dead_code, reason = "other tests need more of a server")]
mod server;
mod trial;

use std::collections::BTreeSet;
use std::sync::Arc;

use tickcast_broker::redis::TlsFiles;
use tickcast_broker::redis::inspect::inspect;

use self::admin::Admin;
use self::trial::{Trial, eventually};

/// Where the rule stands.
const MANUAL: &str = include_str!("../../../../docs/how-to/run-on-redis.md");

/// What the manual calls dispensable: without it a node only sees less of itself in Redis.
const DISPENSABLE: [&str; 3] = ["client|setname", "client|id", "client|list"];

/// The rule of the manual: `ACL SETUSER tickcast on >secret …`.
struct Rule {
    secret: &'static str,
    words: Vec<&'static str>,
}

impl Rule {
    fn of_the_manual() -> Self {
        let mut lines =
            MANUAL.lines().filter_map(|line| line.strip_prefix("ACL SETUSER tickcast "));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            panic!("the manual must give one rule for a user");
        };
        let words: Vec<_> = line.split(' ').collect();
        let secret = words.iter().find_map(|word| word.strip_prefix('>')).unwrap();
        Self { secret, words }
    }

    /// The commands that it allows.
    fn commands(&self) -> BTreeSet<&'static str> {
        self.words.iter().filter_map(|word| word.strip_prefix('+')).collect()
    }

    /// A node's work, to be done by a user with this rule, as far as it does not allow `omitted`.
    fn trial(&self, admin: &Arc<Admin>, omitted: Option<&str>) -> Trial {
        let user = omitted.map_or("tickcast".to_owned(), |command| {
            format!("without-{}", command.replace('|', "-"))
        });
        let is_omitted = |word: &str| word.strip_prefix('+').is_some_and(|c| Some(c) == omitted);
        let words: Vec<_> = self.words.iter().copied().filter(|word| !is_omitted(word)).collect();
        admin.set_user(&user, &words);
        Trial::new(Arc::clone(admin), user, self.secret)
    }
}

#[tokio::test]
async fn a_node_is_denied_nothing() {
    let admin = Arc::new(Admin::start());
    let trial = Rule::of_the_manual().trial(&admin, None);
    let _nodes = trial.run().await.unwrap();
    eventually("a look at the output buffer", || admin.has_run("client|list")).await;
    assert_eq!(admin.denied_to(&trial.user), BTreeSet::new());
}

#[tokio::test]
async fn a_node_needs_each_command() {
    let admin = Arc::new(Admin::start());
    let rule = Rule::of_the_manual();
    let mut trials = tokio::task::JoinSet::new();
    for command in rule.commands() {
        let mut trial = rule.trial(&admin, Some(command));
        trial.stops_when_denied = !DISPENSABLE.contains(&command);
        trials.spawn(async move { check(command, &trial).await });
    }
    trials.join_all().await;
}

/// What `tickcast doctor` looks for is what the manual allows. It need not try what a connection cannot do without.
#[tokio::test]
async fn the_doctor_looks_for_the_same_commands() {
    let admin = Arc::new(Admin::start());
    let rule = Rule::of_the_manual();
    let trial = rule.trial(&admin, None);
    let url = admin.url(&trial.user, rule.secret).parse().unwrap();
    let facts = inspect(&url, &TlsFiles::default(), "tickcast").await.unwrap();
    let refused: Vec<_> = facts.permissions.iter().filter(|p| p.refusal.is_some()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let tried: BTreeSet<_> =
        facts.permissions.iter().map(|permission| permission.command).collect();
    let untried: Vec<_> = rule.commands().difference(&tried).copied().collect();
    assert_eq!(untried, ["client|id", "client|setname", "select"]);
}

/// That a node misses the command, and whether it can do its work all the same.
async fn check(command: &str, trial: &Trial) {
    let denied = || trial.admin.denied_to(&trial.user);
    let outcome = trial.run().await;
    if DISPENSABLE.contains(&command) {
        assert!(outcome.is_ok(), "without {command}: {outcome:?}");
        eventually(&format!("a denied {command}"), || !denied().is_empty()).await;
    } else {
        assert!(outcome.is_err(), "without {command}, all went well");
    }
    assert_eq!(denied(), BTreeSet::from([command.to_owned()]), "{outcome:?}");
}
