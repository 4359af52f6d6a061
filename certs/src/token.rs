//! Enrolment tokens: one-time, expiring, and naming the authority that the newcomer should trust.
//!
//! The coordinator keeps a [`TokenRecord`] each, with a hash of the secret; the text exists once,
//! when the token is made.

use crate::hex::{self, HexError};
use crate::identity::{Fingerprint, sha256};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use shared::ids::NodeId;
use shared::time::Unix;
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "dft1";

/// Names a token in lists and logs; no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

/// What is wrong with the text of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all.
    #[error(
        "not an enrolment token: one begins with dft1- (make one with `driftless token create`)"
    )]
    Prefix,
    /// Of a version that this one does not read.
    #[error("a token of version {0}; this version reads dft1: update this program")]
    Version(String),
    /// Parts are missing or too many.
    #[error("the token has {0} parts and should have 5: was it copied whole?")]
    Parts(usize),
    /// A part cannot be read.
    #[error("the {part} in the token is damaged: was it copied whole?")]
    Part {
        /// Which.
        part: &'static str,
        /// What is wrong with it.
        #[source]
        source: HexError,
    },
    /// The parts do not fit together: a letter was mistyped.
    #[error("the token is damaged (its check digits do not fit): was it copied whole?")]
    Check,
}

/// What an enrolling agent shows to the coordinator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presented {
    /// Which token.
    pub id: TokenId,
    /// Its secret.
    pub secret: [u8; 16],
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({})", self.id)
    }
}

/// A token as the agent is given it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The authority to trust.
    pub authority: Fingerprint,
    /// What to show.
    pub presented: Presented,
}

impl Token {
    /// A new token for the fleet of this authority, and the record that its coordinator keeps.
    ///
    /// # Panics
    /// When the operating system has no random numbers: nothing can be secret then.
    #[must_use]
    pub fn create(
        authority: Fingerprint,
        expires: Unix,
        name: Option<String>,
        replace: bool,
    ) -> (Self, TokenRecord) {
        let random = SystemRandom::new();
        let (mut id, mut secret) = ([0; 8], [0; 16]);
        random
            .fill(&mut id)
            .expect("the system's random numbers are always there");
        random
            .fill(&mut secret)
            .expect("the system's random numbers are always there");
        let presented = Presented {
            id: TokenId(id),
            secret,
        };
        let secret_hash = secret_hash(&presented);
        let record = TokenRecord {
            id: presented.id,
            secret_hash,
            expires,
            name,
            replace,
            used: None,
        };
        (
            Self {
                authority,
                presented,
            },
            record,
        )
    }

    /// Reads the text of a token.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('-').take(7).collect();
        match parts[0] {
            PREFIX => {}
            other if other.len() <= 8 && other.starts_with("dft") => {
                return Err(TokenError::Version(other.to_owned()));
            }
            _ => return Err(TokenError::Prefix),
        }
        let &[_, authority, id, secret, check] = parts.as_slice() else {
            return Err(TokenError::Parts(parts.len()));
        };
        let damaged = |part| move |source| TokenError::Part { part, source };
        let token = Self {
            authority: Fingerprint(hex::parse(authority).map_err(damaged("fingerprint"))?),
            presented: Presented {
                id: TokenId(hex::parse(id).map_err(damaged("id"))?),
                secret: hex::parse(secret).map_err(damaged("secret"))?,
            },
        };
        let found: [u8; 4] = hex::parse(check).map_err(damaged("check digits"))?;
        if found == token.check() {
            Ok(token)
        } else {
            Err(TokenError::Check)
        }
    }

    fn check(&self) -> [u8; 4] {
        let Presented { id, secret } = &self.presented;
        let digest = sha256(&[PREFIX.as_bytes(), &self.authority.0, &id.0, secret]);
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// The text to hand to the agent. A secret.
    #[must_use]
    pub fn text(&self) -> String {
        let Presented { id, secret } = &self.presented;
        let (secret, check) = (hex::text(secret), hex::text(&self.check()));
        format!("{PREFIX}-{}-{id}-{secret}-{check}", self.authority)
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::parse(text)
    }
}
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.presented.id)
    }
}

fn secret_hash(presented: &Presented) -> [u8; 32] {
    sha256(&[b"driftless token 1", &presented.id.0, &presented.secret])
}

/// A token as the coordinator keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its name in lists.
    pub id: TokenId,
    /// SHA-256 over the id and the secret.
    pub secret_hash: [u8; 32],
    /// Last moment of its validity, by the coordinator's clock.
    pub expires: Unix,
    /// The only node name that it may enrol, if it is bound to one.
    pub name: Option<String>,
    /// It may take the place of a node of that name which is known already.
    pub replace: bool,
    /// The node that used it up.
    pub used: Option<TokenUse>,
}

/// What a token was used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenUse {
    /// The node that was enrolled.
    pub node: NodeId,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// When.
    pub at: Unix,
}

