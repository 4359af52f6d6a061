//! The two certificate checks of a handshake. Roles count, host names do not: gateways dial
//! addresses.

use crate::clock::{from_pki, to_pki};
use crate::identity::{Fingerprint, Refusal, Role, Subject};
use crate::tls::Trusted;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use shared::time::{Span, Unix};
use std::sync::{Arc, Mutex, PoisonError};

/// What an agent trusts.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// The authority with this fingerprint, if the server shows it: at enrolment.
    Pinned(Fingerprint),
    /// These authorities: afterwards. While the fleet changes its authority they are two.
    Authorities(Vec<CertificateDer<'static>>),
}

/// Where a verifier leaves its refusal for the one who dialled: errors of the transport carry only
/// text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Refusal>>>);

impl Slot {
    fn put(&self, refusal: &Refusal) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal.clone());
    }
    pub(crate) fn take(&self) -> Option<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A refusal on its way through rustls and QUIC, which show people the `Debug` text of foreign
/// errors.
#[derive(Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Worded(pub(crate) Refusal);

impl std::fmt::Debug for Worded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

fn tls_error(refusal: Refusal) -> Error {
    let known = match &refusal {
        Refusal::Malformed(_) => Some(CertificateError::BadEncoding),
        _ => None,
    };
    let other = || CertificateError::Other(OtherError(Arc::new(Worded(refusal))));
    Error::InvalidCertificate(known.unwrap_or_else(other))
}

/// Our words for what the chain check found.
fn refusal(error: &Error, leaf: &[u8], wanted: &'static str, now: Unix) -> Refusal {
    use CertificateError as E;
    let Error::InvalidCertificate(error) = error else {
        return Refusal::Other(error.to_string());
    };
    let subject = || Subject::read(leaf);
    match error {
        E::UnknownIssuer | E::BadSignature => Refusal::Foreign,
        E::Expired | E::ExpiredContext { .. } => match subject() {
            Ok(subject) => Refusal::Expired {
                since: subject.until,
                now,
            },
            Err(refusal) => refusal,
        },
        E::NotValidYet | E::NotValidYetContext { .. } => match subject() {
            Ok(subject) => Refusal::NotYetValid {
                from: subject.from,
                now,
            },
            Err(refusal) => refusal,
        },
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => match subject() {
            Ok(subject) => Refusal::WrongRole {
                wanted,
                found: subject.role.uri(),
            },
            Err(refusal) => refusal,
        },
        E::BadEncoding => Refusal::Malformed(error.to_string()),
        _ => Refusal::Other(error.to_string()),
    }
}

/// The agent's check of the coordinator.
#[derive(Debug)]
pub(crate) struct CheckCoordinator {
    pub(crate) trust: Trust,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) slot: Slot,
}

impl CheckCoordinator {
    fn authorities<'a>(
        &'a self,
        shown: &'a [CertificateDer<'a>],
    ) -> Result<&'a [CertificateDer<'a>], Refusal> {
        match &self.trust {
            Trust::Authorities(authorities) => Ok(authorities),
            Trust::Pinned(wanted) => shown
                .iter()
                .position(|cert| Fingerprint::of(cert) == *wanted)
                .map(|at| &shown[at..=at])
                .ok_or(Refusal::WrongFingerprint { wanted: *wanted }),
        }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        at: UnixTime,
    ) -> Result<(), Refusal> {
        const WANTED: &str = "the coordinator";
        let mut roots = RootCertStore::empty();
        let words = |error: Error| refusal(&error, leaf, WANTED, from_pki(at));
        for authority in self.authorities(shown)? {
            roots.add(authority.clone().into_owned()).map_err(words)?;
        }
        let parsed = ParsedCertificate::try_from(leaf).map_err(words)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], at, algorithms)
            .map_err(words)?;
        match Subject::read(leaf)?.role {
            Role::Coordinator => Ok(()),
            other => Err(Refusal::WrongRole {
                wanted: WANTED,
                found: other.uri(),
            }),
        }
    }
}

impl ServerCertVerifier for CheckCoordinator {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now)
            .map_err(|refusal| {
                self.slot.put(&refusal);
                tls_error(refusal)
            })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The coordinator's check of those who dial it: a node, or nobody.
#[derive(Debug)]
pub(crate) struct CheckNode {
    pub(crate) trusted: Trusted,
    pub(crate) grace: Span,
}

impl CheckNode {
    fn chain(&self) -> Arc<dyn ClientCertVerifier> {
        self.trusted.chain()
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        at: UnixTime,
    ) -> Result<(), Refusal> {
        const WANTED: &str = "a node";
        let now = from_pki(at);
        let check = |at| {
            let checked = self.chain().verify_client_cert(leaf, shown, at);
            checked.map_err(|error| refusal(&error, leaf, WANTED, now))
        };
        match check(at) {
            // Within the grace period an expired certificate is judged as of its last day; the peer
            // is then `Peer::Expired` and may only renew.
            Err(Refusal::Expired { since, .. }) if now.0 - since.0 <= self.grace.0 as i64 => {
                check(to_pki(since))
            }
            judged => judged,
        }?;
        match Subject::read(leaf)?.role {
            Role::Node(_) => Ok(()),
            other => Err(Refusal::WrongRole {
                wanted: WANTED,
                found: other.uri(),
            }),
        }
    }
}

impl ClientCertVerifier for CheckNode {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now)
            .map_err(tls_error)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain().supported_verify_schemes()
    }
}
