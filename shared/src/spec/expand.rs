//! The expanded form of a specification: every field of every task with what counts for it, as
//! YAML that reads back to the same workflow, and as JSON.

use super::assemble::{Param, defaults};
use super::schema::{Field, Kind, OF_RUNNING, TASK, WORKFLOW};
use super::template::escape;
use super::units;
use super::value::{self, Block, File, Layers, Value, Word};
use std::fmt::Write as _;

/// A value to write.
enum Out {
    Null,
    /// A number, switch or word that needs no quotes.
    Plain(String),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

/// As YAML.
pub(crate) fn yaml(block: &Block, params: &[Param]) -> String {
    let mut text = String::new();
    if let Out::Map(fields) = workflow(block, params) {
        write_map(&mut text, &fields, 0);
    }
    text
}

/// As JSON, on one line.
pub(crate) fn json(block: &Block, params: &[Param]) -> String {
    let mut text = String::new();
    write_json(&mut text, &workflow(block, params));
    text
}

fn workflow(block: &Block, params: &[Param]) -> Out {
    let builtin = value::builtin(WORKFLOW);
    let layers = Layers([Some(block), None, Some(&builtin)]);
    let task_builtin = value::builtin(TASK);
    let mut fields = Vec::new();
    for field in WORKFLOW {
        let out = match field.name {
            // They stand in each task now.
            "defaults" => continue,
            "params" => Out::Map(params.iter().map(|p| (p.name.clone(), param(p))).collect()),
            "tasks" => Out::Map(
                block
                    .each("tasks")
                    .iter()
                    .map(|task| {
                        let layers = [Some(&task.block), defaults(block), Some(&task_builtin)];
                        (task.name.clone(), task_out(&Layers(layers)))
                    })
                    .collect(),
            ),
            _ => out(field, &layers),
        };
        fields.push((field.name.to_owned(), out));
    }
    Out::Map(fields)
}

fn param(param: &Param) -> Out {
    let default = param
        .default
        .as_ref()
        .map_or(Out::Null, |text| Out::Text(text.clone()));
    Out::Map(vec![
        ("type".to_owned(), Out::Plain(param.kind.text().to_owned())),
        ("default".to_owned(), default),
        (
            "required".to_owned(),
            Out::Plain(param.default.is_none().to_string()),
        ),
    ])
}

/// All fields of a task; those that say how something runs stand only where something does.
fn task_out(layers: &Layers<'_>) -> Out {
    let asks = matches!(layers.get("approval").1, Value::Block(_));
    let counts = |field: &&Field| !(asks && OF_RUNNING.contains(&field.name));
    let fields = TASK.iter().filter(counts);
    Out::Map(
        fields
            .map(|field| (field.name.to_owned(), out(field, layers)))
            .collect(),
    )
}

fn block_out(table: &'static [Field], layers: &Layers<'_>) -> Out {
    Out::Map(
        table
            .iter()
            .map(|field| (field.name.to_owned(), out(field, layers)))
            .collect(),
    )
}

fn out(field: &Field, layers: &Layers<'_>) -> Out {
    let plain = |text: String| Out::Plain(text);
    match (field.kind, layers.get(field.name).1) {
        (Kind::Block(_), Value::Unset) => Out::Null,
        (Kind::Each(table), Value::Each(each)) => Out::Map(
            each.iter()
                .map(|named| {
                    let builtin = value::builtin(table);
                    let layers = Layers([Some(&named.block), None, Some(&builtin)]);
                    (named.name.clone(), block_out(table, &layers))
                })
                .collect(),
        ),
        (Kind::Block(table), _) => {
            let (inner, builtin) = (layers.inside(field.name), value::builtin(table));
            let [own, defaults, schema] = inner.0;
            block_out(table, &Layers([own, defaults, schema.or(Some(&builtin))]))
        }
        (Kind::Labels | Kind::Env, _) => {
            let pairs = layers.pairs(field.name);
            Out::Map(
                pairs
                    .into_iter()
                    .map(|(k, w)| (k.to_owned(), word(w)))
                    .collect(),
            )
        }
        (Kind::Counts, _) => {
            let counts = layers.counts(field.name);
            Out::Map(
                counts
                    .into_iter()
                    .map(|(k, n)| (k, plain(n.to_string())))
                    .collect(),
            )
        }
        (Kind::Axes, Value::Axes(axes)) => Out::Map(
            axes.iter()
                .map(|(axis, values)| {
                    let values = values.iter().cloned().map(Out::Text);
                    (axis.clone(), Out::List(values.collect()))
                })
                .collect(),
        ),
        (Kind::Shell, Value::Text(text)) => Out::Text(text.clone()),
        (Kind::Directory, Value::Text(text)) if text.is_empty() => plain(".".to_owned()),
        (_, Value::Open(text)) => Out::Text(text.clone()),
        (_, Value::Text(text)) => Out::Text(escape(text)),
        (_, Value::Int(n)) => plain(n.to_string()),
        (_, Value::Milli(n)) => plain(units::thousandths_text(*n)),
        (_, Value::Switch(on)) => plain(on.to_string()),
        (_, Value::Span(span)) => plain(span.to_string()),
        (_, Value::Bytes(bytes)) => plain(units::size_text(*bytes)),
        (_, Value::Deadline(_, text) | Value::When(text, _)) => Out::Text(text.clone()),
        (_, Value::Word(text)) => plain((*text).to_owned()),
        (_, Value::Texts(texts)) => Out::List(texts.iter().map(word).collect()),
        (_, Value::Codes(codes)) => {
            Out::List(codes.iter().map(|code| plain(code.to_string())).collect())
        }
        (_, Value::Files(files)) => Out::List(files.iter().map(file).collect()),
        (
            _,
            Value::Unset
            | Value::Pairs(_)
            | Value::Counts(_)
            | Value::Axes(_)
            | Value::Block(_)
            | Value::Each(_),
        ) => Out::Null,
    }
}

fn word(word: &Word) -> Out {
    Out::Text(if word.open {
        word.text.clone()
    } else {
        escape(&word.text)
    })
}

fn file(file: &File) -> Out {
    if let (Some(name), None, None) = (&file.name, &file.path, &file.source) {
        return word(name);
    }
    let fields = [
        ("name", &file.name),
        ("path", &file.path),
        ("source", &file.source),
    ];
    let given = fields
        .into_iter()
        .filter_map(|(n, w)| Some((n.to_owned(), word(w.as_ref()?))));
    Out::Map(given.collect())
}

fn write_map(text: &mut String, fields: &[(String, Out)], indent: usize) {
    for (key, value) in fields {
        let _ = write!(text, "{:indent$}{}:", "", quoted(key));
        match value {
            Out::Map(inner) if !inner.is_empty() => {
                text.push('\n');
                write_map(text, inner, indent + 2);
            }
            Out::Text(lines) if is_block_text(lines) => write_block(text, lines, indent + 2),
            value => {
                text.push(' ');
                write_flow(text, value);
                text.push('\n');
            }
        }
    }
}

/// Whether the text can stand as a literal block and come back unchanged.
fn is_block_text(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n', '\t'])
        && body
            .chars()
            .all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic() || c.is_alphabetic())
}

