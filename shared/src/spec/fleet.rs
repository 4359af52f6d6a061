//! A fleet as a file says it (`fleet.yaml`): the nodes that a rehearsal imagines. Every key and its
//! default stands in `docs/rehearsal.md`.

use super::mistake::{Mistakes, Pos, Sink, nearest};
use super::units;
use super::yaml::{self, Entry, Kind, Node as Tree};
use crate::limits::labels_fit;
use crate::workflow::Resources;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that one file may have.
pub const NODES: usize = 200;
/// What a node may say of itself.
const KEYS: [&str; 7] = ["name", "count", "labels", "cpus", "memory", "disk", "gpus"];
/// Longest name.
const NAME: usize = 63;
/// Most cores or GPUs of a node.
const MOST_CORES: u32 = 4096;

/// A node of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name, unique in the fleet.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What tasks may use.
    pub capacity: Resources,
}

/// All nodes of a file, in its order.
///
/// # Errors
/// All mistakes of the file, each with its place and its mend.
pub fn read(file_name: &str, bytes: &[u8]) -> Result<Vec<Node>, Mistakes> {
    let text = super::utf8(file_name, bytes)?;
    let mut sink = Sink::default();
    let mut nodes = Vec::new();
    if text.trim().is_empty() {
        sink.add(Pos::START, "the file is empty", NO_NODES);
    } else if let Some(root) = yaml::parse(text, &mut sink) {
        for item in list_of_nodes(&root, &mut sink) {
            nodes.extend(read_node(item, &mut sink));
            // each entry may stand for many: a small file is not to become a large fleet
            if nodes.len() > NODES {
                break;
            }
        }
        check_fleet(root.at, &nodes, &mut sink);
    }
    sink.settle(file_name, nodes.into_iter().map(|(_, node)| node).collect())
}

/// The mend of a file that is none.
const NO_NODES: &str = "write `nodes:` and below it a list: `- name: gw-1`";

fn list_of_nodes<'a>(root: &'a Tree, sink: &mut Sink) -> &'a [Tree] {
    let Kind::Map(entries) = &root.kind else {
        let what = format!("a fleet is a map with the key nodes, not {}", root.sort());
        sink.add(root.at, what, NO_NODES);
        return &[];
    };
    let mut found: &[Tree] = &[];
    for entry in entries {
        match (&*entry.key, &entry.value.kind) {
            ("nodes", Kind::List(list)) => found = list,
            ("nodes", _) => {
                let what = format!("nodes is {}, not a list", entry.value.sort());
                sink.add(entry.value.at, what, NO_NODES);
            }
            (other, _) => unknown(entry.at, other, &["nodes"], sink),
        }
    }
    found
}

fn unknown(at: Pos, key: &str, known: &[&'static str], sink: &mut Sink) {
    let mend = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known here: {}", known.join(", ")),
    };
    sink.add(at, format!("unknown key '{key}'"), mend);
}

/// The nodes that one entry of the list stands for.
fn read_node(item: &Tree, sink: &mut Sink) -> Vec<(Pos, Node)> {
    let Kind::Map(entries) = &item.kind else {
        let what = format!("a node is a map, not {}", item.sort());
        sink.add(item.at, what, "write `- name: gw-1`");
        return Vec::new();
    };
    let mut node = Node {
        name: String::new(),
        labels: BTreeMap::new(),
        capacity: Resources {
            cpu_milli: 1000,
            memory: 1 << 30,
            disk: 8 << 30,
            ..Resources::default()
        },
    };
    let mut count = None;
    for entry in entries {
        set(&mut node, &mut count, entry, sink);
    }
    if node.name.is_empty() {
        sink.add(item.at, "a node without a name", "add `name: gw-1`");
        return Vec::new();
    }
    let Some(count) = count else {
        return vec![(item.at, node)];
    };
    let numbered = |n: u32| Node {
        name: format!("{}-{n}", node.name),
        ..node.clone()
    };
    (1..=count).map(|n| (item.at, numbered(n))).collect()
}

fn set(node: &mut Node, count: &mut Option<u32>, entry: &Entry, sink: &mut Sink) {
    let at = entry.value.at;
    if &*entry.key == "labels" {
        node.labels = labels(&entry.value, sink);
        return;
    }
    if !KEYS.contains(&&*entry.key) {
        unknown(entry.at, &entry.key, &KEYS, sink);
        return;
    }
    let Kind::Scalar(text) = &entry.value.kind else {
        let what = format!("{} is {}", entry.key, entry.value.sort());
        sink.add(at, what, "write a single value");
        return;
    };
    let read = match &*entry.key {
        "name" => name(text).map(|name| node.name = name),
        "count" => whole(text, NODES as u32).map(|n| *count = Some(n)),
        "cpus" => cores(text).map(|milli| node.capacity.cpu_milli = milli),
        "gpus" => cores(text).map(|milli| node.capacity.gpu_milli = milli),
        "memory" => units::size(text).map(|bytes| node.capacity.memory = bytes),
        _ => units::size(text).map(|bytes| node.capacity.disk = bytes),
    };
    if let Err((what, mend)) = read {
        sink.add(at, what, mend);
    }
}

