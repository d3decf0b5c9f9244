use clap::CommandFactory;

use super::*;
use crate::config::{Config, LogFormat};

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command())
}

#[test]
fn the_definitions_are_sound() {
    <Cli as CommandFactory>::command().debug_assert();
}

#[test]
fn no_verb_is_dev() {
    assert!(matches!(parse("tickcast"), Ok(Command::Dev(args)) if !args.no_feed));
    assert!(
        matches!(parse("tickcast dev --no-feed --seed 3"), Ok(Command::Dev(args)) if args.no_feed && args.seed == 3)
    );
}

#[test]
fn node_flags_reach_the_configuration() {
    let line = "tickcast serve --listen 0.0.0.0:1 --admin-listen [::1]:2 --workers 3 --max-connections 4 \
                --insecure --log-format json --log-filter warn";
    let Ok(Command::Serve(args)) = parse(line) else { panic!("serve") };
    let (config, _) = Config::load(None, std::iter::empty(), args.flags()).unwrap();
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:1");
    assert_eq!(config.server.admin_listen.to_string(), "[::1]:2");
    assert_eq!((config.server.workers, config.server.max_connections), (3, 4));
    assert!(config.server.insecure);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.filter, "warn");
    assert!(config.broker.redis.url.is_empty());

    let Ok(Command::Dev(args)) = parse("tickcast dev --redis redis://:hunter2@localhost:7000")
    else {
        panic!("dev")
    };
    assert!(!format!("{args:?}").contains("hunter2"), "{args:?}");
    let (config, _) = Config::load(None, std::iter::empty(), args.flags()).unwrap();
    assert_eq!(config.broker.redis.url.reveal(), "redis://:hunter2@localhost:7000");

    let Ok(Command::Dev(args)) = parse("tickcast dev") else { panic!("dev") };
    let (config, _) = Config::load(None, std::iter::empty(), args.flags()).unwrap();
    assert_eq!(config.cors.origins, ["*"]);

    let Ok(Command::Serve(args)) = parse("tickcast serve --listen 0.0.0.0:1") else {
        panic!("serve")
    };
    let text = Config::load(None, std::iter::empty(), args.flags()).unwrap_err().to_string();
    assert!(
        text.starts_with("--listen: `server.listen` = \"0.0.0.0:1\" is not a loopback"),
        "{text}"
    );
}

#[test]
fn a_topic_with_a_wildcard_is_told_that_there_are_none() {
    for line in ["tickcast sub stocks.*", "tickcast pub stocks.* 1"] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains("a topic has no wildcards: name each one"), "{error}");
    }
    let error = parse("tickcast sub stocks,AAPL").unwrap_err().to_string();
    assert!(!error.contains("wildcards"), "{error}");
}

#[test]
fn wrong_command_lines_are_refused_with_code_2() {
    for line in [
        "tickcast pub",
        "tickcast pub a*",
        "tickcast pub --file x a",
        "tickcast pub --file x --string",
        "tickcast pub --demo a",
        "tickcast pub --demo --file x",
        "tickcast pub --demo --rate 5",
        "tickcast pub a --rate 0",
        "tickcast pub a --idempotency-key k",
        "tickcast pub a --in-flight 0",
        "tickcast sub",
        "tickcast sub a/../b",
        "tickcast sub a --since k3f9",
        "tickcast sub a --since K3:1",
        "tickcast sub a --max-rate -1",
        "tickcast sub a --count 0",
        "tickcast sub a --mode newest",
        "tickcast sub a --url ftp://x",
        "tickcast sub a --url gopher://x",
        "tickcast serve --listen localhost",
        "tickcast fly",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    let check = |line: &str| match parse(line) {
        Ok(Command::Sub(args)) => args.check().is_ok(),
        other => panic!("{line}: {other:?}"),
    };
    assert!(matches!(parse("tickcast pub --demo"), Ok(Command::Pub(args)) if args.demo));
    assert!(check("tickcast sub a --since k3f9:1 --max-rate 2 --mode latest"));
    assert!(!check("tickcast sub a b --since k3f9:1"));
    assert!(!check("tickcast sub a --max-rate 2 --mode all"));
}

#[test]
fn a_key_is_never_shown() {
    let Ok(Command::Sub(args)) = parse("tickcast sub a --key tck_hunter2") else { panic!("sub") };
    let target = args.client.target().unwrap();
    for shown in [format!("{args:?}"), format!("{target:?}"), target.to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let mut args = args.client;
    args.key = Some(Secret::new("a\nb"));
    assert!(matches!(args.target(), Err(Failure::Usage(_))));
}

#[test]
fn a_payload_may_begin_with_a_hyphen() {
    assert!(
        matches!(parse("tickcast pub a -5"), Ok(Command::Pub(args)) if args.payload.as_deref() == Some("-5"))
    );
}
