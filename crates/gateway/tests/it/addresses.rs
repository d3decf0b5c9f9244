//! How many connections one client address may have, however the node knows whose they are.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::exposition;
use crate::harness::{Answer, Raw, until};
use crate::peers::tcp4;
use crate::program::Program;
use crate::reload::Rig;

const LIMIT: usize = 3;
const REFUSED: &str = r#"tickcast_connections_rejected_total{reason="address"}"#;
const ADDRESSES: &str = "tickcast_client_addresses";
const HTTP: &str = r#"tickcast_connections{transport="http"}"#;

fn limited(settings: &[(&str, &str)]) -> Program {
    Program::serve(&[settings, &[("limits.connections_per_address", "3")]].concat())
}

async fn metric(program: &Program, series: &str) -> f64 {
    let text = Raw::connect(program.admin).await.get("/metrics", "").await.text();
    exposition::value(&text, series).unwrap_or_else(|| panic!("there is no {series}"))
}

fn expect_refused(answer: &Answer) {
    assert_eq!((answer.status, answer.problem().as_str()), (429, "too_many_from_address"));
    let seconds = answer.header("retry-after").and_then(|text| text.parse().ok());
    assert!(seconds.is_some_and(|seconds: u32| (1..=10).contains(&seconds)), "{answer:?}");
}

/// A connection from another address of this machine.
async fn from(last: u8, address: SocketAddr) -> Raw {
    Raw::connect_from(Ipv4Addr::new(127, 0, 0, last), address).await
}

