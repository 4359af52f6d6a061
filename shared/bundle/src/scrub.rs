//! Takes tokens and private keys out of text.

/// How enrolment tokens, access tokens and the bodies of keys begin.
const TOKENS: [&str; 2] = ["dft1-", "dfa1-"];
const BEGIN: &str = "-----BEGIN ";
const PRIVATE: &str = "PRIVATE KEY-----";
/// What stands where something was taken out.
const REMOVED: &str = "[removed]";

/// The text without tokens and private keys, and how many were taken out.
#[must_use]
pub fn scrub(text: &str) -> (String, u64) {
    let (mut clean, mut removed) = (String::with_capacity(text.len()), 0);
    let mut rest = text;
    while let Some((at, end)) = next(rest) {
        clean.push_str(&rest[..at]);
        clean.push_str(REMOVED);
        removed += 1;
        rest = &rest[end..];
    }
    clean.push_str(rest);
    (clean, removed)
}

/// Where the next secret begins and ends.
fn next(text: &str) -> Option<(usize, usize)> {
    let token = TOKENS.iter().filter_map(|begin| token(text, begin)).min();
    token.into_iter().chain(key(text)).min()
}

fn token(text: &str, begin: &str) -> Option<(usize, usize)> {
    let at = text.find(begin)?;
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let length = text[at..].bytes().take_while(inside).count();
    Some((at, at + length))
}

/// A private key in PEM, up to its end or that of the text.
fn key(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(BEGIN)?;
        let head = &text[at + BEGIN.len()..];
        let kind = head.find("-----").map(|end| &head[..end + 5]);
        if kind.is_some_and(|kind| kind.ends_with(PRIVATE)) {
            let end = text[at..].find("-----END ").map(|end| at + end);
            let line = |end: usize| text[end + 9..].find("-----").map(|tail| end + 14 + tail);
            return Some((at, end.and_then(line).unwrap_or(text.len())));
        }
        from = at + BEGIN.len();
    }
}
