//! Logs of tasks: the coordinator asks an agent for a piece of what an attempt wrote, on a
//! bidirectional stream of its own. The only streams that a coordinator opens on a session's
//! connection are these.

use crate::endpoint::Connection;
use crate::error::LinkError;
use crate::frame::{self, FrameReader, Kind};
use quinn::SendStream;
use serde::{Deserialize, Serialize};
use shared::ids::RunId;
use shared::limits::HELLO_BYTES;
use std::time::Duration;

/// Most bytes of a log in one answer.
pub const PIECE: usize = 256 * 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which output of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Stream {
    /// 0: standard output.
    Out,
    /// 1: standard error.
    Err,
}

/// A piece of a log that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogAsk {
    /// The run.
    pub run: RunId,
    /// The task's position in its workflow.
    pub task: u32,
    /// Epoch of the attempt's slice.
    pub epoch: u64,
    /// The attempt's number within the epoch.
    pub number: u32,
    /// Which of its outputs.
    pub stream: Stream,
    /// First byte wanted.
    pub from: u64,
}

/// The answer. Variants are numbered by position and may only be appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LogAnswer {
    /// 0: bytes from the wanted position on, at most [`PIECE`] of them. Fewer (or none) are all
    /// that is there now.
    Piece(Vec<u8>),
    /// 1: there is no such log (or no longer), why, for people.
    Missing(String),
}

impl Connection {
    /// The coordinator's side: asks and waits for the answer, for a bounded time.
    ///
    /// # Errors
    /// The loss of the connection, an agent that does not answer, or an answer that cannot be
    /// understood.
    pub async fn ask_log(&self, ask: &LogAsk) -> Result<LogAnswer, LinkError> {
        let answered = tokio::time::timeout(PATIENCE, async {
            let (mut send, receive) = self.quic.open_bi().await?;
            send.write_all(&frame::encode(Kind::LogAsk, ask)?).await?;
            let _ = send.finish(); // fails only on a stream that was closed before
            let limit = PIECE + HELLO_BYTES;
            let answer = FrameReader::new(receive)
                .next(Kind::LogAnswer, limit)
                .await?;
            answer.ok_or(LinkError::Ended)
        });
        answered.await.map_err(|_| LinkError::TimedOut)?
    }

    /// The agent's side: the next stream on which the coordinator asks for a log. To be read and
    /// answered in a task of its own.
    ///
    /// # Errors
    /// The loss of the connection.
    pub async fn accept_log(&self) -> Result<LogStream, LinkError> {
        let (send, receive) = self.quic.accept_bi().await?;
        Ok(LogStream {
            send,
            receive: FrameReader::new(receive),
        })
    }
}

/// A stream of the coordinator whose wish was not read yet.
#[derive(Debug)]
pub struct LogStream {
    send: SendStream,
    receive: FrameReader,
}

impl LogStream {
    /// What is wanted, and where to answer.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for a wish that cannot be understood, or the loss of the connection.
    pub async fn ask(mut self) -> Result<(LogAsk, LogReply), LinkError> {
        let read = tokio::time::timeout(PATIENCE, self.receive.next(Kind::LogAsk, HELLO_BYTES));
        let ask = read.await.map_err(|_| LinkError::TimedOut)??;
        Ok((ask.ok_or(LinkError::Ended)?, LogReply(self.send)))
    }
}

/// Where to answer.
#[derive(Debug)]
pub struct LogReply(SendStream);

impl LogReply {
    /// Answers.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for more than [`PIECE`] bytes, or the loss of the connection.
    pub async fn answer(mut self, answer: &LogAnswer) -> Result<(), LinkError> {
        self.0
            .write_all(&frame::encode(Kind::LogAnswer, answer)?)
            .await?;
        let _ = self.0.finish(); // fails only on a stream that was closed before
        Ok(())
    }
}
