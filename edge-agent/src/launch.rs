//! What the core wants begun, as the executor takes it.

use edge_exec as exec;
use shared::workflow::Source;
use std::collections::BTreeMap;

/// The launch in the executor's words.
pub(crate) fn into_launch(launch: edge_core::event::Launch) -> exec::Launch {
    let files = launch
        .task
        .inputs
        .iter()
        .zip(&launch.inputs)
        .map(|(input, hash)| {
            let source = match (&input.source, hash) {
                (Source::NodeFile(path), _) => exec::InputFile::NodeFile(path.clone()),
                (_, Some(hash)) => exec::InputFile::Stored(*hash),
                // The core launches nothing whose inputs it does not know; the executor refuses an
                // empty path.
                (_, None) => exec::InputFile::NodeFile(String::new()),
            };
            (input.path.clone(), source)
        });
    let env = BTreeMap::from([
        ("DRIFTLESS_WORKFLOW".to_owned(), launch.workflow.clone()),
        ("DRIFTLESS_TASK".to_owned(), launch.task.id.clone()),
    ]);
    exec::Launch {
        attempt: launch.attempt,
        inputs: files.collect(),
        env,
        queue: launch.queue,
        behind: launch.behind,
        task: launch.task,
    }
}
