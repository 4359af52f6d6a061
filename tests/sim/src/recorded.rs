//! Executions of real workflows that somebody recorded: the shape, lengths and files of a run in
//! place of drawn ones. Read from WfFormat 1.5 (WfCommons, <https://wfcommons.org/format>).

use crate::queue::{MIN, MS, SEC, Time};
use crate::workload::Habit;
use serde::Deserialize;
use shared::ids::TaskIdx;
use shared::workflow::{Input, Output, Source, Task};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// No attempt takes longer here, so that six hours are enough.
const LONGEST: Time = 10 * MIN;

/// A recorded execution; tasks in an order in which each comes behind what it needs.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Its file.
    pub name: String,
    tasks: Vec<Recorded>,
}

#[derive(Debug, Clone)]
struct Recorded {
    needs: Vec<TaskIdx>,
    /// Files by task and position among its outputs.
    reads: Vec<(TaskIdx, u32)>,
    outputs: usize,
    /// Bytes of one of them, about.
    size: u64,
    length: Time,
}

#[derive(Deserialize)]
struct File {
    workflow: Flow,
}

#[derive(Deserialize)]
struct Flow {
    specification: Specification,
    execution: Execution,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<Specified>,
    #[serde(default)]
    files: Vec<Sized>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specified {
    id: String,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    input_files: Vec<String>,
    #[serde(default)]
    output_files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sized {
    id: String,
    size_in_bytes: u64,
}

#[derive(Deserialize)]
struct Execution {
    tasks: Vec<Executed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    id: String,
    #[serde(default)]
    runtime_in_seconds: f64,
}

impl Trace {
    /// All traces in a folder, by name.
    ///
    /// # Errors
    /// The folder cannot be read, one of its `.json` files is no trace, or there is none.
    pub fn folder(place: &Path) -> Result<Vec<Self>, String> {
        let told = |error: std::io::Error| format!("{}: {error}", place.display());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(place).map_err(told)? {
            files.push(entry.map_err(told)?.path());
        }
        files.retain(|file| file.extension().is_some_and(|kind| kind == "json"));
        files.sort();
        if files.is_empty() {
            return Err(format!(
                "{}: no recorded workflow is there",
                place.display()
            ));
        }
        files.iter().map(|file| Self::open(file)).collect()
    }

    /// Reads one.
    ///
    /// # Errors
    /// It cannot be read, or is no execution of an acyclic workflow.
    pub fn open(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, &text).map_err(|why| format!("{}: {why}", file.display()))
    }

    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Flow {
            specification,
            execution,
        } = file.workflow;
        let sizes: BTreeMap<&str, u64> = specification
            .files
            .iter()
            .map(|file| (file.id.as_str(), file.size_in_bytes))
            .collect();
        let seconds: BTreeMap<&str, f64> = execution
            .tasks
            .iter()
            .map(|task| (task.id.as_str(), task.runtime_in_seconds))
            .collect();
        let order = ordered(&specification.tasks)?;
        let mut at = BTreeMap::new();
        let mut made: BTreeMap<&str, (TaskIdx, u32)> = BTreeMap::new();
        let mut tasks = Vec::new();
        for (position, task) in (0u32..).zip(order) {
            let own = TaskIdx(position);
            let mut needs: Vec<TaskIdx> = task.parents.iter().map(|id| at[id.as_str()]).collect();
            needs.sort_unstable();
            needs.dedup();
            let reads = task
                .input_files
                .iter()
                .filter_map(|file| made.get(file.as_str()));
            let reads: Vec<_> = reads
                .copied()
                .filter(|(from, _)| needs.contains(from))
                .collect();
            let bytes = task
                .output_files
                .iter()
                .filter_map(|file| sizes.get(file.as_str()));
            let bytes: u64 = bytes.sum();
            let length = seconds.get(task.id.as_str()).copied().unwrap_or(0.0);
            tasks.push(Recorded {
                needs,
                reads,
                outputs: task.output_files.len(),
                size: (bytes / task.output_files.len().max(1) as u64).clamp(100, 1_000_000),
                length: ((length.max(0.0) * SEC as f64) as Time).clamp(100 * MS, LONGEST),
            });
            at.insert(task.id.as_str(), own);
            made.extend(
                (0u32..)
                    .zip(&task.output_files)
                    .map(|(n, file)| (file.as_str(), (own, n))),
            );
        }
        Ok(Self {
            name: name.to_owned(),
            tasks,
        })
    }

