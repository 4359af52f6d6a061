//! Taints: what keeps work off a node unless the work says that it does not mind.

use crate::workflow::Placement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// An agent tells its taints among its labels, under names that begin so.
pub const LABEL: &str = "taint.";
/// Taints of one node.
pub const MOST: usize = 64;

/// What a taint does to a task that does not tolerate it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Effect {
    /// It is not placed there.
    Refuse,
    /// It is placed there only if no other node fits.
    Avoid,
}

impl Effect {
    /// As it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Avoid => "avoid",
        }
    }
}

/// A taint, written `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Taint {
    /// What it is called.
    pub key: String,
    /// Empty if it has none.
    pub value: String,
    /// What it does.
    pub effect: Effect,
}

/// Not a taint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no taint; write KEY=VALUE:EFFECT or KEY:EFFECT with the effect refuse or avoid, and a \
     key and value of up to 64 letters, digits, '-', '_' and '.'"
)]
pub struct NoTaint(String);

fn word(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= 64 && text.bytes().all(fine)
}

/// Whether `text` can be the key of a taint.
#[must_use]
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && word(text)
}

impl FromStr for Taint {
    type Err = NoTaint;
    fn from_str(text: &str) -> Result<Self, NoTaint> {
        let wrong = || NoTaint(text.chars().take(80).collect());
        let (name, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (key, value) = name.split_once('=').unwrap_or((name, ""));
        let effect = match effect {
            "refuse" => Effect::Refuse,
            "avoid" => Effect::Avoid,
            _ => return Err(wrong()),
        };
        if !is_key(key) || !word(value) {
            return Err(wrong());
        }
        let (key, value) = (key.to_owned(), value.to_owned());
        Ok(Self { key, value, effect })
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, effect } = self;
        let equals = if value.is_empty() { "" } else { "=" };
        write!(f, "{key}{equals}{value}:{}", effect.text())
    }
}

impl Taint {
    /// The label that tells it.
    #[must_use]
    pub fn label(&self) -> (String, String) {
        let Self { key, value, effect } = self;
        (
            format!("{LABEL}{key}"),
            format!("{value}:{}", effect.text()),
        )
    }

    /// Whether a task with this placement tolerates it: by `KEY=VALUE`, by `KEY` whatever the
    /// value, or by `*`.
    #[must_use]
    pub fn tolerated(&self, placement: &Placement) -> bool {
        placement.tolerations.iter().any(|text| {
            let exact = || text.split_once('=') == Some((&self.key, &self.value));
            text == "*" || *text == self.key || exact()
        })
    }
}

/// The taints that a node tells among its labels. One that cannot be read counts as one that
/// refuses, since it was meant to keep work away.
#[must_use]
pub fn among(labels: &BTreeMap<String, String>) -> Vec<Taint> {
    let told = labels.iter().filter_map(|(name, told)| {
        let key = name.strip_prefix(LABEL)?;
        let read = match told.rsplit_once(':') {
            Some(("", effect)) => format!("{key}:{effect}").parse(),
            _ => format!("{key}={told}").parse(),
        };
        Some(read.unwrap_or_else(|_| Taint {
            key: key.to_owned(),
            value: String::new(),
            effect: Effect::Refuse,
        }))
    });
    told.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_is_read_as_it_is_written_also_from_a_label() {
        for text in ["gpu:refuse", "team=cold:avoid", "a.b=c.d:refuse"] {
            let taint: Taint = text.parse().unwrap();
            assert_eq!(taint.to_string(), text);
            let label = taint.label();
            assert_eq!(among(&[label].into()), [taint]);
        }
        for bad in [
            "",
            "gpu",
            "gpu:",
            ":refuse",
            "a b:refuse",
            "k=v:never",
            "k=é:avoid",
        ] {
            let error = bad.parse::<Taint>().unwrap_err().to_string();
            assert!(error.contains("KEY=VALUE:EFFECT"), "{error}");
        }
        let odd = [("taint.k".to_owned(), "no effect".to_owned())].into();
        assert_eq!(among(&odd)[0].effect, Effect::Refuse);
    }

    #[test]
    fn tolerations_name_a_key_a_value_or_all() {
        let taint: Taint = "team=cold:refuse".parse().unwrap();
        let with = |text: &str| Placement {
            tolerations: vec![text.to_owned()],
            ..Placement::default()
        };
        for (text, good) in [
            ("team", true),
            ("team=cold", true),
            ("*", true),
            ("team=hot", false),
            ("other", false),
        ] {
            assert_eq!(taint.tolerated(&with(text)), good, "{text}");
        }
        assert!(!taint.tolerated(&Placement::default()));
    }
}
