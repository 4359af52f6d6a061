//! Settings: changed at the fleet, told to the nodes whose merged ones differ from what they were
//! told.

use super::Engine;
use super::requests::{Answered, no_node};
use crate::event::{Refused, Reply, Request};
use crate::node::Node;
use crate::settings::{Scope, Settings};
use crate::store::{AggregateId, Store};
use crate::view;
use shared::config::scheduler::Scheduler;
use shared::ids::NodeId;
use std::collections::BTreeMap;

impl<S: Store> Engine<S> {
    /// All nodes are looked at: something changed that may concern each.
    pub(super) fn configure_all(&mut self) {
        self.configure.extend(self.nodes.keys().copied());
    }

    /// Tells nodes what changed for them. Nothing is lost with a crash in between: after the next
    /// start all are compared again.
    pub(super) fn configure_nodes(&mut self) {
        for id in std::mem::take(&mut self.configure) {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            let merged = Settings::merged(&self.layers(Some(id), &node.all_labels()));
            if !node.wants(merged) {
                continue;
            }
            let now = (self.now.wall, self.fleet.generation);
            let fx = self.effects.entry(AggregateId::Node(id)).or_default();
            if let Some(node) = self.nodes.get_mut(&id) {
                node.configure(id, now, merged, fx);
            }
        }
    }

    fn layers(
        &self,
        node: Option<NodeId>,
        labels: &BTreeMap<String, String>,
    ) -> Vec<(String, Scheduler)> {
        let configured = self.config.scheduler;
        self.fleet.settings.layers(node, labels, configured)
    }

    /// Changes a setting, or says what is set.
    pub(super) fn settings(&mut self, request: &Request) -> Answered {
        match request {
            Request::Configure {
                scope, name, value, ..
            } => {
                self.known_scope(scope)?;
                let done = self.fleet.settings.change(scope, name, value.as_deref())?;
                self.effects.entry(AggregateId::Fleet).or_default();
                self.configure_all();
                Ok(done)
            }
            Request::Settings { scope } => {
                self.known_scope(scope)?;
                Ok(Reply::Settings(self.view_settings(scope)))
            }
            _ => Err(Refused::Malformed("not a request".to_owned())),
        }
    }

    fn known_scope(&self, scope: &Scope) -> Result<(), Refused> {
        match scope {
            Scope::Node(node) if !self.nodes.contains_key(node) => Err(no_node(&node.to_string())),
            _ => Ok(()),
        }
    }

    /// What holds for a scope, and whether the node has confirmed it.
    pub(super) fn view_settings(&self, scope: &Scope) -> view::Settings {
        let none = BTreeMap::new();
        let layers = match scope {
            Scope::Fleet => self.layers(None, &none),
            Scope::Label { key, value } => {
                let label = BTreeMap::from([(key.clone(), value.clone())]);
                self.layers(None, &label)
            }
            Scope::Node(id) => {
                let labels = self.nodes.get(id).map(Node::all_labels);
                self.layers(Some(*id), &labels.unwrap_or_default())
            }
        };
        let confirmed = match scope {
            Scope::Node(id) => self.nodes.get(id).map(|node| {
                let merged = Settings::merged(&layers);
                let told = node.settings == merged && !node.wants(merged);
                told && node.settings_by <= node.confirmed
            }),
            _ => None,
        };
        let settings = Settings::resolved(&layers).into_iter();
        let settings = settings.map(|(key, value, from)| view::Setting {
            key: key.to_owned(),
            value,
            from,
        });
        view::Settings {
            settings: settings.collect(),
            confirmed,
        }
    }
}
