//! What tasks write, followed while they run, with the real binaries and a link that is cut.

use e2e::agent::{stderr, stdout};
use e2e::fleet::{Fleet, output, program};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// Writes a line, one more at each of two marks, the last without an end.
const TALK: &str = "
name: talk
tasks:
  talk:
    shell: |
      echo one
      while [ ! -e @M/go ]; do sleep 0.05; done
      echo two
      echo bad >&2
      while [ ! -e @M/end ]; do sleep 0.05; done
      printf three
";

/// A command that goes on while the test does other things. Its lines come one by one.
struct Follower {
    child: Child,
    lines: Receiver<String>,
    said: Receiver<String>,
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if tx.send(line).is_err() {
                return;
            }
        }
    });
    rx
}

impl Follower {
    fn of(name: &str, args: &[&str], data: &std::path::Path) -> Self {
        let mut command = program(name);
        let mut child = command
            .args(args)
            .arg("--data")
            .arg(data)
            .spawn()
            .expect("it is there");
        let lines_of = lines(child.stdout.take().expect("it is there"));
        let said = lines(child.stderr.take().expect("it is there"));
        Self {
            child,
            lines: lines_of,
            said,
        }
    }

    /// The next line, which must come within the patience of all tests.
    fn next(&self) -> String {
        self.lines
            .recv_timeout(std::time::Duration::from_secs(60))
            .expect("a line")
    }

