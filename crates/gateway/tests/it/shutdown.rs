//! The end of a node, and what keeps one from starting.

use std::io::Write as _;

use crate::harness::{Node, Raw, Socket};
use crate::program::{Program, command};

#[tokio::test]
async fn the_program_ends_well_when_it_is_asked_to() {
    let mut program = Program::serve(&[("drain.timeout", "2s")]);
    let mut socket = Socket::open(program.address, "/v1/ws?topics=a").await;
    assert_eq!(socket.value().await["type"], "subscribed");
    let mut stuck = Raw::connect(program.address).await;
    stuck.upgrade().await;
    assert_eq!(Raw::connect(program.admin).await.get("/readyz", "").await.status, 200);
    let mut publisher = Raw::connect(program.address).await;
    assert_eq!(publisher.post("/v1/topics/a", "", "1").await.status, 200);
    socket.expect_numbers("a", 1..=1).await;

    program.terminate();
    assert_eq!(socket.value().await["type"], "goaway");
    assert_eq!(socket.closed().await.0, 1012);
    // `stuck` neither reads nor closes, and holds nobody up.
    let status = program.wait();
    assert_eq!(status.code(), Some(0), "{}", program.log());
    assert!(program.log().contains("\"in_time\":true"), "{}", program.log());
}

#[tokio::test]
async fn a_full_socket_holds_nobody_up() {
    let mut program = Program::serve(&[("drain.timeout", "10m")]);
    let mut full = Socket::narrow(program.address, "/v1/ws?topics=a").await;
    assert_eq!(full.value().await["type"], "subscribed");
    let mut witness = Socket::open(program.address, "/v1/ws?topics=a").await;
    assert_eq!(witness.value().await["type"], "subscribed");
    let mut publisher = Raw::connect(program.address).await;
    let payload = format!("\"{}\"", "x".repeat(4000));
    for _ in 0..200 {
        assert_eq!(publisher.post("/v1/topics/a", "", &payload).await.status, 200);
    }
    for _ in 0..200 {
        assert_eq!(witness.value().await["topic"], "a");
    }

    program.terminate();
    // Waiting is bounded far below the time for all of it.
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    drop(full);
}

#[tokio::test]
async fn a_request_that_has_begun_is_answered_before_the_end() {
    let mut program = Program::serve(&[]);
    let mut raw = Raw::connect(program.address).await;
    let head =
        ["POST /v1/topics/a HTTP/1.1", "Host: x", "Content-Length: 2", "Expect: 100-continue"];
    raw.write_head(&head).await;
    assert_eq!(raw.head().await.status, 100, "the request is being read");
    let mut witness = Raw::connect(program.address).await;
    witness.upgrade().await;
    program.terminate();
    assert_eq!(witness.value().await["type"], "goaway");
    raw.write("12").await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    drop(witness);
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
}

/// The exit code, and what was said on standard error.
fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_flag() {
    let node = Node::start().await;
    let address = node.address.to_string();
    let (code, said) = failure(&["serve", "--listen", &address, "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
    let (code, said) = failure(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", &address]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("--admin-listen"), "{said}");
}

#[test]
fn an_open_address_needs_a_word() {
    let (code, said) = failure(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`server.listen`") && said.contains("--insecure"), "{said}");
    assert!(said.contains("tickcast key new"), "{said}");
}

#[test]
fn an_unknown_key_is_an_error_that_knows_the_right_one() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "[websocket]\nping_intervall = \"5s\"\n[topic]\nhistory = 5").unwrap();
    let path = file.path().to_str().unwrap();
    let (code, said) = failure(&["serve", "--config", path]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("{path}:2")), "{said}");
    assert!(said.contains("did you mean `websocket.ping_interval`?"), "{said}");
    assert!(said.contains("2 errors"), "all of it is said at once: {said}");
}

#[test]
fn a_wrong_command_line_is_an_error_of_its_own() {
    for arguments in
        [&["fly"][..], &["serve", "--listen", "localhost"], &["serve", "--config", "/nowhere.toml"]]
    {
        assert_eq!(failure(arguments).0, Some(2), "{arguments:?}");
    }
}
