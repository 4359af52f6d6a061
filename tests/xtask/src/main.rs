//! tests/xtask
fn main() {}
