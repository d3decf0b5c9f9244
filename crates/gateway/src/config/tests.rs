//! Sources, precedence, error texts and the reference page.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tickcast.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn load(text: &str, env: &[(&str, &str)], flags: Flags) -> Result<Config, Vec<String>> {
    let (folder, path) = file(text);
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let prefix = format!("{}/", folder.path().display());
    Config::load(Some(&path), env, flags).map(|(config, _)| config).map_err(|errors| {
        errors.problems().iter().map(|p| p.to_string().replace(&prefix, "")).collect()
    })
}

/// Checks that loading fails with exactly these problems; each is given by the beginning of its line.
fn check_errors(text: &str, env: &[(&str, &str)], expected: &[&str]) {
    let problems = load(text, env, Flags::default()).unwrap_err();
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\nexpected: {expected}");
    }
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(load("", &[], Flags::default()), Ok(Config::default()));
    assert_eq!(
        Config::load(None, std::iter::empty(), Flags::default()).unwrap().0,
        Config::default()
    );
    let irrelevant =
        [("TICKCAST__CLIENT__URL", "http://x"), ("TICKCAST_HOME", "/x"), ("PATH", "/")];
    assert_eq!(load("", &irrelevant, Flags::default()), Ok(Config::default()));
}

#[test]
fn later_sources_win() {
    let text = "[server]\nlisten = '127.0.0.1:1'\nadmin_listen = '127.0.0.1:2'\nworkers = 3\n";
    let env = [("TICKCAST__SERVER__LISTEN", "127.0.0.1:10"), ("TICKCAST__SERVER__WORKERS", "4")];
    let mut flags = Flags::default();
    flags.set("--workers", "server.workers", "5");
    let server = load(text, &env, flags).unwrap().server;
    assert_eq!(server.listen.port(), 10);
    assert_eq!(server.admin_listen.port(), 2);
    assert_eq!(server.workers, 5);
}

#[test]
fn a_suggestion_is_overridden_by_every_other_source() {
    let drain = |text: &str, env: &[(&str, &str)], given: bool| {
        let mut flags = Flags::default();
        flags.suggest("dev", "drain.delay", "1s");
        if given {
            flags.set("--delay", "drain.delay", "4s");
        }
        load(text, env, flags).unwrap().drain.delay.as_secs()
    };
    let (file, env) = ("[drain]\ndelay = '2s'\n", [("TICKCAST__DRAIN__DELAY", "3s")]);
    assert_eq!(drain("", &[], false), 1);
    assert_eq!(drain(file, &[], false), 2);
    assert_eq!(drain(file, &env, false), 3);
    assert_eq!(drain(file, &env, true), 4);
}

#[test]
fn environment_values_are_toml_or_text() {
    let env = [
        ("TICKCAST__BROKER__TOPIC_TTL", "\"1d\""),
        ("TICKCAST__CORS__ORIGINS", "https://a.example, https://b.example"),
        ("TICKCAST__ACCESS__ORIGINS", "[\"*\"]"),
        ("TICKCAST__LOG__FILTER", "warn,tickcast=debug"),
        ("TICKCAST__LIMITS__PAYLOAD_BYTES", "65537"),
        ("TICKCAST__WEBSOCKET__PUBLISH", "true"),
        ("TICKCAST__WEBSOCKET__PING_INTERVAL", "20s"),
        ("TICKCAST__TOPICS__PATTERN", "[{match = 'a.*', history = 7}]"),
        ("TICKCAST__HUB", "{inbox_items = 100}"),
    ];
    let config =
        load("[[topics.pattern]]\nmatch = 'a'\nhistory = 1\n", &env, Flags::default()).unwrap();
    assert_eq!(config.broker.topic_ttl, Duration::from_secs(86_400));
    assert_eq!(config.cors.origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.access.origins, ["*"]);
    assert_eq!(config.log.filter, "warn,tickcast=debug");
    assert_eq!(config.limits.payload_bytes.bytes(), 65_537);
    assert!(config.websocket.publish);
    assert_eq!(config.websocket.ping_interval, Duration::from_secs(20));
    assert_eq!(config.hub.inbox_items, 100);
    assert_eq!(config.topics.patterns.len(), 1, "a later source replaces all patterns");
    assert_eq!(config.for_topic("a.b").history, 7);
    assert_eq!(config.for_topic("a").history, 1000);
}

