//! The proxy does each kind of harm, and no other.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, until};
use crate::proxy::{Damage, Direction, Flow, Harm, Proxy, Way};

/// Long enough for what comes to have come.
const MOMENT: Duration = Duration::from_millis(100);

/// A server that greets, and answers with what it is sent. It lives as long as the tests.
fn echo(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = stream.try_clone()?;
                stream.write_all(greeting.as_bytes())?;
                std::io::copy(&mut reader, &mut stream)?;
                stream.shutdown(Shutdown::Write)
            });
        }
    });
    address
}

/// A proxy before an echo server, and a connection through both.
fn proxied() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo(""), 7);
    let client = connect(&proxy);
    (proxy, client)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let client = TcpStream::connect(proxy.address()).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("an open connection");
    client
}

fn send(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).expect("an open connection");
}

fn expect(client: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    client.read_exact(&mut bytes).expect("all of it");
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// Nothing comes for a moment, not even an end.
fn expect_silence(client: &mut TcpStream) {
    client.set_read_timeout(Some(MOMENT)).expect("an open connection");
    let error = client.read(&mut [0]).expect_err("silence");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    client.set_read_timeout(Some(PATIENCE)).expect("an open connection");
}

fn expect_reset(client: &mut TcpStream) {
    let error = client.read(&mut [0]).expect_err("no end, but a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn without_harm_everything_passes_and_is_counted() {
    let (proxy, mut client) = proxied();
    let text = "0123456789".repeat(100_000);
    let mut writer = client.try_clone().expect("an open connection");
    let sent = text.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(sent.as_bytes())?;
        writer.shutdown(Shutdown::Write)
    });
    let mut received = String::new();
    client.read_to_string(&mut received).expect("all of it, then the end");
    writing.join().expect("no panic").expect("an open connection");
    assert!(received == text, "{} bytes of {}", received.len(), text.len());
    let passed = [Direction::ToServer, Direction::ToClient].map(|way| proxy.bytes(way));
    assert_eq!((passed, proxy.connections()), ([1_000_000; 2], 1));
    until("closed", PATIENCE, || proxy.open() == 0);
}

#[test]
fn bytes_that_are_late_keep_their_order() {
    let (proxy, mut client) = proxied();
    let latency = Duration::from_millis(30);
    proxy.set_both(Way { latency, jitter: latency / 2, ..Way::default() });
    for number in 0..20 {
        let text = format!("number {number:3}");
        let start = Instant::now();
        send(&mut client, &text);
        expect(&mut client, &text);
        assert!(start.elapsed() >= latency, "{:?}", start.elapsed());
    }
    (0..100).for_each(|number| send(&mut client, &format!("{number:3}")));
    (0..100).for_each(|number| expect(&mut client, &format!("{number:3}")));
}

#[test]
fn a_narrow_way_takes_its_time() {
    let (proxy, mut client) = proxied();
    proxy.set(Direction::ToServer, Way { bytes_per_second: Some(100_000), ..Way::default() });
    let text = "x".repeat(30_000);
    let start = Instant::now();
    send(&mut client, &text);
    expect(&mut client, &text);
    // The last chunk does not wait for itself.
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
}

#[test]
fn a_black_hole_takes_everything_and_says_nothing() {
    let (proxy, mut client) = proxied();
    proxy.set(Direction::ToClient, Way { flow: Flow::Lost, ..Way::default() });
    send(&mut client, "there");
    until("there", PATIENCE, || proxy.bytes(Direction::ToServer) == 5);
    expect_silence(&mut client);
    let mut other = connect(&proxy);
    send(&mut other, "there too");
    expect_silence(&mut other);
    proxy.clear();
    expect_reset(&mut client);
    expect_reset(&mut other);
    assert_eq!(proxy.bytes(Direction::ToClient), 0);
}

#[test]
fn a_black_hole_hides_the_end() {
    let proxy = Proxy::start(echo(""), 7);
    let mut client = connect(&proxy);
    proxy.set(Direction::ToServer, Way { flow: Flow::Lost, ..Way::default() });
    client.shutdown(Shutdown::Write).expect("an open connection");
    expect_silence(&mut client);
    proxy.clear();
    expect_reset(&mut client);
}

#[test]
fn what_is_held_comes_in_one_burst() {
    let (proxy, mut client) = proxied();
    proxy.set(Direction::ToServer, Way { flow: Flow::Held, ..Way::default() });
    (0..10).for_each(|number| send(&mut client, &number.to_string()));
    expect_silence(&mut client);
    assert_eq!(proxy.bytes(Direction::ToServer), 0);
    proxy.clear();
    expect(&mut client, "0123456789");
}

#[test]
fn connections_are_reset_on_command() {
    let (proxy, mut client) = proxied();
    send(&mut client, "a");
    expect(&mut client, "a");
    proxy.reset_all();
    expect_reset(&mut client);
    let mut client = connect(&proxy);
    send(&mut client, "b");
    expect(&mut client, "b");
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn half_a_connection_is_closed() {
    let (proxy, mut client) = proxied();
    send(&mut client, "a");
    expect(&mut client, "a");
    proxy.half_close(Direction::ToClient);
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    send(&mut client, "still");
    until("there", PATIENCE, || proxy.bytes(Direction::ToServer) == 6);
    assert_eq!(proxy.bytes(Direction::ToClient), 1);
}

#[test]
fn slices_add_up() {
    let (proxy, mut client) = proxied();
    proxy.set_both(Way { bytes_per_write: Some(1), ..Way::default() });
    let text = "slices".repeat(1000);
    send(&mut client, &text);
    expect(&mut client, &text);
}

#[test]
fn damage_happens_once_and_where_it_should() {
    let (proxy, mut client) = proxied();
    let damage = |after, what| Way { damage: Some(Damage { after, what }), ..Way::default() };
    send(&mut client, "before ");
    expect(&mut client, "before ");

    proxy.set(Direction::ToServer, damage(5, Harm::Insert(b"<garbage>")));
    send(&mut client, "hel");
    send(&mut client, "lo world");
    expect(&mut client, "hello<garbage> world");

    proxy.set(Direction::ToServer, damage(0, Harm::Flip));
    send(&mut client, "abc");
    let mut bytes = [0; 3];
    client.read_exact(&mut bytes).expect("all of it");
    assert_eq!(bytes, [!b'a', b'b', b'c']);

    proxy.set(Direction::ToServer, damage(2, Harm::Cut));
    send(&mut client, "abc");
    expect_reset(&mut client);
    assert_eq!(proxy.bytes(Direction::ToServer), 7 + 20 + 3 + 2);

    let mut client = connect(&proxy);
    send(&mut client, "new");
    expect_reset(&mut client);
}

#[test]
fn new_connections_are_refused() {
    let (proxy, mut client) = proxied();
    send(&mut client, "a");
    expect(&mut client, "a");
    proxy.refuse();
    let error = TcpStream::connect(proxy.address()).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    send(&mut client, "b");
    expect(&mut client, "b");
    proxy.accept();
    let mut client = connect(&proxy);
    send(&mut client, "c");
    expect(&mut client, "c");
}

#[test]
fn a_name_can_lead_elsewhere() {
    let proxy = Proxy::start(echo("first"), 7);
    let mut first = connect(&proxy);
    expect(&mut first, "first");
    proxy.lead_to(echo("second"));
    let mut second = connect(&proxy);
    expect(&mut second, "second");
    send(&mut first, "x");
    expect(&mut first, "x");
}
