//! Small promises at their edges: what mutants showed that no other test looks at.

use shared::approval::{Answer, Approval, Field, Via};
use shared::finding::{Finding, Judgement};
use shared::schedule::view::{View, details};
use shared::spec::{self, SentFiles, fleet};
use shared::time::{Span, Unix};
use shared::workflow::{Resources, Workflow};
use std::collections::BTreeMap;

const SUBMITTED: Unix = Unix(1_700_000_000_000);

fn compiled(text: &str) -> Result<Workflow, String> {
    spec::submission(
        "flow.yaml",
        text,
        &BTreeMap::new(),
        &SentFiles::new(),
        SUBMITTED,
    )
    .map_err(|mistakes| mistakes.to_string())
}

/// A workflow of one task with these lines.
fn with(lines: &str) -> String {
    format!("name: f\ntasks:\n  t:\n    command: [prog]\n{lines}")
}

#[test]
fn outcomes_have_their_words() {
    use shared::fact::Outcome::{Cancelled, Failed, Lost, NotBegun, Succeeded};
    let words = [Succeeded, Failed, Cancelled, Lost, NotBegun].map(shared::fact::Outcome::text);
    assert_eq!(
        words,
        ["succeeded", "failed", "cancelled", "lost", "not_begun"]
    );
}

#[test]
fn what_was_taken_and_given_back_is_all_there() {
    let all = Resources {
        cpu_milli: 4000,
        memory: 1 << 30,
        disk: 7 << 30,
        gpu_milli: 2000,
        custom: BTreeMap::from([("camera".to_owned(), 3)]),
    };
    let some = Resources {
        cpu_milli: 1000,
        memory: 1 << 20,
        disk: 1 << 21,
        gpu_milli: 500,
        custom: BTreeMap::from([("camera".to_owned(), 1)]),
    };
    let mut left = all.clone();
    left.take(&some);
    assert_eq!(
        (left.disk, left.custom["camera"]),
        ((7 << 30) - (1 << 21), 2)
    );
    left.give(&some);
    assert_eq!(left, all);
}

#[test]
fn room_is_judged_by_its_limits_and_they_are_enough() {
    let state = |free| Finding::room("disk", (free, 100), (10, 50), "text").state;
    assert_eq!(state(9), Judgement::Error);
    assert_eq!(state(10), Judgement::Warning);
    assert_eq!(state(24), Judgement::Warning);
    assert_eq!(state(25), Judgement::Ok);
}

#[test]
fn text_that_was_filled_in_stays_text() {
    use shared::spec::Type;
    let field = |name: &str, kind| Field {
        name: name.to_owned(),
        kind,
        default: None,
    };
    let approval = Approval {
        prompt: String::new(),
        input: vec![field("text", Type::String), field("number", Type::Integer)],
        default: None,
    };
    let filled = ["text", "number"].map(|name| (name.to_owned(), "5".to_owned()));
    let answer = Answer {
        yes: true,
        input: BTreeMap::from(filled),
        by: "ann".to_owned(),
        at: SUBMITTED,
        via: Via::Gateway,
    };
    let file: serde_json::Value = serde_json::from_slice(&approval.file(&answer)).expect("JSON");
    assert_eq!(file["input"], serde_json::json!({"text": "5", "number": 5}));
}

#[test]
fn a_share_is_at_most_a_thousand() {
    for good in ["1000", "1000000m"] {
        let flow = compiled(&with(&format!("    resources: {{cpu: {good}}}\n"))).expect(good);
        assert_eq!(flow.tasks[0].resources.cpu_milli, 1_000_000);
    }
    for bad in ["1000001m", "1000.001"] {
        let why = compiled(&with(&format!("    resources: {{cpu: {bad}}}\n"))).expect_err(bad);
        assert!(why.contains("more than any machine has"), "{why}");
    }
}

