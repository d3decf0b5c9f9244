//! `tickcast sub` against a scripted gateway on `tokio-websockets`, an implementation of its own.

use std::io::Write;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_websockets::{CloseCode as SocketCode, Message as Frame, ServerBuilder, WebSocketStream};

use super::*;
use crate::cli::{Cli, Command, GatewayUrl};

/// Output that can be read afterwards, or that refuses to be written.
#[derive(Clone, Default)]
struct Shared {
    bytes: Arc<Mutex<Vec<u8>>>,
    broken: bool,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.bytes.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().clone()).unwrap()
    }
}

/// The gateway's end of connections.
struct Gateway {
    listener: TcpListener,
    url: GatewayUrl,
}

struct Socket(WebSocketStream<TcpStream>);

impl Gateway {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        Self { listener, url }
    }

    async fn accept(&self) -> Socket {
        let (stream, _) = self.listener.accept().await.unwrap();
        let (request, socket) = ServerBuilder::new().accept(stream).await.unwrap();
        assert_eq!(request.uri().path(), "/v1/ws");
        assert_eq!(request.headers()["sec-websocket-protocol"], "tickcast.v1");
        Socket(socket)
    }
}

impl Gateway {
    /// Answers a handshake with another status; returns what was asked.
    async fn refuse(&self, status: &str, headers: &str) -> String {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let length = stream.read(&mut asked).await.unwrap();
        asked.truncate(length);
        let problem = r#"{"code":"bad_origin","detail":"not here","hint":"set access.origins"}"#;
        let length = problem.len();
        let answer =
            format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{problem}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    }
}

impl Socket {
    async fn frame(&mut self) -> Option<Frame> {
        self.0.next().await.and_then(Result::ok)
    }

    /// The next command of the client.
    async fn command(&mut self) -> String {
        self.frame().await.unwrap().as_text().unwrap().to_owned()
    }

    async fn send(&mut self, frame: Frame) {
        self.0.send(frame).await.unwrap();
    }

    async fn say(&mut self, text: &str) {
        self.send(Frame::text(text.to_owned())).await;
    }

