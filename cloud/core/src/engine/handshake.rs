//! Hello: who may speak for a node, and whether the two logs of both sides go together.

use super::{Engine, Link, Probe};
use crate::event::{Conn, Output};
use crate::node::Node;
use crate::seal;
use crate::store::{AggregateId, Store, StoreError};
use shared::fact::Acknowledged;
use shared::ids::{Incarnation, NodeId};
use shared::limits::{LABEL_BYTES, LABELS, PROBE_MS, labels_fit};
use shared::log::Head;
use shared::planted::{self, Mistake};
use shared::time::Span;
use shared::wire::{
    Down, Hello, LogId, PROTOCOL_MAX, PROTOCOL_MIN, ROOM, Refusal, Refuse, Welcome,
};

/// Lives of its data directory that a node may begin one after the other without a person's word.
const LIVES: usize = 64;
/// Directives that a node lacks before they are replaced by a reset and by what stands now.
const LONG_LOG: u64 = 10_000;

impl<S: Store> Engine<S> {
    /// A connection said hello.
    pub(super) fn hello(
        &mut self,
        conn: Conn,
        (node, name): (NodeId, &str),
        hello: Box<Hello>,
        secret: [u8; 16],
    ) -> Result<(), StoreError> {
        if let Some((reason, text)) = self.unacceptable(node, name, &hello) {
            self.refuse(conn, reason, &text);
            return Ok(());
        }
        self.conns.insert(conn, node);
        let ahead = hello.now.wall.0.saturating_sub(self.now.wall.0);
        self.links.entry(node).or_default().clock_ahead = Some(ahead);
        let nonce = self.draw();
        let until = self.now.mono + Span(PROBE_MS);
        let link = self.links.entry(node).or_default();
        let Some(live) = &link.live else {
            return self.admit(conn, node, hello, secret);
        };
        if hello.proof == Some(live.secret) {
            if hello.session <= live.session {
                let text = format!("session {} is live already", live.session);
                self.refuse(conn, Refusal::OldSession, &text);
                return Ok(());
            }
            return self.admit(conn, node, hello, secret);
        }
        if link.probe.is_some() {
            self.refuse(conn, Refusal::Busy, "another caller is being judged");
            return Ok(());
        }
        self.outputs.push(Output::Send {
            conn: live.conn,
            message: Down::Ping { nonce },
        });
        link.probe = Some(Probe {
            nonce,
            until,
            conn,
            hello,
            secret,
        });
        Ok(())
    }

    /// What can be said against a hello without looking at sessions.
    fn unacceptable(&self, node: NodeId, name: &str, hello: &Hello) -> Option<(Refusal, String)> {
        if hello.node != node || hello.name != name {
            let text = "the hello names another node than the certificate".to_owned();
            return Some((Refusal::Malformed, text));
        }
        if hello.protocol_min > PROTOCOL_MAX || hello.protocol_max < PROTOCOL_MIN {
            let text = format!(
                "it speaks protocol {} to {}, the coordinator {PROTOCOL_MIN} to {PROTOCOL_MAX}",
                hello.protocol_min, hello.protocol_max
            );
            return Some((Refusal::Protocol, text));
        }
        if !labels_fit(&hello.labels) {
            let text = format!("a node has at most {LABELS} labels of {LABEL_BYTES} bytes in all");
            return Some((Refusal::Malformed, text));
        }
        match self.nodes.get(&node) {
            None => Some((
                Refusal::NotEnrolled,
                format!("node {name} is not enrolled here"),
            )),
            Some(known) => known.forgotten.as_ref().map(|(_, by)| {
                let text = format!("node {name} was declared gone by {by}");
                (Refusal::NotEnrolled, text)
            }),
        }
    }

