//! A real coordinator and gateways that are played by hand, each with its own key, socket and
//! connection over the real transport: a whole fleet that calls at once, a connection that ends
//! after the next one was made.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use certs::{Clock, Enrolled, Holder, NodeKey, Token};
use e2e::fleet::Fleet;
use link::enrol::{EnrolAsk, EnrolReply, EnrolRequest};
use link::session::{AgentRx, AgentTx};
use link::{Close, Connection, Endpoint, Settings};
use shared::directive::{Body as Wish, Directive};
use shared::ids::{BootId, Generation, Incarnation};
use shared::log::{Direction, Head};
use shared::time::{Now, Span, Unix};
use shared::wire::{Down, FEATURES, Hello, PROTOCOL_MAX, PROTOCOL_MIN, Refuse, Up};
use shared::workflow::Resources;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Sessions that are played.
const PLAYED: usize = 497;
/// Those that enrol at once.
const ENROL: usize = 25;

fn now() -> Unix {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Unix(i64::try_from(since.as_millis()).unwrap())
}

/// A gateway that is played.
struct Member {
    enrolled: Enrolled,
    session: u64,
    /// The secret of its last session.
    proof: Option<[u8; 16]>,
}

/// Its session, which lives as long as this does.
struct Session {
    connection: Connection,
    _tx: AgentTx,
    rx: AgentRx,
    _endpoint: Endpoint,
}

impl Member {
    async fn enrol(address: SocketAddr, token: String, n: usize) -> Self {
        let token = Token::parse(&token).unwrap();
        let key = NodeKey::ephemeral().unwrap();
        let endpoint = Endpoint::client(address, &Settings::agent()).unwrap();
        let tls = certs::enrol_client(token.authority, Clock::new(now)).unwrap();
        let connection = endpoint.dial(address, tls).await.unwrap();
        let ask = EnrolAsk::Enrol(EnrolRequest {
            version: "played".to_owned(),
            token: token.presented,
            name: format!("played-{n}"),
            request: key.request().unwrap(),
            labels: BTreeMap::new(),
        });
        let issued = match connection.enrol(&ask).await.unwrap() {
            EnrolReply::Enrolled { issued, .. } => issued,
            EnrolReply::Certified { certified, .. } => certified.issued,
            EnrolReply::Refused(why) => panic!("{why}"),
        };
        endpoint.close(Close::Done, "enrolled").await;
        Self {
            enrolled: key.accept(&issued, token.authority).unwrap(),
            session: 0,
            proof: None,
        }
    }

    /// Calls until it is welcome, as agents do: when it is told to call later, it does.
    async fn call(&mut self, address: SocketAddr) -> Session {
        loop {
            let endpoint = Endpoint::client(address, &Settings::agent()).unwrap();
            let holder = Holder::new(&self.enrolled.credential).unwrap();
            let tls = certs::session_client(&self.enrolled.authorities, &holder, Clock::new(now));
            let dialled = endpoint.dial(address, tls.unwrap()).await;
            let connection = dialled.expect("no handshake fails");
            let (mut tx, mut rx) = connection.open_session().await.unwrap();
            self.session += 1;
            tx.send(&Up::Hello(Box::new(self.hello()))).await.unwrap();
            match rx.recv().await.unwrap() {
                Down::Welcome(welcome) => {
                    rx.accepted();
                    self.proof = Some(welcome.secret);
                    return Session {
                        connection,
                        _tx: tx,
                        rx,
                        _endpoint: endpoint,
                    };
                }
                Down::Refuse(Refuse {
                    retry_after: Some(Span(pause)),
                    ..
                }) => tokio::time::sleep(Duration::from_millis(pause)).await,
                other => panic!("not welcome: {other:?}"),
            }
        }
    }

    fn hello(&self) -> Hello {
        let (node, incarnation) = (self.enrolled.id, Incarnation([1; 16]));
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features: FEATURES,
            version: "played".to_owned(),
            node,
            name: self.enrolled.name.clone(),
            incarnation,
            boot: BootId([2; 16]),
            session: self.session,
            proof: self.proof,
            facts_first: 1,
            facts: Head::origin(node, incarnation, Direction::Up),
            directives: Head::origin(node, incarnation, Direction::Down),
            ack: None,
            generation: Generation(0),
            now: Now {
                wall: now(),
                ..Now::default()
            },
            clock_trusted: true,
            labels: BTreeMap::new(),
            capacity: Resources {
                cpu_milli: 1000,
                ..Resources::default()
            },
            succeeds: None,
            directive_seal: None,
        }
    }
}

