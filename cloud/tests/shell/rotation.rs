//! The exchange of the authority as agents see it that are played by hand: of this version, and of
//! one that is not asked.

use crate::common::Coordinator;
use crate::sessions::{Agent, agent, ask_to_enrol, clock, dial, hello, new_node, token};
use certs::{Certified, Enrolled, Holder, NodeKey};
use link::enrol::{EnrolAsk, EnrolRefusal, EnrolReply};
use link::{Close, Connection, Endpoint, LinkError, Settings};
use serde_json::Value;
use shared::ids::Incarnation;
use shared::log::{Direction, Head};
use shared::wire::{Down, RENEW, Up};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A node with its key on a disk.
struct Node {
    dir: TempDir,
    key: NodeKey,
}

impl Node {
    async fn join(coordinator: &Coordinator, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = NodeKey::open_or_create(dir.path()).unwrap();
        let token = token(coordinator, "{}");
        match ask_to_enrol(coordinator, &token, &key, name).await {
            EnrolReply::Certified { certified, .. } => {
                key.keep_certified(dir.path(), &certified).unwrap();
            }
            other => panic!("{other:?}"),
        }
        Self { dir, key }
    }

    fn enrolled(&self) -> Enrolled {
        self.key.enrolled(self.dir.path()).unwrap().unwrap()
    }

    async fn online(&self, coordinator: &Coordinator, features: u64) -> Agent {
        Agent::welcome_with(coordinator, &self.enrolled(), features).await
    }

    /// What the coordinator answers to a renewal.
    async fn renew(&self, coordinator: &Coordinator) -> Result<Certified, LinkError> {
        let (_endpoint, connection) = self.dial_to_renew(coordinator).await?;
        match self.ask_to_renew(&connection).await {
            EnrolReply::Certified { certified, .. } => Ok(certified),
            other => panic!("{other:?}"),
        }
    }

    async fn dial_to_renew(
        &self,
        coordinator: &Coordinator,
    ) -> Result<(Endpoint, Connection), LinkError> {
        let address = coordinator.ready.listen;
        let own = self.enrolled();
        let endpoint = Endpoint::client(address, &Settings::agent()).unwrap();
        let holder = Holder::new(&own.credential).unwrap();
        let tls = certs::renewal_client(&own.authorities, &holder, clock()).unwrap();
        let connection = endpoint.dial(address, tls).await?;
        Ok((endpoint, connection))
    }

    async fn ask_to_renew(&self, connection: &Connection) -> EnrolReply {
        let request = self.key.request().unwrap();
        connection
            .enrol(&EnrolAsk::Renew { request })
            .await
            .unwrap()
    }

    fn keep(&self, certified: &Certified) {
        self.key.keep_certified(self.dir.path(), certified).unwrap();
    }
}

