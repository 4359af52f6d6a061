//! The graph for programs: one object.

use super::Picture;
use crate::ids::TaskIdx;
use serde::Serialize;

#[derive(Serialize)]
struct Graph<'w> {
    workflow: &'w str,
    tasks: Vec<Node<'w>>,
    critical_path: Vec<&'w str>,
}

#[derive(Serialize)]
struct Node<'w> {
    id: &'w str,
    level: usize,
    needs: Vec<&'w str>,
    critical: bool,
    upward_rank_ms: u64,
    batch: Option<u32>,
    holds: bool,
}

/// Writes it.
pub(super) fn write(picture: &Picture<'_>) -> String {
    let id = |index: &TaskIdx| picture.task(*index).id.as_str();
    let tasks = picture.indices().map(|index| {
        let task = picture.task(index);
        Node {
            id: &task.id,
            level: picture.level(index),
            needs: task.needs.iter().map(id).collect(),
            critical: picture.is_critical(index),
            upward_rank_ms: task.upward_rank,
            batch: task.batch,
            holds: task.when.as_ref().is_none_or(|when| when.holds),
        }
    });
    let graph = Graph {
        workflow: &picture.workflow.name,
        tasks: tasks.collect(),
        critical_path: picture.critical.iter().map(id).collect(),
    };
    let mut text = serde_json::to_string(&graph).expect("texts and numbers are always JSON");
    text.push('\n');
    text
}