/// What a good token is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Enrol a node, and commit the use before the reply.
    New,
    /// This very key was enrolled with it before and the reply was lost: answer the same once more.
    Again(NodeId),
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TokenRefusal {
    /// Unknown, or the secret does not fit. The two are not told apart.
    #[error("the token is not known here: was it made by this coordinator, and not revoked?")]
    Wrong,
    /// Used up by another node.
    #[error(
        "the token was used already, by node {by}: make a new one with `driftless token create`"
    )]
    Used {
        /// That node.
        by: NodeId,
    },
    /// Too late.
    #[error("the token expired at {} ms since 1970: make a new one with `driftless token create`", .at.0)]
    Expired {
        /// When.
        at: Unix,
    },
    /// Bound to another name.
    #[error("the token is for a node named '{wanted}', not '{found}'")]
    WrongName {
        /// The name that it is bound to.
        wanted: String,
        /// The name that was asked for.
        found: String,
    },
}

impl TokenRecord {
    /// Whether it is the record of what was presented, by the secret too.
    #[must_use]
    pub fn fits(&self, presented: &Presented) -> bool {
        presented.id == self.id && secret_hash(presented) == self.secret_hash
    }

    /// Judges an enrolment by a node called `name` whose public key has the SHA-256 `key`.
    ///
    /// # Errors
    /// [`TokenRefusal`]. A wrong secret learns nothing else about the token.
    pub fn admit(
        &self,
        presented: &Presented,
        name: &str,
        key: &[u8; 32],
        now: Unix,
    ) -> Result<Admission, TokenRefusal> {
        if !self.fits(presented) {
            return Err(TokenRefusal::Wrong);
        }
        match &self.used {
            Some(used) if used.key == *key => return Ok(Admission::Again(used.node)),
            Some(used) => return Err(TokenRefusal::Used { by: used.node }),
            None => {}
        }
        if now > self.expires {
            return Err(TokenRefusal::Expired { at: self.expires });
        }
        match &self.name {
            Some(wanted) if wanted != name => Err(TokenRefusal::WrongName {
                wanted: wanted.clone(),
                found: name.to_owned(),
            }),
            _ => Ok(Admission::New),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Unix = Unix(1000);

    fn token(name: Option<&str>) -> (Token, TokenRecord) {
        Token::create(
            Fingerprint([0xab; 32]),
            LATER,
            name.map(str::to_owned),
            false,
        )
    }

    #[test]
    fn text_survives_and_each_damage_has_its_error() {
        let (token, _) = token(None);
        let text = token.text();
        assert_eq!(Token::parse(&format!(" {text}\n")), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&hex::text(&token.presented.secret)));
        assert_eq!(Token::parse(""), Err(TokenError::Prefix));
        assert_eq!(Token::parse("hunter2"), Err(TokenError::Prefix));
        assert_eq!(
            Token::parse("dft2-00"),
            Err(TokenError::Version("dft2".into()))
        );
        assert_eq!(Token::parse("dft1-00"), Err(TokenError::Parts(2)));
        assert_eq!(
            Token::parse(&"dft1-".repeat(1000)),
            Err(TokenError::Parts(7))
        );
        assert!(matches!(
            Token::parse(&text[..text.len() - 1]),
            Err(TokenError::Part {
                part: "check digits",
                ..
            })
        ));
        let other = if &text[10..11] == "a" { "b" } else { "a" };
        let mistyped = format!("{}{other}{}", &text[..10], &text[11..]);
        assert_eq!(Token::parse(&mistyped), Err(TokenError::Check));
        let part = Token::parse(&text.replacen("ab", "xy", 1));
        assert!(matches!(
            part,
            Err(TokenError::Part {
                part: "fingerprint",
                ..
            })
        ));
    }

    #[test]
    fn a_token_admits_one_key_once_by_its_name_in_its_time() {
        let (token, mut record) = token(Some("gw-7"));
        let shown = &token.presented;
        let (key, node) = ([1; 32], NodeId([9; 16]));
        assert_eq!(record.admit(shown, "gw-7", &key, LATER), Ok(Admission::New));
        let late = record.admit(shown, "gw-7", &key, Unix(1001));
        assert_eq!(late, Err(TokenRefusal::Expired { at: LATER }));
        let wanted = "gw-7".to_owned();
        let refusal = TokenRefusal::WrongName {
            wanted,
            found: "gw-8".into(),
        };
        assert_eq!(record.admit(shown, "gw-8", &key, LATER), Err(refusal));
        let guess = Presented {
            secret: [0; 16],
            ..shown.clone()
        };
        assert_eq!(
            record.admit(&guess, "gw-7", &key, LATER),
            Err(TokenRefusal::Wrong)
        );

        record.used = Some(TokenUse {
            node,
            key,
            at: LATER,
        });
        assert_eq!(
            record.admit(shown, "gw-7", &key, LATER),
            Ok(Admission::Again(node))
        );
        let thief = record.admit(shown, "gw-7", &[2; 32], LATER);
        assert_eq!(thief, Err(TokenRefusal::Used { by: node }));
        assert_eq!(
            record.admit(&guess, "gw-7", &key, LATER),
            Err(TokenRefusal::Wrong)
        );
    }
}