fn post(coordinator: &Coordinator, path: &str, body: &str) -> Value {
    let (status, answer) = coordinator.post(path, body);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Names of the nodes that do not carry the authority that counts.
fn left(coordinator: &Coordinator) -> Vec<String> {
    let (_, status) = coordinator.json("/authority");
    let left = status["left"].as_array().unwrap().iter();
    left.map(|left| left["node"].as_str().unwrap().to_owned())
        .collect()
}

fn fingerprints(certified: &Certified) -> Vec<String> {
    let first = [&certified.issued.authority].into_iter();
    let all = first.chain(&certified.others);
    all.map(|der| certs::Fingerprint::of(der).to_string())
        .collect()
}

async fn is_asked(agent: &mut Agent) {
    match agent.rx.recv().await.unwrap() {
        Down::Renew { .. } => {}
        other => panic!("{other:?}"),
    }
}

/// The coordinator ends the session; what it says.
async fn is_closed(agent: &mut Agent) -> (Close, String) {
    loop {
        match agent.rx.recv().await {
            Ok(_) => {}
            Err(LinkError::Closed { close, text }) => return (close, text),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn nodes_are_asked_and_count_once_they_show_what_they_got() {
    let coordinator = Coordinator::start();
    agent(async {
        let node = Node::join(&coordinator, "gw-1").await;
        let mut session = node.online(&coordinator, RENEW).await;
        let begun = post(&coordinator, "/authority/begin", "{\"by\":\"ada\"}");
        let (old, next) = (&begun["authority"], &begun["next"]);
        is_asked(&mut session).await;
        let certified = node.renew(&coordinator).await.unwrap();
        assert_eq!(
            fingerprints(&certified),
            [next.as_str().unwrap(), old.as_str().unwrap()]
        );
        assert_eq!(left(&coordinator), ["gw-1"], "it may not have arrived");
        // it did not: the answer was lost, and the same certificate is shown again
        let (close, text) = is_closed(&mut session).await;
        assert_eq!(close, Close::Done, "{text}");
        let mut session = node.online(&coordinator, RENEW).await;
        is_asked(&mut session).await;
        assert_eq!(left(&coordinator), ["gw-1"]);
        node.keep(&node.renew(&coordinator).await.unwrap());
        let _ = is_closed(&mut session).await;
        let mut session = node.online(&coordinator, RENEW).await;
        assert!(left(&coordinator).is_empty());

        // who joins now trusts both, and is asked, too
        let newcomer = Node::join(&coordinator, "gw-2").await;
        assert_eq!(newcomer.enrolled().authorities.len(), 2);
        let mut second = newcomer.online(&coordinator, RENEW).await;
        is_asked(&mut second).await;
        assert_eq!(left(&coordinator), ["gw-2"]);
        newcomer.keep(&newcomer.renew(&coordinator).await.unwrap());
        let _ = is_closed(&mut second).await;
        let mut second = newcomer.online(&coordinator, RENEW).await;
        post(&coordinator, "/authority/finish", "{}");
        for session in [&mut session, &mut second] {
            is_asked(session).await;
        }
        let certified = newcomer.renew(&coordinator).await.unwrap();
        assert_eq!(fingerprints(&certified), [next.as_str().unwrap()]);
        newcomer.keep(&certified);
        assert_eq!(newcomer.enrolled().authorities.len(), 1);
    });
}

#[test]
fn a_program_that_is_not_asked_renews_at_its_time_or_is_left_behind() {
    let coordinator = Coordinator::start();
    agent(async {
        let nodes = [
            Node::join(&coordinator, "gw-1").await,
            Node::join(&coordinator, "gw-2").await,
        ];
        let mut first = nodes[0].online(&coordinator, 0).await;
        let mut second = nodes[1].online(&coordinator, 0).await;
        post(&coordinator, "/authority/begin", "{}");
        let (_, status) = coordinator.json("/authority");
        assert_eq!(status["left"][0]["asked"], false, "{status}");
        let quiet = Duration::from_millis(300);
        let said = tokio::time::timeout(quiet, first.rx.recv()).await;
        assert!(said.is_err(), "it would not understand: {said:?}");
        // its certificate is due
        nodes[0].keep(&nodes[0].renew(&coordinator).await.unwrap());
        let (close, _) = is_closed(&mut first).await;
        assert_eq!(close, Close::Done);
        let _first = nodes[0].online(&coordinator, 0).await;
        assert_eq!(left(&coordinator), ["gw-2"]);

        let (status, refused) = coordinator.post("/authority/finish", "{}");
        assert_eq!(status, 409, "{refused}");
        let said = refused["error"].as_str().unwrap();
        assert!(said.contains("yet: gw-2"), "{said}");
        let open = token(&coordinator, "{}");
        let done = post(&coordinator, "/authority/finish", "{\"force\":true}");
        assert_eq!(
            (&done["left"][0]["node"], &done["void_tokens"]),
            (&"gw-2".into(), &1.into())
        );
        let (close, text) = is_closed(&mut second).await;
        assert_eq!(close, Close::Refused, "{text}");
        let lost = nodes[1].renew(&coordinator).await.unwrap_err();
        assert!(
            matches!(lost, LinkError::Untrusted(certs::Refusal::Foreign)),
            "{lost}"
        );
        assert_ne!(
            open.authority.to_string(),
            done["authority"].as_str().unwrap()
        );
        let (_, waits) = coordinator.get("/waits");
        assert!(waits.contains("token create --replace gw-2"), "{waits}");
    });
}

/// Connections that were made before the end of the exchange, and used after it.
#[test]
fn what_was_begun_with_the_authority_before_ends_with_it() {
    let coordinator = Coordinator::start();
    agent(async {
        let node = Node::join(&coordinator, "gw-1").await;
        let own = node.enrolled();
        let (_endpoint, silent) = dial(&coordinator, &own).await;
        let (_renewing, renewal) = node.dial_to_renew(&coordinator).await.unwrap();
        let (mut tx, mut rx) = silent.open_session().await.unwrap();
        post(&coordinator, "/authority/begin", "{}");
        post(&coordinator, "/authority/finish", "{\"force\":true}");

        let origin = |direction| Head::origin(own.id, Incarnation([1; 16]), direction);
        let late = hello(&own, origin(Direction::Up), origin(Direction::Down));
        tx.send(&Up::Hello(Box::new(late))).await.unwrap();
        match rx.recv().await {
            Err(LinkError::Closed {
                close: Close::Refused,
                text,
            }) => assert!(text.contains("not trusted any more"), "{text}"),
            other => panic!("{other:?}"),
        }
        match node.ask_to_renew(&renewal).await {
            EnrolReply::Refused(EnrolRefusal::NotAllowed(text)) => {
                assert!(text.contains("has given up the authority"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(coordinator.json("/nodes/gw-1").1["state"], "offline");
}

/// Asks for something and goes away after so many milliseconds, in the middle of it.
fn ask_and_leave(coordinator: &Coordinator, path: &str, after: u64) {
    let api = coordinator.ready.api;
    let mut client = TcpStream::connect(api).unwrap();
    let body = "{\"by\":\"ada\"}";
    let length = body.len();
    let ask =
        format!("POST /v1{path} HTTP/1.1\r\nhost: {api}\r\ncontent-length: {length}\r\n\r\n{body}");
    client.write_all(ask.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(after));
}

/// Whether it becomes true soon.
fn soon(mut is: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        if is() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Asks and goes away, later each time, until it was begun.
fn begun_by_who_leaves(coordinator: &Coordinator, path: &str, mut is: impl FnMut() -> bool) {
    let begun = (1..=10).any(|after| {
        ask_and_leave(coordinator, path, after);
        soon(&mut is)
    });
    assert!(begun, "{path} is never begun");
}

#[test]
fn a_step_is_carried_through_when_whoever_asked_for_it_goes_away() {
    let coordinator = Coordinator::start();
    let audited = |what: &str| {
        let (_, audit) = coordinator.get("/audit");
        audit.contains(what)
    };
    agent(async {
        let node = Node::join(&coordinator, "gw-1").await;
        let mut session = node.online(&coordinator, RENEW).await;
        begun_by_who_leaves(&coordinator, "/authority/begin", || {
            audited("authority rotate begin")
        });
        is_asked(&mut session).await;
        assert_ne!(coordinator.json("/authority").1["next"], Value::Null);
        node.keep(&node.renew(&coordinator).await.unwrap());
        let _ = is_closed(&mut session).await;
        let mut session = node.online(&coordinator, RENEW).await;
        begun_by_who_leaves(&coordinator, "/authority/finish", || {
            audited("authority rotate finish")
        });
        is_asked(&mut session).await;
        assert_eq!(coordinator.json("/authority").1["next"], Value::Null);
    });
    let data = coordinator.dir.as_ref().unwrap().path().join("data");
    let names = ["gw-2", "gw-3", "gw-4", "gw-5", "gw-6", "gw-7"];
    for name in names {
        agent(new_node(&coordinator, name));
        let path = format!("/nodes/{name}");
        begun_by_who_leaves(&coordinator, &format!("{path}/forget"), || {
            coordinator.json(&path).1["state"] == "forgotten"
        });
    }
    let kept = || std::fs::read_to_string(data.join("authority/revoked")).unwrap_or_default();
    assert!(soon(|| names.iter().all(|name| kept().contains(name))));
}
