//! A node's own key and certificate, and where they live on its disk.
//!
//! The key is written before the first enrolment is tried, so that an enrolment whose reply was
//! lost can be repeated by the same key. The certificate is written last: where it exists the node
//! is enrolled.

use crate::authority::{Issued, issued_by};
use crate::files::{self, FilesError};
use crate::hex;
use crate::identity::{Fingerprint, Refusal, Role, Subject, sha256};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use shared::ids::NodeId;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const KEY: &str = "node.key";
const CERT: &str = "node.crt";
const AUTHORITY: &str = "authority.crt";

/// Why a node's key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeKeyError {
    /// A key file.
    #[error("the node's key files cannot be used")]
    Files(#[from] FilesError),
    /// Not what was written.
    #[error("{} is damaged: enrol this node again with `--replace`", .0.display())]
    Damaged(PathBuf),
    /// The certificate is there and the key or the authority is not.
    #[error("{} is missing although the node is enrolled: enrol it again with `--replace`", .0.display())]
    Missing(PathBuf),
    /// The key could not be made or used.
    #[error("cannot make or use a key: {0}")]
    Key(String),
    /// The coordinator sent a certificate for another key.
    #[error("the certificate is for another key (SHA-256 {found}) than this node's")]
    OtherKey {
        /// The key in it.
        found: String,
    },
    /// The coordinator sent a certificate that is not acceptable.
    #[error("the certificate that was issued is refused")]
    Refused(#[from] Refusal),
}

/// A private key with the certificates that speak for it: what one side of a handshake shows.
#[derive(Clone)]
pub struct Credential {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Credential {
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: Vec<u8>) -> Self {
        Self { chain, key }
    }

    /// What stands in its certificate.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn subject(&self) -> Result<Subject, Refusal> {
        Subject::read(&self.chain[0])
    }

    pub(crate) fn certified(&self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let key = rustls::crypto::ring::sign::any_supported_type(&der)?;
        Ok(Arc::new(CertifiedKey::new(self.chain.clone(), key)))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Credential({:?})",
            self.subject().map(|subject| subject.role)
        )
    }
}

/// A node that has its certificate.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What it shows to the coordinator.
    pub credential: Credential,
    /// The certificate of the authority that it trusts.
    pub authority: CertificateDer<'static>,
}

/// A node's private key, made before the first enrolment.
pub struct NodeKey(KeyPair);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

fn key_error(error: rcgen::Error) -> NodeKeyError {
    NodeKeyError::Key(error.to_string())
}

impl NodeKey {
    /// The key in `dir`, made if there is none.
    ///
    /// # Errors
    /// [`NodeKeyError`]; a key that is gone while the certificate exists is not made anew.
    pub fn open_or_create(dir: &Path) -> Result<Self, NodeKeyError> {
        files::make_dir(dir)?;
        if let Some(pem) = files::read(dir, KEY, true)? {
            let text = std::str::from_utf8(&pem).ok();
            return text
                .and_then(|pem| KeyPair::from_pem(pem).ok())
                .map(Self)
                .ok_or_else(|| NodeKeyError::Damaged(dir.join(KEY)));
        }
        if files::read(dir, CERT, false)?.is_some() {
            return Err(NodeKeyError::Missing(dir.join(KEY)));
        }
        let made = Self::ephemeral()?;
        files::write(dir, KEY, made.0.serialize_pem().as_bytes())?;
        Ok(made)
    }

    /// A key that exists in memory alone: for rehearsals and tests.
    ///
    /// # Errors
    /// [`NodeKeyError::Key`].
    pub fn ephemeral() -> Result<Self, NodeKeyError> {
        KeyPair::generate_for(&PKCS_ED25519)
            .map(Self)
            .map_err(key_error)
    }

