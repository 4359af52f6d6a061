//! Certificates of gateways: in some seeds they are good for hours only. A gateway renews its own
//! over a connection of its own when two thirds of that are over by its clock, or when it was
//! turned away because the coordinator takes it for expired; one that expired is good for nothing
//! else. And it does so when the fleet changes its authority.
//!
//! As the shells do it: the time is looked at again and again, never by one timer. On layer 3 the
//! certificates are real ones that are good for long.

use crate::authority::Authority;
use crate::fault::Kind;
use crate::machine::certificate;
use crate::people::Purpose;
use crate::queue::{MIN, SEC};
use crate::trace::Lane;
use crate::world::World;
use cloud_core::certificate::Certificate;
use cloud_core::event::{Reply, Request};
use shared::time::Unix;

/// Answers of a thousand that do not arrive: the connection ends first.
const LOST: u64 = 60;

/// Where a gateway stands with its certificate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Renewal {
    /// Who issued it.
    pub issuer: Authority,
    /// Whose certificates are trusted as well.
    pub beside: Option<Authority>,
    /// Until when it is good; absent: as long as anybody looks.
    pub until: Option<Unix>,
    /// The coordinator said that it expired.
    told: bool,
    /// What was asked is not answered.
    busy: bool,
}

impl Renewal {
    /// What a disk keeps of it: what was asked, and what was heard, its process alone knows.
    pub(crate) fn on_disk(self) -> Self {
        Self {
            told: false,
            busy: false,
            ..self
        }
    }
}

impl World {
    /// The certificate that is made now for the key of `m`.
    pub(crate) fn new_certificate(&mut self, m: usize, issuer: Authority) -> Certificate {
        let key = self.machines[m].key;
        let made = Certificate {
            authority: issuer.fingerprint(),
            ..certificate(key)
        };
        let Some(life) = self.plan.certificates.filter(|_| self.carried.is_none()) else {
            return made;
        };
        let now = self.cloud.clocks.now(self.t).wall;
        let until = Unix(now.0.saturating_add_unsigned(life / 1_000_000));
        Certificate { until, ..made }
    }

    /// The certificate of `m` is this one from now on.
    pub(crate) fn take_certificate(&mut self, m: usize, taken: Certificate) {
        let lasts = self.plan.certificates.filter(|_| self.carried.is_none());
        let issuer = Authority::of(taken.authority);
        self.machines[m].renewal = Renewal {
            issuer,
            beside: self.cloud.authorities.beside(issuer),
            until: lasts.map(|_| taken.until),
            ..Renewal::default()
        };
    }

    /// Whether the coordinator turns `m` away because its certificate expired: then it says so.
    pub(crate) fn turns_away(&mut self, m: usize) -> bool {
        let now = self.cloud.clocks.now(self.t).wall;
        let renewal = &mut self.machines[m].renewal;
        if renewal.until.is_none_or(|until| now < until) {
            return false;
        }
        renewal.told = true;
        self.happened(Kind::CertificateExpired);
        self.trace.say(self.t, Lane::Cloud, || {
            format!("gw-{} is turned away: its certificate expired", m + 1)
        });
        true
    }

    /// Each gateway looks whether its certificate is due.
    pub(crate) fn renew_due(&mut self) {
        for m in 0..self.machines.len() {
            let machine = &self.machines[m];
            if machine.agent.is_none() || machine.renewal.busy {
                continue;
            }
            let silent = self
                .lives
                .get(machine.life)
                .is_some_and(|truth| truth.silent.is_some());
            let reaches = machine.link.whole() && self.cloud.engine.is_some();
            let heard = reaches && self.cloud.deaf == 0 && self.know_each_other(m);
            let wants = self.is_due(m) || machine.renewal.told || self.is_asked_to_renew(m);
            if wants && heard && !silent {
                self.renew(m);
            }
        }
    }

    /// Whether two thirds of its certificate's life are over, by its own clock.
    fn is_due(&self, m: usize) -> bool {
        let machine = &self.machines[m];
        let (Some(life), Some(until)) = (self.plan.certificates, machine.renewal.until) else {
            return false;
        };
        let left = life / 3 / 1_000_000;
        machine.clocks.now(self.t).wall.0 >= until.0.saturating_sub_unsigned(left)
    }

    /// Whether the coordinator asks for it, since the fleet changes its authority; or the gateway
    /// trusts one that was exchanged.
    fn is_asked_to_renew(&self, m: usize) -> bool {
        let known = self.cloud.authorities;
        let Renewal { issuer, beside, .. } = self.machines[m].renewal;
        let outdated = known.next.is_none() && beside.is_some();
        (issuer != known.renewing() || outdated) && self.has_session(m)
    }

    /// A Byzantine gateway shows whatever is good.
    pub(crate) fn liar_renews(&mut self, m: usize) {
        if self.is_liar(m) {
            let known = self.cloud.authorities;
            let renewal = &mut self.machines[m].renewal;
            renewal.issuer = known.renewing();
            renewal.beside = known.beside(renewal.issuer);
        }
    }

    fn renew(&mut self, m: usize) {
        let Some(node) = self.machines[m].node else {
            return;
        };
        let certificate = self.new_certificate(m, self.cloud.authorities.renewing());
        self.machines[m].renewal.busy = true;
        let purpose = Purpose::Certify(m, self.machines[m].process);
        let wish = Request::Certify {
            node,
            certificate,
            shown: Some(self.machines[m].certificate()),
        };
        self.ask(wish, purpose);
    }

    /// The coordinator issued the certificate, or did not: whether that arrives is another matter.
    pub(crate) fn certified(
        &mut self,
        (m, process): (usize, u64),
        request: &Request,
        reply: &Reply,
    ) {
        let Request::Certify { certificate, .. } = request else {
            return;
        };
        let machine = &mut self.machines[m];
        machine.renewal.busy = false;
        let same = machine.process == process && machine.key == key_of(certificate);
        if *reply != Reply::Done || !same {
            return;
        }
        let whole = machine.link.whole();
        if Authority::of(certificate.authority) != machine.renewal.issuer {
            // so that it dials with the new one
            self.end_sessions("it has a new certificate", |one| one.machine == m);
        }
        if !whole || (!self.calm && self.dice.net.chance(LOST)) {
            self.happened(Kind::RenewalLost);
            return;
        }
        self.take_certificate(m, *certificate);
        self.happened(Kind::CertificateRenewed);
        self.trace.say(self.t, Lane::Node(m), || {
            format!("its certificate is renewed until {:?}", certificate.until)
        });
    }
}

/// The permit that a certificate's key came with.
fn key_of(certificate: &Certificate) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&certificate.key[..8]);
    u64::from_le_bytes(bytes)
}

/// How long certificates are good for in a seed, if not for ever.
pub(crate) fn draw(root: &crate::rng::Rng) -> Option<crate::queue::Time> {
    let mut rng = root.fork("certificates", 0);
    rng.chance(300)
        .then(|| rng.log_range(20 * MIN, 4 * 60 * MIN) / SEC * SEC)
}
