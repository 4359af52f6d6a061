//! What a target is: a decoder, real values for it, and what no input may make it take.

use std::time::Duration;

/// What became of an input: its class (what it was, or why it was refused), or how a promise broke.
pub(crate) type Verdict = Result<String, String>;

/// How inputs are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Bytes.
    Bytes,
    /// Text of some language.
    Text,
    /// Bytes that are compressed before they are given.
    Packed,
}

/// The most that one input may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Bytes of memory for each byte of the input.
    pub(crate) per_byte: usize,
    /// Bytes of memory beside that.
    pub(crate) fixed: usize,
    /// Time.
    pub(crate) time: Duration,
}

impl Bound {
    /// So much for each byte, and so many KiB; a second.
    pub(crate) const fn new(per_byte: usize, kib: usize) -> Self {
        Self {
            per_byte,
            fixed: kib << 10,
            time: Duration::from_secs(1),
        }
    }

    /// The same with so many seconds.
    pub(crate) const fn within(self, seconds: u64) -> Self {
        Self {
            time: Duration::from_secs(seconds),
            ..self
        }
    }

    /// Bytes of memory for an input of so many bytes.
    pub(crate) fn bytes(&self, input: usize) -> usize {
        self.fixed + self.per_byte * input
    }
}

/// A decoder under fire.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Where its input comes from.
    pub(crate) fed_by: &'static str,
    /// How inputs are made.
    pub(crate) form: Form,
    /// What an input may take.
    pub(crate) bound: Bound,
    /// Of the inputs that were asked for it takes one in so many.
    pub(crate) cost: u64,
    /// Words of its language.
    pub(crate) words: &'static [&'static str],
    /// Real values.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Decodes an input and uses what came out.
    pub(crate) check: fn(&[u8]) -> Verdict,
}

impl Target {
    /// The input that is made of these bytes.
    pub(crate) fn wrap(&self, bytes: &[u8]) -> Vec<u8> {
        match self.form {
            Form::Packed => shared::codec::compress(bytes),
            Form::Bytes | Form::Text => bytes.to_vec(),
        }
    }
}

/// The class of an error: its text without digits and without what was quoted of the input.
pub(crate) fn class(error: &dyn std::fmt::Display) -> String {
    let mut class = String::new();
    let mut quoted = false;
    let text = error.to_string();
    // paths name directories that are made anew
    let words = text.split(' ').filter(|word| !word.contains("/tmp"));
    let words = words.take(30).flat_map(|word| word.chars().chain([' ']));
    for c in words.take(160) {
        quoted ^= c == '\'' || c == '"' || c == '`';
        if !quoted && !c.is_ascii_digit() && c.is_ascii() {
            class.push(c);
        }
    }
    class
}
