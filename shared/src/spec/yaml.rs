//! YAML text as a tree with positions. Everything that could grow is bounded: bytes, depth,
//! values, and what aliases copy. Keys are texts and unique; tags and further documents are
//! mistakes.

use super::mistake::{Pos, Sink, brief};
use super::value::by_text;
use crate::limits::SPEC_BYTES;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Lists and maps inside each other.
const DEPTH: usize = 64;
/// Values of one file.
const VALUES: usize = 4_000_000;
/// Values that anchors and aliases may copy (64 bytes of text count as one more).
const COPIES: usize = 100_000;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Pos,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Nothing at all stands there.
    Empty,
    /// `null` or `~`.
    Null,
    /// A text, number or switch as it is written (without quotes).
    Scalar(Box<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Pos,
    pub(crate) key: Box<str>,
    pub(crate) value: Node,
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn sort(&self) -> &'static str {
        match self.kind {
            Kind::Empty => "nothing",
            Kind::Null => "null",
            Kind::Scalar(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Reads one document. `None` if it could not be read to its end; then, and only then, a mistake
/// that says why was added. Others may have been added as well.
pub(crate) fn parse(text: &str, sink: &mut Sink) -> Option<Node> {
    if text.len() > SPEC_BYTES {
        let what = format!(
            "the file has {} bytes, at most {SPEC_BYTES} are read",
            text.len()
        );
        sink.add(
            Pos::START,
            what,
            "split the workflow, or let tasks read their data from files",
        );
        return None;
    }
    if let Some(at) = find_control(text) {
        sink.add(
            at,
            "a control character stands here",
            "save the file as plain UTF-8 text",
        );
        return None;
    }
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::new(sink);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if !builder.on_event(event, span) {
                    return None;
                }
            }
            Err(error) => {
                builder.on_error(&error);
                return None;
            }
        }
    }
    builder.finish()
}

/// The place of the first character that no YAML text may hold.
fn find_control(text: &str) -> Option<Pos> {
    let bad = |b: &u8| *b < 0x20 && !matches!(b, b'\n' | b'\r' | b'\t') || *b == 0x7f;
    let index = text.as_bytes().iter().position(bad)?;
    let before = &text[..index];
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    Some(Pos {
        line: narrow(line),
        column: narrow(column),
    })
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A list or map that is not complete.
struct Open {
    at: Pos,
    anchor: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(Pos, Box<str>)>),
}

/// A value that an alias can name.
struct Anchored {
    node: Node,
    weight: usize,
    depth: usize,
}

struct Builder<'s> {
    sink: &'s mut Sink,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    root: Option<Node>,
    documents: usize,
    values: usize,
    copies: usize,
}

impl<'s> Builder<'s> {
    fn new(sink: &'s mut Sink) -> Self {
        let (stack, anchors) = (Vec::new(), BTreeMap::new());
        Self {
            sink,
            stack,
            anchors,
            root: None,
            documents: 0,
            values: 0,
            copies: 0,
        }
    }

