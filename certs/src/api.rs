//! TLS of the HTTP API: its own certificate, checked by host name as every HTTPS client does, and
//! apart from those of the link, whose roles count and whose names do not.

use crate::authority::{Authority, AuthorityError, make, serving};
use crate::files::{self, FilesError};
use crate::node::Credential;
use crate::tls::{Holder, TlsError, provider, tls_error};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use shared::time::{Span, Unix};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the API's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiTlsError {
    /// A file.
    #[error("the API's certificate or key cannot be read")]
    Files(#[from] FilesError),
    /// There is no such file.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// Not PEM, or without what it should hold.
    #[error("{} holds no {wanted} in PEM", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// `certificate`, `private key`.
        wanted: &'static str,
    },
    /// The two do not belong together, or are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority could not make one.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// A new key and a certificate of the fleet's authority for an API under `names` (host names and
/// addresses), valid for `validity` from `now`; each start takes a new one.
///
/// # Errors
/// [`ApiTlsError::Authority`] for a name that no certificate can have.
pub fn api_credential(
    authority: &Authority,
    names: &[String],
    now: Unix,
    validity: Span,
) -> Result<Credential, ApiTlsError> {
    let (params, key) = serving(names, now, validity)?;
    let made = params.signed_by(&key, authority.issuer()).map_err(make)?;
    let chain = vec![made.der().clone(), authority.certificate().clone()];
    Ok(Credential::new(chain, key.serialize_der()))
}

/// Settings of an API that shows what `holder` has at that moment ([`api_credential`]).
///
/// # Errors
/// [`ApiTlsError::Tls`].
pub fn api_server(holder: &Holder) -> Result<Arc<ServerConfig>, ApiTlsError> {
    let builder = builder()?.with_no_client_auth();
    Ok(http(builder.with_cert_resolver(Arc::new(holder.clone()))))
}

/// Settings of an API that shows the certificate chain in `cert` with the key in `key`, both PEM.
/// The key's file must be open to its owner alone.
///
/// # Errors
/// [`ApiTlsError`].
pub fn api_server_of_files(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, ApiTlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(cert, false)?)
        .collect::<Result<_, _>>()
        .unwrap_or_default();
    let pem = |path: &Path, wanted| ApiTlsError::Pem {
        path: path.to_path_buf(),
        wanted,
    };
    if chain.is_empty() {
        return Err(pem(cert, "certificate"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key, true)?);
    let secret = secret.map_err(|_| pem(key, "private key"))?;
    let builder = builder()?.with_no_client_auth();
    let config = builder
        .with_single_cert(chain, secret)
        .map_err(tls_error("use the API's certificate with its key"))?;
    Ok(http(config))
}

fn read(path: &Path, secret: bool) -> Result<Vec<u8>, ApiTlsError> {
    let missing = || ApiTlsError::Missing(path.to_path_buf());
    let name = path.file_name().and_then(|name| name.to_str());
    // keys of others' tools are often reached through links (as with certificates that are renewed)
    let real = path.canonicalize().map_err(|_| missing())?;
    let (Some(_), Some(dir), Some(name)) = (
        name,
        real.parent(),
        real.file_name().and_then(|name| name.to_str()),
    ) else {
        return Err(missing());
    };
    files::read(dir, name, secret)?.ok_or_else(missing)
}

fn builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls_error("choose TLS 1.3"))
}

fn http(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Span = Span::secs(365 * 86_400);

    #[test]
    fn the_authority_makes_one_for_names_and_addresses() {
        let authority = Authority::ephemeral().unwrap();
        let names = ["localhost", "127.0.0.1", "::1", "edge.example"].map(str::to_owned);
        let made = api_credential(&authority, &names, Unix(0), YEAR).unwrap();
        api_server(&Holder::new(&made).unwrap()).unwrap();
        let odd = ["no name\u{e9}".to_owned()];
        assert!(api_credential(&authority, &odd, Unix(0), YEAR).is_err());
    }

    #[test]
    fn files_that_hold_something_else_are_refused_by_name() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let (cert, key) = (home.path().join("a.crt"), home.path().join("a.key"));
        let error = api_server_of_files(&cert, &key).unwrap_err();
        assert!(
            matches!(&error, ApiTlsError::Missing(path) if *path == cert),
            "{error}"
        );
        let made = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
        std::fs::write(&cert, "garbage").unwrap();
        std::fs::write(&key, made.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let error = api_server_of_files(&cert, &key).unwrap_err();
        assert!(
            error.to_string().contains("a.crt holds no certificate"),
            "{error}"
        );
        std::fs::write(&cert, own.self_signed(&made).unwrap().pem()).unwrap();
        api_server_of_files(&cert, &key).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&key, other.serialize_pem()).unwrap();
        assert!(matches!(
            api_server_of_files(&cert, &key),
            Err(ApiTlsError::Tls(_))
        ));
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        let open = api_server_of_files(&cert, &key).unwrap_err();
        assert!(matches!(
            open,
            ApiTlsError::Files(FilesError::Exposed { .. })
        ));
    }
}
