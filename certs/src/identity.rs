//! Who a certificate speaks for: its role, the node id and name, its validity; and why one is
//! refused.

use crate::hex;
use ring::digest;
use rustls::pki_types::CertificateDer;
use shared::ids::NodeId;
use shared::time::Unix;
use std::fmt;
use std::str::FromStr;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const COORDINATOR_URI: &str = "driftless://coordinator";
const NODE_URI: &str = "driftless://node/";
/// Longest name of a node: what fits into a label of the domain name system.
const NAME_CHARS: usize = 63;

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` shows it. Written as 64 digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of the certificate with this DER encoding.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(sha256(&[der]))
    }
}
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
impl FromStr for Fingerprint {
    type Err = hex::HexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::parse(text).map(Self)
    }
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// What the authority lets the holder of a certificate be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The coordinator.
    Coordinator,
    /// The node with this id.
    Node(NodeId),
}

impl Role {
    /// The URI in the certificate.
    #[must_use]
    pub fn uri(self) -> String {
        match self {
            Self::Coordinator => COORDINATOR_URI.to_owned(),
            Self::Node(id) => format!("{NODE_URI}{id}"),
        }
    }

    fn parse(uri: &str) -> Option<Self> {
        if uri == COORDINATOR_URI {
            return Some(Self::Coordinator);
        }
        uri.strip_prefix(NODE_URI)?.parse().ok().map(Self::Node)
    }
}

/// Why a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another authority issued it.
    #[error("the certificate is foreign: the authority of this fleet did not issue it")]
    Foreign,
    /// The authority that the token names is not among the certificates presented.
    #[error(
        "no certificate presented has the fingerprint {wanted} that the token names: another \
         coordinator answers at this address, the token is of another fleet, or the fleet has \
         changed its authority since the token was made"
    )]
    WrongFingerprint {
        /// The fingerprint in the token.
        wanted: Fingerprint,
    },
    /// It is genuine, but for another role.
    #[error("the certificate is for {found}, and only {wanted} may answer here")]
    WrongRole {
        /// `coordinator` or `node`.
        wanted: &'static str,
        /// What it is for.
        found: String,
    },
    /// Its time is over.
    #[error("the certificate expired at {} ms since 1970, by this clock it is {}", .since.0, .now.0)]
    Expired {
        /// End of validity.
        since: Unix,
        /// The time it was judged at.
        now: Unix,
    },
    /// Its time has not come: the clock is behind.
    #[error(
        "the certificate is valid from {} ms since 1970 and by this clock it is {}: set the clock",
        .from.0, .now.0
    )]
    NotYetValid {
        /// Start of validity.
        from: Unix,
        /// The time it was judged at.
        now: Unix,
    },
    /// Not a certificate of ours, or not one at all.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// Anything else that the checks find.
    #[error("the certificate is not acceptable: {0}")]
    Other(String),
}

/// What stands in a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Its role.
    pub role: Role,
    /// The node's name, or `coordinator`.
    pub name: String,
    /// SHA-256 of the public key.
    pub key: [u8; 32],
    /// Start of validity.
    pub from: Unix,
    /// End of validity.
    pub until: Unix,
}

impl Subject {
    /// Reads a certificate. Its signature is not checked here.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn read(der: &[u8]) -> Result<Self, Refusal> {
        let malformed = |what: &str| Refusal::Malformed(what.to_owned());
        let (rest, cert) =
            X509Certificate::from_der(der).map_err(|error| malformed(&error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow the certificate"));
        }
        let name = cert
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .ok_or_else(|| malformed("it has no common name"))?
            .to_owned();
        let mut roles = uris(&cert).into_iter().filter_map(Role::parse);
        let (Some(role), None) = (roles.next(), roles.next()) else {
            return Err(malformed(
                "it names not exactly one role in a driftless:// URI",
            ));
        };
        let validity = cert.validity();
        let ms = |seconds: i64| Unix(seconds.saturating_mul(1000));
        Ok(Self {
            role,
            name,
            key: sha256(&[cert.public_key().raw]),
            from: ms(validity.not_before.timestamp()),
            until: ms(validity.not_after.timestamp()),
        })
    }

    /// When the holder should renew: after two thirds of the validity that was left at `issued`.
    #[must_use]
    pub fn renew_at(&self, issued: Unix) -> Unix {
        let left = self.until.0.saturating_sub(issued.0).max(0);
        Unix(issued.0.saturating_add(left / 3 * 2))
    }
}

fn uris<'a>(cert: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let Ok(Some(names)) = cert.subject_alternative_name() else {
        return Vec::new();
    };
    let uri = |name: &GeneralName<'a>| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

/// Who is at the other end of a connection that the coordinator has accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Nobody known: may do one thing, enrol.
    Anonymous,
    /// A node with a valid certificate.
    Node(Caller),
    /// A node whose certificate expired less than the grace period ago: may do one thing, renew.
    Expired(Caller),
}

/// A node that dialled, as its certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// End of its certificate's validity.
    pub until: Unix,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
}

impl Peer {
    /// The peer that presented `chain` in a handshake which the settings of [`crate::server`]
    /// accepted.
    ///
    /// # Errors
    /// [`Refusal`] for a chain that those settings cannot have accepted.
    pub fn of(chain: Option<&[CertificateDer<'_>]>, now: Unix) -> Result<Self, Refusal> {
        let Some(leaf) = chain.and_then(<[_]>::first) else {
            return Ok(Self::Anonymous);
        };
        let subject = Subject::read(leaf)?;
        let Role::Node(id) = subject.role else {
            return Err(Refusal::WrongRole {
                wanted: "node",
                found: subject.role.uri(),
            });
        };
        let caller = Caller {
            id,
            name: subject.name,
            key: subject.key,
            until: subject.until,
            certificate: leaf.clone().into_owned(),
        };
        Ok(if now > subject.until {
            Self::Expired(caller)
        } else {
            Self::Node(caller)
        })
    }
}

/// What is wrong with a node's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or too long.
    #[error("a node's name has 1 to 63 characters, this has {0}")]
    Length(usize),
    /// A character that names do not have.
    #[error("'{0}' cannot stand in a node's name: letters, digits, '-', '_' and '.' can")]
    Character(char),
    /// A first character that would be taken for an option or a hidden file.
    #[error("a node's name begins with a letter or a digit, not with '{0}'")]
    First(char),
}

/// Whether `name` can be a node's name.
///
/// # Errors
/// [`NameError`].
pub fn check_name(name: &str) -> Result<(), NameError> {
    let count = name.chars().count();
    if count == 0 || count > NAME_CHARS {
        return Err(NameError::Length(count));
    }
    let known = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    if let Some(c) = name.chars().find(|c| !known(c)) {
        return Err(NameError::Character(c));
    }
    match name.chars().next().filter(|c| !c.is_ascii_alphanumeric()) {
        Some(c) => Err(NameError::First(c)),
        None => Ok(()),
    }
}
