//! Real input through real publishers to real clients: every line, in order, byte for byte.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::thread;

use serde::Deserialize;

use crate::foreign::{self, Client};
use crate::market::{self, Tick};
use crate::oracle::{Oracle, Place};
use crate::program::{Program, command};

/// Items of one batch.
const BATCH: usize = 1000;

/// A node that keeps the whole day.
fn node() -> Program {
    Program::serve(&[("topics.history", "10000"), ("topics.history_bytes", "16MiB")])
}

/// What a publisher is told.
#[derive(Deserialize)]
struct Published {
    topic: String,
    epoch: String,
    offset: u64,
}

#[derive(Deserialize)]
struct Batch {
    results: Vec<Published>,
}

/// Tells the oracle what became of ticks. The answers keep the order of the ticks within each topic.
fn record(ticks: &[Tick], answers: &[Published], oracle: &mut Oracle) {
    assert_eq!(ticks.len(), answers.len(), "each tick has an answer");
    for topic in market::topics(ticks) {
        let ticks = ticks.iter().filter(|tick| tick.topic == topic);
        let answers = answers.iter().filter(|answer| answer.topic == topic);
        for (tick, answer) in ticks.zip(answers) {
            let place = Place { epoch: answer.epoch.clone(), offset: answer.offset };
            oracle.published(&topic, &place, &tick.payload);
        }
    }
}

/// Runs a publisher that reads `input`: what it printed.
fn publisher(mut command: Command, input: &str) -> String {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writing = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it is ours");
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    writing.join().expect("no panic").expect("all of it was read");
    String::from_utf8(stdout).expect("text")
}

/// Publishes with `tickcast pub`.
fn publish(address: SocketAddr, ticks: &[Tick], arguments: &[&str]) -> Vec<Published> {
    let url = format!("http://{address}");
    let publish = command(&[&["pub", "--url", &url, "--file", "-", "--json"], arguments].concat());
    let printed = publisher(publish, &market::lines(ticks));
    let answers = printed.lines().map(|line| serde_json::from_str(line).expect("a result"));
    answers.collect()
}

/// Publishes with `curl`, one request after the other in one connection, each with the tick as its body.
fn publish_with_curl(address: SocketAddr, ticks: &[Tick]) -> Vec<Published> {
    let requests = ticks.iter().map(|Tick { topic, payload }| {
        let url = format!("http://{address}/v1/topics/{topic}");
        let payload = payload.replace('\\', "\\\\").replace('"', "\\\"");
        format!("url = \"{url}\"\ndata-raw = \"{payload}\"\n")
    });
    let config = requests.collect::<Vec<_>>().join("next\nsilent\nfail-with-body\n");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail-with-body", "--config", "-"]);
    let printed = publisher(curl, &config);
    printed.lines().map(|line| serde_json::from_str(line).expect("an answer")).collect()
}

/// Publishes with `curl`, as batches of lines.
fn publish_batches_with_curl(address: SocketAddr, ticks: &[Tick]) -> Vec<Published> {
    let batches = ticks.chunks(BATCH).flat_map(|ticks| {
        let mut curl = Command::new("curl");
        let url = format!("http://{address}/v1/publish");
        curl.args(["--silent", "--fail-with-body", "--data-binary", "@-", &url]);
        let answer: Batch =
            serde_json::from_str(&publisher(curl, &market::lines(ticks))).expect("results");
        answer.results
    });
    batches.collect()
}

#[test]
fn every_line_reaches_every_client_as_it_was_published() {
    let (shares, by_month, by_day) =
        (market::shares(), market::index_by_month(), market::index_by_day());
    let ticks = [shares.clone(), by_month.clone(), by_day.clone()].concat();
    assert!(ticks.len() > 5000, "{}", ticks.len());
    let topics = market::topics(&ticks);
    let node = node();
    let mut oracle = Oracle::default();

    let url = format!("ws://{}/v1/ws?topics={}", node.address, topics.join(","));
    let own_url = format!("http://{}", node.address);
    let own = || {
        let topics = topics.iter().map(String::as_str);
        command(&["sub", "--url", &own_url, "--json"].into_iter().chain(topics).collect::<Vec<_>>())
    };
    let with_url = |mut command: Command| {
        command.arg(&url);
        command
    };
    let mut clients = Vec::new();
    for (name, command) in [
        ("ws", with_url(foreign::ws())),
        ("websockets", with_url(foreign::python())),
        ("browser", with_url(foreign::browser())),
        ("tickcast sub", own()),
    ] {
        let mut client = Client::new(name);
        topics.iter().for_each(|topic| drop(client.follower.asks(topic, false).cloned()));
        client.start(command, &mut oracle);
        clients.push(client);
    }

    record(&shares, &publish(node.address, &shares, &[]), &mut oracle);
    record(&by_month, &publish_with_curl(node.address, &by_month), &mut oracle);
    record(&by_day, &publish_batches_with_curl(node.address, &by_day), &mut oracle);
    for client in &mut clients {
        client.catch_up(&mut oracle);
        client.follower.is_done(&mut oracle);
    }
    let tally = oracle.verdict().expect("every line, in order, byte for byte");
    let published = ticks.len() as u64;
    assert_eq!((tally.published, tally.delivered), (published, published * clients.len() as u64));
    assert_eq!((tally.gaps, tally.resets), (0, 0));
}

/// How often the client is killed.
const DEATHS: usize = 6;

#[test]
fn a_client_that_is_killed_goes_on_in_another_process() {
    let ticks = [market::shares(), market::index_by_day()].concat();
    let topics = market::topics(&ticks);
    let node = node();
    let mut oracle = Oracle::default();
    let mut client = Client::new("killed");
    let address = node.address;
    come_back(address, &mut client, foreign::ws(), &topics, &mut oracle);
    thread::scope(|scope| {
        // It takes a few seconds, so that the client dies while it is being sent to.
        let publishing = scope.spawn(|| publish(address, &ticks, &["--rate", "1500"]));
        for death in 0..DEATHS {
            client.read(ticks.len() / (DEATHS + 2), &mut oracle);
            client.kill(&mut oracle);
            let command = if death % 2 == 0 { foreign::python() } else { foreign::ws() };
            come_back(address, &mut client, command, &topics, &mut oracle);
        }
        record(&ticks, &publishing.join().expect("it has published"), &mut oracle);
    });
    client.catch_up(&mut oracle);
    client.follower.is_done(&mut oracle);
    let tally = oracle.verdict().expect("every line once, in order");
    assert_eq!((tally.delivered, tally.gaps, tally.resets), (ticks.len() as u64, 0, 0));
    assert_eq!(tally.resumed, (DEATHS * topics.len()) as u64);
}

/// Starts another process that subscribes with `since`.
fn come_back(
    address: SocketAddr,
    client: &mut Client,
    mut command: Command,
    topics: &[String],
    oracle: &mut Oracle,
) {
    let items = topics.iter().map(|topic| match client.follower.asks(topic, true) {
        None => format!(r#"{{"topic":"{topic}"}}"#),
        Some(Place { epoch, offset }) => {
            format!(r#"{{"topic":"{topic}","since":{{"epoch":"{epoch}","offset":{offset}}}}}"#)
        }
    });
    let items = items.collect::<Vec<_>>().join(",");
    command.arg(format!("ws://{address}/v1/ws"));
    command.arg(format!(r#"{{"type":"subscribe","topics":[{items}]}}"#));
    client.start(command, oracle);
}