#[test]
fn the_first_matching_pattern_wins_over_the_defaults() {
    let text = "
        [topics]
        history = 5
        mode = 'latest'
        [[topics.pattern]]
        match = 'stocks.AAPL'
        history = 6
        [[topics.pattern]]
        match = 'stocks.*'
        mode = 'all'
        flush_interval = '20ms'
        [[topics.pattern]]
        match = '*'
        retain_value = false
    ";
    let config = load(text, &[], Flags::default()).unwrap();
    let check = |topic: &str, history, mode, retain_value| {
        let options = config.for_topic(topic);
        assert_eq!(
            (options.history, options.mode, options.retain_value),
            (history, mode, retain_value),
            "{topic}"
        );
    };
    check("stocks.AAPL", 6, Mode::Latest, true);
    check("stocks.AAPLX", 5, Mode::All, true);
    check("stocks.", 5, Mode::All, true);
    check("nba", 5, Mode::Latest, false);
    assert_eq!(config.for_topic("stocks.X").flush_interval, Duration::from_millis(20));
    assert_eq!(config.for_topic("nba").flush_interval, Duration::ZERO);
}

#[test]
fn all_errors_come_together_with_place_value_and_fix() {
    let text = "\
listen = '127.0.0.1:80'
[server]
listn = '127.0.0.1:80'
workers = -1
[websocket]
ping_interval = 25
publish = 'yes'
[limits]
payload_bytes = '64KB'
[colour]
red = 1
[[topics.pattern]]
match = 'a'
hystory = 1
[[topics.pattern]]
mode = 'newest'
[[topics.pattern]]
history = 1
";
    let env = [("TICKCAST__SERVER__ADMIN_LISTEN", "localhost"), ("TICKCAST__LOG", "5")];
    check_errors(
        text,
        &env,
        &[
            "tickcast.toml:11:1: unknown key `colour.red`; see docs/reference/configuration.md",
            "tickcast.toml:9:17: `limits.payload_bytes` = \"64KB\" cannot be used; expected a size such as",
            "tickcast.toml:1:1: unknown key `listen`; did you mean `server.listen`?",
            "tickcast.toml:3:1: unknown key `server.listn`; did you mean `server.listen`?",
            "tickcast.toml:4:11: `server.workers` = -1 cannot be used; expected a whole number from 0 to 1024",
            "tickcast.toml:14:1: unknown key `topics.pattern[0].hystory`; did you mean `topics.pattern[0].history`?",
            "tickcast.toml:16:8: `topics.pattern[1].mode` = \"newest\" cannot be used; expected \"all\" or \"latest\"",
            "tickcast.toml:6:17: `websocket.ping_interval` = 25 cannot be used; expected a duration such as",
            "tickcast.toml:7:11: `websocket.publish` = \"yes\" cannot be used; expected true or false",
            "env TICKCAST__LOG: `log` is a section, not a setting; set `log.",
            "env TICKCAST__SERVER__ADMIN_LISTEN: `server.admin_listen` = \"localhost\" cannot be used; expected an IP",
            "tickcast.toml:16:8: pattern 2 of `topics.pattern` has no `match`; add for example",
            "tickcast.toml:18:11: pattern 3 of `topics.pattern` has no `match`; add for example",
        ],
    );
}

#[test]
fn syntax_errors_name_the_line() {
    check_errors("[server]\nworkers = \n", &[], &["tickcast.toml:2:11: not TOML: "]);
    check_errors(
        "[server]\nworkers = 99999999999999999999\n",
        &[],
        &["tickcast.toml:2:11: `server.workers` = "],
    );
    let missing =
        Config::load(Some(Path::new("/nowhere/t.toml")), std::iter::empty(), Flags::default());
    let text = missing.unwrap_err().to_string();
    assert!(text.starts_with("/nowhere/t.toml: cannot be read: No such file"), "{text}");
    assert!(text.ends_with("\n1 error in the configuration"), "{text}");
}

