//! Idle runs, and what the floor says about itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::child::{self, Floor};

#[test]
fn the_slope_between_two_plateaus_is_measured() {
    let floor = Floor::start();
    let (url, pid) = (floor.url(), floor.pid().to_string());
    let flags = ["idle", "--from", "50", "--connections", "300", "--hold", "0.2", "--json"];
    let output = child::run(&[&flags[..], &["--url", &url, "--server-pid", &pid]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["from"], &report["connections"]), (&50.into(), &300.into()));
    assert_eq!((&report["ramp"]["opened"], &report["lost"]), (&250.into(), &0.into()));
    assert!(report["bytes_per_connection"].is_number() && report["settled"] == true);
    assert!(report["held_ns"].as_u64() >= Some(200_000_000));
}

#[test]
fn the_floor_counts_what_it_did() {
    let floor = Floor::start();
    let url = floor.url();
    let flags =
        ["fanout", "--connections", "4", "--rate", "50", "--duration", "0.2", "--warmup", "0"];
    assert!(child::run(&[&flags[..], &["--url", &url]].concat()).status.success());

    let mut stream = TcpStream::connect(floor.address()).expect("the floor listens");
    stream.write_all(b"GET /stats HTTP/1.1\r\nHost: floor\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(r#"{"publications":10,"sent":40,"dropped":0,"failed":0}"#), "{answer}");
}
