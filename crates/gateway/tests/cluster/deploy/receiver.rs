//! What stands in the place of Alertmanager: it takes the alerts that Prometheus sends.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

/// Time for one request.
const REQUEST: Duration = Duration::from_secs(5);

/// A receiver of alerts. It takes them until the test ends.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let names = Arc::<Mutex<BTreeSet<String>>>::default();
        let taken = Arc::clone(&names);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A sender that is ended by the test may leave in the middle of a request.
                let Ok(Value::Array(alerts)) = take(stream) else { continue };
                let name = |alert: &Value| alert["labels"]["alertname"].as_str().map(str::to_owned);
                taken.lock().extend(alerts.iter().filter_map(name));
            }
        });
        Self { address, names }
    }

    /// Whether an alert of this name has come.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.lock().contains(name)
    }
}

/// The body of one request, which is answered and the last one of its connection.
fn take(stream: TcpStream) -> io::Result<Value> {
    stream.set_read_timeout(Some(REQUEST))?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.get_mut().write_all(answer.as_bytes())?;
    Ok(serde_json::from_slice(&body)?)
}
