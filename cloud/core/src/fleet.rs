//! The fleet aggregate: generation, hold, enrolment tokens, names of nodes, files in the file
//! store.

use crate::access::{self, Access, Tokens};
use crate::certificate::Certificate;
use crate::effects::Effects;
use crate::event::{Refused, Reply};
use crate::inbox::{Message, Post};
use crate::settings::Settings;
use crate::store::AggregateId;
use crate::view;
use serde::{Deserialize, Serialize};
use shared::ids::{Generation, NodeId, RunId};
use shared::planted::{self, Mistake};
use shared::time::{Span, Unix};
use std::collections::{BTreeMap, BTreeSet};

/// Generations fill the upper half of an epoch.
const GENERATION_MAX: u64 = u32::MAX as u64;

/// How long a token that is used, void or expired is remembered, so that its next use is answered
/// with the reason.
const TOKEN_KEPT: Span = Span::secs(7 * 86_400);
/// Most tokens that are remembered although they are over.
const TOKENS_KEPT: usize = 1_000;

/// Old runs stand still until these nodes were heard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: Unix,
    /// Why, for people.
    pub why: String,
    /// Not heard yet.
    pub nodes: BTreeSet<NodeId>,
}

/// A backup that was finished.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// When its content was read.
    pub at: Unix,
    /// Where it was put, for people.
    pub place: String,
}

/// An enrolment token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Opaque, of `certs`.
    pub record: Vec<u8>,
    /// The only name that it enrols.
    pub name: Option<String>,
    /// It may replace a node.
    pub replace: bool,
    /// Until when it is good.
    pub expires: Unix,
    /// Who used it up.
    pub used: Option<NodeId>,
    /// Why it is void although not used.
    pub void: Option<String>,
}

/// State of the fleet aggregate.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Fleet {
    /// Life of the store.
    pub generation: Generation,
    /// Whether old runs stand still.
    pub hold: Option<Hold>,
    /// By id.
    pub tokens: BTreeMap<String, Token>,
    /// Nodes by name.
    pub names: BTreeMap<String, NodeId>,
    /// Messages.
    pub post: Post,
    /// Access tokens of the API, by name.
    pub access: Tokens,
    /// By whom tokens were used, by id.
    pub uses: BTreeMap<String, TokenUse>,
    /// The newest finished backup.
    pub backup: Option<Backup>,
    /// What holds where specifications say nothing.
    pub settings: Settings,
}

/// How a token was used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenUse {
    /// The node that it enrolled.
    pub node: NodeId,
    /// SHA-256 of the key that it let in.
    pub key: [u8; 32],
    /// When.
    pub at: Unix,
}

impl Fleet {
    /// Draws the generation of this start.
    pub fn draw_generation(&mut self, wall: Unix) {
        let seconds = u64::try_from(wall.0 / 1000).unwrap_or(0);
        self.raise(seconds);
    }

    fn raise(&mut self, at_least: u64) {
        let from_store = planted::on(Mistake::GenerationFromStore);
        let at_least = if from_store { 0 } else { at_least };
        let next = (self.generation.0 + 1).max(at_least);
        self.generation = Generation(next.min(GENERATION_MAX));
    }

    /// The store went back: a new generation, all old runs stand still, all nodes are asked.
    pub fn begin_hold(
        &mut self,
        (at, why): (Unix, &str),
        seen: u64,
        nodes: BTreeSet<NodeId>,
        runs: &[RunId],
        fx: &mut Effects,
    ) {
        self.raise(seen.saturating_add(1).min(GENERATION_MAX));
        for token in self.tokens.values_mut().filter(|t| t.used.is_none()) {
            token
                .void
                .get_or_insert_with(|| "the coordinator's store was restored".to_owned());
        }
        for node in &nodes {
            fx.send(
                &mut self.post,
                AggregateId::Node(*node),
                Message::AskInventory,
            );
        }
        for run in runs {
            let to = AggregateId::Run(*run);
            fx.send(&mut self.post, to, Message::Hold { on: true });
        }
        self.hold = Some(Hold {
            since: at,
            why: why.to_owned(),
            nodes,
        });
    }

