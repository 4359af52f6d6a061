//! Pressure of the machine, resources with names, and the wall clock that jumps over a deadline.

use crate::env::*;
use edge_core::event::Event;
use edge_core::pressure::{HoldLimits, Pressure};
use shared::time::{Span, Unix};
use std::collections::BTreeMap;

#[test]
fn limits_are_percent_but_for_degrees() {
    let limits = HoldLimits::parse("temperature=150,cpu=100").unwrap();
    assert_eq!(
        (limits.temperature, limits.cpu, limits.memory),
        (Some(150), Some(100), None)
    );
    for bad in ["cpu=101", "temperature=251", "memory=0", "rain=5", "cpu"] {
        assert!(HoldLimits::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn half_of_a_limit_is_worth_telling() {
    let limits = HoldLimits::parse("memory=20,available=50,temperature=100").unwrap();
    let told = |pressure: Pressure| pressure.if_notable(&limits) == pressure;
    let memory = |full| Pressure {
        memory_full: Some(full),
        ..Pressure::default()
    };
    assert!(told(memory(1000)) && !told(memory(999)));
    let available = |left| Pressure {
        memory_available_permille: Some(left),
        ..Pressure::default()
    };
    assert!(told(available(750)) && !told(available(751)));
    let hot = |degrees| Pressure {
        temperature: Some(degrees),
        ..Pressure::default()
    };
    assert!(told(hot(50_000)) && !told(hot(49_990)));
}

#[test]
fn under_pressure_one_task_a_minute_may_start_all_the_same() {
    let mut env = Env::new();
    let pressed = Event::Pressure(Pressure {
        memory_full: Some(9_000),
        ..Pressure::default()
    });
    env.event(pressed.clone());
    let flow = workflow(vec![task("a", &[]), task("b", &[])]);
    env.submit(&flow);
    assert_eq!(env.held_ids(), "");
    assert_eq!(env.reason("a"), "memory_pressure");
    for _ in 0..2 {
        env.pass(Span::secs(25));
        env.event(pressed.clone());
        assert_eq!(env.held_ids(), "");
    }
    env.pass(Span(9_999));
    assert_eq!(env.held_ids(), "");
    env.pass(Span(1));
    assert_eq!(env.held_ids(), "a");
    // gone for long enough, it holds nothing
    env.event(Event::Pressure(Pressure::default()));
    assert_eq!(env.held_ids(), "a b");
}

#[test]
fn what_has_a_name_is_not_given_twice() {
    let mut config = config();
    config.capacity.custom = BTreeMap::from([("camera".to_owned(), 1)]);
    let mut env = Env::with(config);
    let with_camera = |id: &str| {
        let mut task = task(id, &[]);
        task.resources.custom = BTreeMap::from([("camera".to_owned(), 1)]);
        task
    };
    env.submit(&workflow(vec![with_camera("a"), with_camera("b")]));
    assert_eq!(env.held_ids(), "a");
    env.end("a", 0);
    assert_eq!(env.held_ids(), "b");
}

#[test]
fn a_deadline_that_the_wall_clock_jumps_over_is_over() {
    let mut env = Env::new();
    let mut one = task("a", &[]);
    one.deadline = Some(Unix(env.now.wall.0 + 3_600_000));
    env.submit(&workflow(vec![one]));
    assert_eq!((env.held_ids().as_str(), env.stopped()), ("a", 0));
    env.now.wall.0 += 7_200_000;
    env.event(Event::Wake);
    env.pass(Span(1000));
    assert_eq!(env.stopped(), 1);
}
