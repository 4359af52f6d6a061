//! Settings reach the nodes that they concern: at once, when they return, or after an upgrade.

use crate::common::Env;
use cloud_core::change::NodeChange;
use cloud_core::event::{Reply, Request};
use cloud_core::settings::Scope;
use shared::config::scheduler::Scheduler;
use shared::directive::Body;
use shared::wire::FEATURES;
use std::collections::BTreeMap;

fn set(env: &mut Env, scope: Scope, name: &str, value: Option<&str>) -> Reply {
    env.ask(Request::Configure {
        scope,
        name: name.to_owned(),
        value: value.map(str::to_owned),
        by: "ann".to_owned(),
    })
}

fn told(env: &mut Env, name: &str) -> Vec<Scheduler> {
    let seen = env.agent(name).seen.clone();
    let settings = seen
        .into_iter()
        .filter_map(|directive| match directive.body {
            Body::Configure(settings) => Some(settings),
            _ => None,
        });
    settings.collect()
}

fn upgraded(env: &mut Env, name: &str) {
    env.agent(name).features = FEATURES;
    env.hello(name).expect("it is welcome");
}

#[test]
fn a_running_node_is_told_at_once_and_one_that_is_away_when_it_returns() {
    let mut env = Env::new();
    for name in ["gw-1", "gw-2"] {
        env.join(name);
        upgraded(&mut env, name);
    }
    env.hang_up("gw-2");
    assert_eq!(
        set(&mut env, Scope::Fleet, "max_retries", Some("7")),
        Reply::Done
    );
    let wanted = Scheduler {
        max_retries: Some(7),
        ..Scheduler::default()
    };
    assert_eq!(told(&mut env, "gw-1"), [wanted]);
    assert_eq!(told(&mut env, "gw-2"), []);
    assert_eq!(env.node("gw-2").settings.confirmed, Some(false));
    env.hello("gw-2").expect("it is welcome");
    assert_eq!(told(&mut env, "gw-2"), [wanted]);
    // its own wins, and what is unset is left to the wider one
    let own = Scope::Node(env.agent("gw-2").node);
    assert_eq!(
        set(&mut env, own.clone(), "max_retries", Some("1")),
        Reply::Done
    );
    assert_eq!(set(&mut env, own, "max_retries", None), Reply::Done);
    let last = told(&mut env, "gw-2");
    assert_eq!(last.len(), 3);
    assert_eq!((last[1].max_retries, last[2]), (Some(1), wanted));
    assert_eq!(
        told(&mut env, "gw-1").len(),
        1,
        "what does not concern a node writes nothing"
    );
}

#[test]
fn an_agent_of_the_first_release_is_told_after_its_upgrade() {
    let mut env = Env::new();
    env.join("gw-1");
    let site = Scope::Label {
        key: "site".to_owned(),
        value: "gw-1".to_owned(),
    };
    assert_eq!(
        set(&mut env, site, "backoff_duration", Some("5s")),
        Reply::Done
    );
    assert_eq!(told(&mut env, "gw-1"), []);
    env.hang_up("gw-1");
    upgraded(&mut env, "gw-1");
    assert_eq!(told(&mut env, "gw-1").len(), 1);
    let settings = env.node("gw-1").settings.settings;
    let backoff = settings.iter().find(|one| one.key == "backoff_duration");
    assert_eq!(backoff.unwrap().from, "label site=gw-1");
}

