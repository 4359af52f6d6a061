//! Runs the steps of a gate one after the other, with their times, and stops at the first failure.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A sequence of named steps and how long each took.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Runs a program as one step; its output goes straight to the terminal.
    pub(crate) fn program(&mut self, name: &str, mut command: Command) -> Result<()> {
        let repeat = shell_line(&command);
        eprintln!("\n==> {name}: {repeat}");
        self.timed(name, || {
            let status = command
                .status()
                .with_context(|| format!("cannot start: {repeat}"))?;
            if !status.success() {
                bail!("{status}\n  repeat it with: {repeat}");
            }
            Ok(())
        })
    }

    /// Runs a check of this tool as one step; `cargo xtask NAME` repeats it.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("\n==> {name}: cargo xtask {name}");
        self.timed(name, || {
            check().map_err(|error| error.context(format!("repeat it with: cargo xtask {name}")))
        })
    }

    fn timed(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        let result = step();
        let took = start.elapsed();
        let seconds = took.as_secs_f64();
        eprintln!(
            "<== {name}: {} in {seconds:.1} s",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        result.with_context(|| format!("the step `{name}` failed after {seconds:.1} s"))?;
        self.done.push((name.to_owned(), took));
        Ok(())
    }

    /// The times of all steps, one a line, with their sum.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::from("\nall steps passed:\n");
        let total = self.done.iter().map(|(_, took)| *took).sum();
        for (name, took) in self.done.iter().chain([&("total".to_owned(), total)]) {
            writeln!(text, "  {name:<12}{:>8.1} s", took.as_secs_f64())
                .expect("writing to a string cannot fail");
        }
        text
    }
}

/// The command as a person would type it in the root of the repository.
fn shell_line(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!(
                "{}={}",
                name.to_string_lossy(),
                quoted(&value.to_string_lossy())
            ));
        }
    }
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or(&program);
    match name {
        // what a build of ours made is on nobody's path
        "hostile" => words.push("cargo xtask hostile".to_owned()),
        name => words.push(quoted(name)),
    }
    words.extend(command.get_args().map(|arg| quoted(&arg.to_string_lossy())));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_says_what_failed_and_how_to_repeat_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let error = Steps::default().program("demo", command).unwrap_err();
        let message = format!("{error:#}");
        for part in [
            "`demo` failed",
            "exit status: 3",
            "repeat it with: sh -c 'exit 3'",
        ] {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
    }

    #[test]
    fn a_missing_program_is_a_failure() {
        let mut steps = Steps::default();
        assert!(
            steps
                .program("none", Command::new("surely-no-such-program"))
                .is_err()
        );
        assert!(
            steps.done.is_empty(),
            "a failed step is not among the passed ones"
        );
    }

    #[test]
    fn the_repeat_line_keeps_the_variables_that_were_set() {
        let mut command = Command::new("/some/where/cargo");
        command
            .arg("doc")
            .env("RUSTDOCFLAGS", "-D warnings")
            .env_remove("CARGO_PKG_NAME");
        assert_eq!(shell_line(&command), "RUSTDOCFLAGS='-D warnings' cargo doc");
    }

    #[test]
    fn the_repeat_line_of_our_own_program_is_a_command() {
        let mut command = Command::new("/target/debug/hostile");
        command.args(["--seconds", "150"]);
        let line = shell_line(&command);
        assert_eq!(line, "cargo xtask hostile --seconds 150");
    }

    #[test]
    fn the_summary_has_each_step_and_the_sum() {
        let second = Duration::from_secs(1);
        let steps = Steps {
            done: vec![("a".into(), second), ("b".into(), second * 2)],
        };
        let summary = steps.summary();
        assert!(summary.contains("a                1.0 s"), "{summary}");
        assert!(summary.contains("total            3.0 s"), "{summary}");
    }
}