    /// What is left, when it has ended by itself, well.
    fn rest(mut self) -> (Vec<String>, String) {
        let left: Vec<String> = self.lines.iter().collect();
        let said: Vec<String> = self.said.iter().collect();
        let status = self.child.wait().expect("it is there");
        assert!(status.success(), "{status}: {said:?}");
        (left, said.join("\n"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // fails only for one that has ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line_of(text: &str) -> (String, u64) {
    let value: Value = serde_json::from_str(text).expect("it is there");
    (
        value["line"].as_str().expect("it is there").to_owned(),
        value["offset"].as_u64().expect("it is there"),
    )
}

#[test]
fn whoever_follows_sees_all_that_a_task_writes_once_also_over_a_cut_link() {
    let fleet = Fleet::start(&[&[]]);
    let run = fleet.submit(TALK);
    let data = fleet.data();
    let args = ["task", "logs", &run, "talk", "--follow", "--json"];
    let task = Follower::of("driftless", &args, &data);
    let whole = Follower::of("driftless", &["run", "logs", &run, "-f"], &data);
    assert_eq!(line_of(&task.next()), ("one".to_owned(), 0));
    let there = ["logs", &run, "talk", "--follow"];
    let there = Follower::of("driftless-agent", &there, fleet.agent_data(0));
    assert_eq!(whole.next(), "talk | one");
    assert_eq!(there.next(), "one");
    fleet.cut(0);
    fleet.wait_node(0, "offline");
    fleet.put_mark("go", "");
    assert_eq!(
        there.next(),
        "two",
        "the gateway's own command needs no link"
    );
    let said = task
        .said
        .recv_timeout(std::time::Duration::from_secs(60))
        .expect("it is there");
    assert!(said.contains("gw-0") && said.contains("4 bytes"), "{said}");
    fleet.join(0);
    assert_eq!(line_of(&task.next()), ("two".to_owned(), 4));
    let mut two = [whole.next(), whole.next()];
    two.sort();
    assert_eq!(two, ["talk ! bad", "talk | two"]);
    fleet.put_mark("end", "");
    let (left, said) = task.rest();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(line_of(&left[0]), ("three".to_owned(), 8));
    assert!(said.contains("it answers again"), "{said}");
    assert_eq!(whole.rest().0, ["talk | three"]);
    let (left, said) = there.rest();
    assert_eq!((left, said.as_str()), (vec!["three".to_owned()], "bad"));
    let mut of_task = program("driftless");
    of_task.args(["run", "logs", &run, "talk", "--data"]);
    let of_task = stdout(&output(of_task.arg(&data)));
    let of_task: Vec<&str> = of_task.lines().collect();
    let both = ["talk | one", "talk | two", "talk | three", "talk ! bad"];
    assert_eq!(of_task, both);
    let all = fleet.json(&["run", "logs", &run]);
    let all: Vec<&str> = all.iter().filter_map(|l| l["line"].as_str()).collect();
    assert_eq!(all, ["one", "two", "three", "bad"]);
}

#[test]
fn a_reader_who_takes_nothing_holds_nobody_up_and_misses_nothing() {
    let fleet = Fleet::start(&[&[]]);
    let run = fleet
        .submit("name: much\ntasks: {much: {shell: \"yes 0123456789abcde | head -c 1048576\"}}");
    let mut command = program("driftless");
    let args = ["task", "logs", &run, "much", "--follow", "--data"];
    let mut child = command
        .args(args)
        .arg(fleet.data())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is there");
    let _ = fleet.wait_run(&run, "succeeded");
    let mut out: ChildStdout = child.stdout.take().expect("it is there");
    let mut bytes = Vec::new();
    out.read_to_end(&mut bytes).expect("it is there");
    assert!(child.wait().expect("it is there").success());
    assert_eq!(bytes.len(), 1_048_576);
    assert!(bytes.chunks(16).all(|line| line == b"0123456789abcde\n"));
}

#[test]
fn a_task_is_followed_behind_its_retries() {
    let fleet = Fleet::start(&[&[]]);
    let run = fleet.submit(
        "name: again\ntasks: {again: {retry: {max_attempts: 2, initial_interval: 1s}, \
         shell: \"echo try >> @M/tries; wc -l < @M/tries; test -e @M/good\"}}",
    );
    let args = ["task", "logs", &run, "again", "-f", "--json"];
    let task = Follower::of("driftless", &args, &fleet.data());
    assert_eq!(line_of(&task.next()).0, "1");
    fleet.put_mark("good", "");
    let (left, said) = task.rest();
    let left: Vec<String> = left.iter().map(|l| line_of(l).0).collect();
    assert_eq!(left, ["2"], "{said}");
}

/// How many answers of the API had a code of this class.
fn answers(fleet: &Fleet, class: &str) -> u64 {
    let mut api = TcpStream::connect(fleet.api()).expect("it listens");
    let ask = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    api.write_all(ask.as_bytes()).expect("it reads");
    let mut page = String::new();
    api.read_to_string(&mut page).expect("it answers");
    let start = format!("driftless_api_answers_total{{code=\"{class}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&start));
    value.expect("it is told").parse().expect("a number")
}

/// One task is over and wrote nothing: who follows the run asks for its log no more.
#[test]
fn what_is_over_and_wrote_nothing_is_asked_for_no_more() {
    let fleet = Fleet::start(&[&[]]);
    let run = fleet.submit(
        "name: two\ntasks:\n  quiet: {command: [\"true\"]}\n  talk: {shell: \"echo one; echo two >&2; \
         while [ ! -e @M/end ]; do sleep 0.05; done\"}\n",
    );
    let _ = fleet.wait_task(&run, "quiet", "succeeded");
    let args = ["run", "logs", &run, "-f"];
    let reader = Follower::of("driftless", &args, &fleet.data());
    let passes = |fleet: &Fleet| {
        let before = answers(fleet, "2xx");
        fleet.wait("it to look again", || {
            (answers(fleet, "2xx") > before + 12).then_some(())
        });
        answers(fleet, "4xx")
    };
    let _ = (reader.next(), reader.next());
    let asked = passes(&fleet);
    assert_eq!(passes(&fleet), asked);
    fleet.put_mark("end", "");
    let _ = reader.rest();
}

#[test]
fn what_a_task_wrote_to_standard_error_alone_is_found() {
    let fleet = Fleet::start(&[&[]]);
    let run = fleet
        .submit("name: e\ntasks: {e: {retry: {max_attempts: 1}, shell: 'echo boom >&2; exit 1'}}");
    let _ = fleet.wait_run(&run, "failed");
    let ask = |args: &[&str]| {
        let mut command = program("driftless");
        command.args(args).arg("--data").arg(fleet.data());
        output(&mut command)
    };
    let both = ask(&["run", "logs", &run, "e"]);
    assert_eq!(stdout(&both), "e ! boom\n", "{}", stderr(&both));
    let one = ask(&["task", "logs", &run, "e"]);
    let said = stderr(&one);
    assert!(said.contains("--stream stderr shows it"), "{said}");
    let nobody = ask(&["run", "logs", &run, "f"]);
    assert_eq!(nobody.status.code(), Some(3), "{}", stderr(&nobody));
}
