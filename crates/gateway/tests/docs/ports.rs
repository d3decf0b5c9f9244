//! The ports that pages name, and the free ones that stand for them while a page is run.

use std::net::SocketAddr;

use crate::port::Port;

/// Every port that a page may name.
const KNOWN: &[u16] = &[
    8080, 8081, 8090, 8091, 8100, 8101, // nodes: public and admin
    6379, 6390, // Redis
    8000, 8443, 8404, // a load balancer: plain, TLS, its own metrics
    9090, 3000, // Prometheus, Grafana
];

/// The public port of a node that is not told otherwise.
pub(crate) const PUBLIC: u16 = 8080;
/// The admin port of such a node.
pub(crate) const ADMIN: u16 = 8081;
/// The port of a Redis that is not told otherwise.
pub(crate) const REDIS: u16 = 6379;

/// A free port for each port that is known, kept as long as this lives.
#[derive(Debug)]
pub(crate) struct Ports(Vec<(u16, Port)>);

impl Ports {
    pub(crate) fn free() -> Self {
        Self(KNOWN.iter().map(|known| (*known, Port::free())).collect())
    }

    /// Where whatever a page expects at `known` is.
    pub(crate) fn address(&self, known: u16) -> SocketAddr {
        let found = self.0.iter().find(|(port, _)| *port == known);
        found.map(|(_, free)| free.address).unwrap_or_else(|| panic!("{known} is not in KNOWN"))
    }

    /// A text of a page with the free ports.
    pub(crate) fn fill_in(&self, text: &str) -> String {
        replace(text, |number| {
            let found = self.0.iter().find(|(known, _)| *known == number);
            found.map(|(_, free)| free.address.port())
        })
    }

    /// What a program has printed, with the ports that the page knows.
    pub(crate) fn take_back(&self, text: &str) -> String {
        replace(text, |number| {
            let found = self.0.iter().find(|(_, free)| free.address.port() == number);
            found.map(|(known, _)| *known)
        })
    }
}

/// A port of this machine that a text names and that is not known.
pub(crate) fn unknown(text: &str) -> Option<&str> {
    let places = ["127.0.0.1:", "localhost:", "0.0.0.0:"];
    let named = places.into_iter().flat_map(|place| text.split(place).skip(1)).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        &rest[..end]
    });
    let is_known = |port: &u16| *port == 0 || KNOWN.contains(port);
    named
        .filter(|digits| !digits.is_empty())
        .find(|digits| !digits.parse().is_ok_and(|port| is_known(&port)))
}

/// Replaces whole numbers that stand alone.
fn replace(text: &str, other: impl Fn(u16) -> Option<u16>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let length = if digits == 0 { first.len_utf8() } else { digits };
        let (word, after) = rest.split_at(length);
        let follows = after.chars().next().unwrap_or(' ');
        let stands_alone = !before.is_ascii_alphanumeric() && !follows.is_ascii_alphanumeric();
        let number = word.parse().ok().filter(|_| digits > 0 && stands_alone);
        match number.and_then(&other) {
            Some(port) => result.push_str(&port.to_string()),
            None => result.push_str(word),
        }
        before = word.chars().next_back().unwrap_or(' ');
        rest = after;
    }
    result
}

#[test]
fn ports_there_and_back() {
    let ports = Ports::free();
    let text = "curl 127.0.0.1:8080/v1 --port 6379; x8080 8080y 18080 12:8081,\u{e4}8090 9";
    let filled = ports.fill_in(text);
    let public = ports.address(PUBLIC).port();
    assert!(filled.starts_with(&format!("curl 127.0.0.1:{public}/v1 --port ")), "{filled}");
    assert!(filled.contains("x8080 8080y 18080"), "{filled}");
    assert_eq!(ports.take_back(&filled), text);
    assert_eq!(unknown(text), None);
    assert_eq!(unknown("http://localhost:8082/"), Some("8082"));
    assert_eq!(unknown("listen = \"127.0.0.1:0\""), None);
}