    /// A node was heard (or will never be, or, for none, nobody is waited for any more).
    /// Returns whether this ended the hold.
    pub fn heard(&mut self, node: Option<NodeId>, held: &[RunId], fx: &mut Effects) -> bool {
        let Some(hold) = &mut self.hold else {
            return false;
        };
        match node {
            Some(node) => drop(hold.nodes.remove(&node)),
            None => hold.nodes.clear(),
        }
        if !hold.nodes.is_empty() {
            return false;
        }
        self.hold = None;
        for run in held {
            let to = AggregateId::Run(*run);
            fx.send(&mut self.post, to, Message::Hold { on: false });
        }
        true
    }

    /// Stores a token.
    ///
    /// # Errors
    /// [`Refused::State`] for an id that is known.
    pub fn add_token(&mut self, id: &str, token: Token, now: Unix) -> Result<Reply, Refused> {
        if self.tokens.contains_key(id) {
            return Err(Refused::State(format!("token {id} exists already")));
        }
        self.prune_tokens(now);
        self.tokens.insert(id.to_owned(), token);
        Ok(Reply::Done)
    }

    /// Stores an access token. One of the same name that is past its time makes room for it.
    ///
    /// # Errors
    /// [`Refused::State`] for a name that is taken; [`Refused::NoRoom`].
    pub fn add_access(&mut self, name: &str, token: Access) -> Result<Reply, Refused> {
        let now = token.created;
        let over = |old: &Access| old.expires.is_some_and(|expires| expires <= now);
        if self.access.get(name).is_some_and(|old| !over(old)) {
            let text = format!("there is an access token named {name}; revoke it first");
            return Err(Refused::State(text));
        }
        if self.access.len() >= access::TOKENS {
            self.access.retain(|_, old| !over(old));
        }
        if self.access.len() >= access::TOKENS {
            let text = format!("{} access tokens; revoke some", access::TOKENS);
            return Err(Refused::NoRoom(text));
        }
        self.access.insert(name.to_owned(), token);
        Ok(Reply::Done)
    }