type Wrong = (String, String);

fn name(text: &str) -> Result<String, Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !text.is_empty() && text.len() <= NAME && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err((
            format!("'{text}' is no name of a node"),
            format!("use letters, digits, - _ and . only, {NAME} at most"),
        )),
    }
}

fn whole(text: &str, most: u32) -> Result<u32, Wrong> {
    let number = text.parse().ok().filter(|n| (1..=most).contains(n));
    let wrong = || {
        (
            format!("'{text}' is no such number"),
            format!("1 to {most}"),
        )
    };
    number.ok_or_else(wrong)
}

/// Thousandths of a number of cores.
fn cores(text: &str) -> Result<u32, Wrong> {
    let most = u64::from(MOST_CORES) * 1000;
    let milli = units::thousandths(text).filter(|milli| *milli <= most);
    let wrong = || {
        let what = format!("'{text}' is no number of cores");
        (what, format!("write 2 or 0.5, at most {MOST_CORES}"))
    };
    milli
        .and_then(|milli| u32::try_from(milli).ok())
        .ok_or_else(wrong)
}

fn labels(value: &Tree, sink: &mut Sink) -> BTreeMap<String, String> {
    let Kind::Map(entries) = &value.kind else {
        let what = format!("labels is {}, not a map", value.sort());
        sink.add(value.at, what, "write `labels: {site: north}`");
        return BTreeMap::new();
    };
    let mut labels = BTreeMap::new();
    for entry in entries {
        match &entry.value.kind {
            Kind::Scalar(text) => {
                labels.insert(entry.key.to_string(), text.to_string());
            }
            _ => {
                let what = format!("the label {} is {}", entry.key, entry.value.sort());
                sink.add(entry.value.at, what, "write a single value");
            }
        }
    }
    labels
}

/// What concerns more than one key.
fn check_fleet(start: Pos, nodes: &[(Pos, Node)], sink: &mut Sink) {
    if nodes.is_empty() && sink.count() == 0 {
        sink.add(
            start,
            "a fleet without nodes",
            "add `nodes: [{name: gw-1}]`",
        );
    }
    if nodes.len() > NODES {
        let what = format!("{} nodes, at most {NODES} can be rehearsed", nodes.len());
        sink.add(
            start,
            what,
            "take a part of the fleet that stands for the rest",
        );
    }
    let mut names = BTreeSet::new();
    for (at, node) in nodes {
        if !names.insert(&node.name) {
            let what = format!("two nodes have the name '{}'", node.name);
            sink.add(*at, what, "names of nodes are unique in a fleet");
        }
        if !labels_fit(&node.labels) {
            let what = format!("'{}' has too many or too long labels", node.name);
            sink.add(*at, what, "leave some out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_defaults_and_may_stand_for_some() {
        let text = "
nodes:
  - name: press
    labels: {site: north, role: press}
    cpus: 2.5
    memory: 512MiB
    disk: 2GiB
  - {name: oven, count: 2, gpus: 1}
";
        let nodes = read("fleet.yaml", text.as_bytes()).unwrap();
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["press", "oven-1", "oven-2"]);
        let [press, oven] = [&nodes[0], &nodes[1]].map(|node| node.capacity.clone());
        assert_eq!((press.cpu_milli, press.memory), (2500, 512 << 20));
        assert_eq!((oven.cpu_milli, oven.gpu_milli), (1000, 1000));
        assert_eq!(nodes[0].labels["site"], "north");
    }

    #[test]
    fn mistakes_have_their_places() {
        let texts = [
            ("", "the file is empty"),
            ("5", "a map with the key nodes"),
            ("nodes: []", "a fleet without nodes"),
            ("node: []", "unknown key 'node'"),
            ("nodes: {a: 1}", "nodes is a map, not a list"),
            ("nodes: [a]", "a node is a map"),
            ("nodes: [{cpus: 1}]", "a node without a name"),
            ("nodes: [{name: 'a b'}]", "no name of a node"),
            ("nodes: [{name: a, nmae: b}]", "unknown key 'nmae'"),
            (
                "nodes: [{name: a}, {name: a}]",
                "two nodes have the name 'a'",
            ),
            ("nodes: [{name: a, count: 0}]", "no such number"),
            ("nodes: [{name: a, count: 201}]", "no such number"),
            (
                "nodes: [{name: a, count: 150}, {name: b, count: 150}]",
                "300 nodes",
            ),
            ("nodes: [{name: a, memory: 5}]", "has no unit"),
            ("nodes: [{name: a, cpus: many}]", "no number of cores"),
            ("nodes: [{name: a, labels: b}]", "labels is a single value"),
            (
                "nodes: [{name: a, labels: {b: []}}]",
                "the label b is a list",
            ),
            ("nodes: [{name: []}]", "name is a list"),
        ];
        for (text, wanted) in texts {
            let mistakes = read("fleet.yaml", text.as_bytes()).unwrap_err().to_string();
            assert!(mistakes.contains(wanted), "{text}: {mistakes}");
            assert!(mistakes.starts_with("fleet.yaml:1:"), "{mistakes}");
        }
    }
}
