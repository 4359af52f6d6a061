//! A real agent and a coordinator that is played by hand, to say what no coordinator would: old
//! directives once more, answers of another protocol, another history. The agent's work goes on.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use certs::{Authority, Clock, Holder, Peer, Token, Trusted};
use e2e::agent::Gateway;
use link::enrol::{EnrolAsk, EnrolReply};
use link::session::{CoordinatorRx, CoordinatorTx};
use link::{Connection, Endpoint, Settings};
use shared::directive::{Assign, Body as Wish, Directive};
use shared::fact::{Acknowledged, Body, Fact};
use shared::ids::{Epoch, Generation, NodeId, RunId, SliceRef, TaskIdx};
use shared::inventory::{Item, Reader};
use shared::log::{Batch, Direction, Head, Offer};
use shared::time::{Span, Unix};
use shared::wire::{Down, Hello, INVENTORY_PARTS, PROTOCOL_MAX, Refusal, Refuse, Up, Welcome};
use shared::{codec, spec};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};

const DAY: Span = Span::secs(86_400);
const NODE: NodeId = NodeId([7; 16]);
/// How long anything is waited for: far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Unix {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Unix(i64::try_from(since.as_millis()).unwrap())
}

/// Waits on the runtime, with a bound.
fn wait<F: Future>(runtime: &Runtime, work: F) -> F::Output {
    let bounded = async { tokio::time::timeout(PATIENCE, work).await };
    runtime.block_on(bounded).expect("it comes in time")
}

/// The coordinator: what it wrote, and what it heard.
struct Played {
    runtime: Runtime,
    authority: Authority,
    endpoint: Endpoint,
    directives: Head,
    entries: Vec<Vec<u8>>,
    facts: Head,
    heard: Vec<Body>,
}

/// A session whose hello was heard.
struct Session {
    connection: Connection,
    tx: CoordinatorTx,
    rx: CoordinatorRx,
    hello: Box<Hello>,
}

impl Played {
    fn new() -> Self {
        let threads = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = threads.unwrap();
        let authority = Authority::ephemeral().unwrap();
        let shown = Holder::new(&authority.coordinator(now(), DAY).unwrap()).unwrap();
        let trusted = Trusted::new(&[authority.certificate().clone()]).unwrap();
        let tls = certs::server(&trusted, &shown, Clock::new(now), DAY).unwrap();
        let endpoint = runtime.block_on(async {
            let any = ([127, 0, 0, 1], 0).into();
            Endpoint::server(any, tls, authority.transport(), &Settings::coordinator())
        });
        Self {
            runtime,
            authority,
            endpoint: endpoint.unwrap(),
            directives: Head::default(),
            entries: Vec::new(),
            facts: Head::default(),
            heard: Vec::new(),
        }
    }

    /// Starts an agent and enrols it.
    fn enrol(&self) -> Gateway {
        let later = Unix(now().0 + 600_000);
        let (token, _) = Token::create(self.authority.fingerprint(), later, None, false);
        let address = self.endpoint.address().unwrap().to_string();
        let args = ["--coordinator", &address, "--token", &token.text()];
        let fast = ["--redial-max", "1", "--idle-timeout", "5", "--cpus", "1"];
        let mut gateway = Gateway::new(&[&args[..], &fast[..]].concat());
        gateway.start_silently();
        let (peer, connection) = self.accept();
        assert_eq!(peer, Peer::Anonymous);
        let asked = wait(&self.runtime, connection.accept_enrol());
        let (EnrolAsk::Enrol(ask), answer) = asked.unwrap() else {
            panic!("it enrols")
        };
        let issued = self
            .authority
            .node(&ask.request, NODE, &ask.name, now(), DAY)
            .unwrap();
        let reply = EnrolReply::Enrolled {
            node: NODE,
            issued,
            now: now(),
        };
        // The agent may be gone from this connection before it said that the answer came.
        drop(
            self.runtime
                .spawn(async move { answer.answer(&reply).await }),
        );
        gateway
    }

