//! Logs of tasks. They stay on their gateway: the coordinator asks for them while the gateway is
//! connected.

use super::error::{ApiError, Asked, Named};
use super::types::{ATTEMPT, BYTES, COMPLETE, NEXT};
use super::{Shared, find, runs};
use crate::app::App;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cloud_core::event::{Reply, Request};
use cloud_core::view::{Attempt, Node, Task};
use link::logs::{LogAnswer, LogAsk, PIECE, Stream};
use serde::Deserialize;
use shared::codec;
use shared::ids::RunId;

/// Which log, from where on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    stream: Option<String>,
    attempt: Option<u32>,
    epoch: Option<u64>,
    #[serde(default)]
    from: u64,
}

/// GET /runs/{run}/tasks/{task}/logs
pub(super) async fn logs(
    State(app): Shared,
    Named((run, task)): Named<(String, String)>,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    let stream = match which.stream.as_deref() {
        None | Some("stdout") => Stream::Out,
        Some("stderr") => Stream::Err,
        Some(other) => {
            let what = format!("'{other}' is no stream");
            return Err(ApiError::malformed(what).hint("stdout or stderr"));
        }
    };
    let task = runs::find_task(&app, &run, &task).await?;
    let attempt = choose(&task, which.epoch, which.attempt)?;
    let ask = LogAsk {
        run: task.run,
        task: index(&app, task.run, &task.task).await?,
        epoch: attempt.epoch,
        number: attempt.number,
        stream,
        from: which.from,
    };
    let node = find::node(&app, &attempt.node).await?;
    let Some(connection) = app.sessions.get(node.id) else {
        return Err(offline(&node, &task));
    };
    let answer = connection.ask_log(&ask).await.map_err(|error| {
        let error = crate::sessions::chain(&error);
        tracing::warn!(
            run = %ask.run,
            task = task.task,
            epoch = ask.epoch,
            attempt = ask.number,
            error,
            "a log did not come"
        );
        let what = format!("{} did not give the log: {error}", node.name);
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what).hint(there(&task))
    })?;
    match answer {
        LogAnswer::Piece(bytes) => Ok(piece(bytes, which.from, attempt)),
        LogAnswer::Missing(why) => Err(ApiError::not_found(format!("{}: {why}", node.name))),
    }
}

fn piece(bytes: Vec<u8>, from: u64, attempt: &Attempt) -> Response {
    let next = from + bytes.len() as u64;
    let complete = attempt.ended.is_some() && bytes.len() < PIECE;
    let headers = [
        (CONTENT_TYPE.as_str(), BYTES.to_owned()),
        (NEXT, next.to_string()),
        (COMPLETE, complete.to_string()),
        (ATTEMPT, format!("{}.{}", attempt.epoch, attempt.number)),
    ];
    (headers, bytes).into_response()
}

/// The attempt with that number, the newest one of them if no epoch is named; without a number the
/// newest of all.
fn choose(task: &Task, epoch: Option<u64>, number: Option<u32>) -> Result<&Attempt, ApiError> {
    let wanted = |attempt: &&Attempt| {
        number.is_none_or(|number| attempt.number == number)
            && epoch.is_none_or(|epoch| attempt.epoch == epoch)
    };
    let newest = task
        .history
        .iter()
        .filter(wanted)
        .max_by_key(|a| (a.epoch, a.number));
    newest.ok_or_else(|| match number {
        Some(number) if !task.history.is_empty() => {
            let what = format!("task {} has no attempt {number}", task.task);
            let last = task
                .history
                .iter()
                .map(|attempt| attempt.number)
                .max()
                .unwrap_or(0);
            ApiError::not_found(what).hint(format!("its last one is {last}"))
        }
        _ => {
            let what = format!("task {} has not run: it is {}", task.task, task.state);
            ApiError::not_found(what).hint("`driftless task explain RUN TASK` says why")
        }
    })
}

/// The task's position in its workflow.
async fn index(app: &App, run: RunId, task: &str) -> Result<u32, ApiError> {
    let packed = match app.engine.ask(Request::Workflow { run }).await? {
        Reply::Workflow(packed) => packed,
        other => return Err(ApiError::odd(&other)),
    };
    let wanted = task.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let (workflow, _) = codec::unpack(&packed).ok()?;
        let index = workflow.tasks.iter().position(|task| task.id == wanted)?;
        u32::try_from(index).ok()
    });
    let gone = || ApiError::not_found(format!("task {task} is not in the run's workflow"));
    found.await.ok().flatten().ok_or_else(gone)
}

fn there(task: &Task) -> String {
    let run = task.run.to_string();
    format!(
        "on the gateway: driftless-agent logs {} {}",
        &run[..12],
        task.task
    )
}

fn offline(node: &Node, task: &Task) -> ApiError {
    let heard = match node.as_of.heard {
        Some(at) => format!("it was last heard at {at}"),
        None => "it was not heard since this coordinator started".to_owned(),
    };
    let what = format!(
        "{} is {}: {heard}, and its logs are there",
        node.name, node.state
    );
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what).hint(there(task))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(epoch: u64, number: u32) -> Attempt {
        Attempt {
            node: "gw-7".into(),
            epoch,
            number,
            outcome: "failed".into(),
            reason: None,
            exit: None,
            began: None,
            ended: None,
            not_applied: None,
        }
    }

    #[test]
    fn the_newest_attempt_is_meant_unless_one_is_named() {
        let mut task = Task {
            run: RunId([1; 16]),
            task: "a".into(),
            description: String::new(),
            state: "ready".into(),
            overlay: None,
            node: None,
            attempts: 0,
            outputs: Vec::new(),
            reason: None,
            since: None,
            history: Vec::new(),
            question: None,
            answers: Vec::new(),
        };
        assert!(choose(&task, None, None).is_err());
        task.history = vec![attempt(9, 1), attempt(5, 1), attempt(5, 2)];
        assert_eq!(choose(&task, None, None).unwrap().epoch, 9);
        assert_eq!(choose(&task, None, Some(1)).unwrap().epoch, 9);
        assert_eq!(choose(&task, None, Some(2)).unwrap().epoch, 5);
        assert_eq!(choose(&task, Some(5), Some(1)).unwrap().epoch, 5);
        assert!(choose(&task, None, Some(3)).is_err());
        assert!(choose(&task, Some(9), Some(2)).is_err());
    }
}
