//! Logs stay at the gateway; the coordinator asks for pieces of them.

use crate::linking::text;
use link::Connection;
use link::logs::{self, LogAnswer, LogAsk};
use shared::ids::{AttemptRef, Epoch, SliceRef, TaskIdx};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Answers the coordinator's wishes for logs until the connection ends; returns why it did.
pub(crate) async fn serve_logs(connection: Connection, data: PathBuf) -> String {
    loop {
        let stream = match connection.accept_log().await {
            Ok(stream) => stream,
            Err(error) => return text(&error),
        };
        let data = data.clone();
        // At most as many at once as the transport permits streams.
        tokio::spawn(async move {
            let Ok((ask, reply)) = stream.ask().await else {
                return;
            };
            let read = tokio::task::spawn_blocking(move || read_log(&data, &ask)).await;
            let answer =
                read.unwrap_or_else(|_| LogAnswer::Missing("the agent is stopping".into()));
            if let Err(error) = reply.answer(&answer).await {
                tracing::debug!(%error, "a log could not be sent");
            }
        });
    }
}

fn read_log(data: &Path, ask: &LogAsk) -> LogAnswer {
    let attempt = AttemptRef {
        slice: SliceRef {
            run: ask.run,
            slice: 0,
            epoch: Epoch(ask.epoch),
        },
        task: TaskIdx(ask.task),
        number: ask.number,
    };
    let stream = match ask.stream {
        logs::Stream::Out => edge_exec::Stream::Out,
        logs::Stream::Err => edge_exec::Stream::Err,
    };
    let mut piece = Vec::new();
    let read = File::open(edge_exec::log_path(data, &attempt, stream)).and_then(|mut file| {
        file.seek(SeekFrom::Start(ask.from))?;
        file.take(logs::PIECE as u64).read_to_end(&mut piece)
    });
    match read {
        Ok(_) => LogAnswer::Piece(piece),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            LogAnswer::Missing("it wrote nothing there, or its log was removed by the quota".into())
        }
        Err(error) => LogAnswer::Missing(format!("its log cannot be read: {error}")),
    }
}