    pub(super) fn refuse(&mut self, conn: Conn, reason: Refusal, text: &str) {
        let retry_after = matches!(reason, Refusal::Busy).then_some(Span(PROBE_MS));
        let refuse = Refuse {
            reason,
            text: text.to_owned(),
            retry_after,
        };
        self.outputs.push(Output::Send {
            conn,
            message: Down::Refuse(refuse),
        });
        self.outputs.push(Output::Close {
            conn,
            why: text.to_owned(),
        });
        self.conns.remove(&conn);
    }

    /// A second machine speaks for the node: the newcomer stays outside until a person decides.
    pub(super) fn suspect(&mut self, conn: Conn, node: NodeId, why: &str) {
        self.set_apart(node, why);
        self.refuse(conn, Refusal::Quarantined, why);
    }

    /// The node is in quarantine until a person decides.
    pub(super) fn set_apart(&mut self, node: NodeId, why: &str) {
        let at = self.now.wall;
        if let Some(known) = self.nodes.get_mut(&node)
            && known.suspect.is_none()
        {
            known.suspect = Some((at, why.to_owned()));
            self.effects.entry(AggregateId::Node(node)).or_default();
        }
    }

    /// No live session speaks against the newcomer: its incarnation and its logs decide.
    pub(super) fn admit(
        &mut self,
        conn: Conn,
        node: NodeId,
        hello: Box<Hello>,
        secret: [u8; 16],
    ) -> Result<(), StoreError> {
        let Some(known) = self.nodes.get(&node) else {
            return Ok(());
        };
        let proven = self.is_same(node, &hello);
        if let (Some((_, why)), false, false) = (&known.suspect, proven, known.replace) {
            let text = format!("in quarantine until a person decides: {why}");
            self.refuse(conn, Refusal::Quarantined, &text);
            return Ok(());
        }
        let current = known.incarnation;
        if let Some(current) = current.filter(|current| *current != hello.incarnation) {
            // its store forked and was fenced, or was cut to nothing; nobody else answered for it
            let follows = hello.succeeds == Some(current);
            let closed = known.closed.contains_key(&hello.incarnation);
            let many = known.closed.len() >= LIVES;
            if closed && known.believed {
                let text = "its incarnation was closed, and a person lets it begin another one";
                self.refuse(conn, Refusal::NewIncarnation, text);
                return Ok(());
            }
            // a person may let in what nothing proves, once; a seal proves that this side took it
            // in before its store went back
            let welcome = known.replace || (follows && !many) || known.believed;
            if closed || !(welcome || self.sealed(node, &hello)) {
                let mut why = format!(
                    "incarnation {} calls, {current} is the one that counts",
                    hello.incarnation
                );
                if many {
                    why.push_str("; it has begun anew very often");
                }
                self.doubt(conn, node, &why);
                return Ok(());
            }
            let fx = self.effects.entry(AggregateId::Node(node)).or_default();
            if let Some(known) = self.nodes.get_mut(&node) {
                let cut = follows && known.fenced != Some(current);
                known.succeed(node, hello.incarnation, fx);
                if cut {
                    known.note_cut(current);
                }
            }
            if self.fleet.hold.is_some() {
                self.begins_in_hold(node, &hello);
            }
        }
        if let (None, Some(known)) = (current, self.nodes.get_mut(&node)) {
            // the first that this store hears of it may not be the first that it says
            known.begin_incarnation(node, hello.incarnation);
            self.effects.entry(AggregateId::Node(node)).or_default();
        }
        if !self.logs_agree(conn, node, hello.incarnation, &hello)? {
            return Ok(());
        }
        self.welcome(conn, node, hello, secret)
    }

    /// Whether the process that was welcomed last calls: nobody else knows the secret of that
    /// session.
    fn is_same(&self, node: NodeId, hello: &Hello) -> bool {
        let secret = self.links.get(&node).and_then(|link| link.secret);
        secret.is_some() && secret == hello.proof
    }

    /// A life that this store does not know calls while old runs are held. Nobody can say any more
    /// what the one before it had. But one that was told anything before had begun in a time that
    /// this store forgot: what it was given, and did, it must say first, like any other node.
    fn begins_in_hold(&mut self, node: NodeId, hello: &Hello) {
        if hello.directives.number == 0 && hello.ack.is_none() {
            self.heard_since_hold(Some(node));
        } else if let Some(known) = self.nodes.get_mut(&node) {
            known.inventory_wanted = true;
        }
    }

