//! The link as agents see it: enrolment with tokens, sessions, files, logs.

use crate::common::{Coordinator, PATIENCE, TWO, options, packed};
use certs::{Clock, Enrolled, Holder, NodeKey, Token, TokenRefusal};
use contents::Dir;
use link::enrol::{EnrolAsk, EnrolRefusal, EnrolReply, EnrolRequest};
use link::logs::{LogAnswer, LogAsk, Stream};
use link::session::{AgentRx, AgentTx};
use link::{Close, Connection, Endpoint, LinkError, Settings, bulk};
use shared::directive;
use shared::explain::Reason;
use shared::fact::{Body, End, Fact, Outcome, OutputFile};
use shared::ids::{AttemptRef, BootId, Generation, Hash, Incarnation, RunId, TaskIdx};
use shared::log::{Batch, Direction, Head};
use shared::spec::SentFiles;
use shared::state::TaskState;
use shared::time::{Now, Span, Stamp, Unix};
use shared::wire::{Down, Hello, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, Up};
use shared::workflow::Resources;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

pub(crate) fn clock() -> Clock {
    Clock::new(|| {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Unix(since.as_millis() as i64)
    })
}

/// Runs an agent's side of a test.
pub(crate) fn agent<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") })
}

pub(crate) fn token(coordinator: &Coordinator, body: &str) -> Token {
    let (status, made) = coordinator.post("/tokens", body);
    assert_eq!(status, 201, "{made}");
    assert!(made["expires"].is_i64(), "{made}");
    Token::parse(made["token"].as_str().unwrap()).unwrap()
}

async fn enrol(
    coordinator: &Coordinator,
    token: &Token,
    key: &NodeKey,
    name: &str,
) -> Result<Enrolled, EnrolRefusal> {
    match ask_to_enrol(coordinator, token, key, name).await {
        EnrolReply::Enrolled { issued, .. } => Ok(key.accept(&issued, token.authority).unwrap()),
        EnrolReply::Certified { certified, .. } => {
            Ok(key.accept(&certified.issued, token.authority).unwrap())
        }
        EnrolReply::Refused(refusal) => Err(refusal),
    }
}

pub(crate) async fn ask_to_enrol(
    coordinator: &Coordinator,
    token: &Token,
    key: &NodeKey,
    name: &str,
) -> EnrolReply {
    let address = coordinator.ready.listen;
    let endpoint = Endpoint::client(address, &Settings::agent()).unwrap();
    let tls = certs::enrol_client(token.authority, clock()).unwrap();
    let connection = endpoint.dial(address, tls).await.unwrap();
    let ask = EnrolAsk::Enrol(EnrolRequest {
        version: "test".into(),
        token: token.presented.clone(),
        name: name.into(),
        request: key.request().unwrap(),
        labels: BTreeMap::from([("site".into(), "plant-3".into())]),
    });
    connection.enrol(&ask).await.unwrap()
}

