//! A node's own key and certificate, and where they live on its disk.
//!
//! The key is written before the first enrolment is tried, so that an enrolment whose reply was
//! lost can be repeated by the same key. The certificate is written last: where it exists the node
//! is enrolled.

use crate::authority::{Issued, issued_by};
use crate::clock::{WRITTEN, believable};
use crate::files::{self, FilesError};
use crate::hex;
use crate::identity::{Fingerprint, Refusal, Role, Subject, sha256};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use shared::ids::{Hash, NodeId};
use shared::time::Unix;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const KEY: &str = "node.key";
const CERT: &str = "node.crt";
const AUTHORITY: &str = "authority.crt";
const TIMES: &str = "times";
/// A fleet has one authority, or two while it changes it.
const AUTHORITIES: usize = 4;

/// Why a node's key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeKeyError {
    /// A key file.
    #[error("the node's key files cannot be used")]
    Files(#[from] FilesError),
    /// Not what was written.
    #[error("{} is damaged: enrol this node again with a token of `driftless token create --replace NAME`", .0.display())]
    Damaged(PathBuf),
    /// The certificate is there and the key or the authority is not.
    #[error("{} is missing although the node is enrolled: enrol it again with a token of `driftless token create --replace NAME`", .0.display())]
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
    /// The authorities that it trusts; the first one issued its certificate.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// A certificate as it is sent to a node that renews.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Certified {
    /// The certificate, and the authority that issued it.
    pub issued: Issued,
    /// The other authorities to trust, DER: those of a fleet that changes its authority.
    pub others: Vec<Vec<u8>>,
    /// Wall clock of the coordinator.
    pub now: Unix,
}

/// What a node remembers of the time, since its own clock may be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// What the coordinator said that it is when it was heard last; kept once a day.
    pub heard: Unix,
    /// When the certificate was issued, by the coordinator's clock.
    pub issued: Option<Unix>,
}

impl Times {
    /// What `dir` keeps. What cannot be read counts as nothing: it is remembered again.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        let bytes = files::read(dir, TIMES, false).ok().flatten();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|value| value.trim().parse().ok()).map(Unix)
        };
        Self {
            heard: field("heard ").unwrap_or_default(),
            issued: field("issued "),
        }
    }

    /// Keeps this in `dir`, durably.
    ///
    /// # Errors
    /// [`FilesError`]; what was there stays.
    pub fn write(&self, dir: &Path) -> Result<(), FilesError> {
        let issued = self.issued.map(|issued| format!("issued {}\n", issued.0));
        let text = format!("heard {}\n{}", self.heard.0, issued.unwrap_or_default());
        files::write(dir, TIMES, text.as_bytes())
    }

    /// After the coordinator said that it is `told`. Its word is followed, also back, since its own
    /// clock may have been wrong; but not by more than a year at once, so that one wrong answer
    /// does not make every certificate look expired.
    #[must_use]
    pub fn hear(self, told: Unix) -> Self {
        Self {
            heard: believable(told, self.heard).min(told.max(WRITTEN)),
            ..self
        }
    }

    /// When the holder of a certificate should renew it.
    #[must_use]
    pub fn renew_at(&self, certificate: &Subject) -> Unix {
        let issued = self.issued.unwrap_or(certificate.from);
        certificate.renew_at(issued.min(certificate.until))
    }
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

