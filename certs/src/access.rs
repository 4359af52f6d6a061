//! Access tokens: what people and programs show to the API. The coordinator keeps a hash of each;
//! the text exists once, when the token is made.

use crate::hex;
use crate::identity::sha256;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;

const PREFIX: &str = "dfa1";

/// A token for the API: an id, which is no secret, and a secret of 256 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    id: [u8; 8],
    secret: [u8; 32],
}

impl AccessToken {
    /// A new token.
    ///
    /// # Panics
    /// When the operating system has no random numbers: nothing can be secret then.
    #[must_use]
    pub fn create() -> Self {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        for bytes in [&mut id[..], &mut secret[..]] {
            SystemRandom::new()
                .fill(bytes)
                .expect("the system's random numbers are always there");
        }
        Self { id, secret }
    }

    /// Reads the text of a token; none if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text
            .strip_prefix(PREFIX)?
            .strip_prefix('-')?
            .split_once('-')?;
        Some(Self {
            id: hex::parse(id).ok()?,
            secret: hex::parse(secret).ok()?,
        })
    }

    /// The text to hand out, once. A secret.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}-{}-{}", self.id(), hex::text(&self.secret))
    }

    /// Its name in lists and logs; no secret.
    #[must_use]
    pub fn id(&self) -> String {
        hex::text(&self.id)
    }

    /// What is kept of it: SHA-256 over the id and the secret. The secret has 256 random bits, so
    /// there is nothing to guess and no salt is needed.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[b"driftless access 1", &self.id, &self.secret])
    }

    /// Whether `kept` is the hash of this token, in a time that does not depend on where they
    /// differ.
    #[must_use]
    pub fn fits(&self, kept: &[u8; 32]) -> bool {
        let ours = self.hash();
        let differ = ours.iter().zip(kept).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differ) == 0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_fits_its_own_hash_alone() {
        let (one, other) = (AccessToken::create(), AccessToken::create());
        assert_eq!(AccessToken::parse(&one.text()), Some(one.clone()));
        assert!(one.fits(&one.hash()) && !one.fits(&other.hash()));
        assert!(!format!("{one:?}").contains(&hex::text(&one.secret)));
        let text = one.text();
        for wrong in [
            "",
            "dfa1",
            "dfa1--",
            "dft1-0-0",
            &text[1..],
            &text[..text.len() - 1],
        ] {
            assert_eq!(AccessToken::parse(wrong), None, "{wrong}");
        }
        assert_eq!(AccessToken::parse(&format!("{text}0")), None);
    }
}
