//! The file of faults: flags of `driftless rehearse` that are kept.

use super::args::Asked;
use clap::{ArgAction, Args, Command, FromArgMatches};
use shared::spec::flags::{self, Flag, Given};
use shared::spec::{Mistake, Mistakes};
use std::error::Error;

/// What the file says. Each value is read by its flag.
pub(super) fn read(file_name: &str, bytes: &[u8]) -> Result<Asked, Mistakes> {
    let command = Asked::augment_args(Command::new("faults").no_binary_name(true));
    let known: Vec<Flag<'_>> = command.get_arguments().filter_map(flag).collect();
    let given = flags::read(file_name, bytes, &known)?;
    let mistakes: Vec<Mistake> = given
        .iter()
        .filter_map(|one| parse(&command, [one]).err().map(|error| (one, error)))
        .map(|(one, error)| wrong(one, file_name, &error))
        .collect();
    let more = 0;
    if !mistakes.is_empty() {
        return Err(Mistakes { mistakes, more });
    }
    let whole = |error| {
        let what = first_line(&error);
        let mend = "leave out what excludes the other".to_owned();
        let mistakes = given.first().map(|one| one.mistake(file_name, what, mend));
        let mistakes = mistakes.into_iter().collect();
        Mistakes { mistakes, more }
    };
    parse(&command, &given).map_err(whole)
}

fn flag(arg: &clap::Arg) -> Option<Flag<'_>> {
    Some(Flag {
        name: arg.get_long()?,
        repeated: matches!(arg.get_action(), ArgAction::Append),
    })
}

fn parse<'a>(
    command: &Command,
    given: impl IntoIterator<Item = &'a Given>,
) -> Result<Asked, clap::Error> {
    let given = given.into_iter();
    let flags = given.map(|one| format!("--{}={}", one.name, one.value));
    Asked::from_arg_matches(&command.clone().try_get_matches_from(flags)?)
}

/// What the flag says of its value: `what: mend`, or what alone.
fn wrong(one: &Given, file_name: &str, error: &clap::Error) -> Mistake {
    let said = error.source().map(ToString::to_string);
    let said = said.unwrap_or_else(|| first_line(error));
    let (what, mend) = match said.split_once(": ") {
        Some((what, mend)) => (what.to_owned(), mend.to_owned()),
        None => {
            let mend = format!("--{} in `driftless rehearse --help`", one.name);
            (said, mend)
        }
    };
    one.mistake(file_name, format!("{}: {what}", one.name), mend)
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::time::Span;

    const WHOLE: &str = "
link-down: 2h..10h
outages: 2
power-cut: 3
agent-kill: 1
coordinator-kill: 1
task-fails: 5
within: 1d
disk: 2GiB
telemetry-budget: 1MiB
bandwidth: 64000
takes: {press: 30m}
answers: 10m..1d
days: 7
seeds: 20
start: 100
expect: ['succeeded=100%', 'longest<=12h']
";

    #[test]
    fn the_file_says_what_the_flags_say_and_they_win() {
        let file = read("faults.yaml", WHOLE.as_bytes()).unwrap();
        let hours = |n: u64| Span::secs(n * 3600);
        assert_eq!(file.link_down, Some((hours(2), hours(10))));
        assert_eq!((file.power_cut, file.disk), (Some(3), Some(2 << 30)));
        assert_eq!((file.takes.len(), file.expect.len()), (1, 2));
        let flags = Asked {
            power_cut: Some(0),
            takes: vec![("a".to_owned(), "1h".to_owned())],
            ..Asked::default()
        };
        let both = flags.or(file);
        assert_eq!((both.power_cut, both.outages), (Some(0), Some(2)));
        assert_eq!((both.takes.len(), both.seeds()), (1, 20));
        assert_eq!(both.takes[0].0, "a");
    }

    #[test]
    fn wrong_values_are_mistakes_with_their_places() {
        let texts = [
            (
                "link-down: 5",
                "1:12: link-down: the duration '5' has no unit",
            ),
            (
                "\nlink-down: 10h..2h",
                "2:12: link-down: write the shortest first",
            ),
            ("power-cut: many", "power-cut: invalid digit"),
            ("power-cut: 1001", "power-cut: 1001 is not in 0..=1000"),
            ("disk: 5", "disk: the size '5' has no unit"),
            ("takes: [press]", "takes: 'press' is not NAME=VALUE"),
            (
                "expect: [a]",
                "expect: 'a' is no condition\n  mend: write longest<=12h",
            ),
            ("html: x", "unknown key 'html'"),
        ];
        for (text, wanted) in texts {
            let told = read("faults.yaml", text.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(told.contains(wanted), "{text}: {told}");
        }
    }
}
