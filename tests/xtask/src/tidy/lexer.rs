//! Just enough of Rust's grammar to tell strings from everything else.

/// What the characters of a file belong to, at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment { depth: u32 },
    Text,
    RawText { hashes: usize },
}

/// The source without what stands inside its string literals; every line break stays.
///
/// Rules on width and words look at this, so that a long message or a test's input is no finding.
pub(crate) fn without_strings(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let (mut state, mut at) = (State::Code, 0);
    while at < chars.len() {
        let (next, taken) = step(state, &chars[at..]);
        let inside = matches!(state, State::Text | State::RawText { .. });
        for &c in &chars[at..at + taken] {
            // The closing quote leaves the literal and is kept.
            if !inside || c == '\n' || next == State::Code {
                out.push(c);
            }
        }
        (state, at) = (next, at + taken);
    }
    out
}

/// The state behind the next piece, and how many characters the piece has (at least one).
fn step(state: State, rest: &[char]) -> (State, usize) {
    let second = rest.get(1).copied();
    match (state, rest[0]) {
        (State::Code, _) => step_in_code(rest),
        (State::LineComment, '\n') => (State::Code, 1),
        (State::BlockComment { depth }, '/') if second == Some('*') => {
            (State::BlockComment { depth: depth + 1 }, 2)
        }
        (State::BlockComment { depth: 1 }, '*') if second == Some('/') => (State::Code, 2),
        (State::BlockComment { depth }, '*') if second == Some('/') => {
            (State::BlockComment { depth: depth - 1 }, 2)
        }
        (State::Text, '\\') => (state, rest.len().min(2)),
        (State::Text, '"') => (State::Code, 1),
        (State::RawText { hashes }, '"') if starts_with_hashes(&rest[1..], hashes) => {
            (State::Code, 1 + hashes)
        }
        _ => (state, 1),
    }
}

fn step_in_code(rest: &[char]) -> (State, usize) {
    match (rest[0], rest.get(1)) {
        ('/', Some('/')) => (State::LineComment, 2),
        ('/', Some('*')) => (State::BlockComment { depth: 1 }, 2),
        ('"', _) => (State::Text, 1),
        ('r', Some('"' | '#')) => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            match rest.get(1 + hashes) {
                Some('"') => (State::RawText { hashes }, 2 + hashes),
                // A raw identifier such as r#type.
                _ => (State::Code, 1),
            }
        }
        // An escaped character, or a quote as a character; lifetimes are no concern here.
        ('\'', Some('\\')) => (State::Code, rest.len().min(4)),
        ('\'', Some('"')) => (State::Code, rest.len().min(3)),
        _ => (State::Code, 1),
    }
}

fn starts_with_hashes(rest: &[char], hashes: usize) -> bool {
    rest.len() >= hashes && rest[..hashes].iter().all(|c| *c == '#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_insides_of_strings_go() {
        for (source, left) in [
            (r#"a("b c", d)"#, r#"a("", d)"#),
            (r#"a("b \" c", d)"#, r#"a("", d)"#),
            (r#"a("b \\", d)"#, r#"a("", d)"#),
            ("r#\"a \" b\"# + c", "r#\"\"# + c"),
            ("b\"x\" r\"y\\\" z", "b\"\" r\"\" z"),
            ("let r#type = 1;", "let r#type = 1;"),
            ("'\"' + \"x\" + '\\'' + \"y\"", "'\"' + \"\" + '\\'' + \"\""),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("// it's \"here\"\n\"x\"", "// it's \"here\"\n\"\""),
            ("/* a /* \" */ b */ \"x\"", "/* a /* \" */ b */ \"\""),
            ("\"a\nb\" c", "\"\n\" c"),
        ] {
            assert_eq!(without_strings(source), left, "{source}");
        }
    }

    #[test]
    fn what_never_ends_does_not_panic() {
        for source in ["\"a\\", "r#\"a\"", "'\\", "/* a", "'\"", "r#", ""] {
            without_strings(source);
        }
    }
}
