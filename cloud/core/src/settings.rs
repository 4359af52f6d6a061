//! Settings of the fleet, of labels and of single nodes: what holds where specifications say
//! nothing.

use crate::event::{About, Action, Refused, Reply, Request};
use serde::{Deserialize, Serialize};
use shared::config::scheduler::{KEYS, Scheduler};
use shared::ids::NodeId;
use std::collections::BTreeMap;

/// Labels with settings, at most.
const LABELS: usize = 1000;

/// For whom a setting holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// All nodes.
    Fleet,
    /// Nodes with this label.
    Label {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// One node.
    Node(NodeId),
}

/// What the audit record says of a change.
pub(crate) fn action(request: &Request) -> Option<Action<'_>> {
    let Request::Configure {
        scope,
        name,
        value,
        by,
    } = request
    else {
        return None;
    };
    let what = format!("{name}={}", value.as_deref().unwrap_or("(unset)"));
    let (about, detail) = match scope {
        Scope::Fleet => (About::Name("fleet"), what),
        Scope::Label { key, value } => (About::Name("label"), format!("{key}={value}: {what}")),
        Scope::Node(node) => (About::Node(*node), what),
    };
    Some(Action {
        what: "config set",
        about,
        by: Some(by),
        detail,
    })
}

/// What people set, stored with the fleet.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// For all nodes.
    pub fleet: Scheduler,
    /// By label, `key=value`.
    pub labels: BTreeMap<String, Scheduler>,
    /// For single nodes.
    pub nodes: BTreeMap<NodeId, Scheduler>,
}

impl Settings {
    /// Sets or unsets a key.
    ///
    /// # Errors
    /// [`Refused::Malformed`] with the mend.
    pub fn change(
        &mut self,
        scope: &Scope,
        name: &str,
        value: Option<&str>,
    ) -> Result<Reply, Refused> {
        let mut set = self.of(scope);
        set.change(name, value)
            .map_err(|(what, mend)| Refused::Malformed(format!("{what}; {mend}")))?;
        match scope {
            Scope::Fleet => self.fleet = set,
            Scope::Label { key, value } => {
                let label = format!("{key}={value}");
                if self.labels.len() >= LABELS && !self.labels.contains_key(&label) {
                    let text = format!("{LABELS} labels have settings already; unset one first");
                    return Err(Refused::NoRoom(text));
                }
                self.labels.insert(label, set);
            }
            Scope::Node(node) => drop(self.nodes.insert(*node, set)),
        }
        self.labels.retain(|_, set| !set.is_empty());
        self.nodes.retain(|_, set| !set.is_empty());
        Ok(Reply::Done)
    }

    /// What is set for exactly this scope.
    #[must_use]
    pub fn of(&self, scope: &Scope) -> Scheduler {
        match scope {
            Scope::Fleet => self.fleet,
            Scope::Label { key, value } => {
                let label = format!("{key}={value}");
                self.labels.get(&label).copied().unwrap_or_default()
            }
            Scope::Node(node) => self.nodes.get(node).copied().unwrap_or_default(),
        }
    }

    /// The layers that hold for a node, the strongest first: its own, those of its labels (the last
    /// in the order of the alphabet first), the fleet's, and what the coordinator was configured
    /// with.
    #[must_use]
    pub fn layers(
        &self,
        node: Option<NodeId>,
        labels: &BTreeMap<String, String>,
        configured: Scheduler,
    ) -> Vec<(String, Scheduler)> {
        let own = node.and_then(|node| self.nodes.get(&node));
        let mut layers: Vec<_> = own
            .map(|set| ("node".to_owned(), *set))
            .into_iter()
            .collect();
        for (key, value) in labels.iter().rev() {
            let label = format!("{key}={value}");
            if let Some(set) = self.labels.get(&label) {
                layers.push((format!("label {label}"), *set));
            }
        }
        layers.push(("fleet".to_owned(), self.fleet));
        layers.push(("configuration".to_owned(), configured));
        layers
    }

    /// The value of each key with where it comes from: by `layers`, else the default.
    #[must_use]
    pub fn resolved(layers: &[(String, Scheduler)]) -> Vec<(&'static str, String, String)> {
        let default = [("default".to_owned(), Scheduler::DEFAULT)];
        let all = || layers.iter().chain(&default);
        let found = KEYS.iter().filter_map(|key| {
            let name = key.name.strip_prefix("scheduler.").unwrap_or(key.name);
            let set = |(from, set): &(String, Scheduler)| {
                Some((name, set.texts().remove(name)?, from.clone()))
            };
            all().find_map(set)
        });
        found.collect()
    }

    /// What a node is told.
    #[must_use]
    pub fn merged(layers: &[(String, Scheduler)]) -> Scheduler {
        let under = |set: Scheduler, (_, layer): &(String, Scheduler)| set.over(*layer);
        layers.iter().fold(Scheduler::default(), under)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_wins_over_its_labels_those_over_the_fleet_and_that_over_the_file() {
        let node = NodeId([7; 16]);
        let label = |value: &str| Scope::Label {
            key: "site".to_owned(),
            value: value.to_owned(),
        };
        let mut settings = Settings::default();
        let mut set = |scope: &Scope, name, value| settings.change(scope, name, value);
        set(&Scope::Fleet, "max_retries", Some("1")).unwrap();
        set(&label("a"), "max_retries", Some("2")).unwrap();
        set(&label("b"), "backoff_duration", Some("9s")).unwrap();
        set(&Scope::Node(node), "backoff_duration", Some("7s")).unwrap();
        assert!(set(&Scope::Fleet, "max_retry", Some("1")).is_err());
        let labels = BTreeMap::from([("site".to_owned(), "a".to_owned())]);
        let layers = settings.layers(Some(node), &labels, Scheduler::DEFAULT);
        let resolved = Settings::resolved(&layers);
        let of = |name| resolved.iter().find(|(key, ..)| *key == name).unwrap();
        assert_eq!(of("max_retries").1, "2");
        assert_eq!(of("max_retries").2, "label site=a");
        assert_eq!(
            (&*of("backoff_duration").1, &*of("backoff_duration").2),
            ("7s", "node")
        );
        assert_eq!(of("resource_monitor_interval").2, "configuration");
        settings
            .change(&Scope::Node(node), "backoff_duration", None)
            .unwrap();
        assert!(settings.nodes.is_empty());
    }
}
