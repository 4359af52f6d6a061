//! `driftless answer`.

use super::who;
use crate::args::{Answer, Global};
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::text::safe;
use cloud::api::types::NewAnswer;
use cloud_core::view::Task;

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
