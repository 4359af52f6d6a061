//! Wall clocks that jump, and a gateway without a battery, with the real binaries: the agent reads
//! its wall clock through a library that is loaded before the system's and adds what a file says.
//! The clock that counts from the machine's start is not touched, as in the field.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use e2e::agent::{Gateway, stderr};
use e2e::clock::ShiftedClock;
use e2e::fleet::Fleet;
use serde_json::Value;

const DAY: i64 = 86_400;

/// A coordinator, and a gateway whose wall clock can be moved.
struct Shifted {
    fleet: Fleet,
    gateway: Gateway,
    clock: ShiftedClock,
}

impl Shifted {
    fn start() -> Self {
        Self::serving(&[])
    }

    fn serving(serve_args: &[&str]) -> Self {
        let fleet = Fleet::serving(serve_args, &[]);
        let (address, token) = (fleet.listen().to_string(), fleet.token(&[]));
        let join = ["--coordinator", &address, "--token", &token];
        let fast = ["--idle-timeout", "2", "--redial-max", "1", "--cpus", "2"];
        let mut gateway = Gateway::new(&[&join[..], &fast[..]].concat());
        let clock = ShiftedClock::new(gateway.base());
        for (name, path) in clock.env() {
            gateway.set_env(name, path);
        }
        Self {
            fleet,
            gateway,
            clock,
        }
    }

    /// The wall clock is this many seconds off from now on.
    fn shift(&self, seconds: i64) {
        self.clock.shift(seconds);
    }

    fn node(&self) -> Value {
        self.fleet.json(&["node", "list"]).remove(0)
    }

    fn wait_online(&self) {
        self.fleet.wait("the node to be online", || {
            let node = self.fleet.json(&["node", "list"]).pop()?;
            (node["state"] == "online").then_some(())
        });
    }

    fn status(&self) -> Value {
        self.gateway.json(&["status"]).remove(0)
    }
}

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Forward by a day while a task with a time-out runs, back by two while the next one waits for its
/// second attempt: neither ends, waits, repeats or overtakes anything.
#[test]
fn a_wall_clock_that_jumps_moves_no_time_out_no_pause_and_no_order() {
    let mut shifted = Shifted::start();
    shifted.gateway.start();
    shifted.wait_online();
    let run = shifted.fleet.submit(
        "name: jumps
tasks:
  first:
    timeout: 10m
    shell: 'echo first >> @M/ran; until [ -e @M/first ]; do sleep 0.02; done'
  second:
    needs: [first]
    retry: {max_attempts: 2, initial_interval: 1s, jitter: 0}
    shell: 'echo second >> @M/ran; test -e @M/failed || { touch @M/failed; exit 1; }'
  third: {needs: [second], shell: echo third >> @M/ran}",
    );
    let _ = shifted.fleet.wait_task(&run, "first", "running");
    shifted.shift(DAY);
    // the agent writes with the new time while the task goes on
    let beside = "name: beside\ntasks: {a: {shell: 'true'}}";
    let tomorrow = shifted.gateway.task(&shifted.gateway.succeeds(beside), "a");
    let since = tomorrow["since"].as_i64().unwrap();
    assert!(since > unix_ms() + DAY * 500, "the agent's day: {tomorrow}");
    let first = shifted.fleet.task(&run, "first");
    assert_eq!(first["state"], "running", "no time-out: {first}");
    shifted.fleet.put_mark("first", "");
    shifted.fleet.wait("the first attempt to fail", || {
        shifted.fleet.marks().join("failed").exists().then_some(())
    });
    shifted.shift(-2 * DAY);
    let _ = shifted.fleet.wait_run(&run, "succeeded");
    assert_eq!(shifted.fleet.mark("ran"), "first\nsecond\nsecond\nthird\n");
    assert_eq!(shifted.status()["link"], "online", "the session goes on");
    // a restart reads a journal whose times go back and forth
    shifted.gateway.kill();
    shifted.gateway.start();
    shifted.wait_online();
    let again = shifted.fleet.tasks(&run);
    assert!(again.values().all(|task| task["state"] == "succeeded"));
    shifted.gateway.stop();
    let verified = shifted.gateway.command(&["journal", "verify"]);
    assert!(verified.status.success(), "{}", stderr(&verified));
    assert_eq!(
        shifted.fleet.mark("ran").lines().count(),
        4,
        "nothing ran again"
    );
}

/// A cold start in 1970: the work goes on, the certificate of the coordinator is judged all the
/// same, and the clock is said not to be trusted until it is set.
#[test]
fn a_gateway_without_a_battery_works_and_says_that_its_clock_was_not_set() {
    let mut shifted = Shifted::start();
    shifted.gateway.start();
    shifted.wait_online();
    assert_eq!(shifted.status()["clock_trusted"], true);
    shifted.gateway.stop();
    shifted.shift(60 - unix_ms() / 1000);
    shifted.gateway.start();
    let _ = shifted
        .gateway
        .succeeds("name: local\ntasks: {a: {shell: 'true'}}");
    assert_eq!(shifted.status()["clock_trusted"], false);
    shifted.wait_online();
    let run = shifted
        .fleet
        .submit("name: distant\ntasks: {a: {shell: 'true'}}");
    let _ = shifted.fleet.wait_run(&run, "succeeded");
    let ahead = shifted.node()["clock_ahead_ms"].as_i64().unwrap();
    assert!(
        ahead < -DAY * 1000,
        "{ahead} ms: the coordinator says it, too"
    );
    shifted.shift(0);
    shifted.gateway.wait("the clock to be trusted", || {
        (shifted.status()["clock_trusted"] == true).then_some(())
    });
}

/// The moment of a renewal is known by the coordinator's time: a clock that goes back by two days
/// puts none off, and one that goes far beyond the end of the certificate's life ends nothing.
#[test]
fn a_clock_that_steps_over_the_time_of_a_renewal_skips_none() {
    let lives = ["--certificate-life", "6s", "--renewal-grace", "1h"];
    let mut shifted = Shifted::serving(&lives);
    shifted.gateway.start();
    shifted.wait_online();
    for days in [-2, 80] {
        let name = shifted.node()["name"].as_str().unwrap().to_owned();
        let until = || {
            let node = shifted.fleet.json(&["node", "get", &name]).remove(0);
            node["certificate"]["until"].as_i64().unwrap()
        };
        let first = until();
        shifted.shift(days * DAY);
        // the next one may have been under way already
        shifted
            .fleet
            .wait("two renewals", || (until() > first + 6000).then_some(()));
        shifted.wait_online();
    }
}