    fn accept(&self) -> (Peer, Connection) {
        wait(&self.runtime, async {
            let handshake = self.endpoint.accept().await.unwrap();
            handshake.finish(&Clock::new(now)).await.unwrap()
        })
    }

    /// The agent dials and says hello.
    fn called(&self) -> Session {
        let (peer, connection) = self.accept();
        assert!(
            matches!(&peer, Peer::Node(caller) if caller.id == NODE),
            "{peer:?}"
        );
        wait(&self.runtime, async {
            let (tx, mut rx) = connection.accept_session().await.unwrap();
            let Up::Hello(hello) = rx.recv().await.unwrap() else {
                panic!("a session begins with a hello")
            };
            Session {
                connection,
                tx,
                rx,
                hello,
            }
        })
    }

    /// The same, and it is welcome; it gets the directives that it lacks.
    fn online(&mut self) -> Session {
        let mut session = self.called();
        let incarnation = session.hello.incarnation;
        if self.facts == Head::default() {
            self.facts = Head::origin(NODE, incarnation, Direction::Up);
            self.directives = Head::origin(NODE, incarnation, Direction::Down);
        }
        let welcome = self.welcome(&session.hello);
        session.rx.accepted();
        self.say(&mut session, &Down::Welcome(Box::new(welcome)));
        let after = session.hello.directives;
        let lacks = self.entries[after.number as usize..].to_vec();
        if !lacks.is_empty() {
            self.say(&mut session, &Down::Directives(Batch::new(after, lacks)));
        }
        session
    }

    fn welcome(&self, hello: &Hello) -> Welcome {
        Welcome {
            protocol: PROTOCOL_MAX,
            features: 0,
            session: hello.session,
            generation: Generation(1),
            secret: [3; 16],
            facts: Acknowledged {
                head: self.facts,
                safe: 0,
            },
            directives: self.directives,
            want_inventory: false,
            now: now(),
        }
    }

    fn say(&self, session: &mut Session, message: &Down) {
        wait(&self.runtime, session.tx.send(message)).unwrap();
    }

    /// The next directive, as a batch that can be sent more than once.
    fn directive(&mut self, body: Wish) -> Batch {
        let directive = Directive {
            at: now(),
            generation: Generation(1),
            body,
        };
        let bytes = directive.encode();
        self.entries.push(bytes.clone());
        let batch = Batch::new(self.directives, vec![bytes]);
        self.directives = batch.head();
        batch
    }

    /// Listens until a fact like this one was heard.
    fn hear(&mut self, session: &mut Session, wanted: impl Fn(&Body) -> bool) {
        loop {
            let Up::Facts(batch) = wait(&self.runtime, session.rx.recv()).unwrap() else {
                continue;
            };
            let Offer::New(from, head) = batch.offer(self.facts) else {
                continue;
            };
            let mut found = false;
            for (n, bytes) in batch.entries.iter().enumerate().skip(from) {
                let number = batch.after.number + 1 + n as u64;
                let body = Fact::decode(number, bytes).unwrap().body;
                found |= wanted(&body);
                self.heard.push(body);
            }
            self.facts = head;
            if found {
                return;
            }
        }
    }

    fn count(&self, wanted: impl Fn(&Body) -> bool) -> usize {
        self.heard.iter().filter(|body| wanted(body)).count()
    }
}

/// A slice of one task, which notes that it ran.
fn assign(gateway: &Gateway, run: u8) -> Assign {
    let marks = gateway.marks().display().to_string();
    let text = format!("name: old\ntasks: {{one: {{shell: echo {run} >> {marks}/ran}}}}");
    let none = BTreeMap::new();
    let workflow = spec::submission("old", &text, &none, &BTreeMap::new(), now()).unwrap();
    let (packed, workflow_hash) = codec::pack(&workflow);
    Assign {
        slice: SliceRef {
            run: RunId([run; 16]),
            slice: 0,
            epoch: Epoch::new(Generation(1), 1),
        },
        workflow_hash,
        workflow: Some(packed),
        tasks: vec![TaskIdx(0)],
        attempts_used: Vec::new(),
        done: Vec::new(),
        upstream: Vec::new(),
        paused: false,
    }
}