    /// Ends an access token.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub fn revoke_access(&mut self, name: &str) -> Result<Reply, Refused> {
        match self.access.remove(name) {
            Some(_) => Ok(Reply::Done),
            None => Err(Refused::NotFound {
                what: "access token".to_owned(),
                name: name.to_owned(),
            }),
        }
    }

    /// When a token was over: used, or expired.
    fn token_over(&self, id: &str, token: &Token) -> Unix {
        self.uses.get(id).map_or(token.expires, |used| used.at)
    }

    /// Removes tokens that are over for so long that nobody asks why they are refused.
    fn prune_tokens(&mut self, now: Unix) {
        let mut over: Vec<(Unix, String)> = self
            .tokens
            .iter()
            .map(|(id, token)| (self.token_over(id, token), id.clone()))
            .filter(|(at, _)| *at <= now)
            .collect();
        over.sort();
        let old = |at: Unix| now.0.saturating_sub(at.0) > TOKEN_KEPT.0 as i64;
        let surplus = over.len().saturating_sub(TOKENS_KEPT);
        let gone = over.iter().enumerate();
        for (_, (_, id)) in gone.filter(|(n, (at, _))| *n < surplus || old(*at)) {
            self.tokens.remove(id);
            self.uses.remove(id);
        }
    }

    /// The record of a token and the node that it enrolled with this key, for as long as used
    /// tokens are remembered. Of one that was used before keys were remembered only the node is
    /// known; it was that key's if its id was made of it (`first`).
    #[must_use]
    pub fn enrolled_before(
        &self,
        id: &str,
        (key, first): (&[u8; 32], NodeId),
        now: Unix,
    ) -> Option<(Vec<u8>, NodeId)> {
        let token = self.tokens.get(id)?;
        let node = match self.uses.get(id) {
            Some(used) => (used.key == *key).then_some(used.node),
            None => token.used.filter(|node| *node == first),
        };
        let age = now.0.saturating_sub(self.token_over(id, token).0);
        let recent = age <= TOKEN_KEPT.0 as i64;
        node.filter(|_| recent)
            .map(|node| (token.record.clone(), node))
    }

    /// Makes a token void.
    ///
    /// # Errors
    /// [`Refused`]: unknown, or over already.
    pub fn revoke_token(&mut self, id: &str, by: &str, now: Unix) -> Result<Reply, Refused> {
        self.token(id, now)?;
        if let Some(token) = self.tokens.get_mut(id) {
            token.void = Some(format!("revoked by {by}"));
        }
        Ok(Reply::Done)
    }

    /// Makes all open tokens void, and says how many they were.
    pub fn void_tokens(&mut self, why: &str, now: Unix) -> u64 {
        let ids: Vec<String> = self.tokens.keys().cloned().collect();
        let open = ids.iter().filter(|id| self.token(id, now).is_ok());
        let open: Vec<&String> = open.collect();
        for id in &open {
            if let Some(token) = self.tokens.get_mut(*id) {
                token.void = Some(why.to_owned());
            }
        }
        open.len() as u64
    }

    /// All tokens, those that expire last first.
    #[must_use]
    pub fn view_tokens(&self, now: Unix) -> Vec<view::Token> {
        let view = |(id, token): (&String, &Token)| view::Token {
            id: id.clone(),
            name: token.name.clone(),
            replace: token.replace,
            expires: token.expires,
            state: match self.token(id, now) {
                Ok(_) => "open",
                Err(_) if token.used.is_some() => "used",
                Err(_) if token.void.is_some() => "void",
                Err(_) => "expired",
            }
            .to_owned(),
            used_by: token.used.map(|node| {
                let named = self.names.iter().find(|(_, id)| **id == node);
                named.map_or_else(|| node.to_string(), |(name, _)| name.clone())
            }),
            used_at: self.uses.get(id).map(|used| used.at),
            why: token.void.clone(),
        };
        let mut tokens: Vec<_> = self.tokens.iter().map(view).collect();
        tokens.sort_by(|a, b| (b.expires, &a.id).cmp(&(a.expires, &b.id)));
        tokens
    }

    /// A token that is still good.
    ///
    /// # Errors
    /// [`Refused`]: unknown, used, void or expired.
    pub fn token(&self, id: &str, now: Unix) -> Result<&Token, Refused> {
        let Some(token) = self.tokens.get(id) else {
            return Err(Refused::NotFound {
                what: "token".to_owned(),
                name: id.to_owned(),
            });
        };
        let bad = if let Some(node) = token.used {
            format!("the token {id} was used already, by node {node}; make a new one")
        } else if let Some(why) = &token.void {
            format!("the token {id} is void: {why}; make a new one")
        } else if token.expires <= now {
            format!("the token {id} has expired; make a new one")
        } else {
            return Ok(token);
        };
        Err(Refused::Token(bad))
    }

    /// Uses a token up for a node.
    ///
    /// # Errors
    /// [`Refused`] for a token that is not good or a name that is taken.
    pub fn enrol(
        &mut self,
        id: &str,
        (fresh, name): (NodeId, &str),
        labels: BTreeMap<String, String>,
        certificate: Certificate,
        now: Unix,
        fx: &mut Effects,
    ) -> Result<Reply, Refused> {
        let token = self.token(id, now)?;
        let (replace, bound) = (token.replace, token.name.clone());
        if bound.as_deref().is_some_and(|bound| bound != name) {
            let text = format!("the token {id} enrols another name than {name}");
            return Err(Refused::Token(text));
        }
        let node = match self.names.get(name) {
            Some(node) if replace => *node,
            Some(_) => return Err(Refused::NameTaken(name.to_owned())),
            None => fresh,
        };
        self.names.insert(name.to_owned(), node);
        if let Some(token) = self.tokens.get_mut(id) {
            token.used = Some(node);
        }
        let used = TokenUse {
            node,
            key: certificate.key,
            at: now,
        };
        self.uses.insert(id.to_owned(), used);
        let message = Message::EnrolledAs {
            name: name.to_owned(),
            labels,
            replace,
            certificate,
        };
        fx.send(&mut self.post, AggregateId::Node(node), message);
        Ok(Reply::Enrolled(node))
    }
}
