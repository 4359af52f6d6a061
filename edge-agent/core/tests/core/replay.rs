//! What is folded live is what is folded after a start, whatever happened: from the beginning and
//! from a snapshot in the middle.

use crate::env::*;
use edge_core::event::{Event, Local};
use proptest::prelude::*;
use shared::directive::Body as Wish;
use shared::ids::TaskIdx;
use shared::log::{Direction, Head};
use shared::state::TaskState;
use shared::time::Span;

#[derive(Clone, Debug)]
enum Deed {
    End(usize, bool),
    Gone(usize),
    Pass(u64),
    Assign(u32, u64),
    Upstream(u64, bool),
    Cancel,
    Pause(bool, bool),
    Release(u32, u64),
    Forget,
    Resume(u32),
    Crash,
    PowerCut,
    Join,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (0usize..4, prop::bool::weighted(0.7)).prop_map(|(n, ok)| Deed::End(n, ok)),
        2 => (0usize..4).prop_map(Deed::Gone),
        6 => (1u64..20_000).prop_map(Deed::Pass),
        4 => (0u32..2, 1u64..4).prop_map(|(n, epoch)| Deed::Assign(n, epoch)),
        2 => (1u64..4, any::<bool>()).prop_map(|(epoch, ok)| Deed::Upstream(epoch, ok)),
        1 => Just(Deed::Cancel),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(here, on)| Deed::Pause(here, on)),
        1 => (0u32..2, 1u64..4).prop_map(|(n, epoch)| Deed::Release(n, epoch)),
        1 => Just(Deed::Forget),
        1 => (0u32..6).prop_map(Deed::Resume),
        1 => Just(Deed::Crash),
        1 => Just(Deed::PowerCut),
        3 => Just(Deed::Join),
    ]
}

fn flow() -> shared::workflow::Workflow {
    let mut tasks = vec![
        task("a", &[]),
        task("b", &[0]),
        task("c", &[0]),
        task("d", &[1, 2]),
        task("e", &[]),
        task("f", &[4]),
    ];
    tasks[4].side_effects = shared::workflow::SideEffects::AtMostOnce;
    tasks[5].trigger_rule = shared::workflow::TriggerRule::AllDone;
    tasks[2].retry.max_attempts = 1;
    workflow(tasks)
}

fn tell(env: &mut Env, wish: Wish) {
    if env.driver.agent().status().link == "online" {
        env.tell(vec![wish]);
    }
}

fn tell_upstream(env: &mut Env, epoch: u64, ok: bool) {
    let state = if ok {
        TaskState::Succeeded
    } else {
        TaskState::Failed
    };
    for n in [1, 2] {
        let upstream = upstream(n, state, &[n as u8]);
        tell(
            env,
            Wish::Upstream {
                slice: slice(1, epoch),
                upstream,
            },
        );
    }
    env.event(Event::FileHere { hash: file(1).hash });
    env.event(Event::FileHere { hash: file(2).hash });
}

fn carry_out(env: &mut Env, deed: Deed) {
    match deed {
        Deed::End(n, ok) if n < env.held.len() => {
            let id = env.held[n].task.id.clone();
            env.end(&id, i32::from(!ok));
        }
        Deed::Gone(n) if n < env.held.len() => {
            let id = env.held[n].task.id.clone();
            env.gone(&id);
        }
        Deed::Pass(ms) => env.pass(Span(ms)),
        Deed::Assign(n, epoch) => {
            let tasks: &[u32] = if n == 0 { &[0, 1, 2] } else { &[3, 4, 5] };
            tell(env, Wish::Assign(assign(slice(n, epoch), &flow(), tasks)));
        }
        Deed::Upstream(epoch, ok) => tell_upstream(env, epoch, ok),
        Deed::Cancel => {
            let (by, why) = (String::new(), String::new());
            tell(env, Wish::Cancel { run: RUN, by, why });
        }
        Deed::Pause(true, on) => {
            env.local(
                9,
                Local::Pause {
                    run: RUN,
                    on,
                    by: String::new(),
                },
            );
        }
        Deed::Pause(false, on) => tell(
            env,
            Wish::Pause {
                run: RUN,
                on,
                by: String::new(),
            },
        ),
        Deed::Release(n, epoch) => tell(
            env,
            Wish::Release {
                slice: slice(n, epoch),
            },
        ),
        Deed::Forget => tell(env, Wish::Forget { run: RUN }),
        Deed::Resume(n) => {
            env.local(
                9,
                Local::Resume {
                    run: RUN,
                    task: TaskIdx(n),
                    by: String::new(),
                },
            );
        }
        Deed::Crash => env.crash(),
        Deed::PowerCut => env.power_cut(),
        Deed::Join if env.driver.agent().status().link == "connecting" => {
            env.join(Head::origin(NODE, LIFE, Direction::Up));
        }
        _ => {}
    }
}

#[test]
fn what_stood_aside_for_an_assignment_goes_on_when_that_is_taken_back() {
    let mut env = Env::new();
    env.join(Head::origin(NODE, LIFE, Direction::Up));
    let wish = |epoch| Wish::Assign(assign(slice(0, epoch), &flow(), &[0, 1, 2]));
    tell(&mut env, wish(1));
    let before = env.held_ids();
    for deed in [
        Deed::End(0, true),
        Deed::Assign(0, 2),
        Deed::Gone(0),
        Deed::Release(0, 2),
    ] {
        carry_out(&mut env, deed);
        env.check_replay();
    }
    assert_eq!(env.held_ids(), "c b", "b again, before it was {before}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn replay_gives_the_live_state_at_every_step(deeds in prop::collection::vec(deed(), 1..60)) {
        let mut env = Env::new();
        env.join(Head::origin(NODE, LIFE, Direction::Up));
        tell(&mut env, Wish::Assign(assign(slice(0, 1), &flow(), &[0, 1, 2])));
        tell(&mut env, Wish::Assign(assign(slice(1, 1), &flow(), &[3, 4, 5])));
        for deed in deeds {
            carry_out(&mut env, deed);
            env.check_replay();
        }
        env.pass(Span::secs(30));
        env.check_replay();
    }
}
