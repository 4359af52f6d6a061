//! The authority of a fleet: its key and certificate, what it issues, and the other secrets of the
//! coordinator that live beside it.
//!
//! Invariant: the certificate is written last. Where it exists every secret must exist, and a
//! missing one is an error that says so: never silently made anew, which would cut off the whole
//! fleet.

use crate::clock::NOT_BEFORE_YEAR;
use crate::files::{self, FilesError};
use crate::identity::{Fingerprint, NameError, Refusal, Role, check_name, sha256};
use crate::node::Credential;
use crate::rotation::{self, NEXT_CERT};
use crate::seal::SealKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
    PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::{Deserialize, Serialize};
use shared::ids::NodeId;
use shared::time::{Span, Unix};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const KEY: &str = "authority.key";
pub(crate) const CERT: &str = "authority.crt";
const SEAL: &str = "seal.key";
const RESET: &str = "reset.key";
const TOKEN: &str = "token.key";
/// Validity of the authority's own certificate.
const AUTHORITY_YEARS: i32 = 50;
/// A signing request of ours has about 200 bytes.
const REQUEST_BYTES: usize = 4096;

/// Why the authority cannot be used, or does not issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key file.
    #[error("the authority's files cannot be used")]
    Files(#[from] FilesError),
    /// The certificate is there and a secret is not.
    #[error(
        "{} is missing although the authority exists: restore it from a backup (without it the \
         agents of this fleet cannot be served)",
        .0.display()
    )]
    Missing(PathBuf),
    /// A file of another length or content than was written.
    #[error("{} is damaged: restore it from a backup", .0.display())]
    Damaged(PathBuf),
    /// Key and certificate are of different authorities.
    #[error("{} and {} do not belong together: restore both from one backup", .key.display(), .cert.display())]
    Mismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        cert: PathBuf,
    },
    /// A node asks for a certificate with something that is no signing request.
    #[error("the signing request cannot be read or is not signed by its own key: {0}")]
    Request(String),
    /// A node asks for a name that nodes cannot have.
    #[error("the node's name is refused")]
    Name(#[from] NameError),
    /// There is a next authority already.
    #[error("the fleet changes its authority already")]
    Changing,
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

pub(crate) fn make(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Make(error.to_string())
}

/// A node's certificate as it is sent to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Issued {
    /// The node's certificate, DER.
    pub certificate: Vec<u8>,
    /// The authority's certificate, DER.
    pub authority: Vec<u8>,
}

/// Keys of the QUIC endpoint that must outlive the process, so that agents notice a restart at
/// once.
#[derive(Clone)]
pub struct TransportKeys {
    /// Stateless-reset key.
    pub reset: [u8; 64],
    /// Master key of address-validation tokens.
    pub token: [u8; 64],
}

impl TransportKeys {
    /// Keys for an endpoint that nobody has to recognise after a restart.
    #[must_use]
    pub fn random() -> Self {
        Self {
            reset: random(),
            token: random(),
        }
    }
}
impl fmt::Debug for TransportKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportKeys")
    }
}

/// The authority of one fleet.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    seal: SealKey,
    transport: TransportKeys,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.fingerprint())
    }
}

