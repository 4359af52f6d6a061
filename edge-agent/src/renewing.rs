//! Keeps the node's certificate good: when it is due, a dial of its own asks for a new one for the
//! same key, also when the present one has expired. Tasks know nothing of it.
//!
//! Whether it is due is judged again every few minutes, at each dial and at each welcome, never by
//! one timer: the clock may step over any date, and the machine may have slept.

use crate::clock::Clocks;
use certs::{Certified, Clock, Enrolled, Holder, NodeKey, Subject, Times, believable};
use link::Endpoint;
use link::enrol::{EnrolAsk, EnrolReply};
use shared::time::{Mono, Span, Unix};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Longest time until it is judged again whether the certificate is due.
const LOOK: Duration = Duration::from_secs(600);
/// Shortest such time, and shortest pause after a renewal that failed.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Longest pause after a renewal that failed.
const PAUSE: Span = Span::secs(3600);
/// A clock that is off by so much is told.
const CLOCK_OFF: u64 = 60_000;
/// What was heard of the time is kept on disk so often.
const KEEP: i64 = 86_400_000;

/// Everywhere that the coordinator may be, with the socket to dial it; or why that is not known.
type Places = Result<Vec<(Endpoint, SocketAddr)>, String>;

/// What is known of the time and of the last try.
#[derive(Debug, Default)]
struct State {
    /// What the coordinator said, and when on the boot clock.
    heard: Option<(Unix, Mono)>,
    /// Not to be tried before.
    pause: Option<Mono>,
    /// The coordinator said that it takes the certificate for expired.
    expired: bool,
    /// To be renewed then, although it is good for longer: the fleet changes its authority.
    asked: Option<Mono>,
    /// A renewal is under way.
    busy: bool,
    /// The clock was told to be off.
    told: bool,
    /// It was told that there is no certificate.
    lacks: bool,
}

/// The node's certificate and the time that it is judged by.
#[derive(Debug, Clone)]
pub struct Renewing {
    pki: PathBuf,
    clocks: Clocks,
    state: Arc<Mutex<State>>,
    sooner: Arc<Notify>,
}

impl Renewing {
    /// For the certificate in `pki`.
    #[must_use]
    pub fn new(pki: &Path) -> Self {
        Self::with(pki, Clocks::default())
    }

