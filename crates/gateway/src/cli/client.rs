//! What the client verbs share: the address of the gateway, a kept-alive HTTP connection, back-off, numbers for people.

mod tls;
mod url;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rand::RngExt;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{AdminArgs, ClientArgs, Failure};
use crate::config::Secret;
use tls::Tls;

pub(super) use tls::{Stream, TlsError};
pub use url::{GatewayUrl, GatewayUrlError};

/// A TCP connection to a gateway that is there is made well within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A gateway answers a publication within a second; ten leave room for slow networks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The answer to a full batch of 1,000 items with topics of 200 bytes is below 300 KiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A gateway, and how it is reached.
#[derive(Debug, Clone)]
pub(super) struct Target {
    url: GatewayUrl,
    /// The value of `Authorization`, if there is a key; marked as sensitive, so that it is never shown.
    bearer: Option<HeaderValue>,
    /// For a gateway that is reached over TLS.
    tls: Option<Tls>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl ClientArgs {
    /// The gateway, with the key that was given.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        Target::new(&self.url, self.key.as_ref(), self.ca.as_deref())
    }
}

impl AdminArgs {
    /// The admin listener, with the key that was given.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        Target::new(&self.admin_url, self.key.as_ref(), self.ca.as_deref())
    }
}

impl Target {
    /// A gateway at this address, with the key and the file of trusted certificates that were given. Who gives certificates
    /// means that nobody reads along: then an address without TLS is taken only if it is on this machine.
    pub(super) fn new(
        url: &GatewayUrl,
        key: Option<&Secret>,
        ca: Option<&Path>,
    ) -> Result<Self, Failure> {
        let key = key.filter(|key| !key.is_empty());
        let bearer = key.map(bearer).transpose()?;
        if ca.is_some() && !url.is_encrypted && !url.is_local() {
            return Err(Failure::Usage(format!(
                "--ca was given, but {url} is reached without TLS, and so readable on its way; give an address that begins with https:// or wss://"
            )));
        }
        let tls = url.is_encrypted.then(|| Tls::new(ca));
        Ok(Self { url: url.clone(), bearer, tls: tls.transpose()? })
    }

    /// Opens a connection on which HTTP is spoken.
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let stream = self.connect_tcp().await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let connected = tls.connect(self.url.bare_host(), stream).await;
        connected.map_err(|why| ClientError::Tls { url: self.url.clone(), why })
    }

    async fn connect_tcp(&self) -> Result<TcpStream, ClientError> {
        let address = (self.url.bare_host(), self.url.port);
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let unreachable = |source| ClientError::Unreachable { url: self.url.clone(), source };
        let stream = stream.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(stream)
    }

    /// Why a connection was lost on which nothing had been answered yet. A port for TLS ends a connection that begins with
    /// something else, mostly without a word.
    pub(super) async fn explain(&self, error: ClientError) -> ClientError {
        if self.tls.is_none()
            && matches!(error, ClientError::Lost(_))
            && let Ok(stream) = self.connect_tcp().await
            && tls::is_spoken(self.url.bare_host(), stream).await
        {
            return ClientError::NotEncrypted { url: self.url.clone() };
        }
        error
    }

    /// A request for a path below this address.
    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url.base))
            .header(HOST, format!("{}:{}", self.url.host, self.url.port))
            .header(USER_AGENT, concat!("tickcast/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body));
        let mut request = request.map_err(|error| ClientError::Request(error.to_string()))?;
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        Ok(request)
    }
}

/// The header that presents a key.
fn bearer(key: &Secret) -> Result<HeaderValue, Failure> {
    let bearer = HeaderValue::from_str(&format!("Bearer {}", key.reveal().trim()));
    let mut bearer = bearer
        .map_err(|_error| Failure::Usage("--key has characters that no key has".to_owned()))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// No connection.
    #[error(
        "cannot reach {url}: {}; is a gateway running there? `tickcast dev` starts one",
        reason(source)
    )]
    Unreachable {
        /// Where it was looked for.
        url: GatewayUrl,
        /// What the system says.
        source: io::Error,
    },
    /// A connection, but no TLS on it.
    #[error("no TLS with {url}: {why}")]
    Tls {
        /// With whom.
        url: GatewayUrl,
        /// Why not.
        why: TlsError,
    },
    /// A connection to a port for TLS, which was not asked for.
    #[error("{url} is a port for TLS; write https:// for http://, or wss:// for ws://")]
    NotEncrypted {
        /// Where that is.
        url: GatewayUrl,
    },
    /// A connection, but no answer.
    #[error("the connection was lost before the answer came: {0}")]
    Lost(String),
    /// Nothing that can be asked for.
    #[error("not a request: {0}")]
    Request(String),
    /// Silence.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
}