#[test]
fn open_addresses_need_keys_or_insecure() {
    let text = "[server]\nlisten = '0.0.0.0:8080'\nadmin_listen = '[::]:8081'\n";
    check_errors(
        text,
        &[],
        &[
            "tickcast.toml:2:10: `server.listen` = \"0.0.0.0:8080\" is not a loopback address and there are no keys",
        ],
    );
    assert!(load(text, &[], Flags::default()).unwrap_err()[0].contains("--insecure"));
    let mut flags = Flags::default();
    flags.set("--insecure", "server.insecure", "true");
    assert!(load(text, &[], flags).is_ok());
    assert!(load(&format!("{text}{FEED}"), &[], Flags::default()).is_ok());
    let loopback = "[server]\nlisten = '[::1]:8080'\nadmin_listen = '[::ffff:127.0.0.1]:8081'\n";
    assert!(load(loopback, &[], Flags::default()).is_ok());
}

/// A table of a key, and its hash.
const FEED: &str = "\
[[access.key]]
name = 'feed'
hash = 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'
rights = ['publish']
topics = ['stocks.*', 'nba']
rate = 50
";

fn named(name: &str, hash: char) -> String {
    format!(
        "[[access.key]]\nname = '{name}'\nhash = 'sha256:{}'\nrights = ['subscribe', 'admin']\n",
        hash.to_string().repeat(64)
    )
}

#[test]
fn keys_of_all_places_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    std::fs::write(&path, named("a", 'a') + &named("b", 'b')).unwrap();
    let text = format!("[access]\nkeys_file = '{}'\n{FEED}", path.display());
    let keys = load(&text, &[], Flags::default()).unwrap().access.keys;
    let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["feed", "a", "b"]);
    assert_eq!((keys[0].rate, &keys[0].topics[..]), (50, &["stocks.*".into(), "nba".into()][..]));
    assert_eq!((keys[1].rate, &keys[1].topics[..]), (0, &["*".into()][..]));
    assert!(keys[2].rights.has(Right::Admin) && !keys[2].rights.has(Right::Publish));

    // A later source replaces those of the configuration file, and the file of keys joins what there is.
    let inline = format!("[{{name='env', hash='sha256:{}', rights=['publish']}}]", "c".repeat(64));
    let env = [("TICKCAST__ACCESS__KEY", inline.as_str())];
    let keys = load(&text, &env, Flags::default()).unwrap().access.keys;
    let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["env", "a", "b"]);
}

#[test]
fn mistakes_in_keys_are_named_by_file_and_line() {
    let text = format!(
        "{FEED}{}[[access.key]]\nname = 'x'\nhash = 'sha256:12'\nrights = []\n[[access.key]]\nhush = ''\n",
        named("feed", 'a')
    );
    check_errors(
        &text,
        &[],
        &[
            "tickcast.toml:13:8: `access.key[2].hash` cannot be used; expected \"sha256:\" and 64 hex",
            "tickcast.toml:14:10: `access.key[2].rights` = [] cannot be used; expected a list of at least one",
            "tickcast.toml:16:1: unknown key `access.key[3].hush`; did you mean `access.key[3].hash`?",
            "tickcast.toml:8:8: there are two keys with `name` = \"feed\"; give each its own name",
        ],
    );
    check_errors(
        "[[access.key]]\nrate = 5\n",
        &[],
        &[
            "tickcast.toml:2:8: key 1 of `access.key` has no `name`; add for example `name = ",
            "tickcast.toml:2:8: key 1 of `access.key` has no `hash`; add for example `hash = ",
            "tickcast.toml:2:8: key 1 of `access.key` has no `rights`; add for example `rights = ",
        ],
    );
    let twice =
        named("a", 'a') + &named("b", 'a').replace("\nrights", "\ntopics = ['*', 'a b']\nrights");
    check_errors(
        &twice,
        &[],
        &[
            "tickcast.toml:8:10: `topics` of the key \"b\" has \"a b\", which matches no topic",
            "tickcast.toml:7:8: the keys \"a\" and \"b\" have one hash",
        ],
    );
}

