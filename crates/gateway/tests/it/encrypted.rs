//! The client verbs where a load balancer speaks TLS in front of a node, and where it does not.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::program::{Program, command};

/// Where the system's certificates are looked for, if that is given.
const SYSTEM: &str = "SSL_CERT_FILE";

/// What makes a certificate one that a server may use.
const SERVER: [&str; 2] = ["-addext", "basicConstraints=critical,CA:FALSE"];

/// Certificates and their keys, in a folder.
struct Certificates(TempDir);

impl Certificates {
    /// Two authorities; a server of the first one, and servers that none can do anything with.
    fn make() -> Self {
        let certificates = Self(tempfile::tempdir().unwrap());
        let (authority, another) = ("authority", "another");
        for name in [authority, another] {
            certificates.openssl(Command::new("openssl"), name, &[]);
        }
        let signed = ["-CA", "authority.crt", "-CAkey", "authority.key"];
        let server = |names| [&SERVER[..], &signed, &["-addext", names]].concat();
        let localhost = server("subjectAltName=DNS:localhost");
        certificates.openssl(Command::new("openssl"), "server", &localhost);
        let elsewhere = server("subjectAltName=DNS:gateway.example,IP:192.0.2.1");
        certificates.openssl(Command::new("openssl"), "elsewhere", &elsewhere);
        let mut long_ago = Command::new("faketime");
        long_ago.args(["2020-01-01 00:00:00", "openssl"]);
        certificates.openssl(long_ago, "old", &localhost);
        certificates
    }

