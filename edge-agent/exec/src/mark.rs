//! The text that identifies an attempt in file names and in the environment of its processes.

use shared::ids::{AttemptRef, Epoch, SliceRef, TaskIdx};

/// Name of the variable that says which data directory a process belongs to.
pub(crate) const STORE: &str = "DRIFTLESS_STORE";
/// Name of the variable that says which attempt a process belongs to.
pub(crate) const MARK: &str = "DRIFTLESS_MARK";

/// `RUN-SLICE-TASK-EPOCH-NUMBER`.
pub(crate) fn of(a: &AttemptRef) -> String {
    let s = &a.slice;
    format!(
        "{}-{}-{}-{}-{}",
        s.run, s.slice, a.task.0, s.epoch, a.number
    )
}

/// Reads [`of`] back; none for anything else.
pub(crate) fn parse(text: &str) -> Option<AttemptRef> {
    let mut parts = text.split('-');
    let slice = SliceRef {
        run: parts.next()?.parse().ok()?,
        slice: parts.next()?.parse().ok()?,
        epoch: Epoch::default(),
    };
    let task = TaskIdx(parts.next()?.parse().ok()?);
    let epoch = Epoch(parts.next()?.parse().ok()?);
    let number = parts.next()?.parse().ok()?;
    let attempt = AttemptRef {
        slice: SliceRef { epoch, ..slice },
        task,
        number,
    };
    (parts.next().is_none() && of(&attempt) == text).then_some(attempt)
}

/// The value of `name` in the bytes of a `/proc/PID/environ`.
pub(crate) fn value<'a>(environ: &'a [u8], name: &str) -> Option<&'a [u8]> {
    environ
        .split(|b| *b == 0)
        .find_map(|item| item.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::RunId;

    #[test]
    fn marks_survive_their_text_and_nothing_else_is_one() {
        let slice = SliceRef {
            run: RunId([0xab; 16]),
            slice: 3,
            epoch: Epoch(1 << 33),
        };
        let attempt = AttemptRef {
            slice,
            task: TaskIdx(7),
            number: 2,
        };
        let text = of(&attempt);
        assert_eq!(parse(&text), Some(attempt));
        assert_eq!(parse(&format!("{text}-1")), None);
        assert_eq!(parse("lost+found"), None);
        assert_eq!(parse(&text.replace("-7-", "-07-")), None);
    }

    #[test]
    fn values_are_whole_items() {
        let environ = b"X_DRIFTLESS_MARK=no\0DRIFTLESS_MARK=yes\0";
        assert_eq!(value(environ, MARK), Some(&b"yes"[..]));
        assert_eq!(value(environ, STORE), None);
    }
}