/// All call at the same moment.
async fn call_at_once(members: Vec<Member>, address: SocketAddr) -> (Vec<Member>, Vec<Session>) {
    let mut calls = JoinSet::new();
    for mut member in members {
        calls.spawn(async move {
            let session = member.call(address).await;
            (member, session)
        });
    }
    calls.join_all().await.into_iter().unzip()
}

/// A figure of the coordinator, with its labels.
fn figure(fleet: &Fleet, name: &str) -> u64 {
    let url = format!("http://{}/metrics", fleet.api());
    let page = ureq::get(&url).call().unwrap().body_mut().read_to_string();
    let page = page.unwrap();
    let start = format!("driftless_coordinator_{name} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&start));
    value.expect("the figure is there").parse().unwrap()
}

#[test]
fn a_fleet_of_500_that_calls_at_once_is_admitted_without_a_failed_handshake() {
    let mut fleet = Fleet::start(&[&[], &[], &[]]);
    let real = 3;
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let address = fleet.listen();
    let mut members = Vec::new();
    for chunk in 0..PLAYED.div_ceil(ENROL) {
        let some = chunk * ENROL..PLAYED.min((chunk + 1) * ENROL);
        let made: Vec<String> = some.clone().map(|_| token(&fleet)).collect();
        let enrol = async {
            let mut enrolling = JoinSet::new();
            for (n, token) in some.zip(made) {
                enrolling.spawn(Member::enrol(address, token, n));
            }
            enrolling.join_all().await
        };
        members.extend(runtime.block_on(enrol));
    }
    let (members, sessions) = runtime.block_on(call_at_once(members, address));
    fleet.kill_coordinator();
    fleet.start_coordinator();
    let (_members, again) = runtime.block_on(call_at_once(members, address));
    for node in 0..real {
        fleet.wait_online(node);
    }
    assert_eq!(figure(&fleet, "calls_total{end=\"failed\"}"), 0);
    assert_eq!(figure(&fleet, "calls_total{end=\"refused\"}"), 0);
    assert_ne!(figure(&fleet, "calls_total{end=\"asked_again\"}"), 0);
    assert_eq!(figure(&fleet, "sessions"), (PLAYED + real) as u64);
    let log = fleet.log_text("coordinator");
    assert!(!log.contains("a handshake failed"), "{log}");
    // and the fleet works
    let run = fleet.submit("name: after\ntasks: {a: {shell: echo after, placement: {node: gw-1}}}");
    let _ = fleet.wait_run(&run, "succeeded");
    // the coordinator that was killed said nothing to the old ones: its successor does
    drop(sessions);
    for session in again {
        session.connection.close(Close::Done, "bye");
    }
    fleet.wait("the sessions' end", || {
        (figure(&fleet, "sessions") == real as u64).then_some(())
    });
}

fn token(fleet: &Fleet) -> String {
    let url = format!("http://{}/v1/tokens", fleet.api());
    let made = ureq::post(&url).send_json(serde_json::json!({}));
    let made: serde_json::Value = made.unwrap().body_mut().read_json().unwrap();
    made["token"].as_str().unwrap().to_owned()
}

/// The registry of sessions is asked whose entry it is before one is removed.
#[test]
fn the_late_end_of_an_old_connection_does_not_end_the_session_that_followed() {
    let fleet = Fleet::enrolling(&[]);
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let (address, token) = (fleet.listen(), token(&fleet));
    let (old, mut new) = runtime.block_on(async {
        let mut member = Member::enrol(address, token, 0).await;
        let old = member.call(address).await;
        (old, member.call(address).await)
    });
    old.connection.close(Close::Done, "late");
    fleet.wait("the end of the old one", || {
        let log = fleet.log_text("coordinator");
        let ended = |line: &&str| line.contains("a session ended") && line.contains("session=1");
        log.lines().find(ended).map(str::to_owned)
    });
    let node = fleet.json(&["node", "get", "played-0"]).remove(0);
    assert_eq!(node["state"], "online", "{node}");
    assert_eq!(figure(&fleet, "sessions"), 1);
    let run = fleet.submit("name: next\ntasks: {a: {shell: 'true'}}");
    let assigned = runtime.block_on(async {
        loop {
            if let Down::Directives(batch) = new.rx.recv().await.unwrap() {
                let number = batch.after.number + 1;
                break Directive::decode(number, &batch.entries[0]).unwrap().body;
            }
        }
    });
    let Wish::Assign(assign) = assigned else {
        panic!("the run is assigned: {assigned:?}")
    };
    assert_eq!(assign.slice.run.to_string(), run);
}
