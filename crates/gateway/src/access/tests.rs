//! Who is found, and what they may do.

use tickcast_protocol::ErrorCode;

use super::*;
use crate::config::{AccessKey, KeyName, Rights, TopicPattern};

const FEED: &str = "tck_feedfeedfeedfeedfeedfeedfeedfeedfeedfeedfee";
const VIEW: &str = "tck_viewviewviewviewviewviewviewviewviewviewvie";
const OPS: &str = "tck_opsopsopsopsopsopsopsopsopsopsopsopsopsopso";

fn key(name: &str, text: &str, rights: &[Right], topics: &[&str]) -> AccessKey {
    AccessKey {
        name: KeyName::new(name).unwrap(),
        hash: KeyHash::of(text),
        rights: Rights::from_iter(rights.iter().copied()),
        topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        rate: 0,
    }
}

fn config(keys: Vec<AccessKey>) -> Config {
    let mut config = Config::default();
    config.access.keys = keys;
    let options =
        crate::config::TopicOptions { subscribe: SubscribeRule::Closed, ..config.topics.defaults };
    config.topics.patterns.push(TopicPattern { matches: "closed.*".to_owned(), options });
    config
}

fn three() -> Config {
    config(vec![
        key("feed", FEED, &[Right::Publish], &["stocks.*", "nba"]),
        key("view", VIEW, &[Right::Subscribe], &["closed.a", "open"]),
        key("ops", OPS, &[Right::Admin], &["*"]),
    ])
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn who(policy: &Policy, text: &str) -> Arc<Key> {
    policy.identify(Some(text)).unwrap().unwrap()
}

#[test]
fn keys_are_found_by_their_text() {
    let access = Access::new(&three());
    let policy = access.current();
    for (text, name) in [(FEED, "feed"), (VIEW, "view"), (OPS, "ops")] {
        assert_eq!(who(&policy, text).name(), name);
    }
    assert!(policy.identify(None).unwrap().is_none());
    let uses = |policy: &Policy| policy.keys().map(Key::uses).collect::<Vec<_>>();
    assert_eq!(uses(&policy), [1, 1, 1]);
    who(&policy, FEED);
    let other = FEED.replace("feedfee", "feedfef");
    for text in ["", "tck_", &FEED[..46], &other, "feed", &KeyHash::of(FEED).to_string()] {
        assert_eq!(policy.identify(Some(text)).unwrap_err(), Denied::UnknownKey, "{text}");
    }
    // A reload counts on; what was not known counts for nobody.
    access.replace(&three());
    let policy = access.current();
    let feed = policy.keys().find(|key| key.name() == "feed").map(Key::uses);
    assert_eq!((feed, uses(&policy).iter().sum()), (Some(2), 4_u64));
}

/// Hashes that begin alike are told apart by the rest.
#[test]
fn keys_whose_hashes_begin_alike() {
    let mut keys = Vec::new();
    for last in 0..4_u8 {
        let text = format!("sha256:{}{last:02x}", "ab".repeat(31));
        let hash = crate::config::Setting::read(&toml::Value::String(text)).unwrap();
        keys.push(AccessKey { hash, ..key(&format!("k{last}"), "", &[Right::Admin], &["*"]) });
    }
    let policy = Policy::new(&config(keys.clone()), &Policy::default());
    for key in &keys {
        assert_eq!(policy.find(&key.hash).unwrap().name(), key.name.as_str());
    }
    let policy = Policy::new(&config(keys[1..].to_vec()), &Policy::default());
    assert!(policy.find(&keys[0].hash).is_none());
}

/// A key that only works because it is weak cannot be configured by its hash.
#[test]
fn what_does_not_look_like_a_key_is_none() {
    let policy = Policy::new(
        &config(vec![key("weak", "hunter2", &[Right::Publish], &["*"])]),
        &Policy::default(),
    );
    assert_eq!(policy.identify(Some("hunter2")).unwrap_err(), Denied::UnknownKey);
}

#[test]
fn publishing_needs_a_key_once_there_are_keys() {
    let none = Policy::new(&config(Vec::new()), &Policy::default());
    assert!(!none.has_keys());
    assert_eq!(none.may_publish(None, &topic("stocks.AAPL")), Ok(()));
    assert_eq!(none.identify(Some(FEED)).unwrap_err(), Denied::UnknownKey);

    let policy = Policy::new(&three(), &Policy::default());
    let check = |text: Option<&str>, name: &str, expected: Result<(), Denied>| {
        let who = policy.identify(text).unwrap();
        assert_eq!(policy.may_publish(who.as_deref(), &topic(name)), expected, "{text:?} {name}");
    };
    let no_right = Err(Denied::NoRight(Right::Publish));
    check(None, "stocks.AAPL", Err(Denied::MissingKey(Right::Publish)));
    check(Some(FEED), "stocks.AAPL", Ok(()));
    check(Some(FEED), "stocks.", Ok(()));
    check(Some(FEED), "stocks", no_right);
    check(Some(FEED), "nba", Ok(()));
    check(Some(FEED), "nba.LAL", no_right);
    check(Some(VIEW), "closed.a", no_right);
    check(Some(OPS), "stocks.AAPL", no_right);
}

#[test]
fn closed_topics_need_the_right_and_open_ones_nothing() {
    let config = three();
    let policy = Policy::new(&config, &Policy::default());
    let check = |text: Option<&str>, name: &str, expected: Result<(), Denied>| {
        let who = policy.identify(text).unwrap();
        let got = policy.may_subscribe(&config, who.as_deref(), &topic(name));
        assert_eq!(got, expected, "{text:?} {name}");
    };
    let no_right = Err(Denied::NoRight(Right::Subscribe));
    check(None, "closed.a", Err(Denied::MissingKey(Right::Subscribe)));
    check(Some(VIEW), "closed.a", Ok(()));
    check(Some(VIEW), "closed.b", no_right);
    check(Some(FEED), "closed.a", no_right);
    for text in [None, Some(VIEW), Some(FEED), Some(OPS)] {
        check(text, "open", Ok(()));
        check(text, "closed", Ok(()));
    }
    assert!(policy.has_closed_topics());
    assert!(!Policy::new(&Config::default(), &Policy::default()).has_closed_topics());
}

#[test]
fn administering_is_open_on_the_machine_itself() {
    let policy = Policy::new(&three(), &Policy::default());
    let (ops, feed) = (who(&policy, OPS), who(&policy, FEED));
    assert_eq!(policy.may_administer(None, true), Ok(()));
    assert_eq!(policy.may_administer(Some(&feed), true), Ok(()));
    assert_eq!(policy.may_administer(Some(&ops), false), Ok(()));
    assert_eq!(policy.may_administer(None, false), Err(Denied::MissingKey(Right::Admin)));
    assert_eq!(policy.may_administer(Some(&feed), false), Err(Denied::NoRight(Right::Admin)));
    let none = Policy::default();
    assert_eq!(none.may_administer(None, false), Err(Denied::MissingKey(Right::Admin)));
}

#[test]
fn a_reload_changes_rights_and_keeps_what_was_used_of_a_rate() {
    let mut settings = key("feed", FEED, &[Right::Publish], &["*"]);
    settings.rate = 2;
    let access = Access::new(&config(vec![settings.clone()]));
    let old = who(&access.current(), FEED);
    assert_eq!(old.admit(40), Ok(()));
    assert!(matches!(old.admit(1), Err(Denied::RateLimited(19 | 20))));
    let generation = access.generation();

    // Another name and a higher rate: it owes as much time as before.
    settings.name = KeyName::new("feed-2").unwrap();
    settings.rate = 4;
    access.replace(&config(vec![settings, key("ops", OPS, &[Right::Admin], &["*"])]));
    assert_ne!(access.generation(), generation);
    let new = who(&access.current(), FEED);
    assert_eq!(new.name(), "feed-2");
    assert!(matches!(new.admit(1), Err(Denied::RateLimited(19 | 20))));
    assert_eq!(access.current().renew(&old).unwrap().name(), "feed-2");

    access.replace(&config(vec![key("ops", OPS, &[Right::Admin], &["*"])]));
    assert!(access.current().renew(&old).is_none());
    assert_eq!(access.current().identify(Some(FEED)).unwrap_err(), Denied::UnknownKey);
}

#[test]
fn what_clients_are_told() {
    for (denied, code) in [
        (Denied::UnknownKey, ErrorCode::Unauthorized),
        (Denied::MissingKey(Right::Subscribe), ErrorCode::Unauthorized),
        (Denied::NoRight(Right::Publish), ErrorCode::Forbidden),
        (Denied::RateLimited(3), ErrorCode::RateLimited),
    ] {
        let refusal = Refusal::from(denied);
        let rejection = refusal.clone().rejection(&topic("a"));
        assert_eq!((rejection.topic.as_str(), rejection.code), ("a", code));
        assert_eq!(rejection.message, refusal.message());
    }
    assert!(Refusal::from(Denied::RateLimited(3)).message().contains("in 3 s"));
}
