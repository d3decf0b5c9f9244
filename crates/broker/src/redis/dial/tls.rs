//! Certificates for `rediss://`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::redis::TlsFiles;

pub(super) const SETTING_CA: &str = "broker.redis.ca_file";
pub(super) const SETTING_CERTIFICATE: &str = "broker.redis.certificate_file";
const SETTING_KEY: &str = "broker.redis.key_file";

/// Why the certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{setting}`: cannot read {path} ({reason})")]
    Read {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system or the format says.
        reason: String,
    },
    /// A file holds nothing of the kind.
    #[error("`{setting}`: there is no {what} in {path}; it must be in PEM format")]
    Empty {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The client's certificate and key are not given together.
    #[error(
        "`{given}` is set without `{missing}`; the client's certificate and its key belong together"
    )]
    Half {
        /// The setting that is there.
        given: &'static str,
        /// The setting that is not.
        missing: &'static str,
    },
    /// The client's certificate and key do not fit.
    #[error("`{SETTING_CERTIFICATE}` and `{SETTING_KEY}` do not work together ({0})")]
    Pair(String),
    /// Nobody is trusted.
    #[error("the system has no certificates of authorities; set `{SETTING_CA}`")]
    NoSystemRoots,
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up ({0})")]
    Setup(String),
}

impl TlsError {
    /// The setting to change, if it is one.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Read { setting, .. } | Self::Empty { setting, .. } => Some(setting),
            Self::Half { given, .. } => Some(given),
            Self::Pair(_) => Some(SETTING_CERTIFICATE),
            Self::NoSystemRoots => Some(SETTING_CA),
            Self::Setup(_) => None,
        }
    }
}

impl TlsFiles {
    /// Reads the files as a broker does at its start. Blocks.
    ///
    /// # Errors
    /// What a broker would not start with.
    pub fn check(&self) -> Result<(), TlsError> {
        TlsSource::new(self.clone()).map(drop)
    }
}

/// Where certificates are read from, each time anew.
#[derive(Debug, Clone)]
pub(super) struct TlsSource {
    files: Arc<TlsFiles>,
    /// Only if no authority is given: reading them takes tens of milliseconds, and they hardly ever change.
    system: Option<Arc<RootCertStore>>,
}

impl TlsSource {
    pub(super) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let system = match files.ca {
            Some(_) => None,
            None => Some(Arc::new(system_roots()?)),
        };
        let source = Self { files: Arc::new(files), system };
        source.connector()?;
        Ok(source)
    }

    /// Reads the files. Blocks.
    pub(super) fn connector(&self) -> Result<TlsConnector, TlsError> {
        let roots = match (&self.files.ca, &self.system) {
            (Some(path), _) => Arc::new(roots_of(path)?),
            (None, Some(system)) => Arc::clone(system),
            (None, None) => return Err(TlsError::NoSystemRoots),
        };
        // Named, because a process may hold several providers, and then there is no default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Setup(error.to_string()))?
            .with_root_certificates(roots);
        let config = match (&self.files.certificate, &self.files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(
                    certificates(SETTING_CERTIFICATE, certificate)?,
                    private_key(key)?,
                )
                .map_err(|error| TlsError::Pair(error.to_string()))?,
            (Some(_), None) => {
                return Err(TlsError::Half { given: SETTING_CERTIFICATE, missing: SETTING_KEY });
            }
            (None, Some(_)) => {
                return Err(TlsError::Half { given: SETTING_KEY, missing: SETTING_CERTIFICATE });
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Errors of single files do not matter as long as something is trusted.
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(SETTING_CA, path)? {
        roots.add(certificate).map_err(|error| TlsError::Read {
            setting: SETTING_CA,
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(setting, path, "certificate", &error))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { setting, path: path.to_owned(), what: "certificate" });
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| unreadable(SETTING_KEY, path, "private key", &error))
}

fn unreadable(
    setting: &'static str,
    path: &Path,
    what: &'static str,
    error: &PemError,
) -> TlsError {
    let path = path.to_owned();
    match error {
        PemError::NoItemsFound => TlsError::Empty { setting, path, what },
        PemError::Io(error) => TlsError::Read { setting, path, reason: error.to_string() },
        error => TlsError::Read { setting, path, reason: error.to_string() },
    }
}
