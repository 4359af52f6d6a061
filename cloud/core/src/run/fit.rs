//! Which nodes a task may run on, and if none: why, for people.

use super::place::Candidate;
use shared::taint::Effect;
use shared::workflow::{Task, Workflow};

/// Which candidates a task may run on: those of its placement that offer enough. Offline ones only
/// if it names them. On none: why, for people.
pub(crate) fn fits(task: &Task, nodes: &[Candidate]) -> Result<Vec<usize>, String> {
    let place = &task.placement;
    let wanted = |n: &Candidate| {
        place.node.as_ref().is_none_or(|name| *name == n.name)
            && place.labels.iter().all(|(k, v)| n.labels.get(k) == Some(v))
            && place
                .site
                .as_ref()
                .is_none_or(|site| n.labels.get("site") == Some(site))
    };
    let asked: Vec<usize> = (0..nodes.len()).filter(|i| wanted(&nodes[*i])).collect();
    if asked.is_empty() {
        return Err(match &place.node {
            Some(name) => format!("no usable node is named {name}"),
            None => "no usable node has the labels that it asks for".to_owned(),
        });
    }
    let tolerated = none_left(asked, |i| {
        let mut taints = nodes[i].taints.iter();
        let taint = taints.find(|t| t.effect == Effect::Refuse && !t.tolerated(place))?;
        let name = &nodes[i].name;
        Some(format!(
            "{name} has the taint {taint}, which it does not tolerate"
        ))
    })?;
    let able = none_left(tolerated, |i| {
        let (what, want, have) = nodes[i].capacity.lacks(&task.resources)?;
        let name = &nodes[i].name;
        Some(format!(
            "it asks for {want} of {what}, {name} offers {have}"
        ))
    })?;
    let able = none_left(able, |i| nodes[i].refused.clone())?;
    let online: Vec<usize> = able.iter().copied().filter(|i| nodes[*i].online).collect();
    // a node that was silent for too long already would lose what it is given at once, again and
    // again
    let patient = |i: &usize| {
        let limit = task.disconnect.lost_after;
        limit.is_none_or(|limit| nodes[*i].silence < limit)
    };
    if !online.is_empty() {
        Ok(online)
    } else if place.node.is_some() && able.iter().any(patient) {
        Ok(able.into_iter().filter(patient).collect())
    } else {
        Err("every node that fits is offline".to_owned())
    }
}

/// Those against which nothing speaks; if that is none of them, what speaks against one.
fn none_left(
    nodes: Vec<usize>,
    against: impl Fn(usize) -> Option<String>,
) -> Result<Vec<usize>, String> {
    let mut why = None;
    let left: Vec<usize> = nodes
        .into_iter()
        .filter(|i| {
            let speaks = against(*i);
            let free = speaks.is_none();
            why = speaks.or_else(|| why.take());
            free
        })
        .collect();
    match (left.is_empty(), why) {
        (true, Some(why)) => Err(why),
        _ => Ok(left),
    }
}

/// The nodes that may run all tasks of a workflow, if each says where it may run.
#[must_use]
pub fn fit_all(workflow: &Workflow, nodes: &[Candidate]) -> Vec<usize> {
    let placed = |task: &Task| {
        let place = &task.placement;
        place.node.is_some() || !place.labels.is_empty() || place.site.is_some()
    };
    if !workflow.tasks.iter().all(placed) {
        return Vec::new();
    }
    let mut all: Vec<usize> = (0..nodes.len()).collect();
    for task in &workflow.tasks {
        let fit = fits(task, nodes).unwrap_or_default();
        all.retain(|node| fit.contains(node));
    }
    all
}

/// The first task that may not run on a node, whether it is online or not, and why.
#[must_use]
pub fn misfit<'a>(workflow: &'a Workflow, node: &Candidate) -> Option<(&'a str, String)> {
    let alone = [Candidate {
        online: true,
        refused: None,
        ..node.clone()
    }];
    let mut tasks = workflow.tasks.iter();
    tasks.find_map(|task| Some((task.id.as_str(), fits(task, &alone).err()?)))
}