    /// Whether a seal of this coordinator names the incarnation that calls.
    fn sealed(&self, node: NodeId, hello: &Hello) -> bool {
        let (key, incarnation) = (&self.config.seal_key, hello.incarnation);
        let log = LogId { node, incarnation };
        let ack = hello.ack.is_some_and(|ack| seal::verify(key, log, &ack));
        ack || hello
            .directive_seal
            .is_some_and(|head| seal::verify_directives(key, log, &head))
    }

    /// Compares both logs. False if the newcomer was refused. A store that went back is noticed
    /// here.
    fn logs_agree(
        &mut self,
        conn: Conn,
        node: NodeId,
        current: Incarnation,
        hello: &Hello,
    ) -> Result<bool, StoreError> {
        let Some(known) = self.nodes.get(&node) else {
            return Ok(false);
        };
        let (facts, log_end) = (known.facts, known.directives.number);
        let fenced = known.fenced == Some(current);
        if let Some(text) = disk_went_back(known, hello, fenced) {
            let fx = self.effects.entry(AggregateId::Node(node));
            fx.or_default();
            if let Some(known) = self.nodes.get_mut(&node) {
                known.fence();
            }
            self.refuse(conn, Refusal::NewIncarnation, &text);
            return Ok(false);
        }
        let ours = self.directive_head(node, hello.directives.number)?;
        let forked = match ours {
            Some(head) => head.hash != hello.directives.hash,
            None => hello.directives.number > log_end,
        };
        let hole = ours.is_none() && !forked;
        if let Some((seen, what)) = self.proof(node, current, facts, hello)? {
            let name = &hello.name;
            let why = format!("node {name} proves {what} that this store does not know");
            self.went_back(node, seen, &why);
        } else if forked && !self.believed(node) {
            let number = hello.directives.number;
            let why = format!(
                "it names directive {number}, which this store does not know, without a seal that \
                 proves it; release it to take its word, or declare it gone"
            );
            self.doubt(conn, node, &why);
            return Ok(false);
        }
        let long = log_end.saturating_sub(hello.directives.number) > LONG_LOG;
        if forked || hole || long {
            self.reset_log(node, hello.directives);
        }
        Ok(true)
    }

    /// What an agent shows under a seal of this coordinator and this store does not know: the store
    /// went back. With the generation of the seal, and what it covers.
    fn proof(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        facts: Head,
        hello: &Hello,
    ) -> Result<Option<(u64, &'static str)>, StoreError> {
        let log = LogId { node, incarnation };
        let key = &self.config.seal_key;
        let own = self.fleet.generation;
        if let Some(ack) = hello.ack.filter(|ack| seal::verify(key, log, ack)) {
            let ahead = ack.head.number > facts.number
                || (ack.head.number == facts.number && ack.head.hash != facts.hash);
            if ahead || ack.generation > own {
                return Ok(Some((ack.generation.0, "an acknowledgement")));
            }
        }
        let sealed = hello.directive_seal;
        let Some(sealed) = sealed.filter(|seal| seal::verify_directives(key, log, seal)) else {
            return Ok(None);
        };
        let end = self.nodes.get(&node).map_or(0, |n| n.directives.number);
        let known = self.directive_head(node, sealed.head.number)?;
        let unknown = match known {
            Some(head) => head.hash != sealed.head.hash,
            None => sealed.head.number > end,
        };
        let proves = unknown || sealed.generation > own;
        Ok(proves.then_some((sealed.generation.0, "a directive")))
    }

