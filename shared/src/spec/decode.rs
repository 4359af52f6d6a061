//! From the tree of a YAML file to values of known fields, by the schema. Templates are filled in
//! on the way; what depends on a parameter without a value stays open.

use super::matrix;
use super::mistake::{Pos, Sink, brief, did_you_mean};
use super::scalar::{scalar, variable};
use super::schema::{Field, Kind, LATER, OF_ONE_TASK, USER};
use super::template::{self, Filled, Scope};
use super::units::{self, Wrong};
use super::value::{Block, File, Named, Value, Word};
use super::when;
use super::yaml::{self, Entry, Node};
use crate::limits::SPEC_BYTES;
use std::collections::BTreeMap;

/// Reads values.
pub(crate) struct Decoder<'a> {
    pub(crate) sink: &'a mut Sink,
    pub(crate) scope: Scope<'a>,
    /// Bytes that templates were filled into, all together.
    pub(crate) filled: usize,
    /// What matrices grew to, all together.
    pub(crate) grown: matrix::Grown,
}

impl<'a> Decoder<'a> {
    /// A decoder that has read nothing yet.
    pub(crate) fn new(scope: Scope<'a>, sink: &'a mut Sink) -> Self {
        Self {
            sink,
            scope,
            filled: 0,
            grown: matrix::Grown::default(),
        }
    }

    /// A map with the fields of `table`. Mistakes are noted and leave their field open.
    pub(crate) fn block(&mut self, table: &'static [Field], node: &Node, owner: &str) -> Block {
        let mut block = Block::empty(node.at);
        let Some(entries) = self.map(node, owner) else {
            // One mistake is enough: nothing more is said of what stands in it.
            let open = |field: &Field| (field.name, node.at, Value::Open(String::new()));
            block.values = table.iter().map(open).collect();
            return block;
        };
        for entry in entries {
            let Some(field) = table.iter().find(|field| field.name == &*entry.key) else {
                self.unknown(table, entry, owner);
                continue;
            };
            let value = self
                .field(field, entry)
                .unwrap_or(Value::Open(String::new()));
            block.values.push((field.name, entry.at, value));
        }
        for field in table
            .iter()
            .filter(|f| f.default.is_empty() && block.get(f.name).is_none())
        {
            let what = format!("{owner} has no `{}`", field.name);
            self.sink
                .add(node.at, what, format!("add `{}: …`", field.name));
        }
        block
    }

    fn unknown(&mut self, table: &'static [Field], entry: &Entry, owner: &str) {
        let key = brief(&entry.key);
        if LATER.contains(&&*entry.key) {
            let what = format!("`{key}` comes later");
            self.sink.add(
                entry.at,
                what,
                "remove it; this version does not know it yet",
            );
            return;
        }
        if USER.contains(&&*entry.key) {
            let what = format!("{owner} cannot choose a user: `{key}` is no field");
            let mend = "remove it; tasks run as the user that the gateway's configuration names \
                        (tasks.run_as), or as the agent's own";
            self.sink.add(entry.at, what, mend);
            return;
        }
        let names = table.iter().map(|field| field.name);
        let list = format!(
            "fields here: {}",
            names.clone().collect::<Vec<_>>().join(", ")
        );
        let mend = did_you_mean(&entry.key, names, &list);
        self.sink
            .add(entry.at, format!("{owner} has no field `{key}`"), mend);
    }

