//! TLS on the way to a gateway, and why it fails.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as RustlsError, RootCertStore, crypto,
};

use crate::cli::Failure;

/// A handshake takes two round trips and a signature.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to find out whether a port is one for TLS.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Both listeners of a gateway speak this one only; a load balancer might prefer another.
const PROTOCOL: &[u8] = b"http/1.1";

/// Bytes in both directions, encrypted or not.
pub(in crate::cli) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Makes TLS connections to servers whose certificates are signed by somebody who is trusted.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    trusted: Trusted,
}

/// Who is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Trusted {
    /// The authorities that the system knows.
    System,
    /// Those in a file, and nobody else.
    File(PathBuf),
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the authorities of this system"),
            Self::File(path) => write!(f, "the certificates in {}", path.display()),
        }
    }
}

/// Why there is no TLS connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum TlsError {
    /// Nobody who is trusted has signed the certificate.
    #[error(
        "its certificate is not signed by {0}; name a file with the certificate of the authority that did: --ca FILE"
    )]
    UnknownIssuer(Trusted),
    /// The certificate is for somebody else.
    #[error("its certificate is for {names}, and not for {host}; use a name of the certificate")]
    WrongName {
        /// The host of the URL.
        host: String,
        /// Names and addresses in the certificate.
        names: String,
    },
    /// Too late.
    #[error("its certificate has expired; renew it there, or set the clock of this machine")]
    Expired,
    /// Too early.
    #[error("its certificate is not valid yet; set the clock, there or on this machine")]
    NotYetValid,
    /// What `openssl req -x509` makes unless it is told otherwise.
    #[error(
        "its certificate is that of an authority, which no server may use; make one with `basicConstraints=CA:FALSE`"
    )]
    IsAuthority,
    /// Another protocol.
    #[error("no TLS is spoken there; write http:// for https://, or name the port for TLS")]
    NotTls,
    /// The end instead of an answer.
    #[error("it closed the connection; if the port is not one for TLS, write http:// for https://")]
    Closed,
    /// No common ground.
    #[error("it wants a version or a cipher that is not known here ({0}); TLS 1.2 and 1.3 are")]
    NothingInCommon(String),
    /// Silence.
    #[error(
        "no handshake within {} s; if the port is not one for TLS, write http:// for https://",
        HANDSHAKE_TIMEOUT.as_secs()
    )]
    TimedOut,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Tls {
    /// Trusts the authorities in a file, or those of the system.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, Failure> {
        match ca {
            Some(path) => Self::trusting(roots_of(path)?, Trusted::File(path.to_owned())),
            None => Self::trusting(system_roots()?, Trusted::System),
        }
    }

    fn trusting(roots: RootCertStore, trusted: Trusted) -> Result<Self, Failure> {
        // Named, because a process may hold several providers, and then there is no default.
        let provider = Arc::new(crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder =
            builder.map_err(|error| Failure::Failed(format!("TLS cannot be set up ({error})")))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { config: Arc::new(config), trusted })
    }

    /// Makes a connection one of TLS, to a server of this name.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<Box<dyn Stream>, TlsError> {
        let Ok(name) = ServerName::try_from(host.to_owned()) else {
            return Err(TlsError::Other(format!("no certificate can be for {host}")));
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        match timeout(HANDSHAKE_TIMEOUT, Box::pin(connector.connect(name, stream))).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(TlsError::of(&error, host, &self.trusted)),
            Err(_) => Err(TlsError::TimedOut),
        }
    }
}

/// Whether a server answers a greeting of TLS in kind. Nothing is sent to it beside that.
pub(super) async fn is_spoken(host: &str, stream: TcpStream) -> bool {
    // Nobody is trusted, so the handshake ends with the server's certificate.
    let Ok(tls) = Tls::trusting(RootCertStore::empty(), Trusted::System) else { return false };
    match timeout(PROBE_TIMEOUT, tls.connect(host, stream)).await {
        Ok(Err(error)) => error.is_from_tls(),
        Ok(Ok(_)) => true,
        Err(_) => false,
    }
}

impl TlsError {
    fn of(error: &io::Error, host: &str, trusted: &Trusted) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>());
        match (inner, error.kind()) {
            (Some(RustlsError::InvalidCertificate(error)), _) => {
                Self::of_certificate(error, host, trusted)
            }
            (Some(RustlsError::InvalidMessage(_)), _) => Self::NotTls,
            (
                Some(RustlsError::AlertReceived(
                    alert @ (AlertDescription::HandshakeFailure
                    | AlertDescription::ProtocolVersion
                    | AlertDescription::NoApplicationProtocol),
                )),
                _,
            ) => Self::NothingInCommon(format!("{alert:?}")),
            (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Self::Closed,
            _ => Self::Other(super::reason(error)),
        }
    }

    fn of_certificate(error: &CertificateError, host: &str, trusted: &Trusted) -> Self {
        match error {
            // A bad signature: the authority's name is known, but it has another key, as when it was made anew.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UnknownIssuer(trusted.clone())
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::WrongName { host: host.to_owned(), names: names(presented) }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            // The library has no other name for it.
            CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => {
                Self::IsAuthority
            }
            error => Self::Other(super::printable(&error.to_string())),
        }
    }

    /// Has the server answered in TLS?
    fn is_from_tls(&self) -> bool {
        !matches!(self, Self::NotTls | Self::Closed | Self::TimedOut | Self::Other(_))
    }
}

/// The names of a certificate, which come as `DnsName("localhost")` and `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let name = name.split_once('(').map_or(name.as_str(), |(_, name)| name);
        super::printable(name.trim_matches(['"', ')']))
    };
    let names: Vec<String> = presented.iter().map(bare).collect();
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

fn system_roots() -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    // Errors of single files do not matter as long as something is trusted.
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added > 0 {
        return Ok(roots);
    }
    Err(Failure::Failed(
        "this system has no certificates of authorities; install them (`ca-certificates`), or name those of the gateway: --ca FILE"
            .to_owned(),
    ))
}

fn roots_of(path: &Path) -> Result<RootCertStore, Failure> {
    let file = path.display();
    let unreadable = |why: &dyn fmt::Display| Failure::Usage(format!("--ca {file}: {why}"));
    let certificates =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| match error {
        PemError::Io(error) => unreadable(&super::reason(&error)),
        error => unreadable(&error),
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(unreadable(&"there is no certificate in it; it must be in PEM format"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_certificate_for_people() {
        let check = |presented: &[&str], expected: &str| {
            let presented: Vec<String> = presented.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(names(&presented), expected);
        };
        check(&[], "no name at all");
        check(&[r#"DnsName("localhost")"#, "IpAddress(127.0.0.1)"], "localhost, 127.0.0.1");
        check(&["DnsName(\"a\u{1b}[2J\")"], "a\\u{1b}[2J");
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        let check = |path: &Path, expected: &str| {
            let error = Tls::new(Some(path)).unwrap_err();
            assert!(matches!(error, Failure::Usage(_)), "{error:?}");
            assert_eq!(error.to_string(), format!("--ca {}: {expected}", path.display()));
        };
        check(path, "there is no certificate in it; it must be in PEM format");
        std::fs::write(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let error = Tls::new(Some(path)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("--ca {}: ", path.display())), "{error}");
        check(Path::new("/nowhere/ca.crt"), "no such file or directory");
    }
}
