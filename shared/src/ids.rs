//! Identities. Random ones are 128 bits and are drawn by shells (cores get them in events).

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// What is wrong with the text of an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Wrong number of hexadecimal digits.
    #[error("an id has {expected} hexadecimal digits, this has {found}")]
    Length {
        /// Digits wanted.
        expected: usize,
        /// Digits found.
        found: usize,
    },
    /// Not a hexadecimal digit.
    #[error("'{0}' is not a hexadecimal digit")]
    Digit(char),
    /// A content hash without `blake3:` before it.
    #[error("a hash is written blake3:HEX")]
    Algorithm,
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn parse_hex<const N: usize>(s: &str) -> Result<[u8; N], ParseIdError> {
    if let Some(c) = s.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(ParseIdError::Digit(c));
    }
    if s.len() != 2 * N {
        return Err(ParseIdError::Length {
            expected: 2 * N,
            found: s.len(),
        });
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(s.as_bytes().chunks(2)) {
        let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Ok(out)
}

/// Bytes where machines read (records, frames), text where people may (JSON).
macro_rules! text_in_json {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() {
                    to.collect_str(self)
                } else {
                    self.0.serialize(to)
                }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let text = String::deserialize(from)?;
                    text.parse().map_err(D::Error::custom)
                } else {
                    Deserialize::deserialize(from).map(Self)
                }
            }
        }
    };
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        text_in_json!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                parse_hex(s).map(Self)
            }
        }
    };
}

random_id! {
    /// One execution of a workflow. Written as 32 hexadecimal digits.
    RunId
}
random_id! {
    /// An agent's identity; stands in its certificate and outlives its data directory.
    NodeId
}
random_id! {
    /// The life of one data directory of a node (a re-imaged gateway has a new one).
    Incarnation
}
random_id! {
    /// A schedule, through all its revisions and owners.
    ScheduleId
}
random_id! {
    /// The kernel's boot id of a machine; a new one after each reboot.
    BootId
}

/// A BLAKE3-256 digest: of a file's content, of a workflow, or of a log up to an entry. Written
/// `blake3:HEX`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

text_in_json!(Hash);

impl Hash {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Takes content piece by piece.
    #[must_use]
    pub fn hasher() -> Hasher {
        Hasher(blake3::Hasher::new())
    }

    /// The digits alone, as used in file names.
    #[must_use]
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// A digest under way.
#[derive(Clone, Debug)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blake3:")?;
        write_hex(f, &self.0)
    }
}
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(")?;
        write_hex(f, &self.0[..6])?;
        f.write_str("…)")
    }
}
impl FromStr for Hash {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        parse_hex(s.strip_prefix("blake3:").ok_or(ParseIdError::Algorithm)?).map(Self)
    }
}

/// A task's position in its compiled workflow (`Workflow::tasks`).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct TaskIdx(pub u32);

/// Fencing token of a slice: the generation in the high 32 bits, the next number of a counter of
/// the run in the low ones. Drawn at every assignment, so it only grows for each task.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// That of a run that was submitted at a gateway, which stays there.
    pub const LOCAL: Self = Self(0);

    /// The epoch numbered `counter` within `generation`.
    #[must_use]
    pub fn new(generation: Generation, counter: u32) -> Self {
        Self(generation.0 << 32 | u64::from(counter))
    }

    /// The life of the coordinator's store in which it was drawn.
    #[must_use]
    pub fn generation(self) -> Generation {
        Generation(self.0 >> 32)
    }
}
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A life of the coordinator's store, below 2^32: max(stored + 1, wall clock in seconds) at each
/// start.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

/// A slice of a run at one epoch: what a fact speaks of, and what makes it count or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SliceRef {
    /// The run that the slice is a part of.
    pub run: RunId,
    /// Number of the slice within its run, from 0.
    pub slice: u32,
    /// Fencing token.
    pub epoch: Epoch,
}

/// One try at one task. Numbers start at 1 in each epoch and are never used again in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct AttemptRef {
    /// The slice that the task belongs to.
    pub slice: SliceRef,
    /// The task.
    pub task: TaskIdx,
    /// 1, 2, 3, … within the epoch.
    pub number: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_hashes_survive_their_text() {
        let run = RunId([0xa7; 16]);
        assert_eq!(run.to_string().parse(), Ok(run));
        let hash = Hash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!("zz".parse::<RunId>(), Err(ParseIdError::Digit('z')));
        assert_eq!(
            "ab".parse::<RunId>(),
            Err(ParseIdError::Length {
                expected: 32,
                found: 2
            })
        );
        assert_eq!("ab".parse::<Hash>(), Err(ParseIdError::Algorithm));
    }

    #[test]
    fn ids_are_bytes_in_records_and_text_in_json() {
        let (run, hash) = (RunId([0xa7; 16]), Hash([0xb8; 32]));
        assert_eq!(crate::codec::encode(&run), [0xa7; 16]);
        assert_eq!(crate::codec::encode(&hash), [0xb8; 32]);
        assert_eq!(crate::codec::decode(&[0xb8; 32]), Ok(hash));
        let text = serde_json::to_string(&(run, hash)).unwrap();
        assert_eq!(text, format!("[\"{run}\",\"{hash}\"]"));
        assert_eq!(
            serde_json::from_str::<(RunId, Hash)>(&text).unwrap(),
            (run, hash)
        );
        assert!(serde_json::from_str::<RunId>("\"ab\"").is_err());
    }
}
