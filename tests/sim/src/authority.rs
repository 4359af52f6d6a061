//! The authority of the fleet: in some seeds it is exchanged while the fleet works, as
//! `docs/certificates.md` says. What the coordinator's directory holds of it goes into images and
//! backups of its disk, and comes back with them.
//!
//! Whoever exchanges it waits until all carry the next one, or leaves some behind. A gateway that
//! does not know the coordinator any more, or is not known there, gets an empty disk and a new
//! certificate after a while. On layer 3 the authority stays.

use crate::fault::Kind;
use crate::people::Purpose;
use crate::queue::{HOUR, MIN, Time};
use crate::rng::Rng;
use crate::trace::Lane;
use crate::world::World;
use cloud_core::event::{Exchange, Reply, Request};
use cloud_core::view;
use std::collections::BTreeMap;

/// Whoever could not end the exchange tries again after this time.
const AGAIN: Time = 10 * MIN;
/// A gateway that is shut out is looked after when it has been so for this time.
const SHUT_OUT: Time = 30 * MIN;

/// An authority, by its number: the first one is number 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Authority(u8);

impl Authority {
    /// What stands for the SHA-256 of its certificate.
    #[must_use]
    pub fn fingerprint(self) -> [u8; 32] {
        [self.0 + 1; 32]
    }

    /// The one with this fingerprint.
    #[must_use]
    pub fn of(fingerprint: [u8; 32]) -> Self {
        Self(fingerprint[0] - 1)
    }
}

/// Those in the coordinator's directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Authorities {
    /// The one that the coordinator shows, and which issues the certificates of newcomers.
    pub present: Authority,
    /// The one that is to take its place, and which issues renewals.
    pub next: Option<Authority>,
}

impl Authorities {
    /// The one that issues renewals.
    #[must_use]
    pub fn renewing(self) -> Authority {
        self.next.unwrap_or(self.present)
    }

    /// Whether certificates of `issuer` are good.
    #[must_use]
    pub fn trusts(self, issuer: Authority) -> bool {
        self.present == issuer || self.next == Some(issuer)
    }

    /// The one that is named beside `issuer` in a certificate, to be trusted as well.
    #[must_use]
    pub fn beside(self, issuer: Authority) -> Option<Authority> {
        let all = [Some(self.present), self.next];
        all.into_iter().flatten().find(|other| *other != issuer)
    }
}

/// How the authority is exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Its end is tried after this time, without leaving anybody behind.
    pub patience: Time,
    /// Whoever does not carry the next one an hour later is left behind.
    pub forced: bool,
}

/// When it is exchanged: in one seed of three, in half of those twice.
pub(crate) fn draw(root: &Rng) -> Vec<(Time, Planned)> {
    let mut rng = root.fork("authority", 0);
    let times = rng.below(6).saturating_sub(3);
    let draw = |_| {
        let at = rng.below(5 * HOUR);
        let (patience, forced) = (rng.log_range(2 * MIN, 90 * MIN), rng.chance(300));
        (at, Planned { patience, forced })
    };
    (0..times).map(draw).collect()
}

/// Whoever exchanges the authority, and looks after gateways that are shut out.
#[derive(Debug, Default)]
pub struct Exchanging {
    /// How many authorities were made behind the first one: no number comes twice.
    made: u8,
    /// When its end is tried next.
    finish: Time,
    /// From when on nodes are left behind, if ever.
    force: Option<Time>,
    /// Gateways that are shut out, and since when.
    shut_out: BTreeMap<usize, Time>,
}

impl World {
    /// Somebody makes the next authority, unless there is one already.
    pub(crate) fn begin_exchange(&mut self, planned: Planned) {
        if self.carried.is_some() {
            return;
        }
        let finish = self.t + planned.patience;
        self.exchanging.finish = finish;
        self.exchanging.force = planned.forced.then_some(finish + HOUR);
        if self.cloud.authorities.next.is_none() {
            let present = self.cloud.authorities.present;
            self.exchange(Exchange::Begin, present);
        }
    }

    fn exchange(&mut self, step: Exchange, authority: Authority) {
        let request = Request::Exchange {
            step,
            authority: authority.fingerprint(),
            by: "administrator".to_owned(),
        };
        self.ask(request, Purpose::Exchange);
    }