    async fn acknowledge(&mut self, offset: u64) {
        let topic = format!(r#"{{"topic":"a","epoch":"k3f9","offset":{offset},"mode":"all"}}"#);
        self.say(&format!(r#"{{"type":"subscribed","id":1,"topics":[{topic}],"errors":[]}}"#))
            .await;
    }

    /// The answer to a ping shows that everything before it was handled.
    async fn settle(&mut self) {
        self.send(Frame::ping("x")).await;
        assert!(self.frame().await.unwrap().is_pong());
    }

    /// The code with which the client closes.
    async fn end(&mut self) -> Option<u16> {
        let (code, _) = self.frame().await?.as_close()?;
        Some(code.into())
    }

    async fn publish(&mut self, offset: u64) {
        self.say(&format!(r#"{{"topic":"a","offset":{offset},"time":0,"data":{{"n":{offset}}}}}"#))
            .await;
    }
}

/// A run of the verb in the background of a test.
struct Running {
    out: Shared,
    notices: Shared,
    outcome: tokio::task::JoinHandle<Result<(), Failure>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Running {
    fn start(line: &str, url: &GatewayUrl) -> Self {
        Self::with_output(line, url, Shared::default())
    }

    fn with_output(line: &str, url: &GatewayUrl, out: Shared) -> Self {
        use clap::Parser;
        let line = format!("{line} --url {url}");
        let Command::Sub(args) = Cli::parse_from(line.split_whitespace()).command() else {
            panic!("{line}")
        };
        let notices = Shared::default();
        let screen =
            Screen::new(&args, Box::new(out.clone()), Box::new(notices.clone()), [false; 2]);
        let target = args.client.target().unwrap();
        let watch = Watch::new(args, target, screen);
        let (stop, stopped) = oneshot::channel();
        let outcome = tokio::task::spawn_local(watch.run(async { drop(stopped.await) }));
        Self { out, notices, outcome, stop: Some(stop) }
    }

    /// Ctrl-C.
    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn end(self) -> (Result<(), String>, String, String) {
        let outcome = self.outcome.await.unwrap().map_err(|failure| failure.to_string());
        (outcome, self.out.text(), self.notices.text())
    }
}

/// Runs a test on one thread, as the program does.
fn test(body: impl Future<Output = ()>) {
    let runtime = runtime().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, body);
}

#[test]
fn publications_are_printed_aligned_and_counted() {
    test(async {
        let gateway = Gateway::start().await;
        let running = Running::start("tickcast sub stocks.AAPL a --count 3", &gateway.url);
        let mut socket = gateway.accept().await;
        let expected =
            r#"{"type":"subscribe","id":1,"topics":[{"topic":"a"},{"topic":"stocks.AAPL"}]}"#;
        assert_eq!(socket.command().await, expected);
        socket.acknowledge(1042).await;
        socket.publish(1042).await;
        socket.say("{\"topic\":\"stocks.AAPL\",\"offset\":1234567,\"time\":0,\"data\":{\"a\":\n 1.10}}").await;
        socket.publish(1043).await;
        let (outcome, out, notices) = running.end().await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(
            out,
            "a              1042  {\"n\":1042}\n\
             stocks.AAPL  1234567  {\"a\":  1.10}\n\
             a               1043  {\"n\":1043}\n"
        );
        assert_eq!(notices, "");
    });
}

#[test]
fn a_lost_connection_resumes_where_it_was() {
    test(async {
        let gateway = Gateway::start().await;
        let running = Running::start("tickcast sub a --since k3f9:40 --count 4", &gateway.url);
        let mut socket = gateway.accept().await;
        let since = |offset: u64| {
            format!(
                r#"{{"type":"subscribe","id":{},"topics":[{{"topic":"a","since":{{"epoch":"k3f9","offset":{offset}}}}}]}}"#,
                offset - 39
            )
        };
        assert_eq!(socket.command().await, since(40));
        socket.acknowledge(41).await;
        socket.publish(41).await;
        drop(socket);

        let mut socket = gateway.accept().await;
        assert_eq!(socket.command().await, since(41));
        socket.acknowledge(42).await;
        socket.publish(42).await;
        socket.send(Frame::close(Some(SocketCode::try_from(4008).unwrap()), "slow_consumer")).await;

        let mut next = gateway.accept().await;
        assert!(next.command().await.contains(r#""offset":42}"#));
        next.acknowledge(44).await;
        next.publish(43).await;
        next.publish(44).await;
        let (outcome, out, notices) = running.end().await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(out.lines().count(), 4);
        let notices: Vec<_> =
            notices.lines().map(|line| line.split("; reconnecting").next().unwrap()).collect();
        assert!(notices[0].starts_with("-- connection lost: "), "{notices:?}");
        let rest =
            ["-- reconnected", "-- closed by the gateway: 4008 slow_consumer", "-- reconnected"];
        assert_eq!(notices[1..], rest);
    });
}

/// The offsets that were printed.
fn offsets(out: &str) -> Vec<u64> {
    out.lines().map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn a_node_that_goes_away_is_left_when_another_one_has_taken_over() {
    test(async {
        let gateway = Gateway::start().await;
        let running = Running::start("tickcast sub a --since k3f9:40 --count 6", &gateway.url);
        let mut old = gateway.accept().await;
        old.command().await;
        old.acknowledge(41).await;
        old.publish(41).await;
        old.say(r#"{"type":"goaway","reconnect_in_ms":50}"#).await;

        // The old one delivers until the new one has acknowledged; what comes after that on it is not waited for.
        let mut new = gateway.accept().await;
        assert!(new.command().await.contains(r#""offset":41}"#));
        old.publish(42).await;
        old.publish(43).await;
        old.settle().await;
        new.acknowledge(44).await;
        assert_eq!(old.end().await, Some(1000), "it is closed properly");
        for offset in 42..=46 {
            new.publish(offset).await;
        }
        let (outcome, out, notices) = running.end().await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(offsets(&out), [41, 42, 43, 44, 45, 46]);
        let notices: Vec<_> = notices.lines().collect();
        assert!(notices[0].starts_with("-- goaway in "), "{notices:?}");
        assert_eq!(notices[1..], ["-- moved to another connection"]);
    });
}

#[test]
fn a_node_that_goes_away_before_the_other_one_is_there_costs_nothing() {
    test(async {
        let gateway = Gateway::start().await;
        let running = Running::start("tickcast sub a --since k3f9:40 --count 4", &gateway.url);
        let mut old = gateway.accept().await;
        old.command().await;
        old.acknowledge(41).await;
        old.publish(41).await;
        old.say(r#"{"type":"goaway","reconnect_in_ms":0}"#).await;
        let mut new = gateway.accept().await;
        new.command().await;
        old.publish(42).await;
        old.settle().await;
        // The new connection is lost as well before it said anything, and then the old one is closed.
        drop(new);
        let restart = SocketCode::try_from(1012).unwrap();
        old.send(Frame::close(Some(restart), "restart")).await;
        let mut third = gateway.accept().await;
        assert!(third.command().await.contains(r#""offset":42}"#));
        third.acknowledge(44).await;
        third.publish(43).await;
        third.publish(44).await;
        let (outcome, out, _) = running.end().await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(offsets(&out), [41, 42, 43, 44]);
    });
}

#[test]
fn json_shows_nothing_twice_either() {
    test(async {
        let gateway = Gateway::start().await;
        let running =
            Running::start("tickcast sub a --since k3f9:40 --json --count 2", &gateway.url);
        let mut old = gateway.accept().await;
        old.command().await;
        old.acknowledge(41).await;
        old.say(r#"{"type":"goaway","reconnect_in_ms":0}"#).await;
        let mut new = gateway.accept().await;
        new.command().await;
        old.publish(41).await;
        old.settle().await;
        new.acknowledge(42).await;
        new.publish(41).await;
        new.publish(42).await;
        let (outcome, out, _) = running.end().await;
        assert_eq!(outcome, Ok(()));
        let publications: Vec<_> = out.lines().filter(|line| line.contains("data")).collect();
        assert_eq!(publications.len(), 2, "{out}");
        assert!(publications[0].contains("41") && publications[1].contains("42"), "{out}");
    });
}

#[test]
fn a_gateway_that_is_full_is_asked_again_when_it_says_so() {
    test(async {
        let gateway = Gateway::start().await;
        let running = Running::start("tickcast sub a --count 1 --key tck_secret", &gateway.url);
        let asked = gateway.refuse("503 Service Unavailable", "retry-after: 1\r\n").await;
        assert!(asked.contains("authorization: Bearer tck_secret\r\n"), "{asked}");
        let refused = Instant::now();
        let mut socket = gateway.accept().await;
        assert!(refused.elapsed() >= Duration::from_secs(1), "{:?}", refused.elapsed());
        socket.command().await;
        socket.acknowledge(1).await;
        socket.publish(1).await;
        let (outcome, out, notices) = running.end().await;
        assert_eq!((outcome, offsets(&out)), (Ok(()), vec![1]));
        assert!(notices.starts_with("-- the gateway refused the connection: "), "{notices}");
        assert!(!notices.contains("secret"), "{notices}");
    });
}

#[test]
fn everything_skipped_is_said() {
    test(async {
        let gateway = Gateway::start().await;
        let mut running = Running::start("tickcast sub a --latency", &gateway.url);
        let mut socket = gateway.accept().await;
        socket.command().await;
        socket.acknowledge(10).await;
        socket.publish(10).await;
        socket
            .say(r#"{"type":"gap","topic":"a","from":11,"to":17,"reason":"slow_consumer"}"#)
            .await;
        socket.publish(18).await;
        socket.publish(20).await;
        socket.publish(20).await;
        socket.say(r#"{"type":"reset","topic":"a","epoch":"m7q2","offset":3,"reason":"broker_restart"}"#).await;
        socket.say(r#"{"type":"status","broker":"down"}"#).await;
        socket.say(r#"{"type":"error","code":"bad_option","message":"so\u001b[2J"}"#).await;
        socket.say("nonsense").await;
        socket.settle().await;
        running.stop();
        let (outcome, out, notices) = running.end().await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(out.lines().next().unwrap(), "a      10         -  {\"n\":10}");
        let notices: Vec<_> = notices.lines().collect();
        let expected = [
            "-- gap a 11..17 (slow_consumer)",
            "-- missing a 19..19 (not announced)",
            "-- repeated a 20",
            "-- reset a to m7q2:3 (broker_restart)",
            "-- status broker down",
            "-- error (bad_option) so\\u{1b}[2J",
            "-- a message that is not JSON or of no known kind",
        ];
        assert_eq!(notices[..expected.len()], expected);
        let summary = notices.last().unwrap();
        assert!(
            summary.starts_with("-- 4 publications in ") && summary.contains("2 gaps; age p50 "),
            "{summary}"
        );
    });
}

#[test]
fn json_is_what_came_one_line_each() {
    test(async {
        let gateway = Gateway::start().await;
        let running = Running::start("tickcast sub a --json --count 1", &gateway.url);
        let mut socket = gateway.accept().await;
        socket.command().await;
        let gap = r#"{"type":"gap","topic":"a","from":1,"to":2,"reason":"expired"}"#;
        socket.say(gap).await;
        socket.say("{\"topic\":\"a\",\"offset\":3,\"data\":{\r\n\"x\":1.0}}").await;
        let (outcome, out, notices) = running.end().await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(
            out,
            format!("{gap}\n{{\"topic\":\"a\",\"offset\":3,\"data\":{{  \"x\":1.0}}}}\n")
        );
        assert_eq!(notices, "");
    });
}

#[test]
fn ends_that_are_not_worth_a_retry() {
    test(async {
        let gateway = Gateway::start().await;
        let running = Running::start("tickcast sub a", &gateway.url);
        let mut socket = gateway.accept().await;
        socket.command().await;
        let rejected = r#"{"topic":"a","code":"forbidden","message":"no"}"#;
        socket
            .say(&format!(r#"{{"type":"subscribed","id":1,"topics":[],"errors":[{rejected}]}}"#))
            .await;
        let (outcome, _, notices) = running.end().await;
        assert_eq!(outcome, Err("nothing could be subscribed: a (forbidden) no".to_owned()));
        assert_eq!(notices, "-- error a (forbidden) no\n");

        for (code, reason) in [(4500, "banned"), (4501, "key_revoked")] {
            let running = Running::start("tickcast sub a", &gateway.url);
            let mut socket = gateway.accept().await;
            socket.send(Frame::close(Some(SocketCode::try_from(code).unwrap()), reason)).await;
            let (outcome, ..) = running.end().await;
            let expected =
                format!("closed by the gateway: {code} {reason}; it does not want a retry");
            assert_eq!(outcome, Err(expected));
        }
    });
}

#[test]
fn a_first_connection_that_fails_is_the_end() {
    test(async {
        let gateway = Gateway::start().await;
        let running = Running::start("tickcast sub a", &gateway.url);
        gateway.refuse("403 Forbidden", "").await;
        let (outcome, ..) = running.end().await;
        let expected =
            "the gateway refused the connection: bad_origin; not here; set access.origins";
        assert_eq!(outcome, Err(expected.to_owned()));

        let target = gateway.url.clone();
        drop(gateway);
        let (outcome, ..) = Running::start("tickcast sub a", &target).end().await;
        assert!(
            outcome.unwrap_err().starts_with(&format!("cannot reach {target}: connection refused"))
        );
    });
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    test(async {
        let gateway = Gateway::start().await;
        let broken = Shared { broken: true, ..Shared::default() };
        let running = Running::with_output("tickcast sub a", &gateway.url, broken);
        let mut socket = gateway.accept().await;
        socket.command().await;
        socket.acknowledge(1).await;
        socket.publish(1).await;
        assert_eq!(running.end().await.0, Ok(()));
    });
}
