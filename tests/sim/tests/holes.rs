//! Both cores, hand in hand, where the beginning of a log of facts is gone.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

#[expect(dead_code, reason = "shared with the tests of the agent's core")]
#[path = "../../../edge-agent/core/tests/core/env.rs"]
mod env;

#[expect(dead_code, reason = "shared with the tests of the coordinator's core")]
#[path = "../../../cloud/core/tests/engine/common.rs"]
mod common;
#[expect(dead_code, reason = "shared with the tests of the coordinator's core")]
#[path = "../../../cloud/core/tests/engine/medium.rs"]
mod medium;

use cloud_core::event::{Conn, Input, Request};
use edge_core::event::{Action, Config, Event, Local, LocalReply};
use env::{NODE, RUN, task, workflow};
use shared::fact::Body;
use shared::ids::RunId;
use shared::time::{Span, Unix};
use shared::wire::Up;
use std::collections::BTreeMap;

/// Rounds of messages before somebody turns in circles.
const MESSAGES: usize = 500;

struct Pair {
    edge: env::Env,
    cloud: common::Env,
    conn: Conn,
    /// So many words of the coordinator were heard.
    heard: usize,
}

impl Pair {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = env::config();
        change(&mut config);
        let mut cloud = common::Env::new();
        let token = "token".to_owned();
        cloud.ask(Request::AddToken {
            by: String::new(),
            record: vec![1],
            id: token.clone(),
            name: None,
            replace: false,
            expires: Unix(i64::MAX),
        });
        cloud.ask(Request::Enrol {
            token,
            node: NODE,
            name: "gw-7".to_owned(),
            labels: BTreeMap::new(),
            certificate: common::certificate(1),
        });
        Self {
            edge: env::Env::with(config),
            cloud,
            conn: Conn(0),
            heard: 0,
        }
    }

    /// A run of two tasks at the gateway.
    fn submits(&mut self, run: RunId) {
        let workflow = shared::codec::pack(&workflow(vec![task("a", &[]), task("b", &[0])])).0;
        let by = "ann".to_owned();
        let reply = self.edge.local(1, Local::Submit { run, workflow, by });
        assert_eq!(reply, LocalReply::Done);
    }

    /// The agent dials, as often as it is sent away, and all that both say is carried until nobody
    /// says anything.
    fn join(&mut self) {
        for _ in 0..3 {
            self.edge.actions.clear();
            while self.edge.driver.agent().status().link != "connecting" {
                self.edge.pass(Span(100));
            }
            let session = self.edge.session.unwrap();
            self.conn = self.cloud.conn();
            self.edge.event(Event::Linked { session });
            self.carry();
            if !self.cloud.closed.contains(&self.conn) {
                return;
            }
            self.leave();
        }
        panic!("it is sent away again and again");
    }

    fn leave(&mut self) {
        let (session, why) = (self.edge.session.unwrap(), "closed".to_owned());
        self.edge.event(Event::Unlinked { session, why });
    }

    fn carry(&mut self) {
        let (conn, session) = (self.conn, self.edge.session.unwrap());
        for _ in 0..MESSAGES {
            let said = std::mem::take(&mut self.edge.actions);
            for action in said {
                let Action::Send { message, .. } = action else {
                    continue;
                };
                let is_part = matches!(message, Up::InventoryPart(_));
                self.cloud.give(match message {
                    Up::Hello(hello) => Input::Hello {
                        conn,
                        node: NODE,
                        name: "gw-7".to_owned(),
                        certificate: common::certificate(1),
                        hello,
                        secret: [9; 16],
                    },
                    message => Input::Heard { conn, message },
                });
                if is_part {
                    self.edge.event(Event::PartTaken { session });
                }
            }
            let said = self.cloud.sent[self.heard..].to_vec();
            self.heard = self.cloud.sent.len();
            for (_, message) in said.into_iter().filter(|(to, _)| *to == conn) {
                self.edge.event(Event::Heard { session, message });
            }
            if self.edge.actions.is_empty() {
                return;
            }
        }
        panic!("{MESSAGES} rounds and no end");
    }

    fn resets(&self) -> Vec<(u64, u64)> {
        let facts = self.edge.facts().into_iter();
        let resets = facts.filter_map(|body| match body {
            Body::Reset { from, to, .. } => Some((from, to)),
            _ => None,
        });
        resets.collect()
    }

    fn is_level(&self) -> bool {
        self.edge.driver.agent().status().behind == 0
    }
}

/// A gateway that was alone for longer than facts are kept joins a coordinator: the two sent the
/// facts that were left to and fro without an end.
#[test]
fn a_gateway_that_was_alone_for_long_is_known_with_all_its_runs() {
    let other = RunId([8; 16]);
    let mut pair = Pair::new(|config| config.has_coordinator = false);
    pair.submits(RUN);
    pair.edge.end("a", 0);
    pair.edge.pass(Span::secs(20));
    pair.edge.pass(Span::secs(3600));
    pair.submits(other);
    pair.edge.pass(Span::secs(20));
    let (first, last) = (pair.edge.disk.facts()[0].0, pair.edge.facts().len() as u64);
    assert!(first > 1 && last > 0, "the oldest are gone, not all");
    pair.edge.config.has_coordinator = true;
    pair.edge.crash();
    let all = pair.edge.driver.heads().0.number;
    pair.join();
    assert_eq!(pair.resets(), [(1, all)]);
    assert!(pair.is_level());
    assert_eq!(pair.cloud.task(RUN, "a").state, "succeeded");
    assert_eq!(pair.cloud.task(RUN, "b").state, "running");
    assert_eq!(pair.cloud.run(other).state, "running");
}

/// A coordinator's store went back behind facts that its gateway does not keep any more; the states
/// of what the gateway holds take several facts, and none of it counts as given up meanwhile.
#[test]
fn the_states_behind_a_hole_may_take_several_facts() {
    let mut pair = Pair::new(|config| config.inventory_part = 300);
    pair.join();
    let tasks = (0..40).map(|n| common::task(&format!("t{n}"), &[]));
    let run = pair.cloud.submit(tasks.collect());
    pair.carry();
    assert_eq!(pair.cloud.run(run).state, "running");
    let backup = pair.cloud.store.image();
    for n in 0..30 {
        pair.edge.end(&format!("t{n}"), 0);
        pair.edge.pass(Span(50));
    }
    pair.edge.pass(Span::secs(20));
    pair.carry();
    assert!(pair.is_level());
    pair.edge.pass(Span::secs(7200));
    pair.edge.end("t30", 0);
    pair.edge.pass(Span::secs(20));
    pair.carry();
    assert!(pair.edge.disk.facts()[0].0 > 40, "old facts are gone");
    pair.leave();
    pair.cloud.restart(backup);
    pair.join();
    assert!(pair.resets().len() > 2, "{:?}", pair.resets());
    assert!(pair.is_level());
    assert_eq!(pair.cloud.run(run).state, "running");
    assert_eq!(pair.cloud.task(run, "t3").state, "succeeded");
    assert_eq!(pair.cloud.task(run, "t30").state, "succeeded");
    for n in 31..40 {
        pair.edge.end(&format!("t{n}"), 0);
        pair.edge.pass(Span(50));
    }
    pair.carry();
    assert_eq!(pair.cloud.run(run).state, "succeeded");
}