    pub(super) fn map<'n>(&mut self, node: &'n Node, owner: &str) -> Option<&'n [Entry]> {
        if let yaml::Kind::Map(entries) = &node.kind {
            return Some(entries);
        }
        let what = format!("{owner} is {}, not a map", node.sort());
        self.sink.add(node.at, what, "write `field: value` lines");
        None
    }

    fn field(&mut self, field: &'static Field, entry: &Entry) -> Option<Value> {
        let (name, node) = (field.name, &entry.value);
        match &node.kind {
            yaml::Kind::Empty => {
                let what = format!("`{name}` has no value");
                self.sink.add(
                    entry.at,
                    what,
                    "give it one, write null, or remove the line",
                );
                return None;
            }
            yaml::Kind::Null if field.default == "null" => return Some(Value::Unset),
            _ => {}
        }
        match field.kind {
            Kind::Texts => self.texts(name, node).map(Value::Texts),
            Kind::Command => self.command(name, node).map(Value::Texts),
            Kind::ExitCodes => self.codes(name, node),
            Kind::Labels => self.pairs(name, node, units::name),
            Kind::Env => self.pairs(name, node, variable),
            Kind::Counts => self.counts(name, node),
            Kind::Axes => self.axes(name, node),
            Kind::Block(table) => Some(Value::Block(self.block(table, node, &format!("`{name}`")))),
            Kind::Defaults(table) => Some(Value::Block(self.defaults(table, node))),
            Kind::Each(table) => self.each(name, table, node).map(Value::Each),
            Kind::Files(table) => self.files(name, table, node).map(Value::Files),
            Kind::Shell => self.shell(node),
            Kind::Expression => self.expression(node),
            kind => self.filled_scalar(name, kind, node),
        }
    }

    fn defaults(&mut self, table: &'static [Field], node: &Node) -> Block {
        let mut block = self.block(table, node, "`defaults`");
        block.values.retain(|(name, at, _)| {
            let of_one = OF_ONE_TASK.contains(name);
            if of_one {
                let what = format!("`{name}` says what one task is and has no default");
                self.sink.add(*at, what, "write it at each task");
            }
            !of_one
        });
        block
    }

    fn each(&mut self, name: &str, table: &'static [Field], node: &Node) -> Option<Vec<Named>> {
        let sort = name.trim_end_matches('s').replace("param", "parameter");
        let mut each = Vec::new();
        for entry in self.map(node, &format!("`{name}`"))? {
            if let Err(wrong) = units::name(&entry.key) {
                self.wrong(entry.at, &sort, wrong);
            }
            let owner = format!("{sort} '{}'", brief(&entry.key));
            let mut named = Named {
                at: entry.at,
                name: (*entry.key).to_owned(),
                block: Block::empty(entry.at),
                members: Vec::new(),
            };
            match matrix::node_of(&entry.value).filter(|_| sort == "task") {
                Some(axes) => self.matrix(axes, (table, &entry.value), &owner, &mut named),
                None => named.block = self.block(table, &entry.value, &owner),
            }
            each.push(named);
        }
        Some(each)
    }

    /// The text of a single value, as written.
    pub(super) fn plain<'n>(&mut self, name: &str, node: &'n Node) -> Option<&'n str> {
        if let yaml::Kind::Scalar(text) = &node.kind {
            return Some(text);
        }
        let mend = match node.kind {
            yaml::Kind::Empty | yaml::Kind::Null => "write '' for an empty text",
            _ => "write one value",
        };
        self.sink.add(
            node.at,
            format!("`{name}` is {}, not a single value", node.sort()),
            mend,
        );
        None
    }

    /// A text with its templates filled in.
    fn word(&mut self, name: &str, node: &Node) -> Option<Word> {
        let text = self.plain(name, node)?;
        let (at, open) = (node.at, false);
        match template::fill(text, self.scope) {
            Ok(Filled::Same) => Some(Word {
                at,
                text: text.to_owned(),
                open,
            }),
            Ok(Filled::Open) => Some(Word {
                at,
                text: text.to_owned(),
                open: true,
            }),
            Ok(Filled::Text(text)) => {
                let before = self.filled;
                self.filled += text.len();
                if self.filled <= SPEC_BYTES {
                    return Some(Word { at, text, open });
                }
                if before <= SPEC_BYTES {
                    let what = format!("parameters make the file longer than {SPEC_BYTES} bytes");
                    self.sink.add(at, what, "send large values as files");
                }
                None
            }
            Err(wrong) => {
                self.wrong(at, name, wrong);
                None
            }
        }
    }

    pub(super) fn wrong(&mut self, at: Pos, name: &str, (what, mend): Wrong) {
        self.sink.add(at, format!("`{name}`: {what}"), mend);
    }

    fn filled_scalar(&mut self, name: &str, kind: Kind, node: &Node) -> Option<Value> {
        // A parameter's own fields stand before any parameter has a value.
        let word = match kind {
            Kind::Anything => {
                let (at, text) = (node.at, self.plain(name, node)?.to_owned());
                Word {
                    at,
                    text,
                    open: false,
                }
            }
            _ => self.word(name, node)?,
        };
        if word.open {
            return Some(Value::Open(word.text));
        }
        match scalar(kind, &word.text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.wrong(node.at, name, wrong);
                None
            }
        }
    }

    fn shell(&mut self, node: &Node) -> Option<Value> {
        let text = self.plain("shell", node)?;
        if template::names_parameter(text) {
            let what = "`shell`: a parameter never becomes program text";
            let mend = "pass it by `env: {X: \"${params.x}\"}` and write \"$X\" in the shell text";
            self.sink.add(node.at, what, mend);
            return None;
        }
        match scalar(Kind::Shell, text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.wrong(node.at, "shell", wrong);
                None
            }
        }
    }

    fn expression(&mut self, node: &Node) -> Option<Value> {
        let text = self.plain("when", node)?;
        match when::decide(text, self.scope) {
            Ok(holds) => Some(Value::When(text.to_owned(), holds)),
            Err(wrong) => {
                self.wrong(node.at, "when", wrong);
                None
            }
        }
    }

    pub(super) fn list<'n>(&mut self, name: &str, node: &'n Node) -> Option<&'n [Node]> {
        if let yaml::Kind::List(list) = &node.kind {
            return Some(list);
        }
        let what = format!("`{name}` is {}, not a list", node.sort());
        self.sink
            .add(node.at, what, format!("write `{name}: [a, b]`"));
        None
    }

    fn texts(&mut self, name: &str, node: &Node) -> Option<Vec<Word>> {
        let list = self.list(name, node)?;
        let words: Vec<_> = list.iter().map(|item| self.word(name, item)).collect();
        for word in words
            .iter()
            .flatten()
            .filter(|word| word.text.contains('\0'))
        {
            self.sink
                .add(word.at, format!("`{name}`: a NUL character"), "remove it");
        }
        words.into_iter().collect()
    }

    fn command(&mut self, name: &str, node: &Node) -> Option<Vec<Word>> {
        if !matches!(node.kind, yaml::Kind::Scalar(_)) {
            let words = self.texts(name, node)?;
            if words.first().is_none_or(|word| word.text.is_empty()) {
                self.sink.add(
                    node.at,
                    "`command` names no program",
                    "write `command: [program, argument]`",
                );
                return None;
            }
            self.check_shell_text(node);
            return Some(words);
        }
        let word = self.word(name, node)?;
        if word.text.is_empty() || word.text.contains(char::is_whitespace) {
            let what = format!("`command`: '{}' is not one program", brief(&word.text));
            let mend =
                "write a list: `command: [program, argument]`, or use `shell` for shell text";
            self.sink.add(node.at, what, mend);
            return None;
        }
        Some(vec![word])
    }

    /// Refuses `[sh, -c, "… ${params.x} …"]`, which is `shell` by another name.
    fn check_shell_text(&mut self, node: &Node) {
        const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"];
        let yaml::Kind::List(list) = &node.kind else {
            return;
        };
        let texts: Vec<&str> = list
            .iter()
            .map(|item| {
                if let yaml::Kind::Scalar(text) = &item.kind {
                    &**text
                } else {
                    ""
                }
            })
            .collect();
        let program = texts[0].rsplit('/').next().unwrap_or_default();
        let flag =
            |text: &&str| text.starts_with('-') && !text.starts_with("--") && text.ends_with('c');
        let Some(flag) = texts.iter().position(flag) else {
            return;
        };
        let code = texts.get(flag + 1).copied().unwrap_or_default();
        if SHELLS.contains(&program) && template::names_parameter(code) {
            let what = "`command`: a parameter never becomes program text";
            let mend = "pass it by `env`, or as an argument after the shell text";
            self.sink.add(list[flag + 1].at, what, mend);
        }
    }

    fn codes(&mut self, name: &str, node: &Node) -> Option<Value> {
        let list = self.list(name, node)?;
        let mut codes = Vec::new();
        for item in list {
            match self.filled_scalar(name, Kind::Integer(1, 255), item)? {
                Value::Int(code) => codes.push(i32::try_from(code).unwrap_or(i32::MAX)),
                _ => return Some(Value::Open(String::new())),
            }
        }
        Some(Value::Codes(codes))
    }

    fn pairs(
        &mut self,
        name: &str,
        node: &Node,
        key: fn(&str) -> Result<(), Wrong>,
    ) -> Option<Value> {
        let mut pairs = BTreeMap::new();
        for entry in self.map(node, &format!("`{name}`"))? {
            if let Err(wrong) = key(&entry.key) {
                self.wrong(entry.at, name, wrong);
            }
            if let Some(word) = self.word(&entry.key, &entry.value) {
                if word.text.contains('\0') {
                    self.sink
                        .add(word.at, format!("`{name}`: a NUL character"), "remove it");
                }
                pairs.insert((*entry.key).to_owned(), word);
            }
        }
        Some(Value::Pairs(pairs))
    }

    fn counts(&mut self, name: &str, node: &Node) -> Option<Value> {
        let mut counts = BTreeMap::new();
        for entry in self.map(node, &format!("`{name}`"))? {
            if let Err(wrong) = units::name(&entry.key) {
                self.wrong(entry.at, name, wrong);
            }
            let most = Kind::Integer(0, 1 << 40);
            if let Some(Value::Int(count)) = self.filled_scalar(&entry.key, most, &entry.value) {
                counts.insert((*entry.key).to_owned(), count.unsigned_abs());
            }
        }
        Some(Value::Counts(counts))
    }

    fn files(&mut self, name: &str, table: &'static [Field], node: &Node) -> Option<Vec<File>> {
        let list = self.list(name, node)?;
        let files: Vec<_> = list
            .iter()
            .map(|item| self.file(name, table, item))
            .collect();
        files.into_iter().collect()
    }

    fn file(&mut self, name: &str, table: &'static [Field], node: &Node) -> Option<File> {
        let yaml::Kind::Map(entries) = &node.kind else {
            let word = self.word(name, node)?;
            return Some(File {
                at: node.at,
                name: Some(word),
                path: None,
                source: None,
            });
        };
        let before = self.sink.count();
        self.block(table, node, &format!("an entry of `{name}`"));
        let mut file = File {
            at: node.at,
            name: None,
            path: None,
            source: None,
        };
        // The block was read for its mistakes; here the texts themselves are wanted.
        let mut quiet = Sink::default();
        let mut texts = Decoder::new(self.scope, &mut quiet);
        for entry in entries {
            let word = texts.word(&entry.key, &entry.value);
            match &*entry.key {
                "name" => file.name = word,
                "path" => file.path = word,
                "source" => file.source = word,
                _ => {}
            }
        }
        if file.name.is_none() && file.path.is_none() {
            if self.sink.count() == before {
                let what = format!("an entry of `{name}` has neither name nor path");
                self.sink.add(node.at, what, "write {name: …, path: …}");
            }
            return None;
        }
        Some(file)
    }
}
