//! Carries plain connections to a server that speaks TLS, so that clients which do not can use it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The name in the certificate.
const NAME: &str = "localhost";

/// A tunnel that ends when this is dropped.
pub(crate) struct Tunnel {
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

impl Tunnel {
    /// A tunnel to a server that has this certificate.
    pub(crate) fn start(server: SocketAddr, certificate: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        roots.add(certificate).expect("a certificate");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it listens");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a runtime");
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = serve(listener, connector, server) => {}
                }
            });
        });
        Self { address, _stop: stop.drop_guard() }
    }
}

async fn serve(listener: TcpListener, connector: TlsConnector, server: SocketAddr) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { return };
        let connector = connector.clone();
        tokio::spawn(async move {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            client.set_nodelay(true)?;
            let name = ServerName::try_from(NAME).expect("a name");
            let mut stream = connector.connect(name, stream).await?;
            tokio::io::copy_bidirectional(&mut client, &mut stream).await
        });
    }
}
