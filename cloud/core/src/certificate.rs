//! What the coordinator remembers of a node's certificate: the key that may speak for it, until
//! when, and which keys may not any more.
//!
//! A renewal keeps the key, so the key names the machine: a certificate of a revoked key is refused
//! whatever its dates are, and may not be renewed.

use crate::node::Node;
use serde::{Deserialize, Serialize};
use shared::time::Unix;
use std::collections::BTreeMap;

/// Keys of one node that are remembered as revoked; more than that were replaced long ago.
const REVOKED: usize = 64;

/// The certificate that a node was issued or has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// End of its validity.
    pub until: Unix,
    /// SHA-256 of the certificate of the authority that issued the one which the node showed last;
    /// of the first one that it was issued, until it shows it.
    pub authority: [u8; 32],
}

/// Why a key may not speak for its node any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// Since when.
    pub at: Unix,
    /// Why, for people.
    pub why: String,
}

/// What a certificate says about the node that this store knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judged {
    /// It is the node's.
    Known,
    /// Its key was revoked: why.
    Revoked(String),
    /// Another key than the one known here, in an older certificate: a person decides.
    Doubtful,
}

impl Node {
    /// Judges the certificate of somebody who calls, and remembers what is new. A certificate that
    /// is younger than the one known here, with another key, proves that this store went back
    /// behind a replacement: then the key known here is the one that was replaced. Or somebody has
    /// the authority's key; so no certificate of another authority follows from it by itself.
    pub fn judge(&mut self, shown: Certificate, now: Unix) -> Judged {
        if let Some(Revoked { why, .. }) = self.revoked.get(&shown.key) {
            return Judged::Revoked(why.clone());
        }
        match self.certificate {
            Some(known) if known.key != shown.key && known.until >= shown.until => {
                if !self.believed {
                    return Judged::Doubtful;
                }
                self.take_key(shown, now, "a person let another key speak for the node");
            }
            Some(known) if known.key != shown.key => {
                self.take_key(shown, now, "a younger certificate of the node was shown");
                self.unconfirmed_key = Some(now);
            }
            _ => self.certificate = Some(shown),
        }
        Judged::Known
    }

    /// From now on this certificate's key speaks for the node, and no key before it.
    pub fn take_key(&mut self, certificate: Certificate, now: Unix, why: &str) {
        self.revoked.remove(&certificate.key);
        if let Some(old) = self.certificate
            && old.key != certificate.key
        {
            self.revoke(old.key, now, why);
        }
        self.unconfirmed_key = None;
        self.certificate = Some(certificate);
    }

    /// This key may not speak for the node any more.
    pub fn revoke(&mut self, key: [u8; 32], at: Unix, why: &str) {
        let why = why.to_owned();
        self.revoked.entry(key).or_insert(Revoked { at, why });
        while self.revoked.len() > REVOKED {
            let oldest = self.revoked.iter().min_by_key(|(_, revoked)| revoked.at);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                return;
            };
            self.revoked.remove(&oldest);
        }
    }

    /// Whether a new certificate may be issued for this key, by this authority.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn may_renew(&self, key: [u8; 32], authority: [u8; 32]) -> Result<(), String> {
        if let Some((_, by)) = &self.forgotten {
            return Err(format!("node {} was declared gone by {by}", self.name));
        }
        if let Some(Revoked { why, .. }) = self.revoked.get(&key) {
            return Err(format!("the key of node {} was revoked: {why}", self.name));
        }
        match self.certificate {
            Some(known) if known.key != key => {
                let name = &self.name;
                Err(format!("another key speaks for node {name} than this one"))
            }
            Some(known) if self.unconfirmed_key.is_some() && known.authority != authority => {
                Err(format!(
                    "the key of node {} took the place of another one, and the fleet changes its \
                     authority: a person confirms it first",
                    self.name
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Keys that were revoked.
pub type RevokedKeys = BTreeMap<[u8; 32], Revoked>;

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(key: u8, until: i64) -> Certificate {
        Certificate {
            key: [key; 32],
            until: Unix(until),
            authority: [0; 32],
        }
    }

    #[test]
    fn a_key_that_was_replaced_never_speaks_again() {
        let mut node = Node::default();
        assert_eq!(node.judge(certificate(1, 10), Unix(1)), Judged::Known);
        assert_eq!(node.judge(certificate(1, 20), Unix(1)), Judged::Known);
        assert_eq!(node.certificate, Some(certificate(1, 20)));
        assert_eq!(node.judge(certificate(2, 20), Unix(2)), Judged::Doubtful);
        assert!(node.may_renew([2; 32], [0; 32]).is_err());
        node.take_key(certificate(2, 5), Unix(2), "a token was used");
        let refused = node.judge(certificate(1, 90), Unix(3));
        assert_eq!(refused, Judged::Revoked("a token was used".into()));
        assert!(node.may_renew([1; 32], [0; 32]).is_err());
        assert_eq!(node.may_renew([2; 32], [9; 32]), Ok(()));
        // a younger one proves that the store went back
        assert_eq!(node.judge(certificate(3, 6), Unix(4)), Judged::Known);
        assert!(node.revoked.contains_key(&[2; 32]));
        assert_eq!(node.unconfirmed_key, Some(Unix(4)));
        assert_eq!(node.may_renew([3; 32], [0; 32]), Ok(()));
        assert!(node.may_renew([3; 32], [9; 32]).is_err());
        // a person may let a key in again by a token
        node.take_key(certificate(1, 7), Unix(5), "a token was used");
        assert_eq!(node.judge(certificate(1, 7), Unix(6)), Judged::Known);
        assert_eq!(node.may_renew([1; 32], [9; 32]), Ok(()));
        for key in 10..200 {
            node.revoke([key; 32], Unix(key.into()), "");
        }
        assert_eq!(node.revoked.len(), REVOKED);
        assert!(node.revoked.contains_key(&[199; 32]));
    }
}