impl Authority {
    /// The authority in `dir`, made if there is none. `dir` may hold the secrets of an interrupted
    /// first start; they are taken over.
    ///
    /// # Errors
    /// [`AuthorityError`]; an authority that lacks a part is never made anew.
    pub fn open_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        files::make_dir(dir)?;
        rotation::complete(dir)?;
        let create = files::read(dir, CERT, false)?.is_none();
        if create && files::read(dir, NEXT_CERT, false)?.is_some() {
            return Err(AuthorityError::Missing(dir.join(CERT)));
        }
        Self::open(dir, create)
    }

    /// The authority in `dir`, for those who only look: nothing is made, and nothing completed.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn look(dir: &Path) -> Result<Self, AuthorityError> {
        Self::open(dir, false)
    }

    fn open(dir: &Path, create: bool) -> Result<Self, AuthorityError> {
        let seal = secret::<32>(dir, SEAL, create)?;
        let transport = TransportKeys {
            reset: secret(dir, RESET, create)?,
            token: secret(dir, TOKEN, create)?,
        };
        let (certificate, key) = match create {
            true => {
                let key = read_key(dir, KEY)?.map_or_else(|| new_key(dir, KEY), Ok)?;
                (new_certificate(dir, CERT, &key)?, key)
            }
            false => {
                let missing = |name: &str| AuthorityError::Missing(dir.join(name));
                let certificate = read_certificate(dir, CERT)?.ok_or_else(|| missing(CERT))?;
                let key = read_key(dir, KEY)?.ok_or_else(|| missing(KEY))?;
                match certifies(&certificate, &key) {
                    true => (certificate, key),
                    false => rotation::halfway(dir, certificate)?,
                }
            }
        };
        Self::assemble(certificate, key, SealKey::new(&seal), transport)
    }

    /// An authority that exists in memory alone: for rehearsals and tests.
    ///
    /// # Errors
    /// [`AuthorityError::Make`].
    pub fn ephemeral() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(make)?;
        let certificate = own_certificate(&key)?.der().clone();
        Self::assemble(
            certificate,
            key,
            SealKey::new(&random()),
            TransportKeys::random(),
        )
    }

    pub(crate) fn assemble(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        seal: SealKey,
        transport: TransportKeys,
    ) -> Result<Self, AuthorityError> {
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(make)?;
        Ok(Self {
            certificate,
            issuer,
            seal,
            transport,
        })
    }

    /// What tokens carry.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The key of the seals.
    #[must_use]
    pub fn seal(&self) -> &SealKey {
        &self.seal
    }

    /// The keys of the coordinator's QUIC endpoint.
    #[must_use]
    pub fn transport(&self) -> &TransportKeys {
        &self.transport
    }

    /// A new key and certificate for the coordinator, valid for `validity` from `now`. Agents know
    /// the authority, not this key, so each start may take a new one.
    ///
    /// # Errors
    /// [`AuthorityError::Make`].
    pub fn coordinator(&self, now: Unix, validity: Span) -> Result<Credential, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(make)?;
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let params = leaf(Role::Coordinator, "coordinator", now, validity, usage)?;
        let der = params
            .signed_by(&key, &self.issuer)
            .map_err(make)?
            .der()
            .clone();
        Ok(Credential::new(
            vec![der, self.certificate.clone()],
            key.serialize_der(),
        ))
    }

    /// A certificate for the node `id` called `name` over the key in its signing request, valid for
    /// `validity` from `now`. Nothing but the key is taken from the request.
    ///
    /// # Errors
    /// [`AuthorityError::Request`], [`AuthorityError::Name`] or [`AuthorityError::Make`].
    pub fn node(
        &self,
        request: &[u8],
        id: NodeId,
        name: &str,
        now: Unix,
        validity: Span,
    ) -> Result<Issued, AuthorityError> {
        check_name(name)?;
        let request = read_request(request)?;
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let params = leaf(Role::Node(id), name, now, validity, usage)?;
        let made = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(make)?;
        Ok(Issued {
            certificate: made.der().to_vec(),
            authority: self.certificate.to_vec(),
        })
    }

    /// SHA-256 of the public key in a signing request, as token records keep it.
    ///
    /// # Errors
    /// [`AuthorityError::Request`].
    pub fn request_key(request: &[u8]) -> Result<[u8; 32], AuthorityError> {
        Ok(sha256(&[&read_request(request)?
            .public_key
            .subject_public_key_info()]))
    }

    /// End of validity of the authority's own certificate; none where it cannot be read.
    #[must_use]
    pub fn until(&self) -> Option<Unix> {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let (_, read) = X509Certificate::from_der(&self.certificate).ok()?;
        Some(Unix(read.validity().not_after.timestamp() * 1000))
    }

    /// Whether this authority issued `certificate`; not whether it is valid now.
    #[must_use]
    pub fn issued(&self, certificate: &CertificateDer<'_>) -> bool {
        is_issued_by(certificate, &self.certificate)
    }

    #[cfg(test)]
    pub(crate) fn sign(&self, params: &CertificateParams, key: KeyPair) -> Credential {
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Credential::new(vec![der, self.certificate.clone()], key.serialize_der())
    }
}

fn read_request(der: &[u8]) -> Result<CertificateSigningRequestParams, AuthorityError> {
    if der.len() > REQUEST_BYTES {
        return Err(AuthorityError::Request(format!(
            "{} bytes are too many",
            der.len()
        )));
    }
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|error| AuthorityError::Request(error.to_string()))?;
    if request.public_key.algorithm() != &PKCS_ED25519 {
        return Err(AuthorityError::Request(
            "its key is not of type Ed25519".into(),
        ));
    }
    Ok(request)
}

