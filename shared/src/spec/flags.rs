//! Flags in a file (`faults.yaml`): a map whose keys are flags without their dashes. Owns the form;
//! what a value means is said by whoever owns the flag.

use super::mistake::{Mistake, Mistakes, Pos, Sink, nearest};
use super::yaml::{self, Entry, Kind, Node as Tree};

/// A flag that such a file may hold.
#[derive(Clone, Copy, Debug)]
pub struct Flag<'a> {
    /// Its name without dashes.
    pub name: &'a str,
    /// Whether it may be given more than once.
    pub repeated: bool,
}

/// A flag with one of its values, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// Its name without dashes.
    pub name: String,
    /// What stands behind it.
    pub value: String,
    line: u32,
    column: u32,
}

impl Given {
    /// This value is wrong.
    #[must_use]
    pub fn mistake(&self, file_name: &str, what: String, mend: String) -> Mistake {
        Mistake {
            file: file_name.to_owned(),
            line: self.line,
            column: self.column,
            what,
            mend,
        }
    }
}

/// All flags of a file, in its order. A list stands for a flag that is given more than once, and
/// so does a map, for `KEY=VALUE`.
///
/// # Errors
/// All mistakes of the file's form, each with its place and its mend.
pub fn read(file_name: &str, bytes: &[u8], known: &[Flag<'_>]) -> Result<Vec<Given>, Mistakes> {
    let text = super::utf8(file_name, bytes)?;
    let mut sink = Sink::default();
    let mut given = Vec::new();
    if text.trim().is_empty() {
        sink.add(Pos::START, "the file is empty", mend_form(known));
    } else if let Some(root) = yaml::parse(text, &mut sink) {
        match &root.kind {
            Kind::Map(entries) => {
                let read = |entry| take(entry, known, &mut given, &mut sink);
                entries.iter().for_each(read);
            }
            _ => {
                let what = format!("flags are a map, not {}", root.sort());
                sink.add(root.at, what, mend_form(known));
            }
        }
    }
    sink.settle(file_name, given)
}

fn mend_form(known: &[Flag<'_>]) -> String {
    let names: Vec<&str> = known.iter().map(|flag| flag.name).collect();
    format!("write `FLAG: VALUE` lines, of {}", names.join(", "))
}

fn take(entry: &Entry, known: &[Flag<'_>], given: &mut Vec<Given>, sink: &mut Sink) {
    let Some(flag) = known.iter().find(|flag| flag.name == &*entry.key) else {
        let names = known.iter().map(|flag| flag.name);
        let mend = match nearest(&entry.key, names) {
            Some(near) => format!("did you mean {near}?"),
            None => mend_form(known),
        };
        sink.add(entry.at, format!("unknown key '{}'", entry.key), mend);
        return;
    };
    let mut put = |at: Pos, value: String| {
        given.push(Given {
            name: flag.name.to_owned(),
            value,
            line: at.line,
            column: at.column,
        });
    };
    match &entry.value.kind {
        Kind::Scalar(text) => put(entry.value.at, text.to_string()),
        Kind::List(list) if flag.repeated => {
            for item in list {
                match single(item) {
                    Some(text) => put(item.at, text.to_owned()),
                    None => wrong_part(flag.name, item, sink),
                }
            }
        }
        Kind::Map(pairs) if flag.repeated => {
            for pair in pairs {
                match single(&pair.value) {
                    Some(text) => put(pair.value.at, format!("{}={text}", pair.key)),
                    None => wrong_part(flag.name, &pair.value, sink),
                }
            }
        }
        _ => {
            let what = format!("{} is {}", flag.name, entry.value.sort());
            let mend = "write a single value, as behind the flag";
            sink.add(entry.value.at, what, mend);
        }
    }
}

fn single(tree: &Tree) -> Option<&str> {
    match &tree.kind {
        Kind::Scalar(text) => Some(text),
        _ => None,
    }
}

fn wrong_part(name: &str, part: &Tree, sink: &mut Sink) {
    let what = format!("a part of {name} is {}", part.sort());
    sink.add(part.at, what, "write single values");
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Flag<'_>; 2] = [
        Flag {
            name: "link-down",
            repeated: false,
        },
        Flag {
            name: "takes",
            repeated: true,
        },
    ];

    fn pairs(text: &str) -> Vec<(String, String)> {
        let given = read("faults.yaml", text.as_bytes(), &KNOWN).unwrap();
        given.into_iter().map(|one| (one.name, one.value)).collect()
    }

    #[test]
    fn values_lists_and_maps_are_flags() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let [down, takes] = [pair("link-down", "2h..10h"), pair("takes", "a=1h")];
        assert_eq!(
            pairs("link-down: 2h..10h\ntakes: a=1h"),
            [down, takes.clone()]
        );
        assert_eq!(pairs("takes: {a: 1h}"), [takes]);
        let two = [pair("takes", "a=1h"), pair("takes", "b=2h")];
        assert_eq!(pairs("takes: [a=1h, b=2h]"), two);
    }

    #[test]
    fn mistakes_have_their_places() {
        let texts = [
            ("", "1:1: the file is empty"),
            ("5", "1:1: flags are a map, not a single value"),
            (
                "link_down: 2h",
                "1:1: unknown key 'link_down'\n  mend: did you mean link-down?",
            ),
            (
                "speed: 1",
                "unknown key 'speed'\n  mend: write `FLAG: VALUE` lines, of link-down, takes",
            ),
            ("link-down: [2h]", "1:12: link-down is a list"),
            ("link-down:", "link-down is nothing"),
            ("takes: [[a]]", "1:9: a part of takes is a list"),
        ];
        for (text, wanted) in texts {
            let mistakes = read("faults.yaml", text.as_bytes(), &KNOWN).unwrap_err();
            let told = mistakes.to_string();
            assert!(told.contains(wanted), "{text}: {told}");
        }
    }
}
