//! A disk that runs full while an agent works: what has ended is recorded all the same, nothing new
//! begins, and work goes on when there is room again.

use e2e::agent::{Gateway, stderr};
use rustix::process::Signal;

/// Room for the agent and its reserve, and not for much more.
const SMALL: u32 = 48;

/// Fills the disk up to its last byte and keeps it full until it is told to let go.
const FILLER: &str = "
  filler:
    shell: |
      dd if=/dev/zero of=fill bs=64k 2>/dev/null
      dd if=/dev/zero of=rest bs=1 2>/dev/null
      echo full >> @M/full
      until [ -e @M/free ]; do sleep 0.02; done
      rm -f fill rest";

fn small() -> Option<Gateway> {
    let mut gateway = Gateway::new(&["--cpus", "2"]);
    if !gateway.on_small_disk(SMALL) {
        return None;
    }
    gateway.start();
    Some(gateway)
}

#[test]
fn a_full_disk_stops_new_work_and_loses_no_outcome() {
    let Some(gateway) = small() else { return };
    let run = gateway.submit(&format!(
        "name: full
defaults: {{retry: {{max_attempts: 1}}}}
tasks:{FILLER}
  keeper: {{shell: 'until [ -e @M/full ]; do sleep 0.02; done; sleep 0.1'}}
  next: {{command: 'true', needs: [keeper]}}"
    ));
    let _ = gateway.wait_mark("full", 1);
    let keeper = gateway.wait_state(&run, "keeper", "succeeded");
    assert_eq!(keeper["attempts"], 1, "{keeper}");
    gateway.wait("the agent to notice", || {
        (gateway.task(&run, "next")["reason"] == "waits_for_disk").then_some(())
    });
    let refused = gateway.try_submit("name: more\ntasks: {one: {command: 'true'}}", &[]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    assert!(stderr(&refused).contains("no room"), "{refused:?}");
    gateway.put_mark("free", "");
    for (id, task) in gateway.settled(&run) {
        assert_eq!(task["state"], "succeeded", "{id}: {task}");
    }
    let _ = gateway.succeeds("name: more\ntasks: {one: {command: 'true'}}");
}

#[test]
fn an_agent_that_is_killed_on_a_full_disk_resumes() {
    let Some(mut gateway) = small() else { return };
    let run = gateway.submit(&format!(
        "name: full
defaults: {{retry: {{max_attempts: 1}}, crash_limit: 100}}
tasks:{FILLER}
  before: {{command: 'true'}}
  keeper: {{shell: 'echo x >> @M/keeper; until [ -e @M/free ]; do sleep 0.02; done'}}"
    ));
    let _ = gateway.wait_state(&run, "before", "succeeded");
    let _ = gateway.wait_mark("full", 1);
    let _ = gateway.wait_mark("keeper", 1);
    gateway.signal_all(Signal::KILL, false);
    gateway.wait_exit();
    gateway.put_mark("free", "");
    gateway.start();
    for (id, task) in gateway.settled(&run) {
        assert_eq!(task["state"], "succeeded", "{id}: {task}");
        assert_eq!(task["attempts"], 1, "{id}: {task}");
    }
}

#[test]
fn a_file_that_does_not_fit_fails_its_task_and_nothing_else() {
    let Some(gateway) = small() else { return };
    let run = gateway.submit(
        "name: large
defaults: {retry: {max_attempts: 1}}
tasks:
  large: {shell: dd if=/dev/zero of=out bs=1M count=64 2>/dev/null, outputs: [out]}
  other: {command: 'true', needs: [large], trigger_rule: all_done}",
    );
    let tasks = gateway.settled(&run);
    assert_eq!(tasks["large"]["state"], "failed", "{tasks:?}");
    assert_eq!(tasks["other"]["state"], "succeeded", "{tasks:?}");
}
