//! How a command ends: exit codes, which never change, and the failure that carries one.

use std::fmt;
use std::process::ExitCode;

/// Exit codes, as documented in `docs/cli.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done; a run that was waited for succeeded.
    Done = 0,
    /// The operation failed, or the run that was waited for did not succeed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Nothing of that name.
    NotFound = 3,
    /// The coordinator cannot be reached.
    Unreachable = 4,
    /// The coordinator refused, and nothing changed.
    Refused = 5,
    /// The specification or the configuration has mistakes.
    Specification = 6,
    /// The run was not over in time.
    TimedOut = 7,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command did not do what it should: what happened, where, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: Code,
    /// What happened, and where.
    pub(crate) what: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            hint: None,
        }
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

/// Text of `error` and of all that caused it, joined by colons.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Output that could not be written. A reader that went away (`| head`) is no failure.
pub(crate) fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Done, ""))
        }
        Err(error) => Err(Failure::new(
            Code::Failed,
            format!("cannot write the output: {error}"),
        )),
        Ok(()) => Ok(()),
    }
}