fn write_block(text: &mut String, lines: &str, indent: usize) {
    text.push_str(if lines.ends_with('\n') {
        " |\n"
    } else {
        " |-\n"
    });
    for line in lines.lines() {
        let indent = if line.is_empty() { 0 } else { indent };
        let _ = writeln!(text, "{:indent$}{line}", "");
    }
}

fn write_flow(text: &mut String, value: &Out) {
    match value {
        Out::Null => text.push_str("null"),
        Out::Plain(plain) => text.push_str(plain),
        Out::Text(value) => text.push_str(&quoted(value)),
        Out::List(list) => {
            text.push('[');
            for (n, item) in list.iter().enumerate() {
                text.push_str(if n == 0 { "" } else { ", " });
                write_flow(text, item);
            }
            text.push(']');
        }
        Out::Map(fields) => {
            text.push('{');
            for (n, (key, item)) in fields.iter().enumerate() {
                let _ = write!(text, "{}{}: ", if n == 0 { "" } else { ", " }, quoted(key));
                write_flow(text, item);
            }
            text.push('}');
        }
    }
}

/// The text, in quotes if any reader of YAML could take it for something else.
fn quoted(text: &str) -> String {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    let word = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    let special = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    if word && text.bytes().all(inner) && !special.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    json_text(text)
}

/// In double quotes, with escapes that YAML and JSON share.
fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn write_json(text: &mut String, value: &Out) {
    match value {
        Out::Null => text.push_str("null"),
        Out::Plain(plain) => {
            let bare = plain == "true" || plain == "false" || plain.parse::<f64>().is_ok();
            text.push_str(&if bare {
                plain.clone()
            } else {
                json_text(plain)
            });
        }
        Out::Text(value) => text.push_str(&json_text(value)),
        Out::List(list) => {
            text.push('[');
            for (n, item) in list.iter().enumerate() {
                text.push_str(if n == 0 { "" } else { "," });
                write_json(text, item);
            }
            text.push(']');
        }
        Out::Map(fields) => {
            text.push('{');
            for (n, (key, item)) in fields.iter().enumerate() {
                let _ = write!(text, "{}{}:", if n == 0 { "" } else { "," }, json_text(key));
                write_json(text, item);
            }
            text.push('}');
        }
    }
}
