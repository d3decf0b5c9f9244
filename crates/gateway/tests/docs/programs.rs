//! What the programs in a page's blocks are, and how one sees that they are ready.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Parser as _;
use tickcast::cli::Cli;

use crate::page::root;

/// Time for a node to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// By what one sees that something in the background is at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It says one of these, as often as that altogether.
    Says(&'static [&'static str], usize),
    /// The page's nodes have more subscriptions than before.
    Subscribes,
}

/// What a node says when it serves, under `serve` and under `dev`.
const SERVING: &[&str] = &["serving", "Ctrl-C stops it"];

/// The signs to wait for after commands were started.
pub(crate) fn signs(text: &str) -> Vec<Sign> {
    let verbs: Vec<&str> = verbs(text).collect();
    let nodes = verbs.iter().filter(|verb| ["dev", "serve"].contains(verb)).count();
    let servers = text.lines().filter(|line| line.contains("redis-server")).count();
    let mut signs = Vec::new();
    if servers > 0 {
        signs.push(Sign::Says(&["Ready to accept connections"], servers));
    }
    if nodes > 0 {
        signs.push(Sign::Says(SERVING, nodes));
    }
    if verbs.contains(&"sub") {
        signs.push(Sign::Subscribes);
    }
    if text.lines().any(|line| line.starts_with("make cluster")) {
        signs.push(Sign::Says(&["Ctrl-C ends everything"], 1));
    }
    signs
}

/// The verbs of all calls of the program in shell commands; without one it is `dev`.
pub(crate) fn verbs(text: &str) -> impl Iterator<Item = &str> {
    let commands = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    commands.flat_map(|line| {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| *word != "#").collect();
        let verb = move |at: usize| {
            let rest = match words.get(at..)? {
                ["cargo", "run", rest @ ..] => {
                    rest.iter().position(|w| *w == "--").map_or(&[][..], |p| &rest[p + 1..])
                }
                [program, rest @ ..] if program.rsplit('/').next() == Some("tickcast") => rest,
                _ => return None,
            };
            let is_question = |word: &&str| ["--help", "--version"].contains(word);
            let is_verb = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase());
            let verb = rest.first().filter(is_verb).copied().unwrap_or("dev");
            Some(if rest.iter().any(is_question) { "help" } else { verb })
        };
        (0..line.split_whitespace().count()).filter_map(verb).collect::<Vec<_>>()
    })
}

/// How a script for browsers is run: until it has seen what it waits for.
pub(crate) fn browser(script: &str) -> String {
    let packages = root().join(".test");
    let preload = root().join("crates/gateway/tests/docs/browser.mjs");
    let until = if script.contains("onmessage") { "publication" } else { "open" };
    format!(
        "PACKAGES={} UNTIL={until} node --no-warnings --import {}",
        packages.display(),
        preload.display()
    )
}

/// The scripts of a web page, as one module.
pub(crate) fn scripts_of(html: &str) -> Result<String, String> {
    let scripts = html.split("<script").skip(1).filter_map(|rest| {
        let (_attributes, rest) = rest.split_once('>')?;
        Some(rest.split_once("</script>")?.0)
    });
    let scripts: Vec<&str> = scripts.collect();
    if scripts.is_empty() { Err("no script in it".to_owned()) } else { Ok(scripts.join("\n")) }
}

/// Reads command lines of the program as the program does.
pub(crate) fn parse(text: &str) -> Result<(), String> {
    let mut calls = 0;
    for line in text.replace("\\\n", " ").lines() {
        let words = words(line)?;
        let is_program = |word: &String| word.rsplit('/').next() == Some("tickcast");
        let Some(at) = words.iter().position(is_program) else { continue };
        let end =
            words[at..].iter().position(|word| ["|", ">", ">>", "&"].contains(&word.as_str()));
        let call = &words[at..end.map_or(words.len(), |end| at + end)];
        Cli::try_parse_from(call).map_err(|error| format!("{line}\n{error}"))?;
        calls += 1;
    }
    if calls > 0 { Ok(()) } else { Err("there is no call of tickcast in it".to_owned()) }
}

/// The words of a line of shell, without its comment.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.map_or(Ok(words), |_| Err(format!("a quotation does not end: {line}")))
}

/// The body of what a node answers, if it answers.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect_timeout(&address, ANSWER).ok()?;
    socket.set_read_timeout(Some(ANSWER)).ok()?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

#[test]
fn programs_of_a_text() {
    let all = |text| verbs(text).collect::<Vec<_>>();
    assert_eq!(all("cargo run --release"), ["dev"]);
    assert_eq!(all("cargo run --release -- serve --config x"), ["serve"]);
    assert_eq!(all("# tickcast pub\nx | ./target/release/tickcast pub a # tickcast sub"), ["pub"]);
    assert_eq!(all("tickcast --version\ntickcast --workers 1\ncat tickcast.toml"), ["help", "dev"]);
    assert_eq!(
        signs("redis-server\ntickcast serve &\ntickcast serve"),
        [Sign::Says(&["Ready to accept connections"], 1), Sign::Says(SERVING, 2)]
    );
    assert_eq!(signs("tickcast sub a"), [Sign::Subscribes]);
    assert_eq!(signs("make cluster"), [Sign::Says(&["Ctrl-C ends everything"], 1)]);
}

#[test]
fn lines_of_the_program() {
    assert_eq!(words("a 'b c'\"d\" '' # e"), Ok(vec!["a".into(), "b cd".into(), String::new()]));
    assert!(words("a 'b").is_err());
    assert_eq!(parse("some-feed | tickcast pub stocks.AAPL # x\n"), Ok(()));
    assert_eq!(parse("tickcast sub a \\\n  --count 3"), Ok(()));
    assert!(parse("tickcast fly").is_err() && parse("ls").is_err());
    assert_eq!(
        scripts_of("<script type=\"module\">a</script><p><script>b</script>"),
        Ok("a\nb".into())
    );
}
