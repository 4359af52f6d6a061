//! Mutation testing: small mistakes in the source, one at a time, and whether anything notices.
//!
//! All mutants of a sample are compiled once, each behind a switch that is read at run time
//! (Untch, Offutt, Harrold, "Mutation Analysis Using Mutant Schemata", ISSTA 1993). One run of
//! the checks without a mutant tells which of them reach which mutant; a mutant is then judged by
//! those alone. See `docs/mutants.md`.

pub mod campaign;
pub mod compile;
pub mod explained;
pub mod find;
pub mod interval;
pub mod judge;
pub mod ledger;
pub mod operators;
pub mod page;
pub mod project;
pub mod reach;
pub mod rewrite;
pub mod run;
pub mod sample;