#[test]
fn settings_survive_a_restart_and_wrong_ones_change_nothing() {
    let mut env = Env::new();
    env.join("gw-1");
    upgraded(&mut env, "gw-1");
    assert_eq!(
        set(&mut env, Scope::Fleet, "max_retries", Some("2")),
        Reply::Done
    );
    for (name, value) in [
        ("max_retry", "2"),
        ("max_retries", "two"),
        ("backoff_duration", "5"),
    ] {
        let reply = set(&mut env, Scope::Fleet, name, Some(value));
        assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    }
    let nobody = Scope::Node(shared::ids::NodeId([99; 16]));
    let reply = set(&mut env, nobody, "max_retries", Some("2"));
    assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    env.restart(env.store.clone());
    let seen = told(&mut env, "gw-1").len();
    env.agent("gw-1").session += 1;
    env.hello("gw-1").expect("it is welcome");
    assert_eq!(told(&mut env, "gw-1").len(), seen, "it is not told again");
    let view = env.node("gw-1").settings;
    assert!(
        view.settings
            .iter()
            .any(|one| one.value == "2" && one.from == "fleet")
    );
}

#[test]
fn a_label_that_a_person_sets_or_takes_away_brings_its_settings() {
    let mut env = Env::new();
    env.join("gw-1");
    upgraded(&mut env, "gw-1");
    let (key, value) = ("site".to_owned(), "plant-3".to_owned());
    let scope = Scope::Label { key, value };
    let done = set(&mut env, scope, "max_retries", Some("5"));
    assert_eq!(done, Reply::Done);
    let label = |env: &mut Env, name: &str, value: Option<&str>| {
        let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
        let set = BTreeMap::from([(name.to_owned(), value.map(str::to_owned))]);
        let change = NodeChange::Label(set);
        assert_eq!(
            env.ask(Request::ChangeNode { node, change, by }),
            Reply::Done
        );
        let from = env.node("gw-1").settings.settings.into_iter();
        let mut from = from
            .filter(|one| one.key == "max_retries")
            .map(|one| one.from);
        (
            told(env, "gw-1").last().and_then(|s| s.max_retries),
            from.next_back(),
        )
    };
    let site = Some("label site=plant-3".to_owned());
    assert_eq!(label(&mut env, "site", Some("plant-3")), (Some(5), site));
    let (told, from) = label(&mut env, "site", Some("elsewhere"));
    assert_eq!(told, None);
    assert_ne!(from.as_deref(), Some("label site=plant-3"));
}

#[test]
fn taking_away_a_label_that_is_not_there_keeps_nothing() {
    let mut env = Env::new();
    env.join("gw-1");
    let node = env.agent("gw-1").node;
    let label = |env: &mut Env, name: String, value: Option<&str>| {
        let set = BTreeMap::from([(name, value.map(str::to_owned))]);
        let (change, by) = (NodeChange::Label(set), "ann".to_owned());
        env.ask(Request::ChangeNode { node, change, by })
    };
    for n in 0..300 {
        assert_eq!(label(&mut env, format!("x{n}"), None), Reply::Done);
    }
    assert_eq!(label(&mut env, "a".to_owned(), Some("b")), Reply::Done);
    assert_eq!(label(&mut env, "site".to_owned(), None), Reply::Done);
    assert!(!env.node("gw-1").labels.contains_key("site"));
    assert_eq!(label(&mut env, "a".to_owned(), None), Reply::Done);
    assert!(!env.node("gw-1").labels.contains_key("a"));
}

/// The store went back behind a setting that a gateway was told: nothing is set any more, and the
/// gateway went on with what it had been told.
#[test]
fn a_node_that_was_told_what_the_store_forgot_is_told_that_nothing_is_set() {
    let mut env = Env::new();
    env.join("gw-1");
    upgraded(&mut env, "gw-1");
    let backup = env.store.image();
    let own = Scope::Node(env.agent("gw-1").node);
    assert_eq!(
        set(&mut env, own, "backoff_duration", Some("17s")),
        Reply::Done
    );
    assert!(!told(&mut env, "gw-1")[0].is_empty());
    env.restart(backup);
    env.hello("gw-1").expect("it is welcome");
    let last = told(&mut env, "gw-1");
    assert_eq!(last[1..], [Scheduler::default()], "{last:?}");
    env.hello("gw-1").expect("it is welcome");
    assert_eq!(told(&mut env, "gw-1").len(), 2, "once is enough");
    assert_eq!(env.node("gw-1").settings.confirmed, Some(true));
}
