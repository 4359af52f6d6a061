//! What a check of a machine found: a name, a judgement, what was seen, and the mend. The agent's
//! `check` and the coordinator's `doctor` print these.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// As it should be.
    Ok,
    /// It works, and will not always.
    Warning,
    /// It does not work.
    Error,
}

/// One line of a check. Names of fields are part of the interface (`--json`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub state: Judgement,
    /// What was seen.
    pub text: String,
    /// What to do; absent where nothing is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    /// It is as it should be.
    #[must_use]
    pub fn ok(check: &str, text: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            state: Judgement::Ok,
            text: text.into(),
            mend: None,
        }
    }

    /// It works, and will not always.
    #[must_use]
    pub fn warning(check: &str, text: impl Into<String>, mend: &str) -> Self {
        Self {
            state: Judgement::Warning,
            mend: Some(mend.to_owned()),
            ..Self::ok(check, text)
        }
    }

    /// It does not work.
    #[must_use]
    pub fn error(check: &str, text: impl Into<String>, mend: &str) -> Self {
        Self {
            state: Judgement::Error,
            mend: Some(mend.to_owned()),
            ..Self::ok(check, text)
        }
    }

    /// Judges room on a disk: `free` of `all`, too little below `least`, little below `few`.
    #[must_use]
    pub fn room(
        check: &str,
        (free, all): (u64, u64),
        (least, few): (u64, u64),
        text: &str,
    ) -> Self {
        const MEND: &str = "remove what is not needed, or give the directory a larger file system";
        if all == 0 {
            return Self::ok(check, "the file system does not count them");
        }
        match free {
            free if free < least => Self::error(check, text, MEND),
            free if free < few.min(all / 4) || free < all / 20 => Self::warning(check, text, MEND),
            _ => Self::ok(check, text),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            Judgement::Ok => "ok",
            Judgement::Warning => "warning",
            Judgement::Error => "ERROR",
        };
        write!(f, "{state:<8} {:<12} {}", self.check, self.text)?;
        match &self.mend {
            Some(mend) => write!(f, "\n{:21} → {mend}", ""),
            None => Ok(()),
        }
    }
}

/// The worst of all.
#[must_use]
pub fn worst(findings: &[Finding]) -> Judgement {
    let states = findings.iter().map(|finding| finding.state);
    states.max().unwrap_or(Judgement::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_by_what_is_left() {
        let judged = |free, all| Finding::room("disk", (free, all), (10, 100), "").state;
        assert_eq!(judged(9, 10_000), Judgement::Error);
        assert_eq!(
            judged(90, 300),
            Judgement::Ok,
            "a small disk of which much is free"
        );
        assert_eq!(judged(60, 300), Judgement::Warning);
        assert_eq!(judged(499, 10_000), Judgement::Warning);
        assert_eq!(judged(500, 10_000), Judgement::Ok);
        assert_eq!(judged(0, 0), Judgement::Ok);
        let line = Finding::error("clock", "1970", "set it").to_string();
        assert_eq!(
            line,
            "ERROR    clock        1970\n                      → set it"
        );
    }
}