#[test]
fn a_deadline_is_a_day_that_there_is_and_lies_ahead() {
    let at = |text: &str| compiled(&with(&format!("    deadline: {text}\n")));
    assert!(at("2028-02-29T00:00:00Z").is_ok());
    for day in ["2028-02-30", "2027-02-29", "2027-04-31"] {
        assert!(at(&format!("{day}T00:00:00Z")).is_err(), "{day}");
    }
    // the submission itself: 2023-11-14T22:13:20Z
    assert!(at("2023-11-14T22:13:21Z").is_ok());
    let why = at("2023-11-14T22:13:20Z").expect_err("now is over");
    assert!(why.contains("is over already"), "{why}");
}

#[test]
fn a_path_of_1024_bytes_fits() {
    let path = |bytes: usize| {
        let mut path = format!("{0}/{0}/{0}/", "a".repeat(255));
        path.push_str(&"b".repeat(200));
        path.push('/');
        path.push_str(&"c".repeat(bytes - path.len()));
        compiled(&with(&format!(
            "    outputs: [{{name: o, path: {path}}}]\n"
        )))
    };
    assert!(path(1024).is_ok(), "{:?}", path(1024));
    assert!(path(1025).is_err());
}

#[test]
fn a_node_of_a_fleet_has_8_gib_unless_it_says_otherwise() {
    let nodes = fleet::read("fleet.yaml", b"nodes:\n  - name: gw\n").expect("reads");
    let Resources {
        cpu_milli,
        memory,
        disk,
        ..
    } = nodes[0].capacity;
    assert_eq!((cpu_milli, memory, disk), (1000, 1 << 30, 8 << 30));
}

#[test]
fn the_expanded_form_quotes_what_could_be_a_number() {
    let text = "name: f\ntasks:\n  t:\n    command: [prog, '5', '-1', '.5', '~', /bin/x, plain]\n";
    let spec = spec::read("flow.yaml", text).expect("reads");
    let expanded = spec.expanded();
    for quoted in ["\"5\"", "\"-1\"", "\".5\"", "\"~\""] {
        assert!(expanded.contains(quoted), "{quoted} in\n{expanded}");
    }
    assert!(
        !expanded.contains("\"/bin/x\"") && !expanded.contains("\"plain\""),
        "{expanded}"
    );
}

#[test]
fn pictures_shorten_what_is_long_and_only_that() {
    use shared::graph::{Format, render};
    let long = "x".repeat(60);
    let text = format!(
        "name: f\ntasks:\n  short: {{command: [prog]}}\n  {0}: {{command: [{1}]}}\n",
        "long_".repeat(8).trim_end_matches('_'),
        long
    );
    let flow = compiled(&text).expect("compiles");
    let shown = render(&flow, Format::Text);
    assert!(shown.contains(&format!("{}…", "x".repeat(48))), "{shown}");
    assert!(!shown.contains("prog…"), "{shown}");
    let drawn = render(&flow, Format::Svg);
    assert!(drawn.contains("long_long_long_long_long_lon…"), "{drawn}");
    assert!(!drawn.contains("short…"), "{drawn}");
}

#[test]
fn a_schedule_says_which_past_slots_are_wanted() {
    let mut view = View {
        id: shared::ids::ScheduleId([1; 16]),
        name: "nightly".to_owned(),
        owner: "gw".to_owned(),
        state: "active".to_owned(),
        why: None,
        rule: "every 1h".to_owned(),
        timezone: "UTC".to_owned(),
        catchup: "none".to_owned(),
        max_catchup: 1,
        starting_deadline: None,
        overlap: "forbid".to_owned(),
        jitter: Span(0),
        revision: 1,
        epoch: 1,
        by: "ann".to_owned(),
        since: SUBMITTED,
        next: None,
        fired: 0,
        skipped: 0,
        last: Vec::new(),
        last_skipped: None,
        backfill: None,
    };
    assert!(!details(&view).contains("backfill"));
    view.backfill = Some((SUBMITTED, Unix(SUBMITTED.0 + 1000)));
    let text = details(&view);
    assert!(
        text.contains("backfill") && text.contains("22:13:21"),
        "{text}"
    );
}