    /// Number of tasks.
    #[must_use]
    pub fn size(&self) -> usize {
        self.tasks.len()
    }

    /// Makes a drawn task and its habit those of the trace.
    pub(crate) fn lay_over(&self, position: usize, task: &mut Task, habit: &mut Habit) {
        let recorded = &self.tasks[position];
        habit.size = recorded.size;
        task.needs.clone_from(&recorded.needs);
        task.outputs = (0..recorded.outputs)
            .map(|n| Output {
                name: format!("o{position}-{n}"),
                path: format!("o{n}"),
            })
            .collect();
        let inputs = recorded.reads.iter().enumerate();
        task.inputs = inputs
            .map(|(n, (task, output))| Input {
                name: format!("o{}-{output}", task.0),
                path: format!("i{n}"),
                source: Source::Task {
                    task: *task,
                    output: *output,
                },
            })
            .collect();
    }

    /// Usual length of the attempt at a task.
    pub(crate) fn length(&self, position: usize) -> Time {
        self.tasks[position].length
    }
}

/// Tasks in an order in which each comes behind its parents (Kahn's algorithm).
fn ordered(tasks: &[Specified]) -> Result<Vec<&Specified>, String> {
    let at: BTreeMap<&str, usize> = (0..)
        .zip(tasks)
        .map(|(n, task)| (task.id.as_str(), n))
        .collect();
    let mut missing = vec![0; tasks.len()];
    let mut children = vec![Vec::new(); tasks.len()];
    for (n, task) in tasks.iter().enumerate() {
        for parent in &task.parents {
            let from = at.get(parent.as_str());
            let from = *from
                .ok_or_else(|| format!("task {} needs {parent}, which is not there", task.id))?;
            missing[n] += 1;
            children[from].push(n);
        }
    }
    let mut free: VecDeque<usize> = (0..tasks.len()).filter(|n| missing[*n] == 0).collect();
    let mut out = Vec::with_capacity(tasks.len());
    while let Some(n) = free.pop_front() {
        out.push(&tasks[n]);
        for child in &children[n] {
            missing[*child] -= 1;
            if missing[*child] == 0 {
                free.push_back(*child);
            }
        }
    }
    match out.len() == tasks.len() {
        true => Ok(out),
        false => Err("its tasks need each other in a circle".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(tasks: &str) -> Result<Trace, String> {
        let text = format!(
            r#"{{"workflow": {{"specification": {{"tasks": {tasks}, "files": [{{"id": "f", "sizeInBytes": 5000}}]}},
            "execution": {{"tasks": [{{"id": "a", "runtimeInSeconds": 2.5}}]}}}}}}"#
        );
        Trace::parse("t", &text)
    }

    #[test]
    fn tasks_come_behind_what_they_need_with_their_files() {
        let trace = flow(
            r#"[{"id": "b", "parents": ["a"], "inputFiles": ["f", "given"]},
                {"id": "a", "outputFiles": ["e", "f"]}]"#,
        );
        let trace = trace.unwrap();
        assert_eq!(trace.size(), 2);
        assert_eq!(trace.tasks[0].length, 2_500 * MS);
        assert_eq!((trace.tasks[0].outputs, trace.tasks[0].size), (2, 2500));
        assert_eq!(trace.tasks[1].needs, [TaskIdx(0)]);
        assert_eq!(trace.tasks[1].reads, [(TaskIdx(0), 1)]);
        assert_eq!(trace.tasks[1].length, 100 * MS);
    }

    #[test]
    fn what_is_no_acyclic_workflow_is_refused() {
        let circle = r#"[{"id": "a", "parents": ["b"]}, {"id": "b", "parents": ["a"]}]"#;
        assert!(flow(circle).unwrap_err().contains("circle"));
        let orphan = r#"[{"id": "a", "parents": ["x"]}]"#;
        assert!(flow(orphan).unwrap_err().contains("needs x"));
        assert!(Trace::parse("t", "{}").is_err());
        assert!(Trace::folder(Path::new("/nowhere")).is_err());
    }
}