#[test]
fn mistakes_in_a_file_of_keys_are_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let text = format!("[access]\nkeys_file = '{}'\n{FEED}", path.display());
    let check = |keys: Option<&str>, expected: &[&str]| {
        if let Some(keys) = keys {
            std::fs::write(&path, keys).unwrap();
        }
        let problems = load(&text, &[], Flags::default()).unwrap_err();
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            let problem = problem.replace(&format!("{}/", folder.path().display()), "");
            assert!(problem.starts_with(expected), "{problem}\nexpected: {expected}");
        }
    };
    check(
        None,
        &["tickcast.toml:2:13: `access.keys_file` = \"keys.toml\" cannot be read: No such file"],
    );
    check(
        Some("# none\n"),
        &["tickcast.toml:2:13: `access.keys_file` = \"keys.toml\" has no keys; add one"],
    );
    check(Some("[[access.key]\n"), &["keys.toml:1:14: not TOML: "]);
    check(
        Some(&format!("{}rate = -1\n[server]\nworkers = 1\n", named("feed", 'a'))),
        &[
            "keys.toml:7:1: `server.workers` does not belong into a file of keys; it may have",
            "keys.toml:5:8: `access.key[1].rate` = -1 cannot be used",
            "keys.toml:2:8: there are two keys with `name` = \"feed\"",
        ],
    );
}

/// Who writes the key itself where its hash belongs must not find it in a log.
#[test]
fn a_key_in_the_place_of_its_hash_is_not_shown() {
    let key = "tck_0123456789012345678901234567890123456789012";
    let text = FEED.replace("sha256:", key);
    let problems = load(&text, &[], Flags::default()).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!problems[0].contains("tck_"), "{problems:?}");
}

#[test]
fn topics_that_nobody_may_subscribe_to_are_a_warning() {
    let warnings = |text: &str| {
        let (_folder, path) = file(text);
        Config::load(Some(&path), std::iter::empty(), Flags::default()).unwrap().1
    };
    let closed = "[[topics.pattern]]\nmatch = 'a.*'\nsubscribe = 'closed'\n";
    let is_warned = |text: &str| {
        warnings(text).iter().any(|warning| warning.text.contains("nobody can subscribe"))
    };
    assert!(is_warned(closed));
    assert!(is_warned(&format!("{closed}{FEED}")));
    assert!(!is_warned(&format!("{closed}{}", named("a", 'a'))));
    assert!(!is_warned(FEED));
    assert!(warnings(&format!("{}rate = 5\n", named("a", 'a')))[0].text.contains("no effect"));
}

#[test]
fn settings_must_fit_each_other() {
    let text = "\
[server]
listen = '127.0.0.1:80'
admin_listen = '127.0.0.1:80'
[limits]
payload_bytes = '2MiB'
[websocket]
unsent_bytes = '128KiB'
[cors]
origins = ['https://example.com/', 'example.com', '*', 'http://localhost:3000']
[log]
filter = 'info,tickcast=loud'
[broker]
topic_ttl = '1m'
[[topics.pattern]]
match = 'a*b'
[[topics.pattern]]
match = 'a/'
";
    let problems = load(text, &[], Flags::default()).unwrap_err();
    let places: Vec<_> = problems.iter().filter_map(|problem| problem.split(':').nth(1)).collect();
    assert_eq!(
        places,
        ["3", "5", "7", "9", "9", "11", "15", "17", "13", "13", "13", "13"],
        "{problems:#?}"
    );
}

const PASSWORD: &str = "hunter2";

#[test]
fn no_error_and_no_debug_output_shows_a_password() {
    let bad = format!("redis://app:{PASSWORD}@host:port");
    let sources: [(String, Vec<(&str, String)>); 4] = [
        (format!("[broker.redis]\nurl = '{bad}'\n"), vec![]),
        (format!("[broker.redis]\nurl = ['{bad}']\n"), vec![]),
        (String::new(), vec![("TICKCAST__BROKER__REDIS__URL", bad.clone())]),
        (String::new(), vec![("TICKCAST__BROKER__REDIS", format!("{{url = '{bad}'}}"))]),
    ];
    for (text, env) in sources {
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let problems = load(&text, &env, Flags::default()).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("`broker.redis.url` cannot be used"), "{problems:?}");
        assert!(!problems[0].contains(PASSWORD), "{problems:?}");
    }
    let mut flags = Flags::default();
    flags.set("--redis", "broker.redis.url", format!("redis://:{PASSWORD}@localhost"));
    assert_eq!(format!("{flags:?}"), "[\"--redis\"]");
    let config = load("", &[], flags).unwrap();
    let shown = format!("{config:?}{}", toml::to_string(&config).unwrap());
    assert!(!shown.contains(PASSWORD), "{shown}");
    let url = config.broker.redis.address().unwrap().unwrap();
    assert_eq!(url.to_string(), "redis://:***@localhost:6379/0");
}

