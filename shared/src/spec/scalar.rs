//! Single values by what the schema says may stand there.

use super::mistake::{brief, did_you_mean};
use super::schema::Kind;
use super::units::{self, Wrong};
use super::value::Value;

/// A single value of this kind.
pub(crate) fn scalar(kind: Kind, text: &str) -> Result<Value, Wrong> {
    let owned = || Value::Text(text.to_owned());
    match kind {
        Kind::Name => units::name(text).map(|()| owned()),
        Kind::Integer(least, most) => integer(text, least, most).map(Value::Int),
        Kind::Decimal(least, most) => decimal(text, least, most).map(Value::Milli),
        Kind::Share => units::share(text).map(Value::Milli),
        Kind::Switch => switch(text).map(Value::Switch),
        Kind::Duration(least) => duration(text, least),
        Kind::Size => units::size(text).map(Value::Bytes),
        Kind::Deadline => units::deadline(text).map(|d| Value::Deadline(d, text.to_owned())),
        Kind::OneOf(words) => one_of(text, words).map(Value::Word),
        Kind::Path => units::inner_path(text).map(Value::Text),
        Kind::Directory if matches!(text, "." | "./") => Ok(Value::Text(String::new())),
        Kind::Directory => units::inner_path(text.trim_end_matches('/')).map(Value::Text),
        Kind::Source => units::node_file(text).map(Value::Text),
        Kind::Shell if text.trim().is_empty() => Err((
            "the text is empty".to_owned(),
            "write what the shell is to do".to_owned(),
        )),
        _ if text.contains('\0') => Err(("a NUL character".to_owned(), "remove it".to_owned())),
        _ => Ok(owned()),
    }
}

fn integer(text: &str, least: i64, most: i64) -> Result<i64, Wrong> {
    let mend = || format!("write a whole number from {least} to {most}");
    match text.parse::<i64>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        Ok(n) => Err((format!("{n} is out of range"), mend())),
        Err(_) => Err((format!("'{}' is no whole number", brief(text)), mend())),
    }
}

fn decimal(text: &str, least: u32, most: u32) -> Result<u32, Wrong> {
    let milli = units::thousandths(text).and_then(|n| u32::try_from(n).ok());
    milli.filter(|n| (least..=most).contains(n)).ok_or_else(|| {
        let (least, most) = (
            units::thousandths_text(least),
            units::thousandths_text(most),
        );
        let what = format!("'{}' is no number from {least} to {most}", brief(text));
        (
            what,
            "write a number with up to three decimal places: 1.5".to_owned(),
        )
    })
}

fn switch(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let what = format!("'{}' is neither true nor false", brief(text));
            Err((what, "write true or false".to_owned()))
        }
    }
}

fn duration(text: &str, least: u64) -> Result<Value, Wrong> {
    let span = units::duration(text)?;
    if span.0 < least {
        return Err((
            "0s is too short".to_owned(),
            "write null for none".to_owned(),
        ));
    }
    Ok(Value::Span(span))
}

fn one_of(text: &str, words: &'static [&'static str]) -> Result<&'static str, Wrong> {
    words
        .iter()
        .find(|word| **word == text)
        .copied()
        .ok_or_else(|| {
            let mend = did_you_mean(
                text,
                words.iter().copied(),
                &format!("one of: {}", words.join(", ")),
            );
            (format!("'{}' is not known here", brief(text)), mend)
        })
}

/// Checks the name of an environment variable.
pub(crate) fn variable(name: &str) -> Result<(), Wrong> {
    if name.starts_with("DRIFTLESS_") {
        let what = format!("the variable {} is set by the agent", brief(name));
        return Err((what, "use another name".to_owned()));
    }
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && name.len() <= 256 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    let what = format!("'{}' is no name of a variable", brief(name));
    Err((
        what,
        "use letters, digits and '_', not beginning with a digit".to_owned(),
    ))
}