fn is_done(run: u8) -> impl Fn(&Body) -> bool {
    move |body| matches!(body, Body::SliceDone { slice } if slice.run == RunId([run; 16]))
}

#[test]
fn the_replay_of_an_old_assign_after_completion_runs_nothing() {
    let mut played = Played::new();
    let mut gateway = played.enrol();
    let mut session = played.online();
    let old = assign(&gateway, 1);
    let first = played.directive(Wish::Assign(old.clone()));
    played.say(&mut session, &Down::Directives(first.clone()));
    played.hear(&mut session, is_done(1));
    // the very same entry, then the same assignment as a new entry
    played.say(&mut session, &Down::Directives(first.clone()));
    let again = played.directive(Wish::Assign(old.clone()));
    played.say(&mut session, &Down::Directives(again));
    gateway.kill();
    gateway.start_silently();
    let mut session = played.online();
    played.say(&mut session, &Down::Directives(first));
    let again = played.directive(Wish::Assign(Assign {
        workflow: None,
        ..old.clone()
    }));
    played.say(&mut session, &Down::Directives(again));
    // once more when the run is forgotten
    let run = old.slice.run;
    let forget = played.directive(Wish::Forget { run });
    played.say(&mut session, &Down::Directives(forget));
    let again = played.directive(Wish::Assign(old));
    played.say(&mut session, &Down::Directives(again));
    // directives are answered in order: behind this one, all of them were
    let other = played.directive(Wish::Assign(assign(&gateway, 2)));
    played.say(&mut session, &Down::Directives(other));
    played.hear(&mut session, is_done(2));
    assert_eq!(gateway.mark("ran"), "1\n2\n");
    let started = played.count(|body| matches!(body, Body::Started { .. }));
    assert_eq!(started, 2, "{:?}", played.heard);
    let refused = played.count(|body| matches!(body, Body::Refused { .. }));
    assert!(
        refused > 0,
        "what is forgotten is refused: {:?}",
        played.heard
    );
}

#[test]
fn an_unknown_protocol_and_another_history_are_refused_and_local_work_goes_on() {
    let mut played = Played::new();
    let gateway = played.enrol();
    let mut session = played.called();
    let mut odd = played.welcome(&session.hello);
    odd.protocol = 900;
    played.say(&mut session, &Down::Welcome(Box::new(odd)));
    let closed = wait(&played.runtime, session.connection.closed());
    let status = gateway.wait("the trouble", || {
        let status = gateway.json(&["status"]).remove(0).to_string();
        status.contains("chose protocol 900").then_some(status)
    });
    assert!(status.contains("protocol"), "{closed:?}");
    let _ = gateway.succeeds("name: local\ntasks: {one: {command: 'true'}}");

    let mut session = played.online();
    let first = played.directive(Wish::Assign(assign(&gateway, 1)));
    played.say(&mut session, &Down::Directives(first));
    played.hear(&mut session, is_done(1));
    // an entry that does not continue what the agent has
    let mut forked = played.directive(Wish::Assign(assign(&gateway, 2)));
    forked.after.hash.0[0] ^= 1;
    played.say(&mut session, &Down::Directives(forked));
    let _ = wait(&played.runtime, session.connection.closed());
    let trouble = gateway.json(&["status"]).remove(0).to_string();
    assert!(
        trouble.contains("is another one than the one recorded"),
        "{trouble}"
    );
    let _ = gateway.succeeds("name: local\ntasks: {one: {command: 'true'}}");
    assert_eq!(gateway.mark("ran"), "1\n", "a fork is never applied");
}

