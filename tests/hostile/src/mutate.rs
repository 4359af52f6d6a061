//! Changes of an input that keep much of its structure: most mutants get past the first check of a
//! decoder and fail at a later one.

use crate::rng::Rng;
use crate::target::Form;

/// Most bytes of a mutant. Larger ones are made by seeds on purpose.
pub(crate) const MOST: usize = 64 * 1024;

/// Numbers at which lengths, counts and sums turn.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    63,
    64,
    127,
    128,
    255,
    256,
    999,
    1000,
    1001,
    0x3fff,
    0x4000,
    0xffff,
    0x1_0000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// What turns up in texts that mean harm.
const ODD: &[&str] = &[
    "",
    "\0",
    "\u{feff}",
    "\u{202e}",
    "\u{200b}",
    "é",
    "e\u{301}",
    "\u{1f4a9}",
    "\u{10ffff}",
    "\u{fffd}",
    "\u{2028}",
    "\r\n",
    "\t",
    "..",
    "../../etc/passwd",
    "/",
    "//",
    "%00",
    "%2e%2e%2f",
    "\\",
    "'",
    "\"",
    "`",
    "${",
    "${params.x}",
    "$${",
    "{{",
    "[[",
    "]]",
    "{\"a\":",
    "[",
    "{",
    "- ",
    "? ",
    "&a ",
    "*a",
    "!!str ",
    "<<: ",
    "|\n",
    ">\n",
    "---\n",
    "#",
    "null",
    "true",
    "-1",
    "0",
    "0x10",
    "1e400",
    "-0.0",
    "nan",
    "inf",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "99999999999999999999999999999999999999999999",
    "1h",
    "1ms",
    "99999999d",
    "16EiB",
    "512MiB",
    "* * * * *",
    "0 0 31 2 *",
    "2026-13-45T99:99:99Z",
];

/// Makes a mutant of `base`. `other` is another input of the corpus, `words` belong to the target.
pub(crate) fn mutant(
    rng: &mut Rng,
    base: &[u8],
    other: &[u8],
    form: Form,
    words: &[&str],
) -> Vec<u8> {
    let mut bytes = base.to_vec();
    // Mostly one change, at times many.
    let changes = 1 << rng.below(4).min(rng.below(5));
    for _ in 0..changes {
        match form {
            Form::Text if !rng.one_in(4) => text(rng, &mut bytes, other, words),
            _ => binary(rng, &mut bytes, other),
        }
    }
    bytes.truncate(MOST);
    bytes
}

fn binary(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    match rng.below(13) {
        0 => {
            if let Some(byte) = at(rng, bytes) {
                *byte ^= 1 << rng.below(8);
            }
        }
        1 => {
            let value = rng.next() as u8;
            if let Some(byte) = at(rng, bytes) {
                *byte = value;
            }
        }
        2 => {
            let step = *rng.pick(&[1, 255, 16, 240]);
            if let Some(byte) = at(rng, bytes) {
                *byte = byte.wrapping_add(step);
            }
        }
        3 => varint(rng, bytes),
        4 => fixed(rng, bytes),
        5 => {
            let cut = span(rng, bytes.len());
            bytes.drain(cut);
        }
        6 => bytes.truncate(rng.below(bytes.len() + 1)),
        7 => {
            let more: Vec<u8> = (0..1 + rng.below(8)).map(|_| rng.next() as u8).collect();
            insert(rng, bytes, &more);
        }
        8 => repeat(rng, bytes),
        9 => splice(rng, bytes, other),
        10 => {
            let piece = other[span(rng, other.len())].to_vec();
            insert(rng, bytes, &piece);
        }
        11 => {
            let value = *rng.pick(&[0, 0xff, 0x80, 0x7f]);
            let over = span(rng, bytes.len());
            bytes[over].fill(value);
        }
        _ => {
            let (from, to) = (span(rng, bytes.len()), rng.below(bytes.len() + 1));
            let piece = bytes[from].to_vec();
            let end = bytes.len().min(to + piece.len());
            let to = to.min(end);
            bytes[to..end].copy_from_slice(&piece[..end - to]);
        }
    }
}