/// The id of a node that enrols with this key (SHA-256 of the public key, DER) for the first time:
/// the first 16 bytes of the content hash of `driftless node 1` and the key.
#[must_use]
pub fn first_id(key: &[u8; 32]) -> NodeId {
    let digest = Hash::of(&[b"driftless node 1".as_slice(), key].concat());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.0[..16]);
    NodeId(id)
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

    /// The id of the node that enrols with this key for the first time ([`first_id`]). A gateway
    /// that works alone bears it already, so that it stays the same node when it joins a fleet.
    #[must_use]
    pub fn first_id(&self) -> NodeId {
        first_id(&sha256(&[&self.0.subject_public_key_info()]))
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
        self.judge(issued, &[])
    }

    /// Judges what was issued over a connection whose coordinator was recognised, so that its word
    /// on authorities counts.
    fn judge(&self, issued: &Issued, others: &[Vec<u8>]) -> Result<Enrolled, NodeKeyError> {
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
        let others = others.iter().cloned().map(CertificateDer::from);
        Ok(Enrolled {
            id,
            name: subject.name,
            credential,
            authorities: [authority].into_iter().chain(others).collect(),
        })
    }

    /// [`Self::accept`], and keeps it in `dir` durably; `now` is what the coordinator says that it
    /// is.
    ///
    /// # Errors
    /// [`NodeKeyError`].
    pub fn keep(
        &self,
        dir: &Path,
        issued: &Issued,
        trusted: Fingerprint,
        now: Unix,
    ) -> Result<Enrolled, NodeKeyError> {
        let enrolled = self.accept(issued, trusted)?;
        files::write(dir, AUTHORITY, &pem_text(&issued.authority))?;
        files::write(dir, CERT, &pem_text(&issued.certificate))?;
        issued_at(dir, now)?;
        Ok(enrolled)
    }

    /// Keeps in `dir`, durably, a certificate that was asked for by this key over a connection
    /// whose coordinator was recognised: the first one, or a new one in place of the present one.
    ///
    /// The key stays, so each step leaves a pair that works: first the authorities of both
    /// certificates, then the certificate, then only the authorities that are trusted from now on.
    ///
    /// # Errors
    /// [`NodeKeyError`].
    pub fn keep_certified(
        &self,
        dir: &Path,
        certified: &Certified,
    ) -> Result<Enrolled, NodeKeyError> {
        let Certified {
            issued,
            others,
            now,
        } = certified;
        if others.len() > AUTHORITIES {
            let text = format!("{} authorities are too many", others.len());
            return Err(Refusal::Malformed(text).into());
        }
        let enrolled = self.judge(issued, others)?;
        let from_now_on: Vec<&[u8]> = enrolled.authorities.iter().map(AsRef::as_ref).collect();
        let before = authorities(dir)?;
        let gone = before.iter().map(AsRef::as_ref);
        let gone = gone.filter(|one| !from_now_on.contains(one));
        let both: Vec<&[u8]> = from_now_on.iter().copied().chain(gone).collect();
        files::write(dir, AUTHORITY, &bundle(&both))?;
        files::write(dir, CERT, &pem_text(&issued.certificate))?;
        if both != from_now_on {
            files::write(dir, AUTHORITY, &bundle(&from_now_on))?;
        }
        issued_at(dir, *now)?;
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
        let certificate = CertificateDer::from_pem_slice(&certificate)
            .map_err(|_| NodeKeyError::Damaged(dir.join(CERT)))?;
        let mut trusted = authorities(dir)?;
        if trusted.is_empty() {
            return Err(NodeKeyError::Missing(dir.join(AUTHORITY)));
        }
        let issuer = |one: &CertificateDer<'_>| issued_by(&certificate, one).is_ok();
        let issuer = trusted.iter().position(issuer).ok_or(Refusal::Foreign)?;
        let issued = Issued {
            certificate: certificate.to_vec(),
            authority: trusted.remove(issuer).to_vec(),
        };
        let others: Vec<Vec<u8>> = trusted.iter().map(|one| one.to_vec()).collect();
        self.judge(&issued, &others).map(Some)
    }
}

/// What stands in the certificate that `dir` keeps, if there is one that can be read: for those who
/// only want to show it.
#[must_use]
pub fn kept_certificate(dir: &Path) -> Option<Subject> {
    let pem = files::read(dir, CERT, false).ok()??;
    Subject::read(&CertificateDer::from_pem_slice(&pem).ok()?).ok()
}

fn issued_at(dir: &Path, now: Unix) -> Result<(), FilesError> {
    let times = Times {
        issued: Some(now),
        ..Times::read(dir).hear(now)
    };
    times.write(dir)
}

/// The authorities that `dir` names, in their order.
fn authorities(dir: &Path) -> Result<Vec<CertificateDer<'static>>, NodeKeyError> {
    let pem = files::read(dir, AUTHORITY, false)?.unwrap_or_default();
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(list) if !list.is_empty() || pem.is_empty() => Ok(list),
        _ => Err(NodeKeyError::Damaged(dir.join(AUTHORITY))),
    }
}

