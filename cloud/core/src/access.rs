//! Who may use the API: roles, and the access tokens that carry them.

use serde::{Deserialize, Serialize};
use shared::time::Unix;
use std::collections::BTreeMap;

/// Most tokens at a time.
pub const TOKENS: usize = 1000;

/// What somebody may do; each role may do all that those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read everything.
    Viewer,
    /// Also start and steer work: runs, tasks, nodes that drain.
    Operator,
    /// Also decide who belongs to the fleet, and who may use the API.
    Admin,
}

impl Role {
    /// All, from the least on.
    pub const ALL: &'static [Self] = &[Self::Viewer, Self::Operator, Self::Admin];

    /// Its name in files, commands and answers.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role with this name.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.text() == text)
    }
}

/// An access token as it is kept: never its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Access {
    /// What its bearer may do.
    pub role: Role,
    /// Its public part, by which it is found.
    pub id: String,
    /// SHA-256 over id and secret.
    pub hash: [u8; 32],
    /// When it was made.
    pub created: Unix,
    /// By whom.
    pub by: String,
    /// Until when it is good; none: until it is revoked.
    pub expires: Option<Unix>,
}

/// All access tokens by name.
pub type Tokens = BTreeMap<String, Access>;

/// Who asks for something over the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Name of the token that was shown; none where no token is asked for (on loopback).
    pub token: Option<String>,
    /// The address that the request came from.
    pub from: String,
}
