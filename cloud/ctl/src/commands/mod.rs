//! What the commands do: one module a noun.

pub(crate) mod access;
pub(crate) mod answer;
pub(crate) mod audit;
pub(crate) mod authority;
pub(crate) mod backup;
pub(crate) mod cert;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod conflicts;
pub(crate) mod doctor;
pub(crate) mod events;
mod history;
pub(crate) mod journal;
mod list;
mod logs;
pub(crate) mod man;
pub(crate) mod node;
mod operate;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod serve;
pub(crate) mod spec;
pub(crate) mod store;
pub(crate) mod submit;
pub(crate) mod support;
pub(crate) mod task;
pub(crate) mod telemetry;
#[cfg(test)]
mod tests;
pub(crate) mod token;
pub(crate) mod waits;

use crate::args::{Cli, Command};
use crate::demo;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::rehearse;

/// Does what the command line says. The agent's commands do not come here.
pub(crate) fn execute(cli: Cli, out: &mut Output) -> Result<Code, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Serve(args) => serve::run(&args, global, out),
        Command::Config(command) => config::run(&command, global, out),
        Command::Token(command) => token::run(command, global, out),
        Command::Access(command) => access::run(command, global, out),
        Command::Audit(command) => audit::run(&command, global, out),
        Command::Events(args) => events::run(&args, global, out),
        Command::Plan(args) => plan::run(&args, global, out),
        Command::Rehearse(args) => rehearse::run(args, global, out),
        Command::Submit(args) => submit::run(&args, global, out),
        Command::Run(command) => run::run(command, global, out),
        Command::Task(command) => task::run(command, global, out),
        Command::Node(command) => node::run(command, global, out),
        Command::Cert(command) => cert::run(command, global, out),
        Command::Authority(command) => authority::run(command, global, out),
        Command::Doctor => doctor::run(global, out),
        Command::SupportBundle(args) => support::run(&args, global, out),
        Command::Answer(command) => answer::run(command, global, out),
        Command::Telemetry(command) => telemetry::run(&command, global, out),
        Command::Schedule(command) => schedule::run(command, global, out),
        Command::Conflicts(command) => conflicts::run(&command, global, out),
        Command::Waits(command) => waits::run(&command, global, out),
        Command::Backup(command) => backup::run(&command, global, out),
        Command::Journal(command) => journal::run(&command, global, out),
        Command::Store(command) => store::run(&command, global, out),
        Command::Lint(args) => spec::lint(&args, out),
        Command::Graph(args) => spec::graph(&args, out),
        Command::Completion(args) => completion::run(&args, out),
        Command::Man(args) => man::run(&args, out),
        Command::Demo(args) => demo::run(&args, out),
        Command::DemoRelay(args) => demo::relay(&args),
        Command::DemoChild(args) => Err(demo::process::become_child(&args)),
        Command::DemoFigures(args) => demo::print_figures(&args, out),
        Command::Agent { .. } => Err(Failure::new(Code::Usage, "the agent is started by main")),
    }
}

/// Who types, as shown with what they ask for.
fn who() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}
