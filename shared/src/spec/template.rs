//! Parameters: their declarations, the values of one submission, and `${params.x}` in texts. A
//! value is only ever put into the middle of a text; it never becomes syntax.

use super::mistake::{brief, did_you_mean};
use super::units::Wrong;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Type of a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Type {
    /// Any text.
    String,
    /// A whole number.
    Integer,
    /// A decimal number.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl Type {
    /// The type with this name.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => Self::String,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    /// The value in its one form, or what is wrong with it.
    pub(crate) fn check(self, text: &str) -> Result<String, Wrong> {
        const LONGEST: usize = 64 * 1024;
        let fine = match self {
            Self::String if text.len() > LONGEST || text.contains('\0') => {
                return Err((
                    format!("a value of {} bytes", text.len()),
                    format!("give at most {LONGEST} bytes without NUL, or send a file"),
                ));
            }
            Self::String => Some(text.to_owned()),
            Self::Integer => text.parse::<i64>().ok().map(|n| n.to_string()),
            Self::Number => number(text).map(|_| text.to_owned()),
            Self::Boolean => matches!(text, "true" | "false").then(|| text.to_owned()),
        };
        fine.ok_or_else(|| {
            let mend = match self {
                Self::Integer => "write a whole number such as 7",
                Self::Number => "write a number such as 0.5",
                _ => "write true or false",
            };
            (
                format!("'{}' is not of type {}", brief(text), self.text()),
                mend.to_owned(),
            )
        })
    }
}

/// A finite decimal number.
pub(crate) fn number(text: &str) -> Option<f64> {
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    let fine = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E');
    (digits && text.len() <= 64 && text.bytes().all(fine))
        .then(|| text.parse::<f64>().ok())
        .flatten()
        .filter(|n| n.is_finite())
}

/// A declared parameter with its value, if it has one by now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) kind: Type,
    pub(crate) value: Option<String>,
}

/// All declared parameters (or the axes of a matrix) by name.
pub(crate) type Values = BTreeMap<String, Known>;

/// What a text may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) params: &'a Values,
    /// The axes of the task, if it is a matrix.
    pub(crate) matrix: Option<&'a Values>,
}

impl<'a> Scope<'a> {
    /// What `name` means, with its `params.` or `matrix.`; none if it begins with neither.
    pub(crate) fn lookup(self, name: &str) -> Option<Result<&'a Known, Wrong>> {
        if let Some(name) = name.strip_prefix("params.") {
            return Some(lookup(name, self.params));
        }
        let axis = name.strip_prefix("matrix.")?;
        Some(match self.matrix {
            Some(axes) => axes.get(axis).ok_or_else(|| {
                let otherwise = format!(
                    "axes: {}",
                    axes.keys()
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                        .join(", ")
                );
                let mend = did_you_mean(axis, axes.keys().map(String::as_str), &otherwise);
                (format!("the matrix has no axis '{}'", brief(axis)), mend)
            }),
            None => {
                let what = format!("'{}' outside of a task with a matrix", brief(name));
                let mend = format!("add `matrix: {{{}: [a, b]}}` to the task", brief(axis));
                Err((what, mend))
            }
        })
    }
}

/// What became of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Filled {
    /// Nothing in it was to be filled in.
    Same,
    /// This is its text now.
    Text(String),
    /// It names a parameter without a value.
    Open,
}