    /// Takes the next event; false ends the reading.
    fn on_event(&mut self, event: Event<'_>, span: Span) -> bool {
        let at = Pos {
            line: narrow(span.start.line()),
            column: narrow(span.start.col() + 1),
        };
        match event {
            Event::DocumentStart(_) => self.on_document(at),
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), at);
                let kind = scalar(text, style, span.start.index() == span.end.index());
                self.close(Node { at, kind }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), at);
                self.open(at, anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), at);
                self.open(at, anchor, Items::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.on_end(),
            Event::Alias(id) => self.on_alias(id, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => true,
        }
    }

    fn on_error(&mut self, error: &ScanError) {
        let mark = error.marker();
        let at = Pos {
            line: narrow(mark.line()),
            column: narrow(mark.col() + 1),
        };
        // The scanner reads ahead and has a bound of its own.
        if error.info().contains("recursion limit") {
            self.too_deep(at);
        } else {
            let what = format!("this is not YAML: {}", brief(error.info()));
            self.sink.add(
                at,
                what,
                "check quotes, brackets and indentation around here",
            );
        }
    }

    fn too_deep(&mut self, at: Pos) {
        let what = format!("lists and maps are nested more than {DEPTH} deep");
        self.sink.add(at, what, "a workflow needs about six levels");
    }

    fn on_document(&mut self, at: Pos) -> bool {
        self.documents += 1;
        if self.documents > 1 {
            self.sink.add(
                at,
                "a second document begins here",
                "keep one workflow in a file",
            );
        }
        self.documents == 1
    }

    fn check_tag(&mut self, tag: Option<&Tag>, at: Pos) {
        if let Some(tag) = tag {
            let what = format!("the tag {} means nothing here", brief(&tag.to_string()));
            self.sink
                .add(at, what, "remove the tag; quotes make a text of any value");
        }
    }

    fn open(&mut self, at: Pos, anchor: usize, items: Items) -> bool {
        if self.stack.len() >= DEPTH {
            self.too_deep(at);
            return false;
        }
        self.stack.push(Open { at, anchor, items });
        true
    }

    fn on_end(&mut self) -> bool {
        let Some(Open { at, anchor, items }) = self.stack.pop() else {
            return true;
        };
        let kind = match items {
            Items::List(list) => Kind::List(list),
            Items::Map(mut entries, _) => {
                self.drop_repeated(&mut entries);
                Kind::Map(entries)
            }
        };
        self.close(Node { at, kind }, anchor)
    }

    /// Keeps the first of entries with the same key.
    fn drop_repeated(&mut self, entries: &mut Vec<Entry>) {
        if are_unique(entries) {
            return;
        }
        let mut first: BTreeMap<Box<str>, Pos> = BTreeMap::new();
        entries.retain(|entry| {
            let known = first.get(&entry.key).copied();
            if let Some(known) = known {
                let what = format!(
                    "'{}' is given twice, first on line {}",
                    brief(&entry.key),
                    known.line
                );
                self.sink.add(entry.at, what, "keep one of the two");
            } else {
                first.insert(entry.key.clone(), entry.at);
            }
            known.is_none()
        });
    }

    fn on_alias(&mut self, id: usize, at: Pos) -> bool {
        let Some(anchored) = self.anchors.get(&id) else {
            self.sink.add(
                at,
                "this alias stands inside what it names",
                "write the value out",
            );
            return false;
        };
        let (weight, depth) = (anchored.weight, anchored.depth);
        if self.copies + weight > COPIES || self.stack.len() + depth > DEPTH {
            let what = format!("aliases copy more than {COPIES} values, or deeper than {DEPTH}");
            self.sink.add(
                at,
                what,
                "write less by aliases; `defaults` serves all tasks",
            );
            return false;
        }
        self.copies += weight;
        let node = anchored.node.clone();
        self.close(Node { at, ..node }, 0)
    }

    /// Puts a complete value where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> bool {
        self.values += 1;
        if self.values > VALUES {
            let what = format!("the file holds more than {VALUES} values");
            self.sink.add(node.at, what, "split the workflow");
            return false;
        }
        if anchor > 0 && !self.keep(anchor, &node) {
            return false;
        }
        match self.stack.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(list)) => list.push(node),
            Some(Items::Map(entries, key)) => match key.take() {
                Some((at, key)) => entries.push(Entry {
                    at,
                    key,
                    value: node,
                }),
                None => match node.kind {
                    Kind::Scalar(text) => *key = Some((node.at, text)),
                    Kind::Null => *key = Some((node.at, "null".into())),
                    Kind::Empty | Kind::List(_) | Kind::Map(_) => {
                        self.sink
                            .add(node.at, "a key must be a text", "write `key: value`");
                        return false;
                    }
                },
            },
        }
        true
    }

    fn keep(&mut self, anchor: usize, node: &Node) -> bool {
        let (weight, depth) = measure(node);
        if self.copies + weight > COPIES {
            let what = format!("anchors keep more than {COPIES} values");
            self.sink
                .add(node.at, what, "put anchors on small values only");
            return false;
        }
        self.copies += weight;
        self.anchors.insert(
            anchor,
            Anchored {
                node: node.clone(),
                weight,
                depth,
            },
        );
        true
    }

    fn finish(self) -> Option<Node> {
        if self.root.is_none() {
            self.sink.add(
                Pos::START,
                "the file is empty",
                "a workflow needs `name` and `tasks`",
            );
        }
        self.root
    }
}

