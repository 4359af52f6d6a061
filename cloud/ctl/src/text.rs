//! Text for people: times, sizes, colours; and the small grammars of flags.

use shared::spec;
use shared::time::{Span, Unix};
use std::time::SystemTime;

/// The wall clock.
pub(crate) fn now() -> Unix {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Unix(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// `NAME=VALUE`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err(format!("'{text}' is not NAME=VALUE")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
    }
}

/// A duration in the grammar of specifications: `1h30m`, `45s`, `500ms`.
pub(crate) fn parse_span(text: &str) -> Result<Span, String> {
    spec::duration(text).map_err(|(what, mend)| format!("{what}: {mend}"))
}

/// `512 B`, `3.4 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{n} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// How long ago: `just now`, `12 s ago`, `3 h ago`, `in 5 min`.
pub(crate) fn ago(at: Unix, now: Unix) -> String {
    let ms = now.0.saturating_sub(at.0);
    if (-1000..2000).contains(&ms) {
        return "just now".to_owned();
    }
    let text = rough(Span(ms.unsigned_abs()));
    if ms < 0 {
        format!("in {text}")
    } else {
        format!("{text} ago")
    }
}

/// The largest unit that fits: `12 s`, `5 min`, `3 h`, `4 d`.
pub(crate) fn rough(span: Span) -> String {
    let seconds = span.0 / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `812 ms`, `12.3 s`, `4m10s`: how long something took.
pub(crate) fn took(span: Span) -> String {
    if span.0 < 1000 {
        format!("{} ms", span.0)
    } else if span.0 < 60_000 {
        format!("{}.{} s", span.0 / 1000, span.0 % 1000 / 100)
    } else {
        Span(span.0 / 1000 * 1000).to_string()
    }
}

/// `text` without anything that steers a terminal: names come from other machines.
pub(crate) fn safe(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// How a piece of text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Busy,
    Odd,
}

impl Style {
    /// `text` in this style, or as it is.
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            _ if !colour => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Busy => "36",
            Self::Odd => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The style of a state of a run, a task or a node.
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "succeeded" | "online" => Self::Good,
            "failed" | "lost" | "partly_lost" | "aborted" | "quarantined" => Self::Bad,
            "running" | "accepted" | "ready" | "checkpointing" => Self::Busy,
            "retrying" | "paused" | "held" | "offline" | "cancelled" | "rolling_back"
            | "unknown_run" | "draining" => Self::Odd,
            "blocked" | "skipped" | "forgotten" => Self::Dim,
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_flags_have_units() {
        assert_eq!(parse_span("1h30m"), Ok(Span::secs(5400)));
        assert!(parse_span("5").is_err_and(|error| error.contains("unit")));
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_pair("=b").is_err() && parse_pair("a").is_err());
    }

    #[test]
    fn sizes_are_written_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(16 << 30), "16.0 GiB");
    }

    #[test]
    fn times_are_told_as_people_do() {
        let now = Unix(10_000_000);
        assert_eq!(ago(now, now), "just now");
        assert_eq!(ago(Unix(now.0 - 12_000), now), "12 s ago");
        assert_eq!(ago(Unix(now.0 + 300_000), now), "in 5 min");
        assert_eq!(rough(Span::secs(7200)), "2 h");
        assert_eq!(took(Span(812)), "812 ms");
        assert_eq!(took(Span(12_345)), "12.3 s");
        assert_eq!(took(Span(250_900)), "4m10s");
    }

    #[test]
    fn text_of_other_machines_cannot_steer_the_terminal() {
        assert_eq!(safe("gw\x1b[2J-7\n"), "gw\u{fffd}[2J-7\u{fffd}");
    }
}
