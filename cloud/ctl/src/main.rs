//! cloud/ctl
fn main() {}
