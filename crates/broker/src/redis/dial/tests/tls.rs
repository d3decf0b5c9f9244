//! TLS, with certificates of an authority of our own.

use super::super::{Dialer, TlsError};
use super::certificates::Certificates;
use super::server::Server;
use crate::redis::TlsFiles;

/// A server that takes TLS only, and asks clients for a certificate if `mutual`.
fn start(certificates: &Certificates, mutual: bool) -> Server {
    let [certificate, key, ca] =
        ["server.crt", "server.key", "ca.crt"].map(|f| certificates.text(f));
    let clients = if mutual { "yes" } else { "no" };
    Server::start(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        clients,
    ])
}

fn trusting(certificates: &Certificates) -> TlsFiles {
    TlsFiles { ca: Some(certificates.path("ca.crt")), ..TlsFiles::default() }
}

fn with_client(certificates: &Certificates, authority: &Certificates) -> TlsFiles {
    TlsFiles {
        certificate: Some(certificates.path("client.crt")),
        key: Some(certificates.path("client.key")),
        ..trusting(authority)
    }
}

fn at(scheme: &str, host: &str, server: &Server) -> String {
    format!("{scheme}://{host}:{}", server.port)
}

async fn error(url: &str, tls: TlsFiles) -> String {
    let dialer = Dialer::new(url.parse().unwrap(), tls).unwrap();
    dialer.commands().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_trusted_server_is_dialled_and_others_are_named() {
    let (ours, theirs) = (Certificates::make(), Certificates::make());
    let server = start(&ours, false);
    let url = at("rediss", "localhost", &server);
    let dialer = Dialer::new(url.parse().unwrap(), trusting(&ours)).unwrap();
    dialer.commands().await.unwrap();

    let text = error(&url, trusting(&theirs)).await;
    assert!(text.contains("not signed by an authority that is trusted"), "{text}");
    let text = error(&at("rediss", "127.0.0.1", &server), trusting(&ours)).await;
    assert!(text.contains("for another name than `127.0.0.1`"), "{text}");
    let text = error(&at("redis", "localhost", &server), TlsFiles::default()).await;
    assert!(text.contains("rediss://"), "{text}");
    let plain = Server::start(&[]);
    let text = error(&at("rediss", "localhost", &plain), trusting(&ours)).await;
    assert!(text.contains("redis:// for rediss://"), "{text}");
}

#[tokio::test]
async fn a_certificate_of_the_client_is_shown() {
    let (ours, theirs) = (Certificates::make(), Certificates::make());
    let server = start(&ours, true);
    let url = at("rediss", "localhost", &server);
    let dialer = Dialer::new(url.parse().unwrap(), with_client(&ours, &ours)).unwrap();
    dialer.commands().await.unwrap();

    let text = error(&url, trusting(&ours)).await;
    assert!(text.contains("it asks for a certificate of the client"), "{text}");
    let text = error(&url, with_client(&theirs, &ours)).await;
    assert!(
        text.contains("it refuses the certificate in `broker.redis.certificate_file`"),
        "{text}"
    );
}

#[tokio::test]
async fn renewed_files_take_effect_with_the_next_dial() {
    let (ours, theirs) = (Certificates::make(), Certificates::make());
    let server = start(&ours, false);
    let url = at("rediss", "localhost", &server);
    let dialer = Dialer::new(url.parse().unwrap(), trusting(&theirs)).unwrap();
    dialer.commands().await.unwrap_err();
    std::fs::copy(ours.path("ca.crt"), theirs.path("ca.crt")).unwrap();
    dialer.commands().await.unwrap();
    std::fs::write(theirs.path("ca.crt"), "nonsense").unwrap();
    let text = dialer.commands().await.unwrap_err().to_string();
    assert!(text.contains("there is no certificate in"), "{text}");
}

#[test]
fn mistakes_in_the_files_are_found_at_the_start() {
    let certificates = Certificates::make();
    let new = |tls| Dialer::new("rediss://localhost".parse().unwrap(), tls).unwrap_err();
    let good = with_client(&certificates, &certificates);
    let missing = Some(certificates.path("missing"));

    let error = new(TlsFiles { ca: missing.clone(), ..good.clone() });
    assert!(matches!(error, TlsError::Read { setting: "broker.redis.ca_file", .. }), "{error}");
    let error = new(TlsFiles { ca: good.key.clone(), ..good.clone() });
    assert!(matches!(error, TlsError::Empty { what: "certificate", .. }), "{error}");
    let error = new(TlsFiles { key: None, ..good.clone() });
    assert!(matches!(error, TlsError::Half { .. }), "{error}");
    let error = new(TlsFiles { certificate: None, ..good.clone() });
    assert!(matches!(error, TlsError::Half { .. }), "{error}");
    let error = new(TlsFiles { key: good.certificate.clone(), ..good.clone() });
    assert!(matches!(error, TlsError::Empty { what: "private key", .. }), "{error}");
    let error = new(TlsFiles { key: Some(certificates.path("server.key")), ..good });
    assert!(matches!(error, TlsError::Pair(_)), "{error}");
    // Without TLS nobody looks at them.
    let files = TlsFiles { ca: missing, ..TlsFiles::default() };
    assert!(Dialer::new("redis://localhost".parse().unwrap(), files).is_ok());
}
