//! The checker: breadth first over all states, so that a counterexample is a shortest one.
//!
//! A state is remembered by 64 bits of hash and those of the state before it; with some tens of
//! millions of states two of them share a hash with a probability below one in ten thousand, and
//! what would then be missed is one state. A history is found again by walking forward.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{Debug, Display};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::thread;

/// Something whose states can be enumerated.
pub(crate) trait Space: Sync {
    type State: Copy + Hash + Send + Sync + Debug;
    type Action: Copy + Display + Send;
    type Promise: Copy + Ord + Send;

    fn first(&self) -> Self::State;
    /// Everything that can happen in a state, with what follows.
    fn next(&self, state: &Self::State) -> Vec<(Self::Action, Self::State)>;
    /// The promise that a state breaks.
    fn broken(&self, state: &Self::State) -> Option<Self::Promise>;
    /// The same state with other names, if names make no difference.
    fn swapped(&self, _: &Self::State) -> Option<Self::State> {
        None
    }
}

/// What a check found.
#[derive(Debug)]
pub(crate) struct Found<P> {
    pub(crate) states: usize,
    /// Longest of the shortest ways to a state.
    pub(crate) depth: usize,
    /// The first broken promise, with the steps that lead there.
    pub(crate) broken: Option<(P, Vec<String>)>,
    /// False if the limit of states came first.
    pub(crate) complete: bool,
}

/// Hashes are mixed well already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are keys");
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Before = HashMap<u64, u64, BuildHasherDefault<AsItIs>>;

/// States of one depth whose successors one thread finds before they are put together.
const SHARE: usize = 4096;

/// Looks at every state, up to `limit` of them.
pub(crate) fn check<S: Space>(space: &S, threads: usize, limit: usize) -> Found<S::Promise> {
    let first = space.first();
    let mut before = Before::default();
    before.insert(hash(space, &first), 0);
    let mut layer = vec![first];
    let mut depth = 0;
    while !layer.is_empty() {
        let mut following = Vec::new();
        for block in layer.chunks(SHARE * threads) {
            for (state, at, from, promise) in expand(space, block, &before, threads) {
                if let Entry::Vacant(place) = before.entry(at) {
                    place.insert(from);
                    if let Some(promise) = promise {
                        let history = history(space, &before, at);
                        return Found {
                            states: before.len(),
                            depth: depth + 1,
                            broken: Some((promise, history)),
                            complete: false,
                        };
                    }
                    following.push(state);
                }
            }
            if before.len() > limit {
                return Found {
                    states: before.len(),
                    depth,
                    broken: None,
                    complete: false,
                };
            }
        }
        layer = following;
        depth += usize::from(!layer.is_empty());
    }
    Found {
        states: before.len(),
        depth,
        broken: None,
        complete: true,
    }
}

type New<S> = (<S as Space>::State, u64, u64, Option<<S as Space>::Promise>);

/// What follows the states of a block and was not known before it, in order.
fn expand<S: Space>(space: &S, block: &[S::State], before: &Before, threads: usize) -> Vec<New<S>> {
    let share = block.len().div_ceil(threads);
    thread::scope(|scope| {
        let work = |part: &'_ [S::State]| {
            let mut new = Vec::new();
            for state in part {
                let from = hash(space, state);
                for (_, next) in space.next(state) {
                    let at = hash(space, &next);
                    if !before.contains_key(&at) {
                        new.push((next, at, from, space.broken(&next)));
                    }
                }
            }
            new
        };
        let parts: Vec<_> = block
            .chunks(share)
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        let done = parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_default());
        done.collect()
    })
}

/// The hash of a state, whichever names it has.
fn hash<S: Space>(space: &S, state: &S::State) -> u64 {
    let ours = fold(state);
    space
        .swapped(state)
        .map_or(ours, |other| ours.min(fold(&other)))
}

fn fold<T: Hash>(value: &T) -> u64 {
    let mut hasher = Folded(SEED);
    value.hash(&mut hasher);
    hasher.finish()
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies each word in and folds the halves of the product together: quick on many small
/// fields, and mixed well enough that different states hardly ever meet.
struct Folded(u64);

impl Folded {
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(0xd6e8_feb8_6659_fd93_u64);
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(SEED);
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.word(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, number: u8) {
        self.word(u64::from(number));
    }
    fn write_u16(&mut self, number: u16) {
        self.word(u64::from(number));
    }
    fn write_u32(&mut self, number: u32) {
        self.word(u64::from(number));
    }
    fn write_u64(&mut self, number: u64) {
        self.word(number);
    }
    fn write_usize(&mut self, number: usize) {
        self.word(number as u64);
    }
}

/// The steps that lead to a state.
fn history<S: Space>(space: &S, before: &Before, at: u64) -> Vec<String> {
    let mut way = vec![at];
    while let Some(from) = before.get(&way[way.len() - 1]).filter(|from| **from != 0) {
        way.push(*from);
    }
    let mut state = space.first();
    let mut steps = Vec::new();
    for at in way.into_iter().rev().skip(1) {
        let next = space
            .next(&state)
            .into_iter()
            .find(|(_, next)| hash(space, next) == at);
        let Some((action, next)) = next else { break };
        steps.push(action.to_string());
        state = next;
    }
    steps
}
