//! What is read of the journal beside the work: pages of directives, and what waits to be sent.

use crate::env::*;
use edge_core::memory::MemStore;
use edge_core::store::Store;
use shared::directive::Body as Wish;
use shared::log::{Direction, Head};
use shared::time::Span;

#[test]
fn the_first_page_of_directives_begins_at_the_origin_of_its_log() {
    let mut env = Env::new();
    let flow = workflow(vec![task("a", &[])]);
    env.assigned(assign(slice(0, 1), &flow, &[0]));
    let (run, on, by) = (RUN, true, "ann".to_owned());
    env.tell(vec![Wish::Pause { run, on, by }]);
    let mut store = MemStore::new(env.disk.clone());
    let mut page = |after| store.directives_after(after).unwrap();
    let all = page(0).expect("two directives");
    let origin = Head::origin(NODE, LIFE, Direction::Down);
    assert_eq!((all.first, all.before), (1, Some(origin)));
    assert_eq!((all.entries.len(), all.end), (2, env.directives));
    let rest = page(1).expect("one directive");
    assert_eq!((rest.first, rest.before), (2, None), "its hash is not kept");
    assert_eq!(page(2), None);
}

#[test]
fn the_age_of_what_waits_to_be_sent_is_known_of_what_is_packed_too() {
    let mut env = Env::new();
    let began = env.now.wall;
    env.submit(&workflow(vec![task("a", &[])]));
    env.end("a", 0);
    env.pass(Span::secs(3600));
    let mut store = MemStore::new(env.disk.clone());
    assert!(store.packed_after(0).unwrap().is_some());
    let part = env.driver.backlog(0).unwrap().expect("facts wait");
    assert_eq!(part.oldest, Some(began));
}
