//! The exchange of the fleet's authority: which nodes count, who may end it, what it makes void.

use crate::common::{Env, all_done, certificate, task};
use crate::restore::{comes_back, empty};
use cloud_core::certificate::Certificate;
use cloud_core::event::{Exchange, Refused, Reply, Request};
use cloud_core::view::Carriers;
use shared::time::Unix;
use shared::wire::{FEATURES, RENEW};

const NEXT: [u8; 32] = [2; 32];

fn carriers(env: &mut Env) -> Carriers {
    match env.ask(Request::Carriers { authority: NEXT }) {
        Reply::Carriers(carriers) => *carriers,
        other => panic!("{other:?}"),
    }
}

fn left(env: &mut Env) -> Vec<String> {
    let left = carriers(env).left.into_iter();
    left.map(|left| left.node).collect()
}

fn finish(env: &mut Env, force: bool) -> Reply {
    env.ask(Request::Exchange {
        step: Exchange::Finish { force },
        authority: NEXT,
        by: "ada".to_owned(),
    })
}

/// The node dials with a certificate of this authority.
fn shows(env: &mut Env, name: &str, issuer: u8) {
    env.hang_up(name);
    env.agent(name).issuer = issuer;
    env.hello(name).unwrap();
}

fn token(env: &mut Env, id: &str, expires: Unix) {
    let added = env.ask(Request::AddToken {
        by: String::new(),
        record: vec![1],
        id: id.to_owned(),
        name: None,
        replace: false,
        expires,
    });
    assert_eq!(added, Reply::Done);
}

fn void(env: &mut Env) -> Vec<String> {
    let Reply::Tokens(tokens) = env.ask(Request::Tokens) else {
        panic!()
    };
    let void = tokens.into_iter().filter(|token| token.state == "void");
    void.map(|token| token.id).collect()
}

fn audited(env: &mut Env) -> Vec<(String, String)> {
    let request = Request::Audit {
        after: 0,
        limit: 100,
    };
    let Reply::Audit(entries) = env.ask(request) else {
        panic!()
    };
    let ours = entries
        .into_iter()
        .filter(|entry| entry.what.starts_with("authority"));
    ours.map(|entry| (entry.what, entry.detail)).collect()
}

#[test]
fn a_node_carries_what_it_has_shown_and_not_what_it_was_issued() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let node = env.agent("gw-1").node;
    let certificate = Certificate {
        authority: NEXT,
        until: Unix(9_000_000),
        ..certificate(1)
    };
    let issued = env.ask(Request::Certify {
        node,
        certificate,
        shown: None,
    });
    assert_eq!(issued, Reply::Done);
    assert_eq!(left(&mut env), ["gw-1", "gw-2"]);
    assert_eq!(
        env.node("gw-1").certificate.unwrap().until,
        certificate.until
    );
    shows(&mut env, "gw-1", 2);
    assert_eq!(left(&mut env), ["gw-2"]);
    let store = env.store.clone();
    env.restart(store);
    let found = carriers(&mut env);
    assert_eq!((found.nodes, found.carry, found.left.len()), (2, 1, 1));
    // its disk went back to an older copy
    env.hello("gw-1").unwrap();
    shows(&mut env, "gw-1", 1);
    assert_eq!(left(&mut env), ["gw-1", "gw-2"]);

    let asked = |env: &mut Env| {
        carriers(env)
            .left
            .into_iter()
            .map(|left| left.asked)
            .collect()
    };
    let all: Vec<bool> = asked(&mut env);
    assert_eq!(all, [true, true]);
    env.agent("gw-1").features = FEATURES & !RENEW;
    shows(&mut env, "gw-1", 1);
    let all: Vec<bool> = asked(&mut env);
    assert_eq!(all, [false, true]);
}