#[test]
fn the_url_of_redis_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("redis-url");
    std::fs::write(&path, "redis://file\n").unwrap();
    let in_file = format!("[broker.redis]\nurl_file = '{}'\n", path.display());
    let url = |text: &str, env: &[(&str, &str)], flags: Flags| -> Result<_, Vec<String>> {
        let config = load(text, env, flags)?;
        Ok(config.broker.redis.address().unwrap().map(|url| url.to_string()))
    };
    let shown = |url: &str| Ok(Some(url.to_owned()));
    assert_eq!(url(&in_file, &[], Flags::default()), shown("redis://file:6379/0"));

    // A later source wins, whichever of the two it sets.
    let env = [("TICKCAST__BROKER__REDIS__URL", "redis://env")];
    assert_eq!(url(&in_file, &env, Flags::default()), shown("redis://env:6379/0"));
    let mut flags = Flags::default();
    flags.set("--redis", "broker.redis.url", "");
    assert_eq!(url(&in_file, &[], flags), Ok(None));
    let env = [("TICKCAST__BROKER__REDIS__URL_FILE", path.to_str().unwrap())];
    let text = "[broker.redis]\nurl = 'redis://url'\n";
    assert_eq!(url(text, &env, Flags::default()), shown("redis://file:6379/0"));

    let check = |text: &str, expected: &str| {
        let problems = url(text, &[], Flags::default()).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
    };
    check(&format!("{in_file}url = 'redis://url'\n"), "is set, and so is `broker.redis.url_file`");
    std::fs::write(&path, format!("redis://:{PASSWORD}@host:port")).unwrap();
    check(&in_file, "tickcast.toml:2:12: `broker.redis.url` from \"");
    assert!(!format!("{:?}", url(&in_file, &[], Flags::default())).contains(PASSWORD));
    std::fs::write(&path, " \n").unwrap();
    check(&in_file, "cannot be used: it is empty");
    std::fs::write(&path, "x".repeat(5000)).unwrap();
    check(&in_file, "more than 4096 bytes");
    std::fs::remove_file(&path).unwrap();
    check(&in_file, "No such file");
}

#[test]
fn a_covered_pattern_is_a_warning() {
    let (_folder, path) = file("[[topics.pattern]]\nmatch='a*'\n[[topics.pattern]]\nmatch='ab'\n");
    let (_, warnings) = Config::load(Some(&path), std::iter::empty(), Flags::default()).unwrap();
    assert!(
        warnings.iter().any(|warning| warning.text.contains("\"ab\" is never used")),
        "{warnings:?}"
    );
}

#[test]
fn a_configuration_survives_writing_and_reading() {
    let text = format!(
        "[server]\nworkers = 3\n[[topics.pattern]]\nmatch = 'x.*'\nhistory_age = '1h'\n{FEED}"
    );
    let config = load(&text, &[], Flags::default()).unwrap();
    let written = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<Config>(&written).unwrap(), config);
    assert!(toml::from_str::<Config>("[server]\nlistn = 1\n").is_err());
}

/// The names of all leaves of a table.
fn leaves(table: &Table, path: &str, names: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(table) => leaves(table, &name, names),
            _ => drop(names.insert(name)),
        }
    }
}

#[test]
fn the_table_has_exactly_the_settings() {
    let defaults = Table::try_from(Config::default()).unwrap();
    let mut names = BTreeSet::new();
    leaves(&defaults, "", &mut names);
    assert_eq!(keys().map(|key| key.name.to_owned()).collect::<BTreeSet<_>>(), names);
    for key in keys() {
        let value = key
            .name
            .split('.')
            .fold(Value::Table(defaults.clone()), |value, part| value[part].clone());
        assert_eq!((key.default)(), value, "{}", key.name);
        assert_eq!((key.check)(&value), Ok(()), "the default of {} is inside its bounds", key.name);
    }
}

/// `docs/reference/configuration.md` is this text. After a change, run the tests with `TICKCAST_BLESS=1` to write it.
#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    let page = reference_markdown();
    if std::env::var_os("TICKCAST_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default() == page;
    assert!(current, "docs/reference/configuration.md is out of date; run with TICKCAST_BLESS=1");
}
