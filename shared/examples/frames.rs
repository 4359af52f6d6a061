//! Prints one message or entry of each kind as this build encodes it, a line each: name and
//! hexadecimal digits. `tests/compat/RELEASE/frames.txt` is what a release printed.

#![expect(clippy::disallowed_macros, reason = "an example says what it made")]

#[path = "../tests/compat/samples.rs"]
mod samples;

use std::collections::BTreeMap;
use std::fmt::Write as _;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, sample) in samples::samples() {
        let bytes = sample.encode();
        assert_eq!(sample.read(&bytes), Ok(sample));
        println!("{name} {}", hex(&bytes));
    }
    let (given, files) = (BTreeMap::new(), BTreeMap::new());
    let at = shared::time::Unix(1_790_000_000_000);
    let workflow = shared::spec::submission("skew.yaml", samples::SPEC, &given, &files, at);
    let (packed, hash) = shared::codec::pack(&workflow.map_err(|mistakes| mistakes.to_string())?);
    println!("workflow {}", hex(&packed));
    println!("workflow.hash {}", hash.hex());
    Ok(())
}
