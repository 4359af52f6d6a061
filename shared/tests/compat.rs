//! What earlier releases sent and stored is read to the same values, and what an old agent or
//! coordinator must understand is still written as it was.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

#[path = "compat/samples.rs"]
mod samples;

use shared::codec;
use shared::time::Unix;
use std::collections::BTreeMap;

const M1: &str = include_str!("../../tests/compat/m1/frames.txt");

fn frames() -> BTreeMap<&'static str, Vec<u8>> {
    let line = |line: &'static str| {
        let (name, hex) = line.split_once(' ').unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (name, (0..hex.len()).step_by(2).map(byte).collect())
    };
    M1.lines().map(line).collect()
}

#[test]
fn every_message_and_entry_of_the_first_release_is_read_to_the_same_value() {
    let frames = frames();
    let samples = samples::samples();
    let named: Vec<&str> = samples.iter().map(|(name, _)| *name).collect();
    assert_eq!(frames.len(), named.len() + 2, "one frame for each sample");
    for (name, sample) in samples {
        let bytes = &frames[name];
        assert_eq!(sample.read(bytes).as_ref(), Ok(&sample), "{name}");
        for cut in 0..bytes.len() {
            // Cut anywhere it is an error or another value, and never a panic.
            drop(sample.read(&bytes[..cut]));
        }
    }
}

#[test]
fn what_a_session_of_protocol_1_carries_is_written_as_the_first_release_wrote_it() {
    let frames = frames();
    for (name, sample) in samples::samples() {
        assert_eq!(sample.encode(), frames[name], "{name}");
    }
}

#[test]
fn a_workflow_of_the_first_release_is_the_one_that_its_specification_gives_today() {
    let frames = frames();
    let (old, hash) = codec::unpack(&frames["workflow"]).unwrap();
    assert_eq!(hash.0.as_slice(), frames["workflow.hash"]);
    let (none, at) = (BTreeMap::new(), Unix(1_790_000_000_000));
    let files = BTreeMap::new();
    let new = shared::spec::submission("skew.yaml", samples::SPEC, &none, &files, at).unwrap();
    let ids = |w: &shared::workflow::Workflow| {
        let ids = w.tasks.iter().map(|t| (t.id.clone(), t.needs.clone()));
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&old), ids(&new));
    for (old, new) in old.tasks.iter().zip(&new.tasks) {
        assert_eq!(old.action, new.action);
        assert_eq!(old.env, new.env);
        assert_eq!(old.inputs, new.inputs);
        assert_eq!(old.outputs, new.outputs);
        assert_eq!(old.resources, new.resources);
        assert_eq!(old.retry, new.retry);
        assert_eq!(old.timeout, new.timeout);
        assert_eq!(old.side_effects, new.side_effects);
        assert_eq!(old.when, new.when);
        assert_eq!(old.trigger_rule, new.trigger_rule);
        assert_eq!(old.placement, new.placement);
        assert_eq!(old.disconnect, new.disconnect);
    }
}
