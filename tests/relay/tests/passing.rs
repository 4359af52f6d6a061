//! Packets through a relay on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use relay::{Conditions, Direction, Relay};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

fn socket(patience_ms: u64) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(patience_ms)))
        .unwrap();
    socket
}

/// Sends `text` from `from` to `to`'s relay and answers it; who asked, if it came through.
fn ask(agent: &UdpSocket, relay: &Relay, there: &UdpSocket, text: &str) -> Option<SocketAddr> {
    let mut buffer = [0; 100];
    agent.send_to(text.as_bytes(), relay.address(0)).unwrap();
    let (length, from) = there.recv_from(&mut buffer).ok()?;
    assert_eq!(&buffer[..length], text.as_bytes());
    there.send_to(b"answer", from).unwrap();
    Some(from)
}

fn answered(agent: &UdpSocket) -> bool {
    agent.recv(&mut [0; 100]).is_ok()
}

#[test]
fn packets_pass_until_the_lane_is_cut_and_again_when_it_is_joined() {
    let (agent, there) = (socket(300), socket(300));
    let relay = Relay::start(there.local_addr().unwrap(), 1, 1).unwrap();
    let first = ask(&agent, &relay, &there, "one").unwrap();
    assert!(answered(&agent));
    relay.mute(0);
    assert_eq!(
        ask(&agent, &relay, &there, "two"),
        Some(first),
        "the mapping stays"
    );
    assert!(!answered(&agent), "answers are swallowed");
    relay.cut(0);
    assert_eq!(ask(&agent, &relay, &there, "three"), None);
    relay.join(0);
    assert!(ask(&agent, &relay, &there, "four").is_some());
    assert!(answered(&agent));
    let [up, down] = relay.traffic(0);
    assert_eq!(
        (up.passed, up.dropped, down.passed, down.dropped),
        (3, 1, 2, 1)
    );
}

#[test]
fn a_rebinding_shows_the_agent_at_another_port() {
    let (agent, there) = (socket(2000), socket(2000));
    let relay = Relay::start(there.local_addr().unwrap(), 1, 1).unwrap();
    let first = ask(&agent, &relay, &there, "one").unwrap();
    assert!(answered(&agent));
    relay.rebind(0);
    assert_ne!(ask(&agent, &relay, &there, "two"), Some(first));
    assert!(answered(&agent));
}

#[test]
fn packets_can_be_late_and_doubled() {
    let (agent, there) = (socket(5000), socket(5000));
    let relay = Relay::start(there.local_addr().unwrap(), 1, 1).unwrap();
    let late = Conditions {
        double_milli: 1000,
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(20),
        ..Conditions::OPEN
    };
    relay.set(0, Direction::Up, late);
    agent.send_to(b"x", relay.address(0)).unwrap();
    for _ in 0..2 {
        assert_eq!(there.recv(&mut [0; 10]).unwrap(), 1);
    }
}

#[test]
fn as_a_process_it_writes_down_what_it_did() {
    let log = std::env::temp_dir().join(format!("relay-log-{}", std::process::id()));
    let target = "127.0.0.1:9".parse().unwrap();
    let mut said = Vec::new();
    let orders = b"cut a\njoin a\ncut x\nboil a\ntraffic a\n" as &[u8];
    relay::process::serve(target, &["a".to_owned()], &log, orders, &mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert!(lines[0].starts_with("{\"lanes\":[\"127.0.0.1:"), "{said}");
    assert!(
        lines[3].contains("no lane 'x'") && lines[4].contains("no order 'boil'"),
        "{said}"
    );
    let windows = relay::log::windows(&relay::log::read(&log).unwrap());
    std::fs::remove_file(&log).unwrap();
    assert_eq!(windows.len(), 1);
    assert!(windows[0].to_ms.is_some());
}