/// A new key and what a certificate says of it that serves HTTPS under `names`.
pub(crate) fn serving(
    names: &[String],
    now: Unix,
    validity: Span,
) -> Result<(CertificateParams, KeyPair), AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(make)?;
    let mut params = params(
        "driftless API",
        now,
        validity,
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    for name in names {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(make)?),
        });
    }
    Ok((params, key))
}

/// When a certificate ends that is issued at `now` for `validity`: a whole second.
#[must_use]
pub fn valid_until(now: Unix, validity: Span) -> Unix {
    let validity = i64::try_from(validity.0).unwrap_or(i64::MAX);
    let until = now.0.saturating_add(validity).clamp(0, LAST_MS);
    Unix(until / 1000 * 1000)
}

pub(crate) fn leaf(
    role: Role,
    name: &str,
    now: Unix,
    validity: Span,
    usage: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = params(name, now, validity, usage);
    let uri = role.uri().try_into().map_err(make)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    Ok(params)
}

fn params(
    name: &str,
    now: Unix,
    validity: Span,
    usage: ExtendedKeyUsagePurpose,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(NOT_BEFORE_YEAR, 1, 1);
    let seconds = valid_until(now, validity).0 as u64 / 1000;
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.serial_number = Some(serial());
    params.distinguished_name = common_name(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The end of the year 9999, beyond which a certificate cannot name a time.
const LAST_MS: i64 = 253_402_300_799_000;

fn own_certificate(key: &KeyPair) -> Result<rcgen::Certificate, AuthorityError> {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(NOT_BEFORE_YEAR, 1, 1);
    params.not_after = rcgen::date_time_ymd(NOT_BEFORE_YEAR + AUTHORITY_YEARS, 1, 1);
    params.serial_number = Some(serial());
    params.distinguished_name = common_name("driftless authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.self_signed(key).map_err(make)
}

/// The private key in `dir/name`; none if there is no such file.
pub(crate) fn read_key(dir: &Path, name: &str) -> Result<Option<KeyPair>, AuthorityError> {
    let Some(pem) = files::read(dir, name, true)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&pem).ok();
    let key = text.and_then(|pem| KeyPair::from_pem(pem).ok());
    key.map(Some)
        .ok_or_else(|| AuthorityError::Damaged(dir.join(name)))
}

/// The certificate in `dir/name`; none if there is no such file.
pub(crate) fn read_certificate(
    dir: &Path,
    name: &str,
) -> Result<Option<CertificateDer<'static>>, AuthorityError> {
    let Some(pem) = files::read(dir, name, false)? else {
        return Ok(None);
    };
    let certificate = CertificateDer::from_pem_slice(&pem);
    certificate
        .map(Some)
        .map_err(|_| AuthorityError::Damaged(dir.join(name)))
}

/// A new key, kept as `dir/name`.
pub(crate) fn new_key(dir: &Path, name: &str) -> Result<KeyPair, AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(make)?;
    files::write(dir, name, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// A certificate of an authority with this key, kept as `dir/name`.
pub(crate) fn new_certificate(
    dir: &Path,
    name: &str,
    key: &KeyPair,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let made = own_certificate(key)?;
    files::write(dir, name, made.pem().as_bytes())?;
    Ok(made.der().clone())
}

pub(crate) fn certifies(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    use x509_parser::prelude::{FromDer, X509Certificate};
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, cert)| cert.public_key().raw == key.subject_public_key_info())
}

/// Whether the authority with this certificate issued the other one; not whether it is valid now.
#[must_use]
pub fn is_issued_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    issued_by(certificate, authority).is_ok()
}

/// Whether `authority` signed `certificate`; not whether it is valid now.
pub(crate) fn issued_by(certificate: &[u8], authority: &[u8]) -> Result<(), Refusal> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let read = |der| match X509Certificate::from_der(der) {
        Ok((_, cert)) => Ok(cert),
        Err(error) => Err(Refusal::Malformed(error.to_string())),
    };
    let authority = read(authority)?;
    read(certificate)?
        .verify_signature(Some(authority.public_key()))
        .map_err(|_| Refusal::Foreign)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

fn serial() -> SerialNumber {
    let mut bytes = random::<16>();
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and never shorter than it looks
    SerialNumber::from_slice(&bytes)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system's random numbers are always there");
    bytes
}