impl ClientError {
    /// Nothing was asked, because there is no gateway at this address, or no way to it.
    pub(super) fn is_before_asking(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Tls { .. } | Self::NotEncrypted { .. })
    }

    /// Whoever was there has ended, as far as one can see.
    pub(super) fn is_gone(&self) -> bool {
        let has_closed = |why: &TlsError| *why == TlsError::Closed;
        match self {
            Self::Unreachable { .. } | Self::Lost(_) => true,
            Self::Tls { why, .. } => has_closed(why),
            Self::NotEncrypted { .. } | Self::Request(_) | Self::Timeout => false,
        }
    }
}

/// The system's words without its error number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// From `Retry-After`, in its form with seconds.
    pub(super) retry_after: Option<Duration>,
    /// The gateway takes no further request on this connection.
    is_last: bool,
    pub(super) body: Bytes,
}

/// The parts of a problem document (RFC 9457) that a person needs.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ProblemDocument {
    code: String,
    title: String,
    detail: String,
    hint: String,
}

impl Answer {
    /// Reads a response to its end.
    pub(super) async fn read(
        response: hyper::Response<hyper::body::Incoming>,
    ) -> Result<Self, ClientError> {
        let (head, body) = response.into_parts();
        let seconds =
            head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let is_last = head.headers.get(CONNECTION).is_some_and(|value| {
            value.to_str().is_ok_and(|options| options.eq_ignore_ascii_case("close"))
        });
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ClientError::Lost(error.to_string()))?.to_bytes();
        let retry_after = seconds.map(Duration::from_secs);
        Ok(Self { status: head.status, retry_after, is_last, body })
    }

    /// Would the same request have a chance a little later?
    pub(super) fn is_temporary(&self) -> bool {
        matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::GATEWAY_TIMEOUT
        )
    }

    /// What the gateway says is wrong, in one line.
    pub(super) fn problem(&self) -> String {
        let problem: ProblemDocument = serde_json::from_slice(&self.body).unwrap_or_default();
        let what = if problem.detail.is_empty() { problem.title } else { problem.detail };
        let parts = [problem.code, what, problem.hint].into_iter().filter(|part| !part.is_empty());
        let text = parts.collect::<Vec<_>>().join("; ");
        if text.is_empty() { format!("HTTP {}", self.status) } else { printable(&text) }
    }
}

/// A kept-alive HTTP connection, opened when it is first needed and again after it was lost.
#[derive(Debug)]
pub(super) struct HttpConnection {
    target: Target,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

impl HttpConnection {
    pub(super) fn new(target: &Target) -> Self {
        Self { target: target.clone(), sender: None }
    }

    /// Sends one request and reads the answer. After an error the next request opens a new connection.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, ClientError> {
        let kept = self.sender.take().filter(|sender| !sender.is_closed());
        let is_new = kept.is_none();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.open().await?,
        };
        let exchange = async {
            let response = sender.send_request(request).await;
            Answer::read(response.map_err(|error| ClientError::Lost(error.to_string()))?).await
        };
        let answer = timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(Err(ClientError::Timeout));
        let answer = match answer {
            Err(error) if is_new => return Err(self.target.explain(error).await),
            answer => answer?,
        };
        // A node that is about to stop says so with every answer; the next request then goes to another one.
        self.sender = Some(sender).filter(|_| !answer.is_last);
        Ok(answer)
    }

    async fn open(&self) -> Result<http1::SendRequest<Full<Bytes>>, ClientError> {
        let stream = self.target.connect().await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) =
            handshake.map_err(|error| ClientError::Lost(error.to_string()))?;
        // Drives the connection; it ends with it, and whatever went wrong shows at the sender.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Exponential back-off with full jitter: a random time below a bound that doubles.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempts: 0 }
    }

    /// How often it was asked since the last success.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Begins anew after a success.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How long to wait before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        self.next_from(Duration::ZERO)
    }

    /// The same, with a bound that is not below `least`.
    pub(super) fn next_from(&mut self, least: Duration) -> Duration {
        // From 2^20 on every base is above every cap.
        let bound = self.base.saturating_mul(1 << self.attempts.min(20)).max(least).min(self.cap);
        self.attempts += 1;
        bound.mul_f64(rand::rng().random::<f64>())
    }
}

/// 1234567 as `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text of others made harmless for a terminal: control characters become escapes, line breaks become spaces.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => safe.push(' '),
            c if c.is_control() => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// A random name for this run: 64 bits, so that no two runs share one.
pub(super) fn run_id() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_the_cap_and_starts_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        for attempt in 0..40 {
            let bound = Duration::from_millis(500).saturating_mul(1 << attempt.min(10));
            assert!(backoff.next() <= bound.min(Duration::from_secs(30)));
        }
        assert_eq!(backoff.attempts(), 40);
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(500));
    }

    #[test]
    fn numbers_and_text_for_people() {
        let check = |number, expected: &str| assert_eq!(thousands(number), expected);
        check(0, "0");
        check(999, "999");
        check(1000, "1,000");
        check(1_234_567, "1,234,567");
        assert_eq!(printable("a\nb\u{1b}[2J\u{9b}x\u{e9}"), "a b\\u{1b}[2J\\u{9b}x\u{e9}");
    }
}
