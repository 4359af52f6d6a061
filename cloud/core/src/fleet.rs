//! The fleet aggregate: generation, hold, enrolment tokens, names of nodes, files in the file
//! store.

use crate::access::{self, Access, Tokens};
use crate::effects::Effects;
use crate::event::{Refused, Reply};
use crate::inbox::{Message, Post};
use crate::store::AggregateId;
use serde::{Deserialize, Serialize};
use shared::ids::{Generation, NodeId, RunId};
use shared::time::Unix;
use std::collections::{BTreeMap, BTreeSet};

/// Generations fill the upper half of an epoch.
const GENERATION_MAX: u64 = u32::MAX as u64;

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
}

impl Fleet {
    /// Draws the generation of this start.
    pub fn draw_generation(&mut self, wall: Unix) {
        let seconds = u64::try_from(wall.0 / 1000).unwrap_or(0);
        self.raise(seconds);
    }

    fn raise(&mut self, at_least: u64) {
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
    pub fn add_token(&mut self, id: &str, token: Token) -> Result<Reply, Refused> {
        if self.tokens.contains_key(id) {
            return Err(Refused::State(format!("token {id} exists already")));
        }
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
        fresh: NodeId,
        name: &str,
        labels: BTreeMap<String, String>,
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
        let message = Message::Enrolled {
            name: name.to_owned(),
            labels,
            replace,
        };
        fx.send(&mut self.post, AggregateId::Node(node), message);
        Ok(Reply::Enrolled(node))
    }
}
