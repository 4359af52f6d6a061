//! What people say of a node: a closed list.

use serde::{Deserialize, Serialize};
use shared::taint::Taint;
use std::collections::BTreeMap;

/// What a person says of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeChange {
    /// It is given no new work.
    Cordon,
    /// It is given work again; ends a drain, too.
    Uncordon,
    /// Labels over those that it says itself; none takes one away.
    Label(BTreeMap<String, Option<String>>),
    /// Taints to add (of a key that is there: to replace), and keys of those to remove.
    Taint {
        /// To add.
        add: Vec<Taint>,
        /// To remove.
        remove: Vec<String>,
    },
}

impl NodeChange {
    /// Its name in the audit record, and what it says.
    pub(crate) fn told(&self) -> (&'static str, String) {
        match self {
            Self::Cordon => ("node cordon", String::new()),
            Self::Uncordon => ("node uncordon", String::new()),
            Self::Label(set) => {
                let words = set.iter().map(|(name, value)| match value {
                    Some(value) => format!("{name}={value}"),
                    None => format!("{name}-"),
                });
                ("node label", words.collect::<Vec<_>>().join(" "))
            }
            Self::Taint { add, remove } => {
                let added = add.iter().map(ToString::to_string);
                let words = added.chain(remove.iter().map(|key| format!("{key}-")));
                ("node taint", words.collect::<Vec<_>>().join(" "))
            }
        }
    }
}
