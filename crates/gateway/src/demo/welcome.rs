//! The page that `tickcast dev` prints: what runs where, and lines to copy that work.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// What the page needs to know.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The public listener, as bound.
    pub public: SocketAddr,
    /// The admin listener, as bound.
    pub admin: SocketAddr,
    /// Where the broker is, see [`Server::broker`](crate::server::Server::broker).
    pub broker: String,
    /// Does the demo feed run?
    pub feed: bool,
    /// How to start this program again, see [`program`].
    pub program: String,
    /// Is the page for a terminal that shows colors?
    pub colors: bool,
}

/// The address that the client verbs try when they are given none.
const DEFAULT_PORT: u16 = 8080;

impl Welcome {
    /// The page, ending in a line break.
    pub fn page(&self) -> String {
        let paint = Paint(self.colors);
        let public = reachable(self.public);
        let admin = reachable(self.admin);
        let topic = if self.feed { "stocks.AAPL" } else { "stocks.DEMO" };
        let watch = if self.feed { "stocks.AAPL nba.LAL-BOS.score" } else { "stocks.DEMO" };
        let url = match public {
            SocketAddr::V4(address)
                if address.port() == DEFAULT_PORT && address.ip().is_loopback() =>
            {
                String::new()
            }
            _ => format!(" --url http://{public}"),
        };
        let feed = if self.feed {
            "62 topics, made up: 60 stocks, a basketball and a tennis match"
        } else {
            "off"
        };
        let broker = match self.broker.as_str() {
            "memory" => "inside this node; --redis URL shares one between nodes",
            url => url,
        };
        let lines = [
            format!("{} {}", paint.bold("Tickcast"), env!("CARGO_PKG_VERSION")),
            String::new(),
            format!("  public   {}", paint.bold(&format!("http://{public}"))),
            format!("  admin    http://{admin}   /metrics /livez /readyz"),
            format!("  broker   {broker}"),
            format!("  feed     {feed}"),
            String::new(),
            format!("  {}", paint.red("DEV MODE: anyone who can reach it may publish.")),
            String::new(),
            paint.dim("Publish a value:"),
            format!("  curl -d '{{\"px\":189.31}}' http://{public}/v1/topics/stocks.DEMO"),
            paint.dim("Read the last one:"),
            format!("  curl http://{public}/v1/topics/{topic}"),
            paint.dim("Watch values arrive:"),
            format!("  {} sub {watch}{url}", self.program),
            paint.dim("In a browser's console:"),
            format!(
                "  new WebSocket(\"ws://{public}/v1/ws?topics={topic}\").onmessage = e => console.log(e.data)"
            ),
            String::new(),
            paint.dim("Ctrl-C stops it."),
        ];
        lines.join("\n") + "\n"
    }
}

/// An address that a client on this machine can use: a listener on all addresses is reached through loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
        }
        _ => address,
    }
}

/// How to start the running program again from the current folder, given how it was called (`args[0]`).
///
/// A program found through `PATH` is called by its name. Otherwise, as in a source tree, it is the path of the running
/// file: relative to the current folder when the file is below it.
pub fn program(called: &str) -> String {
    let executable = std::env::current_exe().unwrap_or_default();
    let folder = std::env::current_dir().unwrap_or_default();
    program_at(called, &executable, &folder)
}

fn program_at(called: &str, executable: &Path, folder: &Path) -> String {
    if !called.contains('/') && !called.is_empty() {
        return called.to_owned();
    }
    let relative = executable.strip_prefix(folder).map(|rest| format!("./{}", rest.display()));
    relative.unwrap_or_else(|_| executable.display().to_string())
}

/// Colors, or nothing.
struct Paint(bool);

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn red(&self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(public: &str) -> Welcome {
        Welcome {
            public: public.parse().unwrap(),
            admin: "127.0.0.1:8081".parse().unwrap(),
            broker: "memory".to_owned(),
            feed: true,
            program: "./target/debug/tickcast".to_owned(),
            colors: false,
        }
    }

    #[test]
    fn the_page_has_lines_that_work() {
        let page = welcome("127.0.0.1:8080").page();
        for line in [
            "  curl -d '{\"px\":189.31}' http://127.0.0.1:8080/v1/topics/stocks.DEMO\n",
            "  curl http://127.0.0.1:8080/v1/topics/stocks.AAPL\n",
            "  ./target/debug/tickcast sub stocks.AAPL nba.LAL-BOS.score\n",
            "  new WebSocket(\"ws://127.0.0.1:8080/v1/ws?topics=stocks.AAPL\").onmessage = e => console.log(e.data)\n",
            "anyone who can reach it may publish",
            "http://127.0.0.1:8081",
            "  broker   inside this node",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        assert!(!page.contains('\x1b'));
    }

    #[test]
    fn the_page_follows_address_feed_and_colors() {
        let page = welcome("0.0.0.0:9000").page();
        assert!(page.contains("curl http://127.0.0.1:9000/v1/topics"), "{page}");
        assert!(page.contains("nba.LAL-BOS.score --url http://127.0.0.1:9000\n"), "{page}");
        assert!(welcome("[::]:8080").page().contains("http://[::1]:8080/v1"));
        let quiet = Welcome { feed: false, colors: true, ..welcome("127.0.0.1:8080") }.page();
        let url = "redis://:***@localhost:6379/0".to_owned();
        let shared = Welcome { broker: url, ..welcome("127.0.0.1:8080") }.page();
        assert!(shared.contains("  broker   redis://:***@localhost:6379/0\n"), "{shared}");
        assert!(!quiet.contains("AAPL") && quiet.contains("\x1b[1;31mDEV MODE"), "{quiet}");
    }

    #[test]
    fn the_program_is_named_so_that_it_can_be_called() {
        let check = |called: &str, executable: &str, expected: &str| {
            assert_eq!(
                program_at(called, Path::new(executable), Path::new("/src/tickcast")),
                expected
            );
        };
        check("tickcast", "/usr/bin/tickcast", "tickcast");
        check(
            "target/debug/tickcast",
            "/src/tickcast/target/debug/tickcast",
            "./target/debug/tickcast",
        );
        check("/opt/tickcast", "/opt/tickcast", "/opt/tickcast");
    }
}
