//! What a link that breaks or is narrow must not cost, with the real binaries: a transfer never
//! starts again from zero, small packets are enough, and a coordinator that restarted is noticed
//! without waiting for an idle timeout.

use e2e::agent::Gateway;
use e2e::fleet::{Fleet, HOLD};
use relay::{Conditions, Direction};
use std::time::Duration;

/// Bytes of the file that crosses the broken links.
const SIZE: u64 = 12 << 20;
/// When they break.
const BROKEN_AT: u64 = SIZE / 2;
/// The file, what each packet adds, and what was under way when the link broke: less than the file
/// and its first half once more.
const MOST: u64 = SIZE + SIZE / 4;

#[test]
fn a_file_that_is_under_way_when_a_link_breaks_goes_on_from_where_it_was() {
    let fleet = Fleet::start(&[&["--label", "site=a"], &["--label", "site=b"]]);
    // a window in each round trip: slow enough to be caught on its way
    let far = Conditions {
        delay: Duration::from_millis(150),
        ..Conditions::OPEN
    };
    let lanes = [(0, Direction::Up, 0), (1, Direction::Down, 1)];
    for (node, direction, _) in lanes {
        fleet.relay().set(node, direction, far);
    }
    let run = fleet.submit(&format!(
        "name: crossing
tasks:
  write:
    placement: {{site: a}}
    outputs: [data]
    shell: head -c {SIZE} /dev/urandom > data; sha256sum < data > @M/wrote
  read:
    placement: {{site: b}}
    inputs: [data]
    shell: sha256sum < data > @M/read"
    ));
    for (node, direction, way) in lanes {
        let bytes = || fleet.relay().traffic(node)[way].passed_bytes;
        fleet.wait("half of the file", || (bytes() >= BROKEN_AT).then_some(()));
        assert!(bytes() < SIZE, "it is under way");
        fleet.cut(node);
        fleet.wait_node(node, "offline");
        fleet.wait("the agent to notice", || {
            let status = fleet.agent_json(node, &["status"]).remove(0);
            (status["link"] != "online").then_some(())
        });
        fleet.relay().set(node, Direction::Up, Conditions::OPEN);
        fleet.relay().set(node, Direction::Down, Conditions::OPEN);
        fleet.relay().set(node, direction, far);
    }
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(fleet.mark("read"), fleet.mark("wrote"));
    for (node, _, way) in lanes {
        let passed = fleet.relay().traffic(node)[way].passed_bytes;
        assert!(
            (SIZE..MOST).contains(&passed),
            "{passed} bytes at gw-{node}"
        );
    }
}

/// A tunnel or a mobile network passes packets of the least size that every path must carry, and no
/// others. Larger ones are sent to find out what passes; that they are lost costs nothing.
#[test]
fn a_path_that_passes_small_packets_only_carries_a_session_and_its_files() {
    let mut fleet = Fleet::enrolling(&[&["--label", "site=a"], &["--label", "site=b"]]);
    let narrow = Conditions {
        largest: 1200,
        ..Conditions::OPEN
    };
    for node in 0..2 {
        fleet.relay().set(node, Direction::Up, narrow);
        fleet.relay().set(node, Direction::Down, narrow);
        fleet.start_agent(node);
        fleet.wait_online(node);
    }
    let run = fleet.submit(
        "name: narrow
tasks:
  write:
    placement: {site: a}
    outputs: [data]
    shell: head -c 2000000 /dev/urandom > data; sha256sum < data > @M/wrote
  read:
    placement: {site: b}
    inputs: [data]
    shell: sha256sum < data > @M/read",
    );
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(fleet.mark("read"), fleet.mark("wrote"));
    for node in 0..2 {
        let dropped = || fleet.relay().traffic(node).map(|way| way.dropped);
        fleet.wait("a packet that is too large", || {
            dropped().iter().any(|count| *count > 0).then_some(())
        });
    }
}

/// The coordinator keeps the key of its stateless resets: the first packet of a connection that it
/// does not know any more ends it at the agent. The idle timeout would take longer than the test.
#[test]
fn a_coordinator_that_restarted_is_noticed_without_the_idle_timeout() {
    let mut fleet = Fleet::enrolling(&[]);
    let (address, token) = (fleet.listen().to_string(), fleet.token(&[]));
    let args = ["--coordinator", &address, "--token", &token];
    let slow = ["--idle-timeout", "600", "--redial-max", "1"];
    let gateway = Gateway::started(&[&args[..], &slow[..]].concat());
    let online = |fleet: &Fleet| {
        fleet.wait("the node to be online", || {
            let node = fleet.json(&["node", "list"]).pop()?;
            (node["state"] == "online").then_some(())
        });
    };
    online(&fleet);
    let run = fleet.submit(&format!("name: held\ntasks: {{a: {{shell: '{HOLD}'}}}}"));
    let _ = fleet.wait_task(&run, "a", "running");
    fleet.kill_coordinator();
    fleet.start_coordinator();
    // an outcome is a packet of the old connection
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(&run, "succeeded");
    online(&fleet);
    drop(gateway);
}
