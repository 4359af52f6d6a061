//! `driftless answer`.

use super::task::TaskName;
use super::who;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::text::safe;
use clap::Args;
use cloud::api::types::NewAnswer;
use cloud_core::view::Task;

/// Answer a question that a task puts to a person.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless waits list                            what is asked, with the command that answers it
  driftless answer 4f1c release yes
  driftless answer 4f1c release yes --input batch=7
  driftless answer 4f1c release no

The answer goes to the gateway that owns the task, at the latest when it is heard again. One answer
counts: the one that the gateway records first, whether it came from here or was given there with
`driftless-agent answer`. `driftless task get RUN TASK` shows all of them. yes: the task succeeds;
no: it fails.")]
pub(crate) struct Answer {
    #[command(flatten)]
    pub(crate) name: TaskName,
    /// Approve, or reject
    #[arg(value_name = "yes|no", value_parser = ["yes", "no"])]
    pub(crate) answer: String,
    /// A field that the question asks for (may be repeated)
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = crate::text::parse_pair)]
    pub(crate) input: Vec<(String, String)>,
}

pub(super) fn run(command: Answer, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    let Answer {
        name,
        answer,
        input,
    } = command;
    let path = format!(
        "/runs/{}/tasks/{}/answer",
        escape(&name.run),
        escape(&name.task)
    );
    let new = NewAnswer {
        by: who(),
        yes: answer == "yes",
        input: input.into_iter().collect(),
    };
    let task: Task = client.post(&path, &new)?;
    if out.json {
        out.object(&task)?;
    } else {
        let node = safe(task.node.as_deref().unwrap_or("its gateway"));
        out.say(&format!(
            "recorded; on its way to {node}, which says whether it counts \
             (`driftless task get` shows it)"
        ));
    }
    Ok(Code::Done)
}