    /// The signing request for this key, DER: proves that the asker has it.
    ///
    /// # Errors
    /// [`NodeKeyError::Key`].
    pub fn request(&self) -> Result<Vec<u8>, NodeKeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params
            .serialize_request(&self.0)
            .map_err(key_error)?
            .der()
            .to_vec())
    }

    /// Judges what the coordinator issued: for this key, for a node, by the authority with this
    /// fingerprint.
    ///
    /// # Errors
    /// [`NodeKeyError::OtherKey`] or [`NodeKeyError::Refused`].
    pub fn accept(&self, issued: &Issued, trusted: Fingerprint) -> Result<Enrolled, NodeKeyError> {
        if Fingerprint::of(&issued.authority) != trusted {
            return Err(Refusal::WrongFingerprint { wanted: trusted }.into());
        }
        issued_by(&issued.certificate, &issued.authority)?;
        let subject = Subject::read(&issued.certificate)?;
        if subject.key != sha256(&[&self.0.subject_public_key_info()]) {
            return Err(NodeKeyError::OtherKey {
                found: hex::text(&subject.key),
            });
        }
        let Role::Node(id) = subject.role else {
            let found = subject.role.uri();
            return Err(Refusal::WrongRole {
                wanted: "node",
                found,
            }
            .into());
        };
        let authority = CertificateDer::from(issued.authority.clone());
        let leaf = CertificateDer::from(issued.certificate.clone());
        let credential = Credential::new(vec![leaf, authority.clone()], self.0.serialize_der());
        Ok(Enrolled {
            id,
            name: subject.name,
            credential,
            authority,
        })
    }

    /// [`Self::accept`], and keeps it in `dir` durably. Also for a renewed certificate.
    ///
    /// # Errors
    /// [`NodeKeyError`].
    pub fn keep(
        &self,
        dir: &Path,
        issued: &Issued,
        trusted: Fingerprint,
    ) -> Result<Enrolled, NodeKeyError> {
        let enrolled = self.accept(issued, trusted)?;
        files::write(dir, AUTHORITY, &pem_text(&issued.authority))?;
        files::write(dir, CERT, &pem_text(&issued.certificate))?;
        Ok(enrolled)
    }

    /// The certificate that `dir` keeps for this key; none if the node is not enrolled yet. An
    /// expired one counts: the handshake judges that.
    ///
    /// # Errors
    /// [`NodeKeyError`].
    pub fn enrolled(&self, dir: &Path) -> Result<Option<Enrolled>, NodeKeyError> {
        let Some(certificate) = files::read(dir, CERT, false)? else {
            return Ok(None);
        };
        let authority = files::read(dir, AUTHORITY, false)?
            .ok_or_else(|| NodeKeyError::Missing(dir.join(AUTHORITY)))?;
        let der = |pem: &[u8], name| match CertificateDer::from_pem_slice(pem) {
            Ok(der) => Ok(der.to_vec()),
            Err(_) => Err(NodeKeyError::Damaged(dir.join(name))),
        };
        let issued = Issued {
            certificate: der(&certificate, CERT)?,
            authority: der(&authority, AUTHORITY)?,
        };
        let trusted = Fingerprint::of(&issued.authority);
        self.accept(&issued, trusted).map(Some)
    }
}

fn pem_text(der: &[u8]) -> Vec<u8> {
    const LINE: usize = 64;
    let digits = base64(der);
    let mut out = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in digits.chunks(LINE) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(b"-----END CERTIFICATE-----\n");
    out
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for position in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * position) & 63) as usize];
            out.push(if position <= group.len() { digit } else { b'=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;
    use crate::clock::WRITTEN;
    use shared::time::Span;

    const DAY: Span = Span::secs(86_400);

    #[test]
    fn an_enrolment_is_kept_and_only_for_this_key_and_authority() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("identity");
        let authority = Authority::ephemeral().unwrap();
        let key = NodeKey::open_or_create(&dir).unwrap();
        assert!(key.enrolled(&dir).unwrap().is_none());
        let id = NodeId([4; 16]);
        let issue = |by: &Authority, key: &NodeKey| {
            by.node(&key.request().unwrap(), id, "gw-7", WRITTEN, DAY)
                .unwrap()
        };
        let issued = issue(&authority, &key);
        let trusted = authority.fingerprint();

        let stranger = NodeKey::ephemeral().unwrap();
        let error = key
            .keep(&dir, &issue(&authority, &stranger), trusted)
            .unwrap_err();
        assert!(matches!(error, NodeKeyError::OtherKey { .. }), "{error}");
        let foreign = Authority::ephemeral().unwrap();
        let error = key.keep(&dir, &issue(&foreign, &key), trusted).unwrap_err();
        let refusal = Refusal::WrongFingerprint { wanted: trusted };
        assert!(matches!(error, NodeKeyError::Refused(found) if found == refusal));
        let certificate = issue(&foreign, &key).certificate;
        let mixed = Issued {
            certificate,
            authority: issued.authority.clone(),
        };
        let error = key.keep(&dir, &mixed, trusted).unwrap_err();
        assert!(matches!(error, NodeKeyError::Refused(Refusal::Foreign)));
        assert!(
            key.enrolled(&dir).unwrap().is_none(),
            "nothing refused was kept"
        );

        key.keep(&dir, &issued, trusted).unwrap();
        let key = NodeKey::open_or_create(&dir).unwrap();
        let enrolled = key.enrolled(&dir).unwrap().unwrap();
        assert_eq!((enrolled.id, enrolled.name.as_str()), (id, "gw-7"));
        assert_eq!(enrolled.authority.as_ref(), issued.authority);
        std::fs::remove_file(dir.join(KEY)).unwrap();
        assert!(matches!(
            NodeKey::open_or_create(&dir),
            Err(NodeKeyError::Missing(_))
        ));
    }

    #[test]
    fn pem_is_read_back_at_every_length() {
        for length in 1..200 {
            let der: Vec<u8> = (0..length).map(|n| n as u8 ^ 0xa5).collect();
            let back = CertificateDer::from_pem_slice(&pem_text(&der)).unwrap();
            assert_eq!(back.as_ref(), der);
        }
    }
}
