//! Certificates of an authority of our own, made by `openssl`.

use std::path::PathBuf;

use tempfile::TempDir;

use super::server::run;

/// An authority, and what it has signed.
pub(crate) struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// An authority with a certificate for a server named `localhost` and one for a client.
    pub(crate) fn make() -> Self {
        let certificates = Self { directory: tempfile::tempdir().unwrap() };
        certificates.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=Test authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ]);
        certificates.sign("server", "subjectAltName=DNS:localhost");
        certificates.sign("client", "extendedKeyUsage=clientAuth");
        certificates
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path as an argument.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn sign(&self, name: &str, extension: &str) {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        std::fs::write(self.path("extensions"), extension).unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &format!("{name}.crt"),
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        run("openssl", arguments, self.directory.path());
    }
}