#[test]
fn a_token_enrols_one_node_once() {
    let coordinator = Coordinator::start();
    let good = token(&coordinator, r#"{"name":"gw-7"}"#);
    let (key, other) = (NodeKey::ephemeral().unwrap(), NodeKey::ephemeral().unwrap());
    agent(async {
        let mut guess = good.clone();
        guess.presented.secret = [0; 16];
        let refused = enrol(&coordinator, &guess, &key, "gw-7").await.unwrap_err();
        assert_eq!(refused, EnrolRefusal::Token(TokenRefusal::Wrong));
        let refused = enrol(&coordinator, &good, &key, "gw-8").await.unwrap_err();
        assert!(matches!(
            refused,
            EnrolRefusal::Token(TokenRefusal::WrongName { .. })
        ));
        let enrolled = enrol(&coordinator, &good, &key, "gw-7").await.unwrap();
        assert_eq!(enrolled.name, "gw-7");
        let again = enrol(&coordinator, &good, &key, "gw-7").await.unwrap();
        assert_eq!(again.id, enrolled.id, "the answer may have been lost");
        // its key alone is no token: neither with one that nobody made nor without the secret
        let mut made_up = token(&coordinator, r#"{"name":"gw-9"}"#);
        made_up.presented.id.0 = [9; 8];
        let (one, two) = (&made_up, &guess);
        for token in [one, two] {
            let refused = enrol(&coordinator, token, &key, "gw-7").await;
            assert!(refused.is_err(), "{refused:?}");
        }
        let reused = enrol(&coordinator, &good, &other, "gw-7")
            .await
            .unwrap_err();
        assert!(reused.to_string().contains("used already"), "{reused}");
        let second = token(&coordinator, "{}");
        let taken = enrol(&coordinator, &second, &other, "gw-7")
            .await
            .unwrap_err();
        assert!(matches!(taken, EnrolRefusal::NameTaken { .. }), "{taken}");
        let replace = token(&coordinator, r#"{"name":"gw-7","replace":true}"#);
        let replaced = enrol(&coordinator, &replace, &other, "gw-7").await.unwrap();
        assert_eq!(replaced.id, enrolled.id, "the node stays the same");
        let short = token(&coordinator, r#"{"expires_in_ms":1}"#);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let late = enrol(&coordinator, &short, &other, "gw-9")
            .await
            .unwrap_err();
        assert!(late.to_string().contains("expired"), "{late}");
    });
    let nodes = coordinator.lines("/nodes");
    assert_eq!((nodes.len(), &nodes[0]["name"]), (1, &"gw-7".into()));
    let (_, problem) = coordinator.json("/nodes/gw-77");
    assert_eq!(problem["hint"], "did you mean gw-7?");
}

/// An enrolled agent with a welcomed session.
pub(crate) struct Agent {
    pub(crate) connection: Connection,
    tx: AgentTx,
    pub(crate) rx: AgentRx,
    facts: Head,
    directives: Head,
    endpoint: Endpoint,
    secret: [u8; 16],
}

pub(crate) fn hello(node: &Enrolled, facts: Head, directives: Head) -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: 0,
        version: "test".into(),
        node: node.id,
        name: node.name.clone(),
        incarnation: Incarnation([1; 16]),
        boot: BootId([2; 16]),
        session: 1,
        proof: None,
        facts_first: 1,
        facts,
        directives,
        ack: None,
        generation: Generation(0),
        now: Now {
            wall: clock().now(),
            ..Now::default()
        },
        clock_trusted: true,
        labels: BTreeMap::new(),
        capacity: Resources {
            cpu_milli: 4000,
            memory: 1 << 40,
            disk: 1 << 40,
            ..Resources::default()
        },
        succeeds: None,
        directive_seal: None,
    }
}

pub(crate) async fn dial(coordinator: &Coordinator, node: &Enrolled) -> (Endpoint, Connection) {
    let address = coordinator.ready.listen;
    let endpoint = Endpoint::client(address, &Settings::agent()).unwrap();
    let holder = Holder::new(&node.credential).unwrap();
    let tls = certs::session_client(&node.authorities, &holder, clock()).unwrap();
    let connection = endpoint.dial(address, tls).await.unwrap();
    (endpoint, connection)
}

impl Agent {
    async fn welcome(coordinator: &Coordinator, node: &Enrolled) -> Self {
        Self::welcome_with(coordinator, node, 0).await
    }

    /// One whose program has these features.
    pub(crate) async fn welcome_with(
        coordinator: &Coordinator,
        node: &Enrolled,
        features: u64,
    ) -> Self {
        let (endpoint, connection) = dial(coordinator, node).await;
        let (mut tx, mut rx) = connection.open_session().await.unwrap();
        let origin = |direction| Head::origin(node.id, Incarnation([1; 16]), direction);
        let (facts, directives) = (origin(Direction::Up), origin(Direction::Down));
        let hello = Hello {
            features,
            ..hello(node, facts, directives)
        };
        tx.send(&Up::Hello(Box::new(hello))).await.unwrap();
        let secret = match rx.recv().await.unwrap() {
            Down::Welcome(welcome) => welcome.secret,
            other => panic!("{other:?}"),
        };
        rx.accepted();
        Self {
            secret,
            connection,
            tx,
            rx,
            facts,
            directives,
            endpoint,
        }
    }

    /// What the coordinator says next.
    async fn next(&mut self) -> Down {
        self.rx.recv().await.unwrap()
    }

    /// The slice that is assigned next.
    async fn assigned(&mut self) -> directive::Assign {
        loop {
            let Down::Directives(batch) = self.rx.recv().await.unwrap() else {
                continue;
            };
            assert_eq!(batch.after, self.directives);
            self.directives = batch.head();
            self.tx.send(&Up::Applied(self.directives)).await.unwrap();
            for (n, entry) in batch.entries.iter().enumerate() {
                let number = batch.after.number + 1 + n as u64;
                let read = directive::Directive::decode(number, entry).unwrap();
                if let directive::Body::Assign(assign) = read.body {
                    return assign;
                }
            }
        }
    }

    async fn report(&mut self, bodies: Vec<Body>) {
        let at = Stamp {
            boot: 1,
            mono_ms: 1,
            wall: clock().now(),
        };
        let seen = self.directives.number;
        let entries = bodies
            .into_iter()
            .map(|body| Fact { at, seen, body }.encode());
        let batch = Batch::new(self.facts, entries.collect());
        self.facts = batch.head();
        self.tx.send(&Up::Facts(batch)).await.unwrap();
        loop {
            if let Down::Ack(ack) = self.rx.recv().await.unwrap()
                && ack.head == self.facts
            {
                return;
            }
        }
    }
}

pub(crate) async fn new_node(coordinator: &Coordinator, name: &str) -> Enrolled {
    let key = NodeKey::ephemeral().unwrap();
    enrol(coordinator, &token(coordinator, "{}"), &key, name)
        .await
        .unwrap()
}

fn succeeded(attempt: AttemptRef, outputs: Vec<OutputFile>) -> Body {
    let at = Stamp {
        boot: 1,
        mono_ms: 1,
        wall: clock().now(),
    };
    let end = End {
        outcome: Outcome::Succeeded,
        reason: Reason::ExitedZero,
        exit: Some(0),
        began: Some(at),
        outputs,
        retry_in: None,
        task: TaskState::Succeeded,
        cpu_ms: 1,
        peak_memory: 1,
    };
    Body::Ended { attempt, end }
}

/// Does both tasks of [`TWO`], whose first one writes `output`.
async fn do_both(agent: &mut Agent, assign: &directive::Assign, output: OutputFile) {
    let slice = assign.slice;
    let attempt = |task| AttemptRef {
        slice,
        task: TaskIdx(task),
        number: 1,
    };
    let facts = vec![
        Body::Accepted { slice },
        Body::Started {
            attempt: attempt(0),
        },
        succeeded(attempt(0), vec![output]),
        Body::Started {
            attempt: attempt(1),
        },
        succeeded(attempt(1), Vec::new()),
        Body::SliceDone { slice },
    ];
    agent.report(facts).await;
}

/// Asks for a log by the API; the agent's end answers what it was asked.
async fn asked_for_log(coordinator: &Coordinator, agent: &Agent, path: &str) -> (LogAsk, String) {
    let serve = agent.connection.clone();
    let answered = tokio::spawn(async move {
        let (ask, reply) = serve.accept_log().await.unwrap().ask().await.unwrap();
        let piece = LogAnswer::Piece(b"what it wrote\n".to_vec());
        reply.answer(&piece).await.unwrap();
        ask
    });
    let url = coordinator.url(path);
    let get = move || {
        ureq::get(url)
            .call()
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap()
    };
    let found = tokio::task::spawn_blocking(get);
    (answered.await.unwrap(), found.await.unwrap())
}

#[test]
fn a_session_carries_work_files_and_logs() {
    let coordinator = Coordinator::start();
    let (_, run) = coordinator.submit(&packed(TWO, &SentFiles::new()), &[]);
    let id = run["id"].as_str().unwrap().to_owned();
    let logs = format!("/runs/{id}/tasks/first/logs");
    let home = tempfile::tempdir().unwrap();
    let files = Dir::open(home.path(), 1 << 20).unwrap();
    let content = files.insert_bytes(b"hello\n").unwrap();
    agent(async {
        let node = new_node(&coordinator, "gw-7").await;
        let mut agent = Agent::welcome(&coordinator, &node).await;
        let online = coordinator.until("/nodes/gw-7", |node| node["state"] == "online");
        for name in ["name", "id", "state", "as_of"] {
            assert!(online.get(name).is_some(), "{name} in {online}");
        }
        let assign = agent.assigned().await;
        assert_eq!(assign.slice.run, id.parse::<RunId>().unwrap());
        assert_eq!(assign.tasks.len(), 2);
        bulk::put(&agent.connection, content, &files).await.unwrap();
        do_both(
            &mut agent,
            &assign,
            OutputFile {
                hash: content,
                size: 6,
            },
        )
        .await;
        coordinator.until(&format!("/runs/{id}"), |run| run["state"] == "succeeded");
        let (_, task) = coordinator.json(&format!("/runs/{id}/tasks/first"));
        assert_eq!(task["outputs"][0]["hash"], content.to_string());
        let (status, text) = coordinator.get(&format!("/files/{content}"));
        assert_eq!((status, text.as_str()), (200, "hello\n"));
        let other = Dir::open(&home.path().join("other"), 1 << 20).unwrap();
        bulk::get(&agent.connection, content, 6, &other)
            .await
            .unwrap();
        let missing = bulk::get(&agent.connection, Hash::of(b"?"), 1, &other).await;
        assert!(missing.unwrap_err().to_string().contains("refused"));

        let path = format!("{logs}?stream=stderr");
        let (ask, found) = asked_for_log(&coordinator, &agent, &path).await;
        let named = (ask.task, ask.number, ask.stream, ask.from);
        assert_eq!(named, (0, 1, Stream::Err, 0));
        assert_eq!(found, "what it wrote\n");
        agent.endpoint.close(Close::Done, "bye").await;
    });
    coordinator.until("/nodes/gw-7", |node| node["state"] == "offline");
    let (status, problem) = coordinator.json(&logs);
    assert_eq!(status, 503);
    assert!(
        problem["error"]
            .as_str()
            .unwrap()
            .contains("gw-7 is offline"),
        "{problem}"
    );
    assert!(
        problem["hint"]
            .as_str()
            .unwrap()
            .contains("driftless-agent logs"),
        "{problem}"
    );
}

#[test]
fn strangers_and_odd_peers_are_refused_and_change_nothing() {
    let (ours, theirs) = (Coordinator::start(), Coordinator::start());
    agent(async {
        let foreign = new_node(&theirs, "gw-7").await;
        let endpoint = Endpoint::client(ours.ready.listen, &Settings::agent()).unwrap();
        let holder = Holder::new(&foreign.credential).unwrap();
        let own = new_node(&ours, "gw-8").await;
        let tls = certs::session_client(&own.authorities, &holder, clock()).unwrap();
        let refused = match endpoint.dial(ours.ready.listen, tls).await {
            Err(error) => error,
            Ok(connection) => connection.closed().await,
        };
        assert!(
            matches!(refused, LinkError::RefusedByPeer(_)),
            "{refused:?}"
        );

        let (_endpoint, connection) = dial(&ours, &own).await;
        let (mut tx, mut rx) = connection.open_session().await.unwrap();
        let mut odd = hello(
            &own,
            Head::origin(own.id, Incarnation([1; 16]), Direction::Up),
            Head::origin(own.id, Incarnation([1; 16]), Direction::Down),
        );
        (odd.protocol_min, odd.protocol_max) = (900, 901);
        tx.send(&Up::Hello(Box::new(odd))).await.unwrap();
        match rx.recv().await.unwrap() {
            Down::Refuse(refuse) => assert_eq!(refuse.reason, Refusal::Protocol),
            other => panic!("{other:?}"),
        }

        let (_endpoint, connection) = dial(&ours, &own).await;
        let (mut tx, _rx) = connection.open_session().await.unwrap();
        tx.send(&Up::Pong { nonce: 1 }).await.unwrap();
        let closed = connection.closed().await;
        let protocol = matches!(
            closed,
            LinkError::Closed {
                close: Close::Protocol,
                ..
            }
        );
        assert!(protocol, "{closed:?}");
    });
    assert_eq!(ours.lines("/nodes").len(), 1);
    assert_ne!(ours.json("/nodes/gw-8").1["state"], "online");
}

/// The hello of a session that lives, said once more: by the node itself, and by somebody who has
/// its key and not its secret.
#[test]
fn a_replayed_session_is_refused_and_the_one_that_lives_goes_on() {
    let coordinator = Coordinator::start();
    let (_, run) = coordinator.submit(&packed(TWO, &SentFiles::new()), &[]);
    agent(async {
        let node = new_node(&coordinator, "gw-7").await;
        let mut first = Agent::welcome(&coordinator, &node).await;
        let assign = first.assigned().await;
        for proof in [Some(first.secret), None] {
            let (_endpoint, connection) = dial(&coordinator, &node).await;
            let (mut tx, mut rx) = connection.open_session().await.unwrap();
            let again = Hello {
                proof,
                ..hello(&node, first.facts, first.directives)
            };
            tx.send(&Up::Hello(Box::new(again))).await.unwrap();
            if proof.is_none() {
                let Down::Ping { nonce } = first.next().await else {
                    panic!("the one that lives is asked whether it lives")
                };
                first.tx.send(&Up::Pong { nonce }).await.unwrap();
            }
            let Down::Refuse(refuse) = rx.recv().await.unwrap() else {
                panic!("it is refused")
            };
            let wanted = match proof {
                Some(_) => Refusal::OldSession,
                None => Refusal::Quarantined,
            };
            assert_eq!(refuse.reason, wanted, "{}", refuse.text);
        }
        let output = OutputFile {
            hash: Hash::of(b"x"),
            size: 1,
        };
        do_both(&mut first, &assign, output).await;
    });
    let path = format!("/runs/{}", run["id"].as_str().unwrap());
    coordinator.until(&path, |run| run["state"] == "succeeded");
}

#[test]
fn a_forgotten_node_does_not_come_back() {
    let home = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start_with(options(&home.path().join("data")));
    let node = agent(new_node(&coordinator, "gw-7"));
    let (status, problem) = coordinator.post("/nodes/gw-7/release", "{}");
    assert_eq!(status, 409, "it is not quarantined: {problem}");
    let (status, forgotten) = coordinator.post("/nodes/gw-7/forget", "{}");
    assert_eq!(
        (status, &forgotten["state"]),
        (200, &"forgotten".into()),
        "{forgotten}"
    );
    agent(async {
        let (_endpoint, connection) = dial(&coordinator, &node).await;
        let (mut tx, mut rx) = connection.open_session().await.unwrap();
        let origin = |direction| Head::origin(node.id, Incarnation([1; 16]), direction);
        let hello = hello(&node, origin(Direction::Up), origin(Direction::Down));
        tx.send(&Up::Hello(Box::new(hello))).await.unwrap();
        match rx.recv().await.unwrap() {
            Down::Refuse(refuse) => assert_eq!(refuse.reason, Refusal::NotEnrolled),
            other => panic!("{other:?}"),
        }
    });
}

/// The features, messages and facts of the first release, against this coordinator: work that its
/// format can say is done, other work waits and says for what.
#[test]
fn a_session_of_the_first_release_is_served_in_its_own_words() {
    let coordinator = Coordinator::start();
    let asks = "name: asks\ntasks: {ask: {approval: {prompt: 'May it?'}}}";
    let (_, asks) = coordinator.submit(&packed(asks, &SentFiles::new()), &[]);
    let (_, run) = coordinator.submit(&packed(TWO, &SentFiles::new()), &[]);
    let id = |run: &serde_json::Value| run["id"].as_str().unwrap().to_owned();
    let home = tempfile::tempdir().unwrap();
    let files = Dir::open(home.path(), 1 << 20).unwrap();
    let content = files.insert_bytes(b"hello\n").unwrap();
    agent(async {
        let node = new_node(&coordinator, "gw-old").await;
        let mut agent = Agent::welcome(&coordinator, &node).await;
        let assign = agent.assigned().await;
        assert_eq!(assign.slice.run.to_string(), id(&run));
        let bytes = shared::codec::decompress(assign.workflow.as_deref().unwrap(), 1 << 20);
        let bytes = bytes.unwrap();
        assert_eq!(bytes[0], 1, "format 1");
        assert_eq!(Hash::of(&bytes), assign.workflow_hash);
        bulk::put(&agent.connection, content, &files).await.unwrap();
        let output = OutputFile {
            hash: content,
            size: 6,
        };
        do_both(&mut agent, &assign, output).await;
        let done = format!("/runs/{}", id(&run));
        coordinator.until(&done, |run| run["state"] == "succeeded");
        agent.endpoint.close(Close::Done, "bye").await;
    });
    let waits = coordinator.lines("/waits");
    let told = waits.iter().map(ToString::to_string).collect::<String>();
    for part in [
        &id(&asks),
        "gw-old runs an older version",
        "cannot ask people",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

/// A hello is judged for as long as another machine that speaks for the same node is asked whether
/// it lives: who calls meanwhile finds no place, is told when to call again, and is welcome then.
#[test]
fn who_finds_no_place_is_told_when_to_call_again_and_is_welcome_then() {
    let home = tempfile::tempdir().unwrap();
    let mut options = options(&home.path().join("data"));
    options.hellos_at_once = 1;
    let coordinator = Coordinator::start_with(options);
    agent(async {
        let known = new_node(&coordinator, "gw-1").await;
        let other = new_node(&coordinator, "gw-2").await;
        let mut first = Agent::welcome(&coordinator, &known).await;
        let (_held, judged) = dial(&coordinator, &known).await;
        let (mut tx, mut rx) = judged.open_session().await.unwrap();
        let again = hello(&known, first.facts, first.directives);
        tx.send(&Up::Hello(Box::new(again))).await.unwrap();
        let Down::Ping { nonce } = first.next().await else {
            panic!("the one that lives is asked whether it lives")
        };
        let (_endpoint, connection) = dial(&coordinator, &other).await;
        let (mut later, mut told) = connection.open_session().await.unwrap();
        let origin = |direction| Head::origin(other.id, Incarnation([1; 16]), direction);
        let new = hello(&other, origin(Direction::Up), origin(Direction::Down));
        later.send(&Up::Hello(Box::new(new))).await.unwrap();
        let Down::Refuse(refuse) = told.recv().await.unwrap() else {
            panic!("there is no place")
        };
        assert_eq!(
            (refuse.reason, refuse.retry_after),
            (Refusal::Busy, Some(Span::secs(1)))
        );
        first.tx.send(&Up::Pong { nonce }).await.unwrap();
        assert!(matches!(rx.recv().await.unwrap(), Down::Refuse(_)));
        let second = Agent::welcome(&coordinator, &other).await;
        second.endpoint.close(Close::Done, "bye").await;
    });
    assert_eq!(calls(&coordinator, "told_later"), 1);
}

/// What the figures say of callers that came to this end.
fn calls(coordinator: &Coordinator, end: &str) -> u64 {
    let url = format!("http://{}/metrics", coordinator.ready.api);
    let page = ureq::get(&url).call().unwrap().body_mut().read_to_string();
    let start = format!("driftless_coordinator_calls_total{{end=\"{end}\"}} ");
    let page = page.unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(&start));
    value.expect(&start).parse().unwrap()
}

/// The budget is used up by what a run made that is over: that goes for a new file.
#[test]
fn a_file_of_a_run_that_is_over_makes_room_for_a_new_one() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let coordinator = Coordinator::start_with(options(&data));
    let (_, run) = coordinator.submit(&packed(TWO, &SentFiles::new()), &[]);
    let files = Dir::open(&home.path().join("files"), 1 << 20).unwrap();
    let large = vec![7; 700 << 10];
    let content = files.insert_bytes(&large).unwrap();
    let put = |coordinator: &Coordinator, byte: u8| {
        let new = vec![byte; 500 << 10];
        let path = format!("/files/{}", Hash::of(&new));
        coordinator.send("PUT", &path, &[], &new).0
    };
    agent(async {
        let node = new_node(&coordinator, "gw-7").await;
        let mut agent = Agent::welcome(&coordinator, &node).await;
        let assign = agent.assigned().await;
        bulk::put(&agent.connection, content, &files).await.unwrap();
        assert_eq!(put(&coordinator, 1), 507, "the run is not over");
        let output = OutputFile {
            hash: content,
            size: large.len() as u64,
        };
        do_both(&mut agent, &assign, output).await;
        agent.endpoint.close(Close::Done, "bye").await;
    });
    let path = format!("/runs/{}", run["id"].as_str().unwrap());
    coordinator.until(&path, |run| run["state"] == "succeeded");
    assert_eq!(put(&coordinator, 1), 507, "it was sent just now");
    coordinator.stop().unwrap();
    let coordinator = Coordinator::start_with(options(&data));
    assert_eq!(put(&coordinator, 1), 201);
    assert_eq!(coordinator.get(&format!("/files/{content}")).0, 404);
    assert_eq!(put(&coordinator, 1), 200);
    assert_eq!(put(&coordinator, 2), 201, "both fit");
    assert_eq!(put(&coordinator, 3), 507, "both were sent just now");
}

/// The figures tell handshakes that fail from those that are made.
#[test]
fn a_handshake_that_fails_is_counted_and_the_next_one_is_served() {
    let coordinator = Coordinator::start();
    agent(async {
        let node = new_node(&coordinator, "gw-1").await;
        let holder = Holder::new(&node.credential).unwrap();
        // a fleet of another authority
        let foreign = certs::Authority::ephemeral().unwrap();
        let others = [foreign.certificate().clone()];
        let tls = certs::session_client(&others, &holder, clock()).unwrap();
        let address = coordinator.ready.listen;
        let endpoint = Endpoint::client(address, &Settings::agent()).unwrap();
        assert!(endpoint.dial(address, tls).await.is_err());
        endpoint.close(Close::Done, "bye").await;
        let agent = Agent::welcome(&coordinator, &node).await;
        agent.endpoint.close(Close::Done, "bye").await;
    });
    assert_eq!(
        (
            calls(&coordinator, "failed"),
            calls(&coordinator, "told_later")
        ),
        (1, 0)
    );
    assert!(
        calls(&coordinator, "made") >= 2,
        "one to enrol, one to work"
    );
}

/// First packets that come from nobody, as if their address was forged: callers that exist are
/// asked to prove theirs, and are served.
#[test]
fn packets_with_forged_addresses_leave_turns_for_callers_that_exist() {
    const FORGED: u64 = 64;
    let coordinator = Coordinator::start();
    let address = coordinator.ready.listen;
    agent(async {
        let node = new_node(&coordinator, "gw-1").await;
        let holder = Holder::new(&node.credential).unwrap();
        let hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut dials = JoinSet::new();
        for _ in 0..FORGED {
            let tls = certs::session_client(&node.authorities, &holder, clock()).unwrap();
            let to = hole.local_addr().unwrap();
            dials.spawn(async move {
                let endpoint = Endpoint::client(to, &Settings::agent()).unwrap();
                endpoint.dial(to, tls).await.map(drop)
            });
        }
        let mut packet = vec![0; 2048];
        while asked_again(&coordinator) < FORGED / 2 {
            let (size, _) = hole.recv_from(&mut packet).await.unwrap();
            // what is answered is heard by nobody
            let forger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            forger.send_to(&packet[..size], address).await.unwrap();
        }
        let before = asked_again(&coordinator);
        let agent = Agent::welcome(&coordinator, &node).await;
        assert!(asked_again(&coordinator) > before, "it is asked, too");
        agent.endpoint.close(Close::Done, "bye").await;
    });
}

fn asked_again(coordinator: &Coordinator) -> u64 {
    calls(coordinator, "asked_again")
}

/// A node of this name, enrolled and heard once.
pub(crate) fn heard_once(coordinator: &Coordinator, name: &str) {
    agent(async {
        let node = new_node(coordinator, name).await;
        let agent = Agent::welcome(coordinator, &node).await;
        agent.endpoint.close(Close::Done, "bye").await;
    });
}

/// The list beside the keys cannot be written (as if the disk was full): the node is gone, and
/// whoever asked knows that it must be said again. If nobody does, the next start makes up for it.
#[test]
fn a_revocation_that_cannot_be_kept_is_no_success_and_is_made_up_for() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let coordinator = Coordinator::start_with(options(&data));
    let list = data.join("authority/revoked");
    std::fs::create_dir(&list).unwrap();
    for name in ["gw-7", "gw-8"] {
        agent(new_node(&coordinator, name));
        let (status, problem) = coordinator.post(&format!("/nodes/{name}/forget"), "{}");
        let error = problem["error"].as_str().unwrap();
        assert_eq!(status, 507, "{problem}");
        assert!(error.contains("an older copy of the store"), "{error}");
        assert_eq!(
            coordinator.json(&format!("/nodes/{name}")).1["state"],
            "forgotten"
        );
    }
    std::fs::remove_dir(&list).unwrap();
    let (status, node) = coordinator.post("/nodes/gw-7/forget", "{}");
    assert_eq!(status, 200, "{node}");
    let kept = |name: &str| {
        std::fs::read_to_string(&list)
            .unwrap()
            .matches(name)
            .count()
    };
    assert_eq!((kept("gw-7"), kept("gw-8")), (1, 0));
    coordinator.stop().unwrap();
    for _ in 0..2 {
        Coordinator::start_with(options(&data)).stop().unwrap();
        assert_eq!((kept("gw-7"), kept("gw-8")), (1, 1));
    }
}