    /// The same by other clocks than those of this machine.
    #[must_use]
    pub fn with(pki: &Path, clocks: Clocks) -> Self {
        Self {
            pki: pki.to_owned(),
            clocks,
            state: Arc::default(),
            sooner: Arc::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The best knowledge of the present: what the coordinator said since the machine booted, else
    /// the wall clock as far as it can be believed.
    #[must_use]
    pub fn now(&self) -> Unix {
        let now = self.clocks.now();
        match self.state().heard {
            Some((told, at)) => {
                let passed = now.mono.0.saturating_sub(at.0) / 1_000_000;
                Unix(told.0.saturating_add(passed as i64))
            }
            None => believable(now.wall, Times::read(&self.pki).heard),
        }
    }

    /// The clock by which the coordinator's certificate is judged.
    #[must_use]
    pub fn clock(&self) -> Clock {
        let known = self.clone();
        Clock::new(move || known.now())
    }

    /// The coordinator said what time it is.
    pub fn hear(&self, told: Unix) {
        let now = self.clocks.now();
        let off = now.wall.0.abs_diff(told.0);
        let mut state = self.state();
        state.heard = Some((told, now.mono));
        if off > CLOCK_OFF && !state.told {
            let ahead = now.wall > told;
            tracing::warn!(
                off = %Span(off),
                ahead,
                "this machine's clock is not the coordinator's: set one of them"
            );
        }
        state.told = off > CLOCK_OFF;
        drop(state);
        let kept = Times::read(&self.pki);
        let next = kept.hear(told);
        if next.heard.0.abs_diff(kept.heard.0) > KEEP.unsigned_abs()
            && let Err(error) = next.write(&self.pki)
        {
            tracing::warn!(error = %text(&error), "what was heard of the time cannot be kept");
        }
    }

    /// Whether the coordinator said so.
    #[must_use]
    pub fn said_expired(&self) -> bool {
        self.state().expired
    }

    /// The coordinator takes the certificate for expired, whatever this side thinks.
    pub fn is_expired(&self) {
        self.state().expired = true;
    }

    /// Whether nothing but a renewal can be done with the certificate.
    #[must_use]
    pub fn only_renewable(&self) -> bool {
        let known = certs::kept_certificate(&self.pki);
        self.state().expired || known.is_some_and(|known| known.until < self.now())
    }

    /// It is to be renewed at a moment of the time `within` from now, which is drawn here: all
    /// nodes are asked at once. Asked again before that, the earlier moment stands.
    pub fn ask(&self, within: Span) {
        let mut draw = [0; 8];
        // where nothing can be drawn it is the end of that time
        let drawn = crate::data::random().unwrap_or([u8::MAX; 16]);
        draw.copy_from_slice(&drawn[..8]);
        let part = (u128::from(u64::from_le_bytes(draw)) * u128::from(within.0)) >> 64;
        let at = self.clocks.now().mono + Span(part as u64);
        let mut state = self.state();
        state.asked = Some(state.asked.map_or(at, |before| before.min(at)));
        drop(state);
        tracing::info!(%within, "the fleet changes its authority: the certificate is to be renewed");
        self.sooner.notify_one();
    }

    /// Waits until it was asked for: what [`Self::wait`] said holds no longer.
    pub async fn asked(&self) {
        self.sooner.notified().await;
    }

    /// How long until it is to be judged whether a renewal is due; none for now. Without a
    /// certificate there is nothing to renew: somebody may put it back.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        let (pause, busy, expired, asked) = {
            let state = self.state();
            (state.pause, state.busy, state.expired, state.asked)
        };
        if busy {
            return Some(LOOK_AGAIN);
        }
        let known = certs::kept_certificate(&self.pki);
        let lacked = std::mem::replace(&mut self.state().lacks, known.is_none());
        let Some(known) = known else {
            if !lacked {
                let pki = self.pki.display();
                tracing::error!(%pki, "no certificate can be read there, so the coordinator cannot \
                    be reached; local work goes on. Put it back, see to its owner and mode, or \
                    enrol anew");
            }
            return Some(LOOK);
        };
        let due = Times::read(&self.pki).renew_at(&known);
        let left = if expired {
            0
        } else {
            due.0.saturating_sub(self.now().0)
        };
        let mono = self.clocks.now().mono;
        let until = |at: Mono| at.0.saturating_sub(mono.0) / 1_000_000;
        let left = (left.max(0) as u64).min(asked.map_or(u64::MAX, until));
        let left = Duration::from_millis(left.max(pause.map_or(0, until)));
        (!left.is_zero()).then(|| left.clamp(LOOK_AGAIN, LOOK))
    }

    /// The pause after a failure: a tenth of what is left of the certificate.
    fn failed(&self, known: Option<&Subject>) -> Span {
        let left = known.map_or(0, |known| known.until.0.saturating_sub(self.now().0));
        let least = Span(LOOK_AGAIN.as_millis() as u64);
        let pause = Span((left.max(0) as u64) / 10).clamp(least, PAUSE);
        self.state().pause = Some(self.clocks.now().mono + pause);
        pause
    }

    /// Claims the right to renew: one renewal at a time. It ends with the turn, also when that is
    /// dropped halfway.
    #[must_use]
    pub fn begin(&self) -> Option<Turn> {
        let busy = std::mem::replace(&mut self.state().busy, true);
        (!busy).then(|| Turn(self.clone()))
    }

    async fn renew(&self, places: Places) -> Result<(), String> {
        let known = certs::kept_certificate(&self.pki);
        let mut renewed = Err("there is no coordinator".to_owned());
        match places {
            Err(why) => renewed = Err(why),
            Ok(places) => {
                for (endpoint, address) in places {
                    renewed = self.try_renew(&endpoint, address).await;
                    if renewed.is_ok() {
                        break;
                    }
                }
            }
        }
        match renewed {
            Ok(enrolled) => {
                let until = enrolled.credential.subject().map_or(Unix(0), |s| s.until);
                let days = until.0.saturating_sub(self.now().0) / 86_400_000;
                tracing::info!(until = until.0, days, "the certificate was renewed");
                let mut state = self.state();
                (state.expired, state.pause, state.asked) = (false, None, None);
                Ok(())
            }
            Err(why) => {
                let again = self.failed(known.as_ref());
                let left = known.map_or(0, |known| known.until.0 - self.now().0);
                let days = left / 86_400_000;
                if left > 0 {
                    tracing::warn!(%why, days, %again, "the certificate could not be renewed");
                } else {
                    tracing::error!(%why, %again, "the certificate has expired and could not be \
                        renewed; local work goes on");
                }
                Err(why)
            }
        }
    }