/// A coordinator of an earlier version gets an inventory in one message, one of this version in
/// parts, each on the same session as its question.
#[test]
fn an_inventory_is_told_as_the_coordinator_takes_it() {
    let mut played = Played::new();
    let gateway = played.enrol();
    let mut session = played.online();
    let first = played.directive(Wish::Assign(assign(&gateway, 1)));
    played.say(&mut session, &Down::Directives(first));
    played.hear(&mut session, is_done(1));
    for features in [0, INVENTORY_PARTS] {
        let why = "call again";
        session.connection.close(link::Close::Done, why);
        session = played.called();
        let mut asks = played.welcome(&session.hello);
        asks.want_inventory = true;
        asks.features = features;
        session.rx.accepted();
        played.say(&mut session, &Down::Welcome(Box::new(asks)));
        let (workflows, slices) = loop {
            match wait(&played.runtime, session.rx.recv()).unwrap() {
                Up::Inventory(told) if features == 0 => {
                    break (told.workflows.len(), told.slices.len());
                }
                Up::InventoryPart(part) if features != 0 => {
                    assert!(part.last, "it is small");
                    let items = Reader::new(session.hello.session).take(&part).unwrap();
                    let is_run = |item: &&Item| matches!(item, Item::Run(_));
                    let runs = items.iter().filter(is_run).count();
                    break (items.len() - runs, runs);
                }
                other => assert!(other.facts().is_some() || matches!(other, Up::Applied(_))),
            }
        };
        assert_eq!((workflows, slices), (1, 1));
    }
}

/// A welcome for another session, or to somebody who was welcomed already, is an old one.
#[test]
fn a_replayed_session_is_not_believed() {
    let mut played = Played::new();
    let gateway = played.enrol();
    let mut session = played.called();
    let mut old = played.welcome(&session.hello);
    old.session += 1;
    session.rx.accepted();
    played.say(&mut session, &Down::Welcome(Box::new(old)));
    // directives before a welcome are not taken either
    let incarnation = session.hello.incarnation;
    played.facts = Head::origin(NODE, incarnation, Direction::Up);
    played.directives = Head::origin(NODE, incarnation, Direction::Down);
    let early = played.directive(Wish::Assign(assign(&gateway, 1)));
    played.say(&mut session, &Down::Directives(early));
    let _ = gateway.succeeds("name: local\ntasks: {one: {command: 'true'}}");
    let status = gateway.json(&["status"]).remove(0);
    assert_ne!(status["link"], "online", "{status}");
    assert_eq!(gateway.mark("ran"), "");
    drop(session);
    played.directives = Head::origin(NODE, incarnation, Direction::Down);
    played.entries.clear();
    let mut session = played.online();
    let first = played.directive(Wish::Assign(assign(&gateway, 2)));
    played.say(&mut session, &Down::Directives(first));
    played.hear(&mut session, is_done(2));
    assert_eq!(gateway.mark("ran"), "2\n");
}

/// A coordinator on which a whole fleet calls says when to call again; left alone the agent would
/// call again within a second.
#[test]
fn an_agent_that_is_told_when_to_call_again_calls_then() {
    let mut played = Played::new();
    let gateway = played.enrol();
    let mut first = played.called();
    let (told, pause) = (Instant::now(), Span::secs(3));
    let later = Refuse {
        reason: Refusal::Busy,
        text: "too many agents call at once".to_owned(),
        retry_after: Some(pause),
    };
    played.say(&mut first, &Down::Refuse(later));
    let again = played.online();
    assert!(told.elapsed() >= Duration::from_millis(pause.0));
    assert!(again.hello.session > first.hello.session);
    e2e::agent::wait_for("the link", || {
        (gateway.json(&["status"]).remove(0)["link"] == "online").then_some(())
    });
}