    /// Makes a certificate with a key of its own.
    fn openssl(&self, mut openssl: Command, name: &str, more: &[&str]) {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        openssl.current_dir(&self.0).args(["req", "-x509", "-newkey", "ec", "-nodes"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"]);
        openssl.args(["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &certificate]);
        let output = openssl.args(more).output().expect("scripts/setup installs it");
        assert!(output.status.success(), "{output:?}");
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).to_str().unwrap().to_owned()
    }
}

/// TLS in front of a listener, with the certificate of this name.
async fn door(certificates: &Certificates, name: &str, to: SocketAddr) -> SocketAddr {
    let file = |kind: &str| certificates.path(&format!("{name}.{kind}"));
    let certificate = CertificateDer::from_pem_file(file("crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // The node may have ended; then there is nothing behind the door.
                let mut server = TcpStream::connect(to).await?;
                let mut client = acceptor.accept(stream).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    address
}

/// Runs a verb to its end, with these variables.
async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(arguments);
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What a verb printed that must have succeeded.
async fn done(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(arguments, variables).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn every_verb_reaches_a_node_behind_tls() {
    let certificates = Certificates::make();
    let program = Program::serve(&[]);
    let public = door(&certificates, "server", program.address).await.port();
    let admin = door(&certificates, "server", program.admin).await.port();
    let (https, wss) = (format!("https://localhost:{public}"), format!("wss://localhost:{public}"));
    let admin = format!("https://localhost:{admin}");
    let ca = certificates.path("authority.crt");

    // More than a socket takes at once, in both directions.
    let payload = format!("\"{}\"", "x".repeat(60_000));
    let publish = ["pub", "a", &payload, "--json", "--url", &https, "--ca", &ca];
    assert!(done(&publish, &[]).await.contains(r#""offset":1"#));
    let subscribe = ["sub", "a", "--count", "1", "--json", "--url", &wss, "--ca", &ca];
    assert!(done(&subscribe, &[]).await.contains(&payload));
    let lines = certificates.path("lines");
    std::fs::write(&lines, "{\"topic\":\"b\",\"data\":1}\n".repeat(5000)).unwrap();
    // In the environment, as programs are told.
    let told = [("TICKCAST__CLIENT__URL", https.as_str()), ("TICKCAST__CLIENT__CA", &ca)];
    let said = done(&["pub", "--file", &lines], &told).await;
    assert!(said.starts_with("published 5,000 in "), "{said}");
    // Without a file it is the system that knows whom to trust.
    let system = [(SYSTEM, ca.as_str())];
    done(&["pub", "a", "2", "--url", &wss], &system).await;
    assert_eq!(done(&["health", "--admin-url", &admin], &system).await, "ready\n");

    let said = done(&["drain", "--wait", "--admin-url", &admin, "--ca", &ca], &[]).await;
    assert!(said.contains("ended after "), "{said}");
}

/// What `pub` and `sub` say who cannot get through.
async fn refused(url: &str, variables: &[(&str, &str)], more: &[&str]) -> String {
    let mut all = Vec::new();
    for verb in [&["pub", "a", "1"][..], &["sub", "a"]] {
        let arguments = [verb, &["--url", url], more].concat();
        let output = run(&arguments, variables).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        all.push(said);
    }
    assert_eq!(all[0], all[1]);
    all.remove(0)
}

#[tokio::test]
async fn certificates_that_are_not_good_are_named() {
    let certificates = Certificates::make();
    let program = Program::serve(&[]);
    let ca = certificates.path("authority.crt");
    let another = certificates.path("another.crt");
    let check = async |name: &str, ca: Option<&str>, expected: &str| {
        let port = door(&certificates, name, program.address).await.port();
        let url = format!("https://localhost:{port}");
        let more = ca.map_or_else(Vec::new, |ca| vec!["--ca", ca]);
        let said = refused(&url, &[(SYSTEM, &another)], &more).await;
        assert!(said.starts_with(&format!("tickcast: no TLS with {url}: ")), "{said}");
        assert!(said.contains(expected), "{name}: {said}");
    };
    let stranger = "its certificate is not signed by the authorities of this system";
    check("server", None, stranger).await;
    check("server", None, "--ca FILE").await;
    check("server", Some(&another), &format!("not signed by the certificates in {another}")).await;
    let name = "its certificate is for gateway.example, 192.0.2.1, and not for localhost";
    check("elsewhere", Some(&ca), name).await;
    check("old", Some(&ca), "its certificate has expired").await;
    check("authority", Some(&ca), "its certificate is that of an authority").await;
}

#[tokio::test]
async fn the_other_protocol_is_recognized() {
    let certificates = Certificates::make();
    let program = Program::serve(&[]);
    let ca = certificates.path("authority.crt");
    let encrypted = door(&certificates, "server", program.address).await;
    let said = refused(&format!("ws://{encrypted}"), &[], &[]).await;
    let url = format!("http://{encrypted}");
    assert_eq!(
        said,
        format!(
            "tickcast: {url} is a port for TLS; write https:// for http://, or wss:// for ws://\n"
        )
    );
    // Who names certificates does not want a key to be read along.
    let url = "http://gateway.example:8080";
    let output = run(&["pub", "a", "1", "--url", url, "--ca", &ca], &[]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("http://gateway.example:8080 is reached without TLS"), "{said}");
    let said = refused(&format!("wss://{}", program.address), &[], &["--ca", &ca]).await;
    assert!(said.contains("no TLS is spoken there; write http:// for https://"), "{said}");

    // Takes connections, and says nothing on them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let more = ["--ca", ca.as_str()];
    let said = tokio::time::timeout(Duration::from_secs(30), refused(&url, &[], &more));
    let said = said.await.expect("a handshake is given up");
    assert!(said.contains("no handshake within 5 s"), "{said}");
    // Takes connections, and ends them.
    tokio::spawn(async move { while silent.accept().await.is_ok() {} });
    let said = refused(&url, &[], &more).await;
    assert!(said.contains("it closed the connection"), "{said}");
}

#[tokio::test]
async fn a_file_of_certificates_must_be_one() {
    let missing = Path::new("/nowhere/ca.crt").to_str().unwrap();
    let output = run(&["health", "--admin-url", "https://localhost", "--ca", missing], &[]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said, format!("tickcast: --ca {missing}: no such file or directory\n"));
}