    async fn try_renew(&self, endpoint: &Endpoint, to: SocketAddr) -> Result<Enrolled, String> {
        let key = NodeKey::open_or_create(&self.pki).map_err(|error| text(&error))?;
        let enrolled = key.enrolled(&self.pki).map_err(|error| text(&error))?;
        let enrolled = enrolled.ok_or("there is no certificate; enrol with --token")?;
        let request = key.request().map_err(|error| text(&error))?;
        let holder = Holder::new(&enrolled.credential).map_err(|error| text(&error))?;
        let tls = certs::renewal_client(&enrolled.authorities, &holder, self.clock())
            .map_err(|error| text(&error))?;
        let asked = async {
            let connection = endpoint.dial(to, tls).await?;
            connection.enrol(&EnrolAsk::Renew { request }).await
        };
        match asked
            .await
            .map_err(|error| crate::linking::not_linked(&error))?
        {
            EnrolReply::Certified { certified, .. } => self.keep(&key, &certified),
            EnrolReply::Refused(refusal) => Err(refusal.to_string()),
            EnrolReply::Enrolled { .. } => Err("the answer does not fit a renewal".to_owned()),
        }
    }

    fn keep(&self, key: &NodeKey, certified: &Certified) -> Result<Enrolled, String> {
        let kept = key.keep_certified(&self.pki, certified);
        let kept = kept.map_err(|error| text(&error))?;
        self.hear(certified.now);
        Ok(kept)
    }
}

/// The right to renew.
#[derive(Debug)]
pub struct Turn(Renewing);

impl Turn {
    /// Asks the coordinator for a new certificate and keeps it; the next dial shows it. `places`
    /// are tried in turn.
    ///
    /// # Errors
    /// Why there is none; it was logged.
    pub async fn renew(self, places: Places) -> Result<(), String> {
        self.0.renew(places).await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().busy = false;
    }
}

/// An error with what caused it.
fn text(error: &dyn std::error::Error) -> String {
    crate::linking::text(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use certs::Authority;
    use shared::ids::NodeId;

    const LIFE: Span = Span::secs(90 * 86_400);

    /// A certificate that is good for long, in a directory of its own.
    fn enrolled() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let key = NodeKey::open_or_create(dir.path()).unwrap();
        let authority = Authority::ephemeral().unwrap();
        let (request, now) = (key.request().unwrap(), clock::now().wall);
        let issued = authority.node(&request, NodeId([1; 16]), "gw-7", now, LIFE);
        let trusted = authority.fingerprint();
        key.keep(dir.path(), &issued.unwrap(), trusted, now)
            .unwrap();
        dir
    }

    #[test]
    fn a_renewal_that_is_asked_for_is_due_within_its_time_and_paused_when_it_fails() {
        let dir = enrolled();
        let renewing = Renewing::new(dir.path());
        assert_eq!(renewing.wait(), Some(LOOK), "it is good for long");
        renewing.ask(Span::secs(30));
        let drawn = renewing.wait();
        assert!(drawn <= Some(Duration::from_secs(30)), "{drawn:?}");
        renewing.ask(Span(0));
        assert_eq!(renewing.wait(), None, "at once");
        renewing.ask(Span::secs(30));
        assert_eq!(renewing.wait(), None, "the earlier moment stands");
        renewing.failed(certs::kept_certificate(dir.path()).as_ref());
        assert!(renewing.wait() > Some(Duration::from_secs(60)));
    }

    /// Whoever waits for the next look learns of it, also when it was asked for just before.
    #[test]
    fn who_waits_is_woken() {
        let dir = enrolled();
        let renewing = Renewing::new(dir.path());
        renewing.ask(Span(0));
        let runtime = crate::linking::runtime().unwrap();
        let woken = async { tokio::time::timeout(Duration::from_secs(60), renewing.asked()).await };
        assert!(runtime.block_on(woken).is_ok());
    }

    #[test]
    fn without_a_certificate_nothing_is_renewed_and_it_is_looked_for_now_and_then() {
        let pki = tempfile::tempdir().unwrap();
        let renewing = Renewing::new(pki.path());
        assert_eq!(renewing.wait(), Some(LOOK), "nothing is there");
        std::fs::write(pki.path().join("node.crt"), b"no certificate").unwrap();
        assert_eq!(renewing.wait(), Some(LOOK), "what is there cannot be read");
        let turn = renewing.begin();
        assert_eq!(renewing.wait(), Some(LOOK_AGAIN), "one is under way");
        drop(turn);
        assert_eq!(renewing.wait(), Some(LOOK));
    }
}
