//! The decoders, in groups.

mod agent_store;
mod api;
mod cores;
mod entries;
mod kept;
mod link;
mod mistakes;
mod stores;
mod telemetry;
mod text;
mod workflow;

use crate::target::Target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::codec;
use std::fmt::Debug;

/// All targets.
pub(crate) fn all() -> Vec<&'static Target> {
    let groups = [
        link::TARGETS,
        entries::TARGETS,
        telemetry::TARGETS,
        workflow::TARGETS,
        text::TARGETS,
        cores::TARGETS,
        stores::TARGETS,
        agent_store::TARGETS,
        kept::TARGETS,
        api::TARGETS,
    ];
    groups.into_iter().flatten().collect()
}

/// The target of this name, be it one that nobody lists.
pub(crate) fn by_name(name: &str) -> Option<&'static Target> {
    let all = all().into_iter().chain(mistakes::TARGETS);
    all.into_iter().find(|target| target.name == name)
}

/// What was decoded is the same again when it was encoded and decoded.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    value: &T,
) -> Result<(), String> {
    let bytes = codec::encode(value);
    match codec::decode::<T>(&bytes) {
        Ok(again) if again == *value => Ok(()),
        Ok(_) => Err("it is another value when it was encoded and decoded".to_owned()),
        Err(error) => Err(format!("its own encoding cannot be decoded: {error}")),
    }
}

/// The name of a value's variant.
fn variant(value: &impl Debug) -> String {
    /// Takes the first word of what is written.
    struct First(String);
    impl std::fmt::Write for First {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let word = |c: &char| c.is_alphanumeric() || *c == '_';
            let taken: String = text.chars().take_while(word).collect();
            let whole = taken.len() == text.len();
            self.0.push_str(&taken);
            match whole && self.0.len() < 40 {
                true => Ok(()),
                false => Err(std::fmt::Error),
            }
        }
    }
    let mut first = First(String::new());
    // It ends with an error where the word ends.
    let _ = std::fmt::write(&mut first, format_args!("{value:?}"));
    first.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_seed_keeps_the_promises() {
        let targets = all();
        let names: std::collections::BTreeSet<&str> = targets.iter().map(|t| t.name).collect();
        assert_eq!(names.len(), targets.len());
        for target in targets.iter().filter(|target| target.cost < 50) {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            let mut good = 0;
            for seed in &seeds {
                match (target.check)(&target.wrap(seed)) {
                    Ok(class) => good += usize::from(class.starts_with("ok")),
                    Err(broken) => panic!("{}: {broken}", target.name),
                }
            }
            assert!(good > 0, "no seed of {} is decoded", target.name);
        }
    }
}
