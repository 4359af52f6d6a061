//! Conditions over parameters: `==` `!=` `<` `<=` `>` `>=` `and` `or` `not`, parentheses, texts in
//! quotes, numbers, `true`, `false`, `params.x` and `matrix.x`. Types are checked where the
//! condition is read; nothing else can be called or named.

use super::mistake::brief;
use super::template::{Scope, Type, number};
use super::units::Wrong;
use std::cmp::Ordering;

/// Parentheses and `not` inside each other.
const DEPTH: usize = 32;

/// Decides the condition; `None` if it depends on a parameter without a value.
pub(crate) fn decide(text: &str, scope: Scope<'_>) -> Result<Option<bool>, Wrong> {
    let tokens = scan(text)?;
    let mut reader = Reader {
        tokens: &tokens,
        scope,
        depth: 0,
    };
    let outcome = reader.either()?;
    if let Some(token) = reader.tokens.first() {
        return wrong(format!("{} is not expected in the condition", token.text()));
    }
    truth(outcome)
}

fn wrong<T>(what: String) -> Result<T, Wrong> {
    let mend = "compare with == != < <= > >=, join with and, or, not: params.mode == \"night\"";
    Err((what, mend.to_owned()))
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Text(String),
    Word(String),
    Number(String),
    Sign(&'static str),
}

impl Token {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => format!("the text \"{}\"", brief(text)),
            Self::Word(text) | Self::Number(text) => format!("'{}'", brief(text)),
            Self::Sign(text) => format!("'{text}'"),
        }
    }
}

/// Longer signs before those they begin with.
const SIGNS: [&str; 8] = ["==", "!=", "<=", ">=", "<", ">", "(", ")"];

fn scan(text: &str) -> Result<Vec<Token>, Wrong> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else if matches!(first, '"' | '\'') {
            let Some(end) = rest[1..].find(first) else {
                return wrong(format!("a quote is not closed: {}", brief(rest)));
            };
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            rest = &rest[end + 2..];
        } else if word(first) {
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            let (found, after) = rest.split_at(end);
            let number = number(found).is_some();
            let token = if number { Token::Number } else { Token::Word };
            tokens.push(token(found.to_owned()));
            rest = after;
        } else {
            return wrong(unknown_sign(rest, first));
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn unknown_sign(rest: &str, first: char) -> String {
    match () {
        () if rest.starts_with("&&") => "'&&' is written 'and'".to_owned(),
        () if rest.starts_with("||") => "'||' is written 'or'".to_owned(),
        () if rest.starts_with('!') => "'!' is written 'not'".to_owned(),
        () if rest.starts_with('=') => "'=' is written '=='".to_owned(),
        () if rest.starts_with("${") => {
            "a condition names parameters without ${}: params.x".to_owned()
        }
        () => format!("'{first}' means nothing in a condition"),
    }
}

/// A value; `None` inside if it depends on a parameter without one.
#[derive(Clone, PartialEq, Debug)]
enum Value {
    Text(Option<String>),
    Number(Option<String>),
    Truth(Option<bool>),
}

impl Value {
    fn sort(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Truth(_) => "true or false",
        }
    }
}

fn truth(value: Value) -> Result<Option<bool>, Wrong> {
    match value {
        Value::Truth(truth) => Ok(truth),
        other => wrong(format!(
            "{} stands where a condition is needed",
            other.sort()
        )),
    }
}

struct Reader<'t> {
    tokens: &'t [Token],
    scope: Scope<'t>,
    depth: usize,
}