#[test]
fn a_wrong_setting_is_refused_where_it_stands() {
    use shared::config::{Key, Kind, Reader};
    static KEYS: &[Key] = &[Key::new("link.count", Kind::Count(1, 9), "3")];
    let settled = |text: &str| {
        let mut reader = Reader::new(KEYS);
        reader.file("f.toml", text);
        reader.settle()
    };
    let good = settled("[link]\ncount = 4\n").expect("is right");
    assert_eq!(good.number("link.count"), Some(4));
    let wrong = settled("[link]\n  count = 10\n").expect_err("is too large");
    let first = &wrong.mistakes[0];
    assert_eq!((first.file.as_str(), first.line), ("f.toml", 2));
    assert!(first.column == 3 || first.column == 11, "{first:?}");
}

#[test]
fn an_input_whose_place_a_parameter_gives_later_may_be_what_a_task_reads_as_stdin() {
    let read = |path: &str| {
        let writes = "  t: {command: [prog], outputs: [report]}\n";
        let reads = format!("    inputs: [{{name: report, path: '{path}'}}]\n");
        let task = ["  u:\n    command: [prog]\n    stdin: in.txt\n", &reads].concat();
        let head = "name: f\nparams: {place: {type: string}}\ntasks:\n";
        let text = [head, writes, &task].concat();
        spec::read("flow.yaml", &text).map(drop)
    };
    assert_eq!(read("${params.place}"), Ok(()));
    assert_eq!(read("in.txt"), Ok(()));
    let why = read("other.txt").expect_err("it reads nothing").to_string();
    assert!(why.contains("stdin"), "{why}");
}

/// How far down a task's box is drawn.
fn height_in(drawn: &str, id: &str) -> f64 {
    let (_, behind) = drawn.split_once(&format!("<title>{id}\n")).expect(id);
    let (_, behind) = behind.split_once(" y=\"").expect("a box");
    let (top, _) = behind.split_once('"').expect("a number");
    top.parse().expect("a number")
}

#[test]
fn lines_of_a_drawing_do_not_cross_where_that_can_be_helped() {
    use shared::graph::{Format, render};
    let task = |(id, needs): (&str, &str)| format!("  {id}: {{command: [p], needs: [{needs}]}}\n");
    let tasks = [("a", ""), ("b", ""), ("behind_b", "b"), ("behind_a", "a")].map(task);
    let flow = compiled(&format!("name: f\ntasks:\n{}", tasks.concat())).expect("compiles");
    let drawn = render(&flow, Format::Svg);
    let [a, b] = ["a", "b"].map(|id| height_in(&drawn, id));
    let [after_a, after_b] = ["behind_a", "behind_b"].map(|id| height_in(&drawn, id));
    assert_eq!(
        (a < b, a, b),
        (after_a < after_b, after_a, after_b),
        "{drawn}"
    );
}

#[test]
fn a_slot_that_was_passed_over_in_time_was_missed_and_not_too_late() {
    use shared::explain::Reason;
    use shared::schedule::due::{Look, Progress, Question};
    use shared::schedule::{Calendar, Catchup, Overlap, Rule, Schedule};
    let minute = 60_000;
    let schedule = Schedule {
        rule: Rule::Every(Span(minute)),
        timezone: "UTC".to_owned(),
        catchup: Catchup::Latest,
        max_catchup: 1,
        starting_deadline: Some(Span(minute)),
        overlap: Overlap::Allow,
        jitter: Span(0),
    };
    let calendar = Calendar::new(&schedule).expect("a rule");
    let at = |minutes: i64| Unix(1_795_000_020_000 + minutes * minute as i64);
    let progress = Progress {
        cursor: at(0),
        ..Progress::default()
    };
    let question = Question {
        id: shared::ids::ScheduleId([1; 16]),
        schedule: &schedule,
        calendar: &calendar,
        progress: &progress,
        now: at(3),
        open: 0,
    };
    let Look::Skip(skipped) = question.look() else {
        panic!("the third is the latest");
    };
    assert_eq!(
        (skipped.from, skipped.to, skipped.reason),
        (at(1), at(2), Reason::SlotMissed)
    );
}