pub(crate) fn bundle(authorities: &[&[u8]]) -> Vec<u8> {
    authorities.iter().flat_map(|der| pem_text(der)).collect()
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
            .keep(&dir, &issue(&authority, &stranger), trusted, WRITTEN)
            .unwrap_err();
        assert!(matches!(error, NodeKeyError::OtherKey { .. }), "{error}");
        let foreign = Authority::ephemeral().unwrap();
        let error = key
            .keep(&dir, &issue(&foreign, &key), trusted, WRITTEN)
            .unwrap_err();
        let refusal = Refusal::WrongFingerprint { wanted: trusted };
        assert!(matches!(error, NodeKeyError::Refused(found) if found == refusal));
        let certificate = issue(&foreign, &key).certificate;
        let mixed = Issued {
            certificate,
            authority: issued.authority.clone(),
        };
        let error = key.keep(&dir, &mixed, trusted, WRITTEN).unwrap_err();
        assert!(matches!(error, NodeKeyError::Refused(Refusal::Foreign)));
        assert!(
            key.enrolled(&dir).unwrap().is_none(),
            "nothing refused was kept"
        );

        key.keep(&dir, &issued, trusted, WRITTEN).unwrap();
        let key = NodeKey::open_or_create(&dir).unwrap();
        let enrolled = key.enrolled(&dir).unwrap().unwrap();
        assert_eq!((enrolled.id, enrolled.name.as_str()), (id, "gw-7"));
        assert_eq!(enrolled.authorities[0].as_ref(), issued.authority);
        std::fs::remove_file(dir.join(KEY)).unwrap();
        assert!(matches!(
            NodeKey::open_or_create(&dir),
            Err(NodeKeyError::Missing(_))
        ));
    }

    #[test]
    fn a_crash_at_any_step_of_a_renewal_leaves_a_pair_that_works() {
        let (old, new) = (
            Authority::ephemeral().unwrap(),
            Authority::ephemeral().unwrap(),
        );
        let id = NodeId([4; 16]);
        let certify = |by: &Authority, key: &NodeKey, others: &[&Authority], at: i64| Certified {
            issued: by
                .node(&key.request().unwrap(), id, "gw-7", Unix(at), DAY)
                .unwrap(),
            others: others
                .iter()
                .map(|one| one.certificate().to_vec())
                .collect(),
            now: Unix(at),
        };
        let start = WRITTEN.0;
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("pki");
        let key = NodeKey::open_or_create(&dir).unwrap();
        key.keep_certified(&dir, &certify(&old, &key, &[], start))
            .unwrap();
        let names = [AUTHORITY, CERT, TIMES];
        let content = |name: &str| std::fs::read(dir.join(name)).unwrap();
        let before: Vec<_> = names.iter().map(|name| content(name)).collect();
        // the authority changes, and the old one is not trusted any more
        key.keep_certified(&dir, &certify(&new, &key, &[], start + 1000))
            .unwrap();
        let after: Vec<_> = names.iter().map(|name| content(name)).collect();
        let both = bundle(&[new.certificate(), old.certificate()]);
        let steps: [[&[u8]; 3]; 5] = [
            [&before[0], &before[1], &before[2]],
            [&both, &before[1], &before[2]],
            [&both, &after[1], &before[2]],
            [&after[0], &after[1], &before[2]],
            [&after[0], &after[1], &after[2]],
        ];
        for step in steps {
            for (name, bytes) in names.iter().zip(step) {
                std::fs::write(dir.join(name), bytes).unwrap();
            }
            std::fs::write(dir.join(".node.crt.new"), "torn").unwrap();
            let key = NodeKey::open_or_create(&dir).unwrap();
            let enrolled = key.enrolled(&dir).unwrap().unwrap();
            crate::Holder::new(&enrolled.credential).unwrap();
            key.keep_certified(&dir, &certify(&new, &key, &[&old], start + 2000))
                .unwrap();
            let enrolled = key.enrolled(&dir).unwrap().unwrap();
            assert_eq!(enrolled.authorities.len(), 2);
            assert_eq!(Times::read(&dir).issued, Some(Unix(start + 2000)));
        }
    }

    #[test]
    fn renewal_is_due_after_two_thirds_of_what_was_left() {
        let home = tempfile::tempdir().unwrap();
        let subject = |from: i64, until: i64| Subject {
            role: Role::Node(NodeId([1; 16])),
            name: "gw-7".into(),
            key: [0; 32],
            from: Unix(from),
            until: Unix(until),
        };
        assert_eq!(Times::read(home.path()), Times::default());
        let known = Times {
            heard: Unix(70),
            issued: Some(Unix(60)),
        };
        known.write(home.path()).unwrap();
        assert_eq!(Times::read(home.path()), known);
        assert_eq!(known.renew_at(&subject(0, 90)), Unix(80));
        assert_eq!(Times::default().renew_at(&subject(0, 90)), Unix(60));
        assert_eq!(known.renew_at(&subject(0, 30)), Unix(30));
        let told = |at: i64| Times::default().hear(Unix(at)).heard.0 - WRITTEN.0;
        let day = 86_400_000;
        assert_eq!(told(WRITTEN.0 + day), day);
        assert_eq!(told(i64::MAX), 366 * day);
        assert_eq!(told(0), 0);
        let ahead = Times::default().hear(Unix(i64::MAX));
        assert_eq!(ahead.hear(WRITTEN).heard, WRITTEN);
        std::fs::write(home.path().join(TIMES), [255, 0, 7]).unwrap();
        assert_eq!(Times::read(home.path()), Times::default());
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