#[test]
fn an_exchange_ends_when_nobody_is_left_or_a_person_leaves_some_behind() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    env.join("gw-3");
    let run = env.submit(vec![task("a", &[])]);
    let begun = env.ask(Request::Exchange {
        step: Exchange::Begin,
        authority: [1; 32],
        by: "ada".to_owned(),
    });
    assert_eq!(begun, Reply::Done);
    token(&mut env, "open", Unix(i64::MAX));
    token(&mut env, "late", Unix(0));
    shows(&mut env, "gw-1", 2);
    match finish(&mut env, false) {
        Reply::Refused(Refused::State(text)) => {
            assert!(
                text.starts_with("2 of the nodes") && text.ends_with("gw-2, gw-3"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(
        void(&mut env).is_empty(),
        "what was refused changed nothing"
    );
    // who was declared gone does not count
    let node = env.agent("gw-3").node;
    let by = "ada".to_owned();
    assert_eq!(env.ask(Request::ForgetNode { node, by }), Reply::Done);
    assert_eq!(left(&mut env), ["gw-2"]);
    let done = finish(&mut env, true);
    let left = vec!["gw-2".to_owned()];
    assert_eq!(done, Reply::Exchanged { left, void: 1 });
    assert_eq!(void(&mut env), ["open"]);
    let store = env.store.clone();
    env.restart(store);
    assert_eq!(void(&mut env), ["open"]);
    let said = |what: &str, detail: &str| (what.to_owned(), detail.to_owned());
    assert_eq!(
        audited(&mut env),
        [
            said("authority rotate begin", ""),
            said("authority rotate finish", ""), // it was refused
            said("authority rotate finish", "forced")
        ]
    );
    // work goes on where it was
    for name in ["gw-1", "gw-2"] {
        env.hello(name).unwrap();
        for assign in env.agent(name).assigns() {
            env.tell(name, all_done(&assign));
        }
    }
    assert_eq!(env.run(run).state, "succeeded");
}

/// Somebody who has the authority's key makes a younger certificate of a node for another key and
/// shows it, before the change or in the middle of it: no next authority follows from that.
#[test]
fn a_key_that_nobody_let_in_is_compared_by_a_person_before_it_counts() {
    let mut env = Env::new();
    env.join("gw-1");
    env.hang_up("gw-1");
    env.agent("gw-1").key = 2;
    env.hello("gw-1").unwrap();
    let waits = env.waits();
    let told = |what: &str| what.contains("another key speaks for it");
    assert!(told(&waits[0]), "{waits:?}");
    let store = env.store.clone();
    env.restart(store);
    let node = env.agent("gw-1").node;
    let renew = |env: &mut Env, authority| {
        let certificate = Certificate {
            authority,
            ..certificate(2)
        };
        env.ask(Request::Certify {
            node,
            certificate,
            shown: None,
        })
    };
    assert_eq!(renew(&mut env, [1; 32]), Reply::Done, "as before");
    match renew(&mut env, NEXT) {
        Reply::Refused(Refused::State(text)) => assert!(text.contains("a person"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(carriers(&mut env).left[0].unconfirmed);
    let by = "ada".to_owned();
    let released = env.ask(Request::ReleaseQuarantine { node, by });
    assert_eq!(released, Reply::Done);
    assert_eq!(renew(&mut env, NEXT), Reply::Done);
    assert!(env.waits().is_empty() && !carriers(&mut env).left[0].unconfirmed);
}

/// A token let another key in behind this store, and its certificate expired before it called: it
/// can do nothing but renew, which tells as much as a session would.
#[test]
fn a_key_that_replaced_another_behind_this_store_renews_what_expired() {
    let mut env = Env::new();
    env.join("gw-1");
    env.hang_up("gw-1");
    let node = env.agent("gw-1").node;
    let renew = |env: &mut Env, key, until| {
        let shown = Certificate {
            until: Unix(until),
            ..certificate(key)
        };
        env.ask(Request::Certify {
            node,
            certificate: certificate(key),
            shown: Some(shown),
        })
    };
    let refused = |reply: Reply, why: &str| match reply {
        Reply::Refused(Refused::State(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    };
    let known = env.node("gw-1").certificate.unwrap().until.0;
    assert_eq!(renew(&mut env, 2, known + 1), Reply::Done);
    refused(renew(&mut env, 1, known + 2), "was revoked");
    // one that is not younger proves nothing: a person decides
    refused(renew(&mut env, 3, 1), "another key calls");
    let store = env.store.clone();
    env.restart(store);
    assert_eq!(env.node("gw-1").state, "quarantined");
    let by = "ada".to_owned();
    let released = env.ask(Request::ReleaseQuarantine { node, by });
    assert_eq!(released, Reply::Done);
    assert_eq!(renew(&mut env, 3, 1), Reply::Done);
    refused(renew(&mut env, 2, known + 3), "was revoked");
}

#[test]
fn what_a_node_carried_in_the_backup_counts_when_it_is_heard() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    shows(&mut env, "gw-1", 2);
    shows(&mut env, "gw-2", 2);
    assert!(left(&mut env).is_empty());
    let backup = env.store.image();
    shows(&mut env, "gw-2", 3); // the exchange behind the next one has begun
    env.submit(vec![task("a", &[])]); // behind the backup
    env.restart(backup);
    comes_back(&mut env, "gw-1", empty());
    match finish(&mut env, false) {
        Reply::Refused(Refused::State(text)) => {
            let end = "yet: gw-2; 1 of them were not heard since the coordinator's store went back";
            assert!(text.ends_with(end), "{text}");
        }
        other => panic!("{other:?}"),
    }
    comes_back(&mut env, "gw-2", empty());
    assert_eq!(left(&mut env), ["gw-2"]);
    let shown = carriers(&mut env).left[0].authority.clone();
    assert_eq!(shown, Some("03".repeat(32)));
    shows(&mut env, "gw-2", 2);
    let done = finish(&mut env, false);
    let left = Vec::new();
    assert_eq!(done, Reply::Exchanged { left, void: 0 });
}
