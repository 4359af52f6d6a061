//! The specification of a workflow: YAML text in, a compiled [`Workflow`] out, or all mistakes
//! with their places and mends.
//!
//! ```text
//! text ──yaml──▶ tree ──decode (by schema)──▶ fields ──build, link──▶ tasks ──graph──▶ Workflow
//! ```
//!
//! Invariant: no text makes this panic or grow beyond its bounds; a parameter's value never
//! becomes syntax.

mod ask;
mod assemble;
mod build;
mod decode;
mod expand;
pub mod flags;
pub mod fleet;
mod link;
mod matrix;
pub(crate) mod mistake;
mod scalar;
mod schedule;
pub mod schema;
mod template;
pub(crate) mod units;
mod value;
mod when;
mod yaml;

pub use assemble::Param;
pub use link::SentFiles;
pub use mistake::{Mistake, Mistakes, SHOWN};
pub use template::Type;
pub use units::{duration, size};

use crate::time::Unix;
use crate::workflow::Workflow;
use assemble::{Given, assemble, decode};
use mistake::{Pos, Sink};
use std::collections::BTreeMap;
use value::Block;
use yaml::Node;

/// A specification without mistakes of its own. What depends on parameters is checked by
/// [`Spec::compile`].
#[derive(Clone, Debug)]
pub struct Spec {
    file: String,
    root: Node,
    block: Block,
    params: Vec<Param>,
}

/// Reads a file's bytes.
///
/// # Errors
/// All mistakes of the file that do not depend on a submission.
pub fn read_bytes(file_name: &str, bytes: &[u8]) -> Result<Spec, Mistakes> {
    read(file_name, utf8(file_name, bytes)?)
}

/// The text of a file's bytes.
///
/// # Errors
/// The place of the first byte that is not UTF-8.
pub fn utf8<'b>(file_name: &str, bytes: &'b [u8]) -> Result<&'b str, Mistakes> {
    std::str::from_utf8(bytes).or_else(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let tail = before.rsplit(|b| *b == b'\n').next().unwrap_or_default();
        let column = String::from_utf8_lossy(tail).chars().count() + 1;
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut sink = Sink::default();
        let at = Pos {
            line: narrow(line),
            column: narrow(column),
        };
        sink.add(at, "the file is not UTF-8 here", "save it as UTF-8 text");
        sink.settle(file_name, "")
    })
}

/// Reads a file's text.
///
/// # Errors
/// All mistakes of the file that do not depend on a submission.
pub fn read(file_name: &str, text: &str) -> Result<Spec, Mistakes> {
    let (spec, _) = process(file_name, text, Given::default())?;
    Ok(spec)
}

/// Reads a file's text and checks it as far as it can be without a submission: with the given
/// parameters and the defaults of others, and with the files that would be sent along.
///
/// # Errors All mistakes, except that a required parameter is missing.
pub fn lint(
    file_name: &str,
    text: &str,
    params: &BTreeMap<String, String>,
    files: &SentFiles,
) -> Result<Spec, Mistakes> {
    let given = Given {
        params: Some(params),
        sent: Some(files),
        ..Given::default()
    };
    process(file_name, text, given)?;
    read(file_name, text)
}

/// Reads and compiles in one step: what a submission does.
///
/// # Errors
/// All mistakes of the file and of the submission.
pub fn submission(
    file_name: &str,
    text: &str,
    params: &BTreeMap<String, String>,
    files: &SentFiles,
    submitted_at: Unix,
) -> Result<Workflow, Mistakes> {
    let submitted_at = Some(submitted_at);
    let given = Given {
        params: Some(params),
        sent: Some(files),
        complete: true,
        submitted_at,
    };
    let mut sink = Sink::default();
    let workflow = yaml::parse(text, &mut sink).map(|root| {
        let decoded = decode(&root, given, &mut sink);
        // A large tree leaves its memory to what is made of it.
        drop(root);
        assemble(decoded, given, &mut sink).workflow
    });
    let workflow = sink.settle(file_name, workflow)?;
    Ok(workflow.expect("a file that could not be read has a mistake"))
}

fn process(file: &str, text: &str, given: Given<'_>) -> Result<(Spec, Workflow), Mistakes> {
    let mut sink = Sink::default();
    let read = yaml::parse(text, &mut sink).map(|root| {
        let decoded = decode(&root, given, &mut sink);
        let assembled = assemble(decoded, given, &mut sink);
        let (block, params) = (assembled.block, assembled.params);
        (
            Spec {
                file: file.to_owned(),
                root,
                block,
                params,
            },
            assembled.workflow,
        )
    });
    let read = sink.settle(file, read)?;
    Ok(read.expect("a file that could not be read has a mistake"))
}

impl Spec {
    /// The declared parameters, in the order of the file.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Compiles the workflow for one submission: parameters are filled in, conditions decided,
    /// deadlines fixed, edges drawn and reduced.
    ///
    /// # Errors All mistakes of the submission: parameters, files, and what they lead to.
    pub fn compile(
        &self,
        params: &BTreeMap<String, String>,
        files: &SentFiles,
        submitted_at: Unix,
    ) -> Result<Workflow, Mistakes> {
        let submitted_at = Some(submitted_at);
        let given = Given {
            params: Some(params),
            sent: Some(files),
            complete: true,
            submitted_at,
        };
        let mut sink = Sink::default();
        let decoded = decode(&self.root, given, &mut sink);
        let assembled = assemble(decoded, given, &mut sink);
        sink.settle(&self.file, assembled.workflow)
    }

    /// The specification as YAML with every default written out. It reads back to the same
    /// workflow.
    #[must_use]
    pub fn expanded(&self) -> String {
        expand::yaml(&self.block, &self.params)
    }

    /// The same as JSON, on one line.
    #[must_use]
    pub fn expanded_json(&self) -> String {
        expand::json(&self.block, &self.params)
    }
}
