//! Questions that a workflow puts to a person, and their answers. What an answer writes follows
//! from the answer alone, so that both sides know its content without sending it.

use crate::fact::OutputFile;
use crate::ids::Hash;
use crate::spec::Type;
use crate::time::Unix;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The file that an answer is written to: the only output that an approval can have.
pub const ANSWER_FILE: &str = "answer.json";
/// Bytes of all fields of one answer.
pub const ANSWER_BYTES: usize = 64 * 1024;
/// Bytes of the name of whoever answers.
pub const BY_BYTES: usize = 1024;

/// A question to a person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// What is asked.
    pub prompt: String,
    /// What the person fills in, in the order of the specification.
    pub input: Vec<Field>,
    /// What counts as answered when the deadline of the task passes; without it the task fails.
    pub default: Option<bool>,
}

/// A field that a person fills in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Type,
    /// What counts when it is left out; must be filled in if absent.
    pub default: Option<String>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Approved, or rejected.
    pub yes: bool,
    /// The fields with what was filled in, checked against their types.
    pub input: BTreeMap<String, String>,
    /// Who.
    pub by: String,
    /// When, by the clock of the side where it was given.
    pub at: Unix,
    /// How it came.
    pub via: Via,
}

/// How an answer came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Via {
    /// A person gave it at the gateway.
    Gateway,
    /// A person gave it at the coordinator.
    Coordinator,
    /// Nobody gave one before the deadline.
    Deadline,
}

impl Via {
    /// The text that people and programs see.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Coordinator => "coordinator",
            Self::Deadline => "deadline",
        }
    }
}

impl Approval {
    /// What was filled in, in its one form and with defaults. Who rejects need not fill in
    /// anything.
    ///
    /// # Errors
    /// What is wrong with it, and what to do, for people.
    pub fn fill_in(
        &self,
        yes: bool,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, String> {
        if given.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > ANSWER_BYTES {
            return Err(format!("an answer has at most {ANSWER_BYTES} bytes"));
        }
        if let Some(name) = given.keys().find(|name| self.field(name).is_none()) {
            let names: Vec<&str> = self.input.iter().map(|f| f.name.as_str()).collect();
            let known = match names.len() {
                0 => "it asks for none".to_owned(),
                _ => format!("it asks for {}", names.join(", ")),
            };
            return Err(format!("the question has no field {name}; {known}"));
        }
        let mut filled = BTreeMap::new();
        for field in &self.input {
            let (name, kind) = (&field.name, field.kind);
            let Some(text) = given.get(name).or(field.default.as_ref()) else {
                if yes {
                    return Err(format!(
                        "field {name} ({}) must be filled in: --input {name}=VALUE",
                        kind.text()
                    ));
                }
                continue;
            };
            let value = kind.check(text);
            let value = value.map_err(|(what, mend)| format!("field {name}: {what}; {mend}"))?;
            filled.insert(name.clone(), value);
        }
        Ok(filled)
    }

    fn field(&self, name: &str) -> Option<&Field> {
        self.input.iter().find(|field| field.name == name)
    }

    /// The content of [`ANSWER_FILE`]: `{approved, by, at, via, input}`, with `at` in milliseconds
    /// since 1970 and the fields of `input` as JSON values of their types.
    #[must_use]
    pub fn file(&self, answer: &Answer) -> Vec<u8> {
        let fields = answer.input.iter().map(|(name, text)| {
            let kind = self.field(name).map_or(Type::String, |field| field.kind);
            let value = match kind {
                Type::String => Value::from(text.as_str()),
                _ => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str())),
            };
            (name.clone(), value)
        });
        let object = json!({
            "approved": answer.yes,
            "by": answer.by,
            "at": answer.at.0,
            "via": answer.via.text(),
            "input": fields.collect::<Map<String, Value>>(),
        });
        format!("{object}\n").into_bytes()
    }

    /// Hash and size of that content.
    #[must_use]
    pub fn output(&self, answer: &Answer) -> OutputFile {
        let bytes = self.file(answer);
        OutputFile {
            hash: Hash::of(&bytes),
            size: bytes.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval() -> Approval {
        let field = |name: &str, kind, default: Option<&str>| Field {
            name: name.into(),
            kind,
            default: default.map(str::to_owned),
        };
        Approval {
            prompt: "ship it?".into(),
            input: vec![
                field("batch", Type::Integer, None),
                field("note", Type::String, Some("none")),
            ],
            default: None,
        }
    }

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn fields_are_checked_and_filled_in() {
        let asked = approval();
        let filled = asked.fill_in(true, &given(&[("batch", "007")])).unwrap();
        assert_eq!(filled, given(&[("batch", "7"), ("note", "none")]));
        for (wrong, says) in [
            (given(&[]), "must be filled in"),
            (given(&[("batch", "x")]), "not of type integer"),
            (given(&[("batch", "1"), ("bach", "1")]), "no field bach"),
            (given(&[("note", &"x".repeat(ANSWER_BYTES))]), "at most"),
        ] {
            let said = asked.fill_in(true, &wrong).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        assert!(asked.fill_in(false, &given(&[])).is_ok());
    }

    #[test]
    fn the_file_says_all_of_the_answer() {
        let answer = Answer {
            yes: true,
            input: given(&[("batch", "7"), ("note", "a \"b\"")]),
            by: "ann".into(),
            at: Unix(5),
            via: Via::Gateway,
        };
        let text = String::from_utf8(approval().file(&answer)).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["input"]["batch"], 7);
        assert_eq!(value["input"]["note"], "a \"b\"");
        assert_eq!(
            (&value["approved"], &value["by"]),
            (&Value::from(true), &Value::from("ann"))
        );
        assert_eq!(approval().output(&answer).size, text.len() as u64);
    }
}
