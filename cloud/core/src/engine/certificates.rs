//! Whose key may speak for a node: at the door, when a certificate is issued, and after this store
//! went back behind a revocation.

use super::Engine;
use super::requests::{Answered, no_node};
use crate::certificate::{Certificate, Judged};
use crate::event::{Conn, Refused, Reply, Request};
use crate::fleet::Token;
use crate::store::{AggregateId, Store};
use shared::ids::NodeId;
use shared::time::Unix;
use shared::wire::Refusal;

impl<S: Store> Engine<S> {
    /// Judges the certificate of a caller. False if it was turned away.
    pub(super) fn certificate_counts(
        &mut self,
        conn: Conn,
        node: NodeId,
        shown: Certificate,
    ) -> bool {
        match self.judge_certificate(node, shown) {
            Ok(()) => true,
            Err((refusal, why)) => {
                self.refuse(conn, refusal, &why);
                false
            }
        }
    }

    /// Judges the certificate that a node shows, to work or to renew it, and remembers what it
    /// proves. Nodes that nobody enrolled, or that are gone, are refused for that by the caller.
    fn judge_certificate(
        &mut self,
        node: NodeId,
        shown: Certificate,
    ) -> Result<(), (Refusal, String)> {
        let now = self.now.wall;
        let known = self.nodes.get_mut(&node);
        let Some(known) = known.filter(|known| known.forgotten.is_none()) else {
            return Ok(());
        };
        let before = known.certificate;
        match known.judge(shown, now) {
            Judged::Known => {
                if before != known.certificate {
                    self.effects.entry(AggregateId::Node(node)).or_default();
                }
                Ok(())
            }
            Judged::Revoked(why) => {
                let text = format!("the key of node {} was revoked: {why}", known.name);
                Err((Refusal::NotEnrolled, text))
            }
            Judged::Doubtful => {
                known.unproven = true;
                let why = "another key calls than the one that this store knows; release it to \
                           take its word, or declare it gone";
                self.set_apart(node, why);
                Err((Refusal::Quarantined, why.to_owned()))
            }
        }
    }

    /// What decides who may join, and by which key.
    pub(super) fn write_admission(&mut self, request: Request) -> (AggregateId, Answered) {
        let at = self.now.wall;
        let fleet = AggregateId::Fleet;
        match request {
            Request::AddToken {
                by: _,
                record,
                id,
                name,
                replace,
                expires,
            } => {
                let token = Token {
                    record,
                    name,
                    replace,
                    expires,
                    used: None,
                    void: None,
                };
                (fleet, self.fleet.add_token(&id, token, at))
            }
            Request::RevokeToken { id, by } => (fleet, self.fleet.revoke_token(&id, &by, at)),
            Request::Exchange {
                step, authority, ..
            } => (fleet, self.exchange(step, &authority)),
            Request::Certify {
                node,
                certificate,
                shown,
            } => {
                let done = self.certify(node, certificate, shown);
                (AggregateId::Node(node), done)
            }
            Request::Revoke {
                node,
                key,
                at,
                why,
                gone,
            } => {
                let done = self.revoke(node, key, (at, &why), gone.as_deref());
                (AggregateId::Node(node), done)
            }
            _ => (fleet, Err(Refused::Malformed("not a request".to_owned()))),
        }
    }

    /// A certificate is about to be issued. Whether it arrives is not known: until the node shows
    /// it, the authority of the one before counts as the one that it carries.
    ///
    /// Who renews shows the one before, which may have expired: it tells as much as one that is
    /// good, so that a node whose key was replaced behind this store is not shut out when it could
    /// not call in time.
    fn certify(
        &mut self,
        id: NodeId,
        certificate: Certificate,
        shown: Option<Certificate>,
    ) -> Answered {
        if let Some(shown) = shown {
            self.judge_certificate(id, shown)
                .map_err(|(_, why)| Refused::State(why))?;
        }
        let Some(node) = self.nodes.get_mut(&id) else {
            return Err(no_node(&id.to_string()));
        };
        node.may_renew(certificate.key, certificate.authority)
            .map_err(Refused::State)?;
        let before = node.certificate.map(|known| known.authority);
        node.certificate = Some(Certificate {
            authority: before.unwrap_or(certificate.authority),
            ..certificate
        });
        self.effects.entry(AggregateId::Node(id)).or_default();
        Ok(Reply::Done)
    }

    /// A revocation that may be newer than this store.
    pub(super) fn revoke(
        &mut self,
        id: NodeId,
        key: Option<[u8; 32]>,
        (at, why): (Unix, &str),
        gone: Option<&str>,
    ) -> Answered {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Err(no_node(&id.to_string()));
        };
        let present = node.certificate.map(|known| known.key);
        if let Some(key) = key {
            node.revoke(key, at, why);
        }
        self.effects.entry(AggregateId::Node(id)).or_default();
        match gone {
            Some(by) if present == key => self.forget_node(id, by),
            _ => Ok(Reply::Done),
        }
    }
}
