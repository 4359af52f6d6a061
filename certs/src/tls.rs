//! TLS settings of both sides: TLS 1.3 only, ring, no resumption (a resumed session would not be
//! checked against the clock and the authority again), certificates read anew for each handshake.

use crate::clock::Clock;
use crate::identity::{Fingerprint, Refusal};
use crate::node::Credential;
use crate::verify::{CheckCoordinator, CheckNode, Slot, Trust};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use shared::time::Span;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// What both sides speak, negotiated in the TLS handshake.
pub const ALPN: &[u8] = b"driftless/1";
/// For a connection that asks for a certificate: its first, or a new one in place of one that may
/// have expired. Who knows it renews by itself, so its certificates can be short.
pub const ALPN_CERTIFICATE: &[u8] = b"driftless-cert/1";
/// The name to dial with; it is neither sent nor checked.
pub const SERVER_NAME: &str = "coordinator.driftless.invalid";

/// Why TLS cannot be set up. None of these depends on the peer.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS: {doing}")]
pub struct TlsError {
    /// What was tried.
    doing: &'static str,
    /// What was wrong.
    #[source]
    source: rustls::Error,
}

pub(crate) fn tls_error(doing: &'static str) -> impl FnOnce(rustls::Error) -> TlsError {
    move |source| TlsError { doing, source }
}

/// The certificate shown in the next handshake. A renewed one takes effect at once, without a
/// restart.
#[derive(Clone)]
pub struct Holder(Arc<RwLock<Arc<CertifiedKey>>>);

impl Holder {
    /// Shows `credential`.
    ///
    /// # Errors
    /// [`TlsError`] if its key cannot be used.
    pub fn new(credential: &Credential) -> Result<Self, TlsError> {
        let key = credential
            .certified()
            .map_err(tls_error("use the private key"))?;
        Ok(Self(Arc::new(RwLock::new(key))))
    }

    /// Shows `credential` from now on.
    ///
    /// # Errors
    /// [`TlsError`] if its key cannot be used; then the old one stays.
    pub fn replace(&self, credential: &Credential) -> Result<(), TlsError> {
        let key = credential
            .certified()
            .map_err(tls_error("use the private key"))?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holder")
    }
}
impl ResolvesServerCert for Holder {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}
impl ResolvesClientCert for Holder {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// The cryptography that all TLS of ours uses.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Whose certificates the coordinator accepts, in the next handshake. An authority that is added or
/// leaves takes effect at once, without a restart.
#[derive(Clone)]
pub struct Trusted(Arc<RwLock<Arc<dyn ClientCertVerifier>>>);

impl Trusted {
    /// Accepts what these authorities issued.
    ///
    /// # Errors
    /// [`TlsError`] if one of them cannot be trusted.
    pub fn new(authorities: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(verifier(authorities)?))))
    }

    /// Accepts what these authorities issued from now on.
    ///
    /// # Errors
    /// [`TlsError`] if one of them cannot be trusted; then nothing changes.
    pub fn replace(&self, authorities: &[CertificateDer<'static>]) -> Result<(), TlsError> {
        let verifier = verifier(authorities)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = verifier;
        Ok(())
    }

    pub(crate) fn chain(&self) -> Arc<dyn ClientCertVerifier> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trusted")
    }
}

fn verifier(
    authorities: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const DOING: &str = "trust the authority's certificate";
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(tls_error(DOING))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| tls_error(DOING)(rustls::Error::General(error.to_string())))
}

/// The coordinator's settings. Who shows no certificate is let in as anonymous (to enrol); who
/// shows one must be a node of a `trusted` authority, whose certificate expired at most `grace` ago
/// (to renew).
///
/// # Errors
/// [`TlsError`].
pub fn server(
    trusted: &Trusted,
    holder: &Holder,
    clock: Clock,
    grace: Span,
) -> Result<ServerConfig, TlsError> {
    let trusted = trusted.clone();
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&TLS13])
        .map_err(tls_error("choose TLS 1.3"))?
        .with_client_cert_verifier(Arc::new(CheckNode { trusted, grace }))
        .with_cert_resolver(Arc::new(holder.clone()));
    // The first that the other side offers, too, is spoken: a newcomer offers both.
    config.alpn_protocols = vec![ALPN_CERTIFICATE.to_vec(), ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Settings for one dial of an agent, and where its refusal can be read.
#[derive(Debug)]
pub struct ClientTls {
    /// For rustls.
    pub config: ClientConfig,
    /// The typed refusal, if the handshake fails for the coordinator's certificate.
    pub verdict: Verdict,
}

/// What the agent's check said of the coordinator's certificate.
#[derive(Debug, Clone)]
pub struct Verdict(Slot);

impl Verdict {
    /// The refusal of the handshake before this call, if there was one.
    #[must_use]
    pub fn take(&self) -> Option<Refusal> {
        self.0.take()
    }
}

/// For an agent that has only a token: trusts the authority whose fingerprint the token carries,
/// shows none.
///
/// # Errors
/// [`TlsError`].
pub fn enrol_client(authority: Fingerprint, clock: Clock) -> Result<ClientTls, TlsError> {
    // A coordinator of the first release knows only the second one.
    let offered = &[ALPN_CERTIFICATE, ALPN];
    client(Trust::Pinned(authority), None, clock, offered)
}

/// For an enrolled agent: trusts `authorities`, shows the certificate that `holder` has at that
/// moment.
///
/// # Errors
/// [`TlsError`].
pub fn session_client(
    authorities: &[CertificateDer<'static>],
    holder: &Holder,
    clock: Clock,
) -> Result<ClientTls, TlsError> {
    let trust = Trust::Authorities(authorities.to_vec());
    client(trust, Some(holder), clock, &[ALPN])
}

/// The same for a dial that asks for a new certificate, in place of one that may have expired.
///
/// # Errors
/// [`TlsError`].
pub fn renewal_client(
    authorities: &[CertificateDer<'static>],
    holder: &Holder,
    clock: Clock,
) -> Result<ClientTls, TlsError> {
    let trust = Trust::Authorities(authorities.to_vec());
    client(trust, Some(holder), clock, &[ALPN_CERTIFICATE])
}

fn client(
    trust: Trust,
    holder: Option<&Holder>,
    clock: Clock,
    offered: &[&[u8]],
) -> Result<ClientTls, TlsError> {
    let slot = Slot::default();
    let check = CheckCoordinator {
        trust,
        provider: provider(),
        slot: slot.clone(),
    };
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&TLS13])
        .map_err(tls_error("choose TLS 1.3"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match holder {
        Some(holder) => builder.with_client_cert_resolver(Arc::new(holder.clone())),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(ClientTls {
        config,
        verdict: Verdict(slot),
    })
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
