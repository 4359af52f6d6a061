//! The fleet's authority while the coordinator runs, and the next one while the fleet exchanges it.
//!
//! | | present one | next one |
//! | --- | --- | --- |
//! | who may dial | trusted | trusted |
//! | renewals | named beside it, to be trusted | issues them |
//! | enrolments, tokens, the coordinator's own certificates | issues them | named beside it |
//!
//! Invariant: the next one takes the place of the present one on the disk first, then in what is
//! shown and trusted; a coordinator that is killed in between does the rest at its start.

use certs::{
    ApiTlsError, Authority, AuthorityError, Caller, Clock, Holder, TlsError, Trusted,
    api_credential,
};
use cloud_core::certificate::Certificate;
use shared::time::{Span, Unix};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Validity of the coordinator's own certificates; each start makes new ones.
pub(crate) const OWN_VALIDITY: Span = Span::secs(10 * 365 * 86_400);

/// Why the authority was not exchanged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// There is a next one already.
    #[error("the fleet changes its authority already")]
    Begun,
    /// There is no next one.
    #[error("the fleet does not change its authority")]
    NotBegun,
    /// Its files, or a certificate of it.
    #[error("the authority cannot be exchanged")]
    Authority(#[from] AuthorityError),
    /// What is shown or trusted.
    #[error("the authority cannot be exchanged")]
    Tls(#[from] TlsError),
    /// What the API shows.
    #[error("the API cannot show a certificate of the next authority")]
    Api(#[from] ApiTlsError),
}

/// The authorities at a moment.
#[derive(Debug)]
pub(crate) struct Known {
    /// The one that the coordinator shows.
    pub(crate) present: Arc<Authority>,
    /// The one that is to take its place.
    pub(crate) next: Option<Arc<Authority>>,
}

impl Known {
    /// The one that issues renewals: in the end all nodes carry its certificates.
    pub(crate) fn renewing(&self) -> &Authority {
        self.next.as_ref().unwrap_or(&self.present)
    }

    /// The certificate that a caller showed; none if who issued it is not trusted any more.
    pub(crate) fn shown(&self, caller: &Caller) -> Option<Certificate> {
        let mut all = [Some(&self.present), self.next.as_ref()]
            .into_iter()
            .flatten();
        let issuer = all.find(|one| one.issued(&caller.certificate))?;
        Some(Certificate {
            key: caller.key,
            until: caller.until,
            authority: issuer.fingerprint().0,
        })
    }

    /// The certificates of all but `one`, DER.
    pub(crate) fn others(&self, one: &Authority) -> Vec<Vec<u8>> {
        let all = self.certificates();
        let others = all.iter().filter(|other| **other != *one.certificate());
        others.map(|other| other.to_vec()).collect()
    }

    /// The certificates of all.
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let all = [Some(&self.present), self.next.as_ref()];
        let all = all.into_iter().flatten();
        all.map(|one| one.certificate().clone()).collect()
    }
}

/// What the coordinator shows and trusts in the next handshake.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Whose nodes may dial.
    pub(crate) trusted: Trusted,
    /// Its certificate for nodes.
    pub(crate) link: Holder,
    /// Its certificate for clients of the API and the names in it, where the authority makes one.
    pub(crate) api: Option<(Holder, Vec<String>)>,
}

impl Shown {
    /// For an authority and the one that is to follow it.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(crate) fn of(
        known: &Known,
        api_names: Option<Vec<String>>,
        now: Unix,
    ) -> Result<Self, ExchangeError> {
        let credential = known.present.coordinator(now, OWN_VALIDITY)?;
        let api = match api_names {
            None => None,
            Some(names) => {
                let made = api_credential(&known.present, &names, now, OWN_VALIDITY)?;
                Some((Holder::new(&made)?, names))
            }
        };
        Ok(Self {
            trusted: Trusted::new(&known.certificates())?,
            link: Holder::new(&credential)?,
            api,
        })
    }
}

/// The authorities of a coordinator that runs.
#[derive(Debug)]
pub(crate) struct Authorities {
    dir: PathBuf,
    known: RwLock<Arc<Known>>,
    shown: Shown,
    clock: Clock,
    /// Held while their files change, and while somebody reads all of them.
    still: Mutex<()>,
    /// Held by whoever decides on an exchange: one step at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Authorities {
    pub(crate) fn new(dir: &Path, known: Known, shown: Shown, clock: Clock) -> Self {
        Self {
            dir: dir.to_owned(),
            known: RwLock::new(Arc::new(known)),
            shown,
            clock,
            still: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Those of now.
    pub(crate) fn known(&self) -> Arc<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    fn set(&self, known: Known) {
        let mut place = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(known);
    }

    /// While this is held their files do not change.
    pub(crate) fn still(&self) -> MutexGuard<'_, ()> {
        self.still.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where their files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// When the exchange began: the age of its file, which is that of the restore in a directory
    /// that was restored.
    pub(crate) fn since(&self) -> Option<Unix> {
        let changed = std::fs::metadata(self.dir.join("next.crt")).ok()?;
        let age = changed.modified().ok()?;
        let since = age.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Unix(i64::try_from(since.as_millis()).ok()?))
    }

    /// Makes the next authority, trusts it, and issues renewals by it from now on.
    ///
    /// # Errors
    /// [`ExchangeError`]. Where its files were written all the same the next start goes on with it.
    pub(crate) fn begin(&self) -> Result<(), ExchangeError> {
        let _still = self.still();
        let known = self.known();
        if known.next.is_some() {
            return Err(ExchangeError::Begun);
        }
        let next = Arc::new(known.present.make_next(&self.dir)?);
        let known = Known {
            present: known.present.clone(),
            next: Some(next),
        };
        self.shown.trusted.replace(&known.certificates())?;
        self.set(known);
        Ok(())
    }

    /// Puts the next authority in the place of the present one: it alone is trusted, and the
    /// coordinator shows its certificates.
    ///
    /// # Errors
    /// [`ExchangeError`]. What was written of it is completed at the next start.
    pub(crate) fn finish(&self) -> Result<(), ExchangeError> {
        let _still = self.still();
        let known = self.known();
        let next = known.next.clone().ok_or(ExchangeError::NotBegun)?;
        let now = self.clock.now();
        let link = next.coordinator(now, OWN_VALIDITY)?;
        let api = match &self.shown.api {
            Some((_, names)) => Some(api_credential(&next, names, now, OWN_VALIDITY)?),
            None => None,
        };
        next.take_place(&self.dir)?;
        let known = Known {
            present: next,
            next: None,
        };
        self.shown.trusted.replace(&known.certificates())?;
        self.set(known);
        self.shown.link.replace(&link)?;
        if let (Some((holder, _)), Some(api)) = (&self.shown.api, &api) {
            holder.replace(api)?;
        }
        Ok(())
    }
}