#[tokio::test]
async fn one_more_than_an_address_may_have_is_refused() {
    let program = limited(&[]);
    let mut idle = from(7, program.address).await;
    let mut websocket = from(7, program.address).await;
    websocket.upgrade().await;
    let mut http = from(7, program.address).await;
    assert_eq!(http.get("/healthz", "").await.status, 200);
    for count in 1..=5 {
        // Before it has said anything.
        let mut late = from(7, program.address).await;
        expect_refused(&late.answer().await);
        assert!(late.end().await.is_empty());
        assert_eq!(metric(&program, REFUSED).await, f64::from(count));
    }
    // What others have is theirs, and who is in stays in.
    let mut other = from(8, program.address).await;
    assert_eq!(other.get("/healthz", "").await.status, 200);
    assert_eq!(metric(&program, ADDRESSES).await, 2.0);
    assert_eq!(http.get("/healthz", "").await.status, 200);
    assert_eq!(idle.get("/healthz", "").await.status, 200);

    // A place that is given back is one for the next, whatever it was.
    for leaving in [websocket, idle, http] {
        drop(leaving);
        let room = || async {
            let mut next = from(7, program.address).await;
            next.try_write("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await
                && next.end().await.starts_with(b"HTTP/1.1 200")
        };
        until("room", room).await;
    }
    drop(other);
    until("nobody", || async { metric(&program, ADDRESSES).await == 0.0 }).await;
    let warning = "a connection was refused because its address has limits.connections_per_address";
    // The log has its own way to us.
    until("the warning", || async { program.log().contains(warning) }).await;
    assert_eq!(program.log().matches(warning).count(), 1, "{}", program.log());
}

#[tokio::test]
async fn a_claim_of_another_address_is_no_matter() {
    let program = limited(&[]);
    let mut held = Vec::new();
    for client in 0..LIMIT {
        let mut raw = Raw::connect(program.address).await;
        let claim = format!("X-Forwarded-For: 192.0.2.{client}");
        raw.write_head(&[Raw::HANDSHAKE, &[&claim]].concat()).await;
        assert_eq!(raw.answer().await.status, 101);
        held.push(raw);
    }
    expect_refused(&Raw::connect(program.address).await.answer().await);
    assert_eq!(metric(&program, ADDRESSES).await, 1.0, "nothing grows by what clients claim");
}

#[tokio::test]
async fn behind_a_proxy_that_introduces_connections_its_clients_are_counted() {
    let program = limited(&[
        ("server.proxy_protocol", "required"),
        ("server.trusted_proxies", "127.0.0.0/8"),
    ]);
    let introduced = async |last: u8| {
        let mut raw = Raw::connect(program.address).await;
        raw.write(tcp4([192, 0, 2, last])).await;
        raw
    };
    let mut held = Vec::new();
    for last in [7, 7, 7, 8] {
        let mut raw = introduced(last).await;
        raw.upgrade().await;
        held.push(raw);
    }
    let mut late = introduced(7).await;
    late.write_head(Raw::HANDSHAKE).await;
    expect_refused(&late.answer().await);
    assert!(late.end().await.is_empty());
    assert_eq!((metric(&program, REFUSED).await, metric(&program, ADDRESSES).await), (1.0, 2.0));
    introduced(8).await.upgrade().await;
    held.remove(0).reset();
    let room = || async {
        let mut next = introduced(7).await;
        next.get("/healthz", "Connection: close\r\n").await.status == 200
    };
    until("room", room).await;
}

#[tokio::test]
async fn behind_a_proxy_that_names_clients_in_requests_their_websockets_are_counted() {
    let program = limited(&[("server.trusted_proxies", "127.0.0.0/8")]);
    let handshake = async |raw: &mut Raw, client: &str| {
        let line = format!("X-Forwarded-For: {client}");
        raw.write_head(&[Raw::HANDSHAKE, &[&line]].concat()).await;
        raw.answer().await
    };
    let mut held = Vec::new();
    // Of IPv6 the network counts.
    for client in ["192.0.2.7", "2001:db8::1"] {
        for number in 0..LIMIT {
            let mut raw = Raw::connect(program.address).await;
            let client =
                if client.contains(':') { format!("{client}{number}") } else { client.to_owned() };
            assert_eq!(handshake(&mut raw, &client).await.status, 101);
            held.push(raw);
        }
    }
    let mut shared = Raw::connect(program.address).await;
    for client in ["192.0.2.7", "2001:db8::ffff", "1.1.1.1, 192.0.2.7"] {
        expect_refused(&handshake(&mut shared, client).await);
        // The connection is the proxy's and carries on, also requests of that client.
        let line = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(shared.get("/healthz", &line).await.status, 200);
    }
    assert_eq!((metric(&program, REFUSED).await, metric(&program, ADDRESSES).await), (3.0, 2.0));
    // Another client may, on the very same connection; and so may the proxy itself, which is not counted.
    assert_eq!(handshake(&mut shared, "2001:db8:0:1::1").await.status, 101);
    for _ in 0..=LIMIT {
        let mut own = Raw::connect(program.address).await;
        own.upgrade().await;
        held.push(own);
    }
    drop((held, shared));
    until("nobody", || async { metric(&program, ADDRESSES).await == 0.0 }).await;
}

#[tokio::test]
async fn the_bound_can_change_and_sends_nobody_away() {
    let text = |limit: usize| format!("[limits]\nconnections_per_address = {limit}\n");
    let mut rig = Rig::start(&text(2));
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = rig.raw().await;
        raw.upgrade().await;
        held.push(raw);
    }
    expect_refused(&rig.raw().await.answer().await);
    rig.reload(&text(3), true).await;
    let mut third = rig.raw().await;
    third.upgrade().await;
    rig.reload(&text(1), true).await;
    expect_refused(&rig.raw().await.answer().await);
    rig.reload(&text(0), true).await;
    let mut free = rig.raw().await;
    assert_eq!(free.get("/healthz", "").await.status, 200);
    drop(held);
    drop(third);
    until("nobody", || async { rig.metric(ADDRESSES).await == 0.0 }).await;
    assert_eq!(free.get("/healthz", "").await.status, 200);
}

/// Thousands of handshakes that stay half open, from one address: few are held, and who comes from elsewhere is served.
#[tokio::test]
async fn one_address_alone_does_not_fill_a_node() {
    const COUNT: usize = 3000;
    let program = Program::serve(&[
        ("limits.connections_per_address", "50"),
        ("server.max_connections", "100"),
    ]);
    let head = Raw::HANDSHAKE.join("\r\n");
    let (mut crowd, mut slowest) = (Vec::new(), Vec::new());
    for number in 0..COUNT {
        let mut raw = from(7, program.address).await;
        if raw.try_write(&head).await {
            crowd.push(raw);
        }
        if number % 50 == 0 {
            let asked = Instant::now();
            let mut other = from(8, program.address).await;
            assert_eq!(other.get("/healthz", "Connection: close\r\n").await.status, 200);
            slowest.push(asked.elapsed());
            let open = metric(&program, HTTP).await;
            assert!(open <= 52.0, "{open} are open");
        }
    }
    slowest.sort();
    let most = slowest[(slowest.len() - 1) * 19 / 20];
    assert!(most < Duration::from_millis(100), "others wait {most:?}");
    assert_eq!(metric(&program, REFUSED).await, (COUNT - 50) as f64);
    drop(crowd);
    until("nobody", || async { metric(&program, ADDRESSES).await == 0.0 }).await;
}
