//! Edges and files: which task writes what another one reads. Notes two writers of one output,
//! inputs that nobody writes, unknown tasks, paths that get in each other's way, and cycles.
//!
//! What a member of a matrix writes is called like the output with the member's suffix; the name
//! without it means the files of all members, each laid at the path with its suffix.

use super::matrix::Part;
use super::mistake::{Pos, Sink, brief, nearest};
use super::units;
use super::value::{Block, File, Layers, Named, Value, Word, by_text};
use crate::graph;
use crate::ids::{Hash, TaskIdx};
use crate::limits::MATRIX_EDGES;
use crate::workflow::{Input, Output, Source, Task};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Files sent along with a submission, by name: content and bytes.
pub type SentFiles = BTreeMap<String, (Hash, u64)>;

/// Beyond so many mistakes no more suggestions are searched for.
const SUGGESTIONS: usize = 50;
/// Names shown of one cycle.
const CYCLE_NAMES: usize = 1000;

/// What is found by a text.
type Index<'a, V> = BTreeMap<(u128, Cow<'a, str>), V>;

/// Where an output is written.
#[derive(Clone, Copy)]
struct Writer {
    task: usize,
    output: usize,
    /// How many tasks write this path.
    writers: usize,
}

pub(crate) struct Linker<'a> {
    sink: &'a mut Sink,
    parts: &'a [Part<'a>],
    tasks: &'a mut [Task],
    /// `None` while it is not known what will be sent.
    sent: Option<&'a SentFiles>,
    used: BTreeSet<&'a str>,
    by_name: Index<'a, Writer>,
    by_path: Index<'a, Writer>,
    /// Outputs of members by their name without the suffix.
    by_matrix: Index<'a, Vec<Writer>>,
    /// Edges and inputs that come from naming whole matrices.
    edges: usize,
    /// A name or path depends on a parameter without a value.
    open: bool,
}