/// Whether no key stands twice. Most maps are small and need no set for that.
fn are_unique(entries: &[Entry]) -> bool {
    if entries.len() <= 8 {
        let mut rest = entries;
        while let Some((first, others)) = rest.split_first() {
            if others.iter().any(|other| other.key == first.key) {
                return false;
            }
            rest = others;
        }
        return true;
    }
    let keys: BTreeSet<_> = entries.iter().map(|e| by_text(&*e.key)).collect();
    keys.len() == entries.len()
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, no_width: bool) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Scalar(text.into());
    }
    match &*text {
        "" => Kind::Empty,
        "~" if no_width => Kind::Empty,
        "~" | "null" | "Null" | "NULL" => Kind::Null,
        _ => Kind::Scalar(text.into()),
    }
}

/// Values in `node` with the weight of their texts, and levels below it.
fn measure(node: &Node) -> (usize, usize) {
    let join =
        |(weight, depth): (usize, usize), (w, d): (usize, usize)| (weight + w, depth.max(d + 1));
    match &node.kind {
        Kind::Empty | Kind::Null => (1, 0),
        Kind::Scalar(text) => (1 + text.len() / 64, 0),
        Kind::List(list) => list.iter().map(measure).fold((1, 1), join),
        Kind::Map(entries) => entries
            .iter()
            .map(|entry| {
                let (weight, depth) = measure(&entry.value);
                (weight + 1 + entry.key.len() / 64, depth)
            })
            .fold((1, 1), join),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> String {
        let mut sink = Sink::default();
        parse(text, &mut sink);
        sink.settle("f", ())
            .map_or_else(|m| m.to_string(), |()| String::new())
    }

    #[test]
    fn positions_count_from_one() {
        let node = parse("a: 1\nbc:\n  - {d: x}\n", &mut Sink::default()).unwrap();
        let Kind::Map(entries) = node.kind else {
            panic!("a map")
        };
        assert_eq!(entries[1].at, Pos { line: 2, column: 1 });
        let Kind::List(list) = &entries[1].value.kind else {
            panic!("a list")
        };
        let Kind::Map(inner) = &list[0].kind else {
            panic!("a map")
        };
        assert_eq!(inner[0].value.at, Pos { line: 3, column: 9 });
    }

    #[test]
    fn empty_null_and_quoted_differ() {
        let node = parse(
            "a:\nb: ~\nc: '~'\nd: null\ne: {f: , g: }\n",
            &mut Sink::default(),
        )
        .unwrap();
        let Kind::Map(entries) = node.kind else {
            panic!("a map")
        };
        let sorts: Vec<_> = entries.iter().map(|e| e.value.sort()).collect();
        assert_eq!(
            sorts,
            ["nothing", "null", "a single value", "null", "a map"]
        );
    }

    #[test]
    fn repeated_keys_tags_and_documents_are_mistakes() {
        assert!(mistakes("a: 1\na: 2\n").contains("f:2:1: 'a' is given twice, first on line 1"));
        assert!(mistakes("a: !!python/object x\n").contains("means nothing here"));
        assert!(mistakes("a: 1\n---\nb: 1\n").contains("a second document"));
        assert!(mistakes("").contains("the file is empty"));
        assert!(mistakes("? [a]\n: b\n").contains("a key must be a text"));
        assert!(mistakes("a: [1, 2\n").contains("this is not YAML"));
        assert!(mistakes("a: \u{0}\n").contains("f:1:4: a control character"));
    }

    #[test]
    fn alias_bombs_and_loops_end_early() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..10 {
            let row = vec![format!("*a{}", n - 1); 9].join(", ");
            bomb.push_str(
                &[
                    "a",
                    &n.to_string(),
                    ": &a",
                    &n.to_string(),
                    " [",
                    &row,
                    "]\n",
                ]
                .concat(),
            );
        }
        assert!(
            mistakes(&bomb).contains("anchors keep more")
                || mistakes(&bomb).contains("aliases copy")
        );
        assert!(mistakes("a: &a [*a]\n").contains("inside what it names"));
        let long = "x".repeat(1 << 20);
        let text = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 10_000].join(", "));
        assert!(mistakes(&text).contains("aliases copy"));
        assert_eq!(mistakes("a: &a [1, 2]\nb: *a\n"), "");
    }

    #[test]
    fn deep_nesting_ends_early() {
        for open in ["[", "{a: ", "- ", "? "] {
            let text = mistakes(&open.repeat(10_000));
            assert!(text.contains("nested more than 64"), "{open}: {text}");
        }
    }
}