    /// Once a minute: who exchanges the authority looks whether that can be ended, and who is shut
    /// out is looked after.
    pub(crate) fn exchange_goes_on(&mut self) {
        if self.people.away || self.carried.is_some() {
            return;
        }
        for m in 0..self.machines.len() {
            self.look_after(m);
        }
        if let Some(next) = self.cloud.authorities.next
            && self.t >= self.exchanging.finish
        {
            self.exchanging.finish = self.t + if self.calm { MIN } else { AGAIN };
            self.exchange(Exchange::Finish { force: false }, next);
        }
    }

    /// The coordinator said who does not carry the next authority, so that its end was refused.
    pub(crate) fn carriers(&mut self, carriers: &view::Carriers) {
        let Some(next) = self.cloud.authorities.next else {
            return;
        };
        for left in carriers.left.iter().filter(|left| left.unconfirmed) {
            // the keys were compared
            let (node, by) = (left.id, "administrator".to_owned());
            self.ask(Request::ReleaseQuarantine { node, by }, Purpose::Act);
        }
        let honest = |left: &view::Left| !self.is_liar_node(left.id);
        let waits = carriers.left.iter().any(honest);
        if !waits || self.exchanging.force.is_some_and(|at| self.t >= at) {
            self.exchange(Exchange::Finish { force: true }, next);
        }
    }

    /// The coordinator decided on a step: what is left to do is done in its directory.
    pub(crate) fn exchanged(&mut self, request: &Request, reply: &Reply) {
        let Request::Exchange { authority, .. } = request else {
            return;
        };
        let named = Authority::of(*authority);
        let Authorities { present, next } = self.cloud.authorities;
        match reply {
            Reply::Done if next.is_none() && named == present => {
                self.exchanging.made += 1;
                self.cloud.authorities.next = Some(Authority(self.exchanging.made));
                self.happened(Kind::AuthorityBegun);
            }
            Reply::Exchanged { left, .. } if next == Some(named) => {
                self.cloud.authorities = Authorities {
                    present: named,
                    next: None,
                };
                self.exchanging.force = None;
                self.happened(Kind::AuthorityExchanged);
                if !left.is_empty() {
                    self.happened(Kind::LeftBehind);
                }
                self.trace.say(self.t, Lane::Cloud, || {
                    format!("{named:?} is the authority, {left:?} are left behind")
                });
                let known = self.cloud.authorities;
                let outdated = "its certificate is of the authority before";
                self.end_sessions(outdated, |one| !known.trusts(one.issuer));
                crate::check::trusted::on_finish(self, left);
            }
            Reply::Refused(_) if next == Some(named) => {
                let authority = named.fingerprint();
                self.ask(Request::Carriers { authority }, Purpose::Carriers);
            }
            _ => {}
        }
    }

    /// Whether the gateway and the coordinator trust each other's certificates.
    pub(crate) fn know_each_other(&self, m: usize) -> bool {
        let known = self.cloud.authorities;
        let renewal = &self.machines[m].renewal;
        let takes = |shown| renewal.issuer == shown || renewal.beside == Some(shown);
        known.trusts(renewal.issuer) && takes(known.present)
    }

    /// Somebody sees to a gateway that has been shut out for long: where the next authority is the
    /// one that it knows, that takes its place; else the gateway begins anew.
    fn look_after(&mut self, m: usize) {
        let machine = &self.machines[m];
        let enrolled = machine.node.is_some() && machine.life != usize::MAX;
        let there = enrolled && machine.power && !machine.destroyed && machine.copy_of.is_none();
        let ours = there && !self.is_declared_gone(m) && !self.is_liar(m);
        if !ours || self.know_each_other(m) {
            self.exchanging.shut_out.remove(&m);
            return;
        }
        let issuer = machine.renewal.issuer;
        let since = *self.exchanging.shut_out.entry(m).or_insert(self.t);
        if since == self.t {
            self.happened(Kind::ShutOut);
        }
        if self.t < since + if self.calm { MIN } else { SHUT_OUT } {
            return;
        }
        if self.cloud.authorities.next == Some(issuer) {
            self.exchanging.finish = self.t;
            self.exchanging.force = Some(self.t);
        } else {
            self.exchanging.shut_out.remove(&m);
            self.reimage(m, MIN);
        }
    }
}