fn text(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    match rng.below(8) {
        0 | 1 => {
            let word = rng.pick(ODD).as_bytes();
            insert(rng, bytes, word);
        }
        2 | 3 if !words.is_empty() => {
            let word = rng.pick(words).as_bytes();
            insert(rng, bytes, word);
        }
        4 => {
            // another value in the place of a word
            let from = rng.below(bytes.len() + 1);
            let length = bytes[from..]
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric())
                .count();
            let word = match words.is_empty() || rng.one_in(2) {
                true => rng.pick(ODD),
                false => rng.pick(words),
            };
            bytes.splice(from..from + length, word.bytes());
        }
        5 => {
            // a line once more, or somewhere else
            let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
            let at = rng.below(lines.len());
            let line = lines.get(at).map(|line| line.to_vec()).unwrap_or_default();
            insert(rng, bytes, &line);
        }
        6 => {
            let open = *rng.pick(&["[", "{", "(", "{\"a\":", "- ", "[[", "a: ", "!", "\""]);
            let deep = open.repeat(1 << rng.below(13));
            insert(rng, bytes, deep.as_bytes());
        }
        _ => splice(rng, bytes, other),
    }
}

fn at<'b>(rng: &mut Rng, bytes: &'b mut [u8]) -> Option<&'b mut u8> {
    let at = rng.below(bytes.len());
    bytes.get_mut(at)
}

/// A range, mostly a short one.
fn span(rng: &mut Rng, length: usize) -> std::ops::Range<usize> {
    let from = rng.below(length + 1);
    let most = match rng.one_in(4) {
        true => length,
        false => 16,
    };
    from..length.min(from + rng.below(most + 1))
}

fn insert(rng: &mut Rng, bytes: &mut Vec<u8>, piece: &[u8]) {
    let to = rng.below(bytes.len() + 1);
    bytes.splice(to..to, piece.iter().copied());
}

/// An edge in the place of whatever number stands there.
fn varint(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let from = rng.below(bytes.len() + 1);
    let rest = &bytes[from..];
    let length = rest.iter().take(10).take_while(|b| **b >= 0x80).count() + 1;
    let mut value = *rng.pick(EDGES);
    let mut new = Vec::new();
    while value >= 0x80 {
        new.push(value as u8 | 0x80);
        value >>= 7;
    }
    new.push(value as u8);
    bytes.splice(from..bytes.len().min(from + length), new);
}

/// An edge as a number of fixed size, either end first.
fn fixed(rng: &mut Rng, bytes: &mut [u8]) {
    let value = *rng.pick(EDGES);
    let size = *rng.pick(&[2, 4, 8]);
    let mut new = value.to_le_bytes()[..size].to_vec();
    if rng.one_in(2) {
        new.reverse();
    }
    let from = rng.below(bytes.len());
    for (byte, new) in bytes.iter_mut().skip(from).zip(new) {
        *byte = new;
    }
}

/// A piece many times, one behind the other.
fn repeat(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let piece = bytes[span(rng, bytes.len())].to_vec();
    let most = MOST.checked_div(piece.len()).unwrap_or(0);
    let times = (1 << rng.below(12)).min(most);
    insert(rng, bytes, &piece.repeat(times));
}

/// The beginning of one, the end of the other.
fn splice(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    bytes.truncate(rng.below(bytes.len() + 1));
    bytes.extend_from_slice(&other[rng.below(other.len() + 1)..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_follow_from_the_seed_and_keep_the_bound() {
        let make = |seed| {
            let mut rng = Rng::new(seed);
            let mut all = vec![b"name: a\ntasks: {}\n".to_vec(), vec![1, 2, 3], Vec::new()];
            for n in 0..3000 {
                let form = if n % 2 == 0 { Form::Text } else { Form::Bytes };
                let (base, other) = (rng.below(all.len()), rng.below(all.len()));
                let (base, other) = (all[base].clone(), all[other].clone());
                let new = mutant(&mut rng, &base, &other, form, &["tasks"]);
                assert!(new.len() <= MOST);
                let place = rng.below(all.len());
                match all.len() {
                    ..50 => all.push(new),
                    _ => all[place] = new,
                }
            }
            all
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