/// Fills in `inputs`, `outputs` and `needs` of all tasks.
pub(crate) fn link(
    parts: &[Part<'_>],
    defaults: Option<&Block>,
    tasks: &mut [Task],
    sent: Option<&SentFiles>,
    sink: &mut Sink,
) {
    let (used, by_name, by_path) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let mut linker = Linker {
        sink,
        parts,
        tasks,
        sent,
        used,
        by_name,
        by_path,
        by_matrix: BTreeMap::new(),
        edges: 0,
        open: false,
    };
    for index in 0..parts.len() {
        linker.outputs(index);
    }
    let mut ids: Index<'_, Range<usize>> = BTreeMap::new();
    for (i, part) in parts.iter().enumerate() {
        ids.insert(by_text(part.named.name.as_str()), i..i + 1);
        let whole = ids.entry(by_text(part.whole.name.as_str()));
        whole.or_insert(i..i).end = i + 1;
    }
    for index in 0..parts.len() {
        linker.inputs(index);
        linker.needs(index, &ids);
        linker.neighbours(index, defaults, &ids);
    }
    linker.unused();
    linker.cycles();
}

impl<'a> Linker<'a> {
    fn named(&self, index: usize) -> &'a Named {
        self.parts[index].named
    }

    fn outputs(&mut self, index: usize) {
        let named = self.named(index);
        for file in named.block.files("outputs") {
            if file.is_open() {
                self.open = true;
                continue;
            }
            let Some((base, path)) = self.name_and_path(file, None) else {
                continue;
            };
            let name = format!("{base}{}", self.parts[index].suffix());
            let writer = Writer {
                task: index,
                output: self.tasks[index].outputs.len(),
                writers: 1,
            };
            if let Some(first) = self.taken(index, &base, &name) {
                self.written_twice(index, first, file.at, &base);
                continue;
            }
            if self.parts[index].matrix.is_some() {
                let whole = self.by_matrix.entry(by_text(base)).or_default();
                whole.push(writer);
            }
            self.by_path
                .entry(by_text(path.clone()))
                .and_modify(|w| w.writers += 1)
                .or_insert(writer);
            self.by_name.insert(by_text(name.clone()), writer);
            self.tasks[index].outputs.push(Output { name, path });
        }
        let paths = self.tasks[index]
            .outputs
            .iter()
            .map(|o| o.path.as_str())
            .collect();
        let at = named.block.get("outputs").map_or(named.at, |(at, _)| at);
        check_paths(self.sink, at, "output", paths);
    }

    /// The task that has an output of this name, or of one that could be taken for it, already.
    fn taken(&self, index: usize, base: &str, name: &str) -> Option<usize> {
        let plain = |name: &str| self.by_name.get(&by_text(name)).map(|w| w.task);
        let members = self.by_matrix.get(&by_text(base));
        let other = |task: usize| {
            let (there, here) = (self.parts[task].matrix, self.parts[index].matrix);
            (there != here || here.is_none()).then_some(task)
        };
        plain(name)
            .or_else(|| plain(base))
            .or_else(|| members.and_then(|m| other(m[0].task)))
    }

    fn written_twice(&mut self, index: usize, first: usize, at: Pos, base: &str) {
        let (named, other) = (self.named(index), self.named(first));
        let what = if first == index {
            format!("task '{}' writes '{}' twice", named.name, brief(base))
        } else {
            format!(
                "output '{}' is written by task '{}' (line {}) and by task '{}'",
                brief(base),
                other.name,
                other.at.line,
                named.name
            )
        };
        let mend = "give each output a name of its own: {name: …, path: …}";
        self.sink.add(at, what, mend);
    }

    /// Counts edges that come from naming a whole matrix; says so once when they are too many.
    fn room_for(&mut self, more: usize, at: Pos) -> bool {
        let before = self.edges;
        self.edges = before.saturating_add(more);
        if self.edges > MATRIX_EDGES && before <= MATRIX_EDGES {
            let what = format!("whole matrices make more than {MATRIX_EDGES} edges");
            let mend = "put a task between that needs the one and is needed by the other";
            self.sink.add(at, what, mend);
        }
        self.edges <= MATRIX_EDGES
    }

    /// Name and path of a file; `inherited` is the path if none is written.
    fn name_and_path(&mut self, file: &File, inherited: Option<&str>) -> Option<(String, String)> {
        let word = file.name.as_ref().or(file.path.as_ref())?;
        if word.text.is_empty() || word.text.len() > 255 || word.text.chars().any(char::is_control)
        {
            let what = format!("'{}' is no name of a file", brief(&word.text));
            self.sink
                .add(word.at, what, "use 1 to 255 printable characters");
            return None;
        }
        let written = file.path.as_ref().map(|path| (path.at, path.text.as_str()));
        let (at, path) = written
            .or_else(|| inherited.map(|i| (word.at, i)))
            .unwrap_or((word.at, &word.text));
        match units::inner_path(path) {
            Ok(path) if file.name.is_some() && file.path.is_none() && inherited.is_none() => {
                Some((path.clone(), path))
            }
            Ok(path) if file.name.is_none() => Some((path.clone(), path)),
            Ok(path) => Some((word.text.clone(), path)),
            Err((what, mend)) => {
                self.sink.add(at, format!("`path`: {what}"), mend);
                None
            }
        }
    }

    fn inputs(&mut self, index: usize) {
        let named = self.named(index);
        let mut known = true;
        for file in named.block.files("inputs") {
            if file.is_open() {
                known = false;
                continue;
            }
            match self.input(index, file) {
                Some(inputs) => self.tasks[index].inputs.extend(inputs),
                None => known = false,
            }
        }
        let task = &self.tasks[index];
        let paths: Vec<_> = task.inputs.iter().map(|i| i.path.clone()).collect();
        if let (Some(stdin), true) = (&task.stdin, known)
            && !paths.contains(stdin)
        {
            let at = named.block.get("stdin").map_or(named.at, |(at, _)| at);
            let task = &named.name;
            let what = format!("`stdin`: '{stdin}' is the path of no input of task '{task}'");
            self.sink
                .add(at, what, format!("add it to `inputs`: [{stdin}]"));
        }
        let at = named.block.get("inputs").map_or(named.at, |(at, _)| at);
        check_paths(
            self.sink,
            at,
            "input",
            paths.iter().map(String::as_str).collect(),
        );
    }

    fn input(&mut self, index: usize, file: &File) -> Option<Vec<Input>> {
        let word = file.name.as_ref().or(file.path.as_ref())?;
        if let Some(all) = self.by_matrix.get(&by_text(word.text.as_str())) {
            let all = all.clone();
            if !self.room_for(all.len(), file.at) {
                return None;
            }
            if let Some(source) = &file.source {
                self.has_a_writer(word, source, all[0]);
                return None;
            }
            return all
                .into_iter()
                .map(|writer| self.written(index, file, writer, true))
                .collect();
        }
        self.one_input(index, file, word).map(|input| vec![input])
    }

    fn has_a_writer(&mut self, word: &Word, source: &Word, writer: Writer) {
        let what = format!(
            "input '{}' has a source, but task '{}' writes it",
            brief(&word.text),
            self.named(writer.task).name
        );
        self.sink
            .add(source.at, what, "remove the source, or rename the input");
    }

    fn one_input(&mut self, index: usize, file: &File, word: &Word) -> Option<Input> {
        let writer = self.writer(index, word)?;
        if let Some(source) = &file.source {
            if let Ok(Some(writer)) = writer {
                self.has_a_writer(word, source, writer);
                return None;
            }
            let (name, path) = self.name_and_path(file, None)?;
            let place = units::node_file(&source.text).ok()?;
            return Some(Input {
                name,
                path,
                source: Source::NodeFile(place),
            });
        }
        match writer {
            Ok(Some(writer)) => self.written(index, file, writer, false),
            Ok(None) => self.sent(file, word),
            Err(()) => None,
        }
    }

    /// Who writes what is called `word`; `None` if it cannot be known yet.
    fn writer(&mut self, index: usize, word: &Word) -> Option<Result<Option<Writer>, ()>> {
        if let Some(writer) = self.by_name.get(&by_text(word.text.as_str())) {
            return Some(Ok(Some(*writer)));
        }
        let path = units::inner_path(&word.text).ok();
        match path.and_then(|path| self.by_path.get(&by_text(path))) {
            Some(writer) if writer.writers > 1 => {
                let what = format!(
                    "input '{}' of task '{}' is a path that {} tasks write",
                    brief(&word.text),
                    self.named(index).name,
                    writer.writers
                );
                self.sink
                    .add(word.at, what, "write the output's name instead of its path");
                Some(Err(()))
            }
            Some(writer) => Some(Ok(Some(*writer))),
            None if self.open => None,
            None => Some(Ok(None)),
        }
    }

    /// The file that `writer` writes; as one of those of all members it bears its suffix.
    fn written(
        &mut self,
        index: usize,
        file: &File,
        writer: Writer,
        as_member: bool,
    ) -> Option<Input> {
        let output = self.tasks[writer.task].outputs[writer.output].clone();
        if writer.task == index {
            let what = format!(
                "task '{}' reads its own output '{}'",
                self.named(index).name,
                output.name
            );
            self.sink.add(
                file.at,
                what,
                "remove it from `inputs`, or name another task's output",
            );
            return None;
        }
        let (_, mut path) = self.name_and_path(file, Some(&output.path))?;
        if as_member {
            path.push_str(self.parts[writer.task].suffix());
            if let Err((what, mend)) = units::inner_path(&path) {
                self.sink.add(file.at, format!("`path`: {what}"), mend);
                return None;
            }
        }
        self.tasks[index].needs.push(idx(writer.task));
        let source = Source::Task {
            task: idx(writer.task),
            output: idx(writer.output).0,
        };
        Some(Input {
            name: output.name,
            path,
            source,
        })
    }

    fn sent(&mut self, file: &File, word: &Word) -> Option<Input> {
        let sent = self.sent?;
        let (name, path) = self.name_and_path(file, None)?;
        if let Some((key, (hash, size))) = sent.get_key_value(&word.text) {
            self.used.insert(key);
            return Some(Input {
                name,
                path,
                source: Source::Sent {
                    hash: *hash,
                    size: *size,
                },
            });
        }
        let near = if self.sink.count() > SUGGESTIONS {
            None
        } else {
            let names = self.by_name.keys().map(|(_, name)| &**name);
            nearest(&word.text, names)
        };
        let mend = near.map_or_else(
            || {
                let name = brief(&word.text);
                format!(
                    "declare it as an output of a task, give it a source ({{name: {name}, \
                     source: file:/…}}), or send it with `--file {name}=PATH`"
                )
            },
            |near| format!("did you mean '{near}'? Else give it a source or send it with `--file`"),
        );
        let what = format!(
            "no task writes input '{}', and it has no source",
            brief(&word.text)
        );
        self.sink.add(word.at, what, mend);
        None
    }

    /// The tasks that `affinity` and `anti_affinity` name.
    fn neighbours(
        &mut self,
        index: usize,
        defaults: Option<&'a Block>,
        ids: &Index<'_, Range<usize>>,
    ) {
        let layers = Layers([Some(&self.named(index).block), defaults, None]).inside("placement");
        for name in ["affinity", "anti_affinity"] {
            let (_, Value::Texts(words)) = layers.get(name) else {
                continue;
            };
            let mut ranges = Vec::new();
            for word in words.iter().filter(|word| !word.open) {
                match ids.get(&by_text(word.text.as_str())) {
                    Some(tasks) => ranges.push((idx(tasks.start), idx(tasks.end - 1))),
                    None => self.no_task(word, ids),
                }
            }
            let placement = &mut self.tasks[index].placement;
            match name {
                "affinity" => placement.affinity = ranges,
                _ => placement.anti_affinity = ranges,
            }
        }
        let placement = &self.tasks[index].placement;
        let twice = |range: &&(TaskIdx, TaskIdx)| placement.anti_affinity.contains(range);
        if placement.affinity.iter().any(|range| twice(&range)) {
            let what = format!(
                "task '{}' must run beside a task and must not",
                self.named(index).name
            );
            let at = layers.get("anti_affinity").0;
            self.sink
                .add(at, what, "name it in one of `affinity` and `anti_affinity`");
        }
    }

    fn no_task(&mut self, word: &Word, ids: &Index<'_, Range<usize>>) {
        let shown = brief(&word.text);
        let near = if self.sink.count() > SUGGESTIONS {
            None
        } else {
            nearest(&word.text, ids.keys().map(|(_, id)| &**id))
        };
        let mend = near.map_or_else(
            || "write the id of a task of this file".to_owned(),
            |near| format!("did you mean '{near}'?"),
        );
        self.sink
            .add(word.at, format!("there is no task '{shown}'"), mend);
    }

    fn needs(&mut self, index: usize, ids: &Index<'_, Range<usize>>) {
        let named = self.named(index);
        for word in named.block.texts("needs").iter().filter(|word| !word.open) {
            match ids.get(&by_text(word.text.as_str())) {
                Some(need) if need.contains(&index) => {
                    let what = format!("task '{}' waits for itself", named.name);
                    self.sink.add(word.at, what, "remove it from `needs`");
                }
                Some(need) => {
                    if need.len() == 1 || self.room_for(need.len(), word.at) {
                        let needs = &mut self.tasks[index].needs;
                        needs.extend(need.clone().map(idx));
                    }
                }
                None => self.no_task(word, ids),
            }
        }
        let needs = &mut self.tasks[index].needs;
        needs.sort_unstable();
        needs.dedup();
    }

    fn unused(&mut self) {
        let Some(sent) = self.sent else { return };
        if self.open {
            return;
        }
        for name in sent
            .keys()
            .filter(|name| !self.used.contains(name.as_str()))
        {
            let what = match self.by_name.get(&by_text(name.as_str())) {
                Some(writer) => {
                    let task = &self.named(writer.task).name;
                    format!(
                        "the sent file '{}' is written by task '{task}'",
                        brief(name)
                    )
                }
                None => format!("no input is called '{}', which was sent along", brief(name)),
            };
            self.sink
                .add(Pos::START, what, "send only files that an input names");
        }
    }

    fn cycles(&mut self) {
        let needs: Vec<&[TaskIdx]> = self
            .tasks
            .iter()
            .map(|task| task.needs.as_slice())
            .collect();
        let Err(cycles) = graph::order::sort(&needs) else {
            return;
        };
        for cycle in cycles {
            let first = self.named(cycle[0].0 as usize);
            let names = cycle.iter().chain([&cycle[0]]).take(CYCLE_NAMES);
            let mut names: Vec<_> = names
                .map(|t| self.named(t.0 as usize).name.as_str())
                .collect();
            if cycle.len() >= CYCLE_NAMES {
                names.push("…");
            }
            let what = format!("tasks wait for each other: {}", names.join(" → "));
            self.sink
                .add(first.at, what, "remove one of these inputs or `needs`");
        }
    }
}

/// Refuses paths of one task that are the same, or of which one is a directory of another.
fn check_paths(sink: &mut Sink, at: Pos, sort: &str, mut paths: Vec<&str>) {
    if paths.len() < 2 {
        return;
    }
    // By parts, so that what lies below a path follows it.
    paths.sort_by(|a, b| a.split('/').cmp(b.split('/')));
    for pair in paths.windows(2) {
        let below = pair[1].strip_prefix(pair[0]);
        if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            let what = format!(
                "the {sort}s '{}' and '{}' are in each other's way",
                pair[0], pair[1]
            );
            sink.add(at, what, "give each a path of its own");
        }
    }
}

fn idx(n: usize) -> TaskIdx {
    TaskIdx(u32::try_from(n).expect("a specification has fewer values than u32 counts"))
}
