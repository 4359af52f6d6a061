//! A session: one control stream in both directions, opened by the agent, and one stream of facts
//! upward, so that a long batch of facts never delays an answer to a ping. Telemetry goes up in a
//! third stream, behind both.

use crate::endpoint::Connection;
use crate::error::{Close, LinkError};
use crate::frame::{self, FrameError, FrameReader, Kind};
use quinn::SendStream;
use shared::limits::{FRAME_BYTES, HELLO_BYTES};
use shared::telemetry::{PIECE_BYTES, Report};
use shared::wire::{Down, Up};
use std::future::pending;
use tokio::select;

/// Facts yield to everything else.
const FACTS_PRIORITY: i32 = -1;
/// Telemetry yields to facts, too.
const TELEMETRY_PRIORITY: i32 = -2;
/// Bytes of one frame of telemetry: a piece and what is around it.
const TELEMETRY_BYTES: usize = PIECE_BYTES + 1024;

impl Connection {
    /// The agent's end of a session. The coordinator learns of it by the first message, the hello.
    ///
    /// # Errors
    /// The loss of the connection.
    pub async fn open_session(&self) -> Result<(AgentTx, AgentRx), LinkError> {
        let (send, receive) = self.quic.open_bi().await?;
        let tx = AgentTx {
            connection: self.clone(),
            control: send,
            facts: None,
        };
        let control = FrameReader::new(receive);
        Ok((
            tx,
            AgentRx {
                connection: self.clone(),
                control,
                limit: HELLO_BYTES,
            },
        ))
    }

    /// The coordinator's end: waits for the agent to open one.
    ///
    /// # Errors
    /// The loss of the connection.
    pub async fn accept_session(&self) -> Result<(CoordinatorTx, CoordinatorRx), LinkError> {
        let (send, receive) = self.quic.accept_bi().await?;
        let rx = CoordinatorRx {
            connection: self.clone(),
            control: FrameReader::new(receive),
            facts: None,
            telemetry: None,
            fresh: None,
            limit: HELLO_BYTES,
        };
        Ok((CoordinatorTx { control: send }, rx))
    }

    /// The agent's stream of telemetry, made with its first message; only in a session that was
    /// accepted with that feature.
    #[must_use]
    pub fn telemetry(&self) -> TelemetryTx {
        TelemetryTx {
            connection: self.clone(),
            stream: None,
        }
    }