/// Fills in `${params.x}` and `${matrix.x}`; `$${` becomes `${`. Reads from left to right, once.
pub(crate) fn fill(text: &str, scope: Scope<'_>) -> Result<Filled, Wrong> {
    if !text.contains("${") {
        return Ok(Filled::Same);
    }
    let (mut out, mut rest, mut open) = (String::with_capacity(text.len()), text, false);
    while let Some(start) = rest.find('$') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let (value, after) = reference(after, scope)?;
            match value {
                Some(value) => out.push_str(value),
                None => open = true,
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(if open {
        Filled::Open
    } else {
        Filled::Text(out)
    })
}

/// The value of what stands between `${` and `}`, and what follows.
fn reference<'v, 't>(
    after: &'t str,
    scope: Scope<'v>,
) -> Result<(Option<&'v str>, &'t str), Wrong> {
    const MEND: &str = "write ${params.NAME} or ${matrix.AXIS}, or $${ for a literal ${";
    let Some(end) = after.find('}') else {
        return Err((
            format!("'${{{}' is not closed", brief(after)),
            MEND.to_owned(),
        ));
    };
    let inside = after[..end].trim();
    let Some(known) = scope.lookup(inside) else {
        return Err((
            format!("'${{{}}}' is no template", brief(inside)),
            MEND.to_owned(),
        ));
    };
    Ok((known?.value.as_deref(), &after[end + 1..]))
}

/// The parameter called `name`.
fn lookup<'v>(name: &str, values: &'v Values) -> Result<&'v Known, Wrong> {
    values.get(name).ok_or_else(|| {
        let mend = format!(
            "declare it under `params`: {{{}: {{type: string}}}}",
            brief(name)
        );
        let mend = did_you_mean(name, values.keys().map(String::as_str), &mend);
        (format!("there is no parameter '{}'", brief(name)), mend)
    })
}

/// Whether text for a shell names a parameter.
pub(crate) fn names_parameter(text: &str) -> bool {
    text.split("${").skip(1).any(|after| {
        let after = after.trim_start();
        after.starts_with("params.") || after.starts_with("matrix.")
    })
}

/// `text` written so that [`fill`] gives it back.
pub(crate) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params_known(value: &str) -> Known {
        Known {
            kind: Type::Integer,
            value: Some(value.to_owned()),
        }
    }

    fn values() -> Values {
        let known = |value: Option<&str>| Known {
            kind: Type::String,
            value: value.map(str::to_owned),
        };
        [
            ("x".to_owned(), known(Some("7"))),
            ("open".to_owned(), known(None)),
        ]
        .into()
    }

    #[test]
    fn templates_are_filled_once_from_left_to_right() {
        let (params, axes) = (values(), [("n".to_owned(), params_known("3"))].into());
        let matrix = Some(&axes);
        let fill = |text: &str| {
            let params = &params;
            fill(text, Scope { params, matrix })
        };
        assert_eq!(fill("plain $x $"), Ok(Filled::Same));
        assert_eq!(
            fill("a${params.x}b${ params.x }"),
            Ok(Filled::Text("a7b7".to_owned()))
        );
        assert_eq!(
            fill("$${params.x}"),
            Ok(Filled::Text("${params.x}".to_owned()))
        );
        assert_eq!(fill("$ ${params.x}$"), Ok(Filled::Text("$ 7$".to_owned())));
        assert_eq!(fill("${params.open}"), Ok(Filled::Open));
        assert!(
            fill("${params.y}")
                .unwrap_err()
                .0
                .contains("no parameter 'y'")
        );
        assert!(fill("${HOME}").unwrap_err().1.contains("$${"));
        assert_eq!(fill("<${matrix.n}>"), Ok(Filled::Text("<3>".to_owned())));
        assert!(fill("${matrix.y}").unwrap_err().0.contains("no axis 'y'"));
        let none = Scope {
            params: &params,
            matrix: None,
        };
        let wrong = super::fill("${matrix.n}", none).unwrap_err();
        assert!(wrong.0.contains("outside of a task"));
        assert!(fill("${params.x").unwrap_err().0.contains("not closed"));
    }

    #[test]
    fn a_value_is_never_read_as_a_template() {
        let mut values = values();
        values.get_mut("x").unwrap().value = Some("${params.open}".to_owned());
        assert_eq!(
            fill(
                "${params.x}",
                Scope {
                    params: &values,
                    matrix: None
                }
            ),
            Ok(Filled::Text("${params.open}".to_owned()))
        );
    }

    #[test]
    fn values_are_checked_against_their_type() {
        assert_eq!(Type::Integer.check("-7"), Ok("-7".to_owned()));
        assert!(Type::Integer.check("7.5").is_err() && Type::Integer.check("").is_err());
        assert!(Type::Number.check("1e3").is_ok() && Type::Number.check("NaN").is_err());
        assert!(Type::Boolean.check("yes").is_err() && Type::Boolean.check("true").is_ok());
        assert!(Type::String.check("a\0b").is_err());
    }
}