fn secret<const N: usize>(dir: &Path, name: &str, create: bool) -> Result<[u8; N], AuthorityError> {
    match files::read(dir, name, true)? {
        Some(bytes) => bytes
            .try_into()
            .map_err(|_| AuthorityError::Damaged(dir.join(name))),
        None if create => {
            let bytes = random();
            files::write(dir, name, &bytes)?;
            Ok(bytes)
        }
        None => Err(AuthorityError::Missing(dir.join(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WRITTEN;
    use crate::node::NodeKey;
    use crate::{Refusal, Subject};

    const DAY: Span = Span::secs(86_400);

    #[test]
    fn an_authority_is_made_once_and_never_silently_again() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("authority");
        let first = Authority::open_or_create(&dir).unwrap();
        let again = Authority::open_or_create(&dir).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.transport.reset, again.transport.reset);
        assert_eq!(first.seal(), again.seal());

        for name in [KEY, SEAL, RESET, TOKEN] {
            let (path, kept) = (dir.join(name), home.path().join("kept"));
            std::fs::rename(&path, &kept).unwrap();
            let error = Authority::open_or_create(&dir).unwrap_err();
            assert!(matches!(error, AuthorityError::Missing(missing) if missing == path));
            std::fs::rename(&kept, &path).unwrap();
        }
        let other = home.path().join("other");
        Authority::open_or_create(&other).unwrap();
        std::fs::copy(other.join(KEY), dir.join(KEY)).unwrap();
        let error = Authority::open_or_create(&dir).unwrap_err();
        assert!(matches!(error, AuthorityError::Mismatch { .. }), "{error}");
        files::write(&dir, SEAL, b"short").unwrap();
        assert!(matches!(
            Authority::open_or_create(&dir),
            Err(AuthorityError::Damaged(_))
        ));
    }

    #[test]
    fn a_first_start_that_was_interrupted_anywhere_goes_on() {
        let home = tempfile::tempdir().unwrap();
        let whole = home.path().join("whole");
        Authority::open_or_create(&whole).unwrap();
        let order = [SEAL, RESET, TOKEN, KEY];
        for written in 0..=order.len() {
            let dir = home.path().join(format!("cut{written}"));
            files::make_dir(&dir).unwrap();
            for name in &order[..written] {
                std::fs::copy(whole.join(name), dir.join(name)).unwrap();
            }
            let authority = Authority::open_or_create(&dir).unwrap();
            let again = Authority::open_or_create(&dir).unwrap();
            assert_eq!(authority.fingerprint(), again.fingerprint());
            if written > 0 {
                let seals = [&whole, &dir].map(|dir| std::fs::read(dir.join(SEAL)).unwrap());
                assert_eq!(seals[0], seals[1], "a seal key that may be in use is kept");
            }
        }
    }

    #[test]
    fn only_the_key_is_taken_from_a_request_and_hostile_ones_are_refused() {
        let authority = Authority::ephemeral().unwrap();
        let key = NodeKey::ephemeral().unwrap();
        let request = key.request().unwrap();
        let id = NodeId([3; 16]);
        let issued = authority.node(&request, id, "gw-7", WRITTEN, DAY).unwrap();
        let subject = Subject::read(&issued.certificate).unwrap();
        assert_eq!(
            (subject.role, subject.name.as_str()),
            (Role::Node(id), "gw-7")
        );
        assert_eq!(subject.until.0, WRITTEN.0 + DAY.0 as i64);
        assert_eq!(subject.key, Authority::request_key(&request).unwrap());

        let issue = |request: &[u8], name: &str| authority.node(request, id, name, WRITTEN, DAY);
        assert!(matches!(
            issue(&request, "../x"),
            Err(AuthorityError::Name(_))
        ));
        let mut forged = request.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(matches!(
            issue(&forged, "a"),
            Err(AuthorityError::Request(_))
        ));
        assert!(matches!(
            issue(&vec![0x30; 5000], "a"),
            Err(AuthorityError::Request(_))
        ));
        for cut in 0..request.len() {
            assert!(issue(&request[..cut], "a").is_err());
        }
        let other = KeyPair::generate().unwrap();
        let p256 = CertificateParams::default()
            .serialize_request(&other)
            .unwrap();
        assert!(matches!(
            issue(p256.der(), "a"),
            Err(AuthorityError::Request(_))
        ));
        assert!(matches!(
            Subject::read(&issued.authority),
            Err(Refusal::Malformed(_))
        ));
    }
}