    /// A peer that cannot be understood is told so, and the connection ends.
    fn judge<T>(&self, read: Result<Option<T>, LinkError>) -> Result<T, LinkError> {
        match read {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(LinkError::Ended),
            Err(LinkError::Frame(error)) => {
                self.close(Close::Protocol, &error.to_string());
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// Sends the agent's messages. A call that is dropped halfway leaves the stream unusable: await it.
#[derive(Debug)]
pub struct AgentTx {
    connection: Connection,
    control: SendStream,
    facts: Option<SendStream>,
}

impl AgentTx {
    /// Sends one message: facts in their stream, everything else in the control stream. Returns
    /// when the link has taken it, which says nothing of its arrival.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for one that is too large, or the loss of the connection.
    pub async fn send(&mut self, message: &Up) -> Result<(), LinkError> {
        if !matches!(message, Up::Facts(_) | Up::Packed(_)) {
            let frame = frame::encode(Kind::Control, message)?;
            return Ok(self.control.write_all(&frame).await?);
        }
        let frame = frame::encode(Kind::Facts, message)?;
        let stream = match &mut self.facts {
            Some(stream) => stream,
            none => {
                let stream = self.connection.quic.open_uni().await?;
                let _ = stream.set_priority(FACTS_PRIORITY); // fails only on a closed stream
                none.insert(stream)
            }
        };
        Ok(stream.write_all(&frame).await?)
    }
}

/// Sends the agent's telemetry. A call that is dropped halfway leaves the stream unusable: await
/// it.
#[derive(Debug)]
pub struct TelemetryTx {
    connection: Connection,
    stream: Option<SendStream>,
}

impl TelemetryTx {
    /// Sends one piece. Returns when the link has taken it, which says nothing of its arrival.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for one that is too large, or the loss of the connection.
    pub async fn send(&mut self, report: Report) -> Result<(), LinkError> {
        let frame = frame::encode(Kind::Telemetry, &Up::Telemetry(report))?;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = self.connection.quic.open_uni().await?;
                let _ = stream.set_priority(TELEMETRY_PRIORITY); // fails only on a closed stream
                none.insert(stream)
            }
        };
        Ok(stream.write_all(&frame).await?)
    }
}

/// Receives the coordinator's messages.
#[derive(Debug)]
pub struct AgentRx {
    connection: Connection,
    control: FrameReader,
    limit: usize,
}

impl AgentRx {
    /// The next message. Dropping the call loses nothing. Until [`Self::accepted`] only small ones
    /// pass.
    ///
    /// # Errors
    /// [`LinkError::Frame`], whereupon the connection is closed; or its loss.
    pub async fn recv(&mut self) -> Result<Down, LinkError> {
        let read = self.control.next(Kind::Control, self.limit).await;
        self.connection.judge(read)
    }

    /// The coordinator has welcomed this agent.
    pub fn accepted(&mut self) {
        self.limit = FRAME_BYTES;
    }
}

/// Sends the coordinator's messages. A call that is dropped halfway leaves the stream unusable:
/// await it.
#[derive(Debug)]
pub struct CoordinatorTx {
    control: SendStream,
}

impl CoordinatorTx {
    /// Sends one message. Returns when the link has taken it, which says nothing of its arrival.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for one that is too large, or the loss of the connection.
    pub async fn send(&mut self, message: &Down) -> Result<(), LinkError> {
        let frame = frame::encode(Kind::Control, message)?;
        Ok(self.control.write_all(&frame).await?)
    }

    /// Ends the stream and waits until the agent has all of it, or is gone: before a connection is
    /// closed behind a refusal.
    pub async fn finish(mut self) {
        if self.control.finish().is_ok() {
            let _ = self.control.stopped().await; // gone is as good as done
        }
    }
}

/// Receives an agent's messages.
#[derive(Debug)]
pub struct CoordinatorRx {
    connection: Connection,
    control: FrameReader,
    facts: Option<FrameReader>,
    telemetry: Option<FrameReader>,
    /// A stream whose kind is not known yet.
    fresh: Option<FrameReader>,
    limit: usize,
}

impl CoordinatorRx {
    /// The next message of any stream; the order within each is kept. Dropping the call loses
    /// nothing. Until [`Self::accepted`] only small messages pass, and the others wait.
    ///
    /// # Errors
    /// [`LinkError::Frame`], whereupon the connection is closed; or its loss.
    pub async fn recv(&mut self) -> Result<Up, LinkError> {
        let limit = self.limit;
        if limit < FRAME_BYTES {
            let read = self.control.next(Kind::Control, limit).await;
            return self.connection.judge(read);
        }
        let read = loop {
            let wants_stream =
                self.fresh.is_none() && (self.facts.is_none() || self.telemetry.is_none());
            select! {
                biased;
                read = self.control.next(Kind::Control, limit) => break read,
                read = next_of(&mut self.facts, Kind::Facts, limit) => break read,
                read = next_of(&mut self.telemetry, Kind::Telemetry, TELEMETRY_BYTES) => break read,
                tag = tag_of(&mut self.fresh) => {
                    let tag = self.connection.judge(tag)?;
                    self.sort(tag)?;
                }
                stream = self.connection.quic.accept_uni(), if wants_stream => {
                    self.fresh = Some(FrameReader::new(stream?));
                }
            }
        };
        self.connection.judge(read)
    }

    /// Puts the fresh stream where its first frame belongs; each kind has one stream.
    fn sort(&mut self, tag: u8) -> Result<(), LinkError> {
        let place = match tag {
            tag if tag == Kind::Telemetry.tag() => &mut self.telemetry,
            _ => &mut self.facts,
        };
        if place.is_some() {
            let error = FrameError::Kind {
                found: tag & 0xf,
                wanted: Kind::Telemetry,
            };
            return self.connection.judge(Err(error.into()));
        }
        *place = self.fresh.take();
        Ok(())
    }

    /// The hello was accepted: messages may be large and facts are read from now on.
    pub fn accepted(&mut self) {
        self.limit = FRAME_BYTES;
    }
}

/// The next message of a stream, if it is there; otherwise this never ends.
async fn next_of(
    reader: &mut Option<FrameReader>,
    kind: Kind,
    limit: usize,
) -> Result<Option<Up>, LinkError> {
    match reader {
        Some(reader) => reader.next(kind, limit).await,
        None => pending().await,
    }
}

async fn tag_of(reader: &mut Option<FrameReader>) -> Result<Option<u8>, LinkError> {
    match reader {
        Some(reader) => reader.tag().await,
        None => pending().await,
    }
}
