//! `driftless-agent`: the slim binary that gateways run.

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_agent::cli::run(std::env::args_os())
}