    fn believed(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|n| n.believed)
    }

    /// The node alone stays outside: its word is no proof, and a person decides.
    fn doubt(&mut self, conn: Conn, node: NodeId, why: &str) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.unproven = true;
        }
        self.suspect(conn, node, why);
    }

    fn went_back(&mut self, node: NodeId, seen: u64, why: &str) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.inventory_wanted = true;
        }
        self.effects.entry(AggregateId::Node(node)).or_default();
        if self.fleet.hold.is_none() {
            self.begin_hold(seen, why);
        }
    }

    fn reset_log(&mut self, node: NodeId, theirs: Head) {
        let now = (self.now.wall, self.fleet.generation);
        let fx = self.effects.entry(AggregateId::Node(node)).or_default();
        if let Some(known) = self.nodes.get_mut(&node) {
            known.inventory_wanted |= known.believed;
            known.word_taken |= known.believed;
            known.believed = false;
            let why = "the coordinator's log of directives does not continue the node's";
            known.reset_directives(node, now, theirs, why, fx);
        }
    }

    fn welcome(
        &mut self,
        conn: Conn,
        node: NodeId,
        hello: Box<Hello>,
        secret: [u8; 16],
    ) -> Result<(), StoreError> {
        let features = self.features();
        let same = self.is_same(node, &hello);
        let fx = self.effects.entry(AggregateId::Node(node)).or_default();
        let Some(known) = self.nodes.get_mut(&node) else {
            return Ok(());
        };
        known.accept(&hello, same);
        if known.owes > 0 {
            known.tell_heard(node, fx);
        }
        known.confirm(node, hello.directives.number, fx);
        let welcome = Welcome {
            protocol: PROTOCOL_MAX.min(hello.protocol_max),
            features: features & hello.features,
            session: hello.session,
            generation: self.fleet.generation,
            secret,
            facts: Acknowledged {
                head: known.facts,
                safe: known.safe,
            },
            directives: known.directives,
            want_inventory: known.inventory_wanted,
            now: self.now.wall,
        };
        let link = self.links.entry(node).or_default();
        link.probe = None;
        // until it says anything else, which a process that has just started may never do
        link.full &= same && welcome.features & ROOM != 0;
        link.secret = Some(secret);
        link.ahead = hello.facts.number;
        link.asked = welcome.want_inventory;
        let former = link.live.replace(Link {
            conn,
            session: hello.session,
            secret,
            sent: hello.directives,
            incoming: None,
        });
        self.outputs.push(Output::Send {
            conn,
            message: Down::Welcome(Box::new(welcome)),
        });
        if let Some(former) = former {
            self.conns.remove(&former.conn);
            self.outputs.push(Output::Close {
                conn: former.conn,
                why: "a newer session took over".to_owned(),
            });
        }
        self.heard_now(node);
        self.pump.insert(node);
        self.plan_all = true;
        self.configure.insert(node);
        // what it offers may be another now than when it refused
        self.offer_again(Some(node))
    }

    /// Notes that a node was heard; not worth a commit.
    pub(super) fn heard_now(&mut self, node: NodeId) {
        let link = self.links.entry(node).or_default();
        link.heard = self.now.mono;
        link.heard_wall = Some(self.now.wall);
    }
}

/// What shows that the caller's disk went back: it has less of a log than it had, or other facts.
/// One that was `fenced` for that stays so.
fn disk_went_back(known: &Node, hello: &Hello, fenced: bool) -> Option<String> {
    let (theirs, ours) = (hello.facts, known.facts);
    let other = theirs.hash != ours.hash && !planted::on(Mistake::CursorsByNumber);
    let behind = theirs.number < ours.number || (theirs.number == ours.number && other);
    // What it did by directives that it has lost is lost with them, and facts need not tell: a
    // store that went back too may know of none that it lacks.
    let (end, confirmed) = (hello.directives.number, known.confirmed);
    if end < confirmed && !behind {
        return Some(format!(
            "its directives end at {end}, and it had confirmed {confirmed}"
        ));
    }
    (behind || fenced).then(|| {
        format!(
            "its facts end at {}, fact {} of another history is known here",
            theirs.number, ours.number
        )
    })
}