impl Reader<'_> {
    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Word(w)) if w == word);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn either(&mut self) -> Result<Value, Wrong> {
        let mut left = self.both()?;
        while self.take_word("or") {
            let (a, b) = (truth(left)?, truth(self.both()?)?);
            left = Value::Truth(if a == Some(true) || b == Some(true) {
                Some(true)
            } else {
                both_known(a, b, false)
            });
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Value, Wrong> {
        let mut left = self.negated()?;
        while self.take_word("and") {
            let (a, b) = (truth(left)?, truth(self.negated()?)?);
            left = Value::Truth(if a == Some(false) || b == Some(false) {
                Some(false)
            } else {
                both_known(a, b, true)
            });
        }
        Ok(left)
    }

    fn negated(&mut self) -> Result<Value, Wrong> {
        let mut negate = false;
        let mut any = false;
        while self.take_word("not") {
            (negate, any) = (!negate, true);
        }
        let value = self.comparison()?;
        if !any {
            return Ok(value);
        }
        Ok(Value::Truth(truth(value)?.map(|t| t != negate)))
    }

    fn comparison(&mut self) -> Result<Value, Wrong> {
        let left = self.single()?;
        let Some(Token::Sign(sign)) = self.tokens.first() else {
            return Ok(left);
        };
        if matches!(*sign, "(" | ")") {
            return Ok(left);
        }
        self.tokens = &self.tokens[1..];
        let right = self.single()?;
        compare(&left, sign, &right).map(Value::Truth)
    }

    fn single(&mut self) -> Result<Value, Wrong> {
        let Some((token, rest)) = self.tokens.split_first() else {
            return wrong("the condition ends too early".to_owned());
        };
        self.tokens = rest;
        match token {
            Token::Text(text) => Ok(Value::Text(Some(text.clone()))),
            Token::Number(text) => Ok(Value::Number(Some(text.clone()))),
            Token::Sign("(") => self.group(),
            Token::Word(word) => self.word(word),
            Token::Sign(_) => wrong(format!("{} is not expected in the condition", token.text())),
        }
    }

    fn group(&mut self) -> Result<Value, Wrong> {
        self.depth += 1;
        if self.depth > DEPTH {
            return wrong(format!("parentheses are nested more than {DEPTH} deep"));
        }
        let value = self.either()?;
        self.depth -= 1;
        match self.tokens.split_first() {
            Some((Token::Sign(")"), rest)) => {
                self.tokens = rest;
                Ok(value)
            }
            _ => wrong("a parenthesis is not closed".to_owned()),
        }
    }

    fn word(&self, word: &str) -> Result<Value, Wrong> {
        if let Some(known) = self.scope.lookup(word) {
            let known = known?;
            return Ok(match known.kind {
                Type::String => Value::Text(known.value.clone()),
                Type::Integer | Type::Number => Value::Number(known.value.clone()),
                Type::Boolean => Value::Truth(known.value.as_deref().map(|v| v == "true")),
            });
        }
        match word {
            "true" | "false" => Ok(Value::Truth(Some(word == "true"))),
            _ => wrong(format!(
                "'{}' is unknown; texts stand in quotes",
                brief(word)
            )),
        }
    }
}

fn both_known(a: Option<bool>, b: Option<bool>, value: bool) -> Option<bool> {
    a.and(b).map(|_| value)
}

fn compare(left: &Value, sign: &str, right: &Value) -> Result<Option<bool>, Wrong> {
    let order = match (left, right) {
        (Value::Text(a), Value::Text(b)) => pair(a, b).map(|(a, b)| a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => pair(a, b).map(|(a, b)| compare_numbers(a, b)),
        (Value::Truth(a), Value::Truth(b)) if matches!(sign, "==" | "!=") => {
            pair(a, b).map(|(a, b)| a.cmp(b))
        }
        _ => {
            let (left, right) = (left.sort(), right.sort());
            return wrong(format!(
                "{left} cannot be compared with {right} by '{sign}'"
            ));
        }
    };
    Ok(order.map(|order| match sign {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn pair<'v, T>(a: &'v Option<T>, b: &'v Option<T>) -> Option<(&'v T, &'v T)> {
    a.as_ref().zip(b.as_ref())
}

/// Whole numbers exactly, others as floating point; both texts were checked to be numbers.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    if let (Ok(a), Ok(b)) = (a.parse::<i64>(), b.parse::<i64>()) {
        return a.cmp(&b);
    }
    let float = |text: &str| number(text).unwrap_or(0.0);
    float(a).total_cmp(&float(b))
}

#[cfg(test)]
mod tests {
    use super::super::template::{Known, Values};
    use super::*;

    fn decided(text: &str) -> Result<Option<bool>, String> {
        let known = |kind, value: Option<&str>| Known {
            kind,
            value: value.map(str::to_owned),
        };
        let values: Values = [
            ("mode".to_owned(), known(Type::String, Some("night"))),
            ("n".to_owned(), known(Type::Integer, Some("7"))),
            ("f".to_owned(), known(Type::Number, Some("0.5"))),
            ("on".to_owned(), known(Type::Boolean, Some("true"))),
            ("open".to_owned(), known(Type::Integer, None)),
        ]
        .into();
        let axes = [("k".to_owned(), known(Type::String, Some("a")))].into();
        let scope = Scope {
            params: &values,
            matrix: Some(&axes),
        };
        decide(text, scope).map_err(|(what, _)| what)
    }

    #[test]
    fn conditions_are_decided() {
        for (text, want) in [
            ("params.mode == \"night\"", true),
            ("params.mode != 'night'", false),
            ("params.n >= 7 and params.n < 8", true),
            ("params.n == 7.0", true),
            ("matrix.k == 'a' and params.on", true),
            ("params.f > -1", true),
            ("not params.on or (params.n > 9 and true)", false),
            ("not not params.on", true),
            ("params.mode == \"x\" or params.on", true),
            ("'a' < 'b'", true),
            ("9007199254740993 == 9007199254740992", false),
        ] {
            assert_eq!(decided(text), Ok(Some(want)), "{text}");
        }
    }

    #[test]
    fn unknown_values_leave_a_condition_open_unless_they_do_not_matter() {
        assert_eq!(decided("params.open == 1"), Ok(None));
        assert_eq!(decided("params.open == 1 or params.on"), Ok(Some(true)));
        assert_eq!(decided("params.open == 1 and params.on"), Ok(None));
        assert_eq!(decided("not (params.open == 1)"), Ok(None));
    }

    #[test]
    fn mistakes_are_specific() {
        for (text, want) in [
            (
                "params.mode == 7",
                "a text cannot be compared with a number",
            ),
            (
                "params.mode == night",
                "'night' is unknown; texts stand in quotes",
            ),
            ("params.moed == 'x'", "no parameter 'moed'"),
            ("params.on && params.on", "'&&' is written 'and'"),
            ("params.n = 7", "'=' is written '=='"),
            ("params.n", "a number stands where a condition is needed"),
            ("(params.on", "a parenthesis is not closed"),
            ("params.on)", "')' is not expected"),
            ("params.on <= true", "cannot be compared"),
            ("", "ends too early"),
            ("'a", "a quote is not closed"),
            ("${params.on}", "without ${}"),
            ("1 < 2 < 3", "'<' is not expected"),
        ] {
            let what = decided(text).unwrap_err();
            assert!(what.contains(want), "{text}: {what}");
        }
        assert!(
            decided(&"(".repeat(100_000))
                .unwrap_err()
                .contains("nested more than 32")
        );
    }
}
