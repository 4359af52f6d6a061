//! A session: one control stream in both directions, opened by the agent, and one stream of facts
//! upward, so that a long batch of facts never delays an answer to a ping. Telemetry goes up in a
//! third stream, behind both, and an inventory in a fourth one, beside the facts.

use crate::endpoint::Connection;
use crate::error::{Close, LinkError};
use crate::frame::{self, FrameError, FrameReader, Kind};
use quinn::SendStream;
use shared::inventory::InventoryPart;
use shared::limits::{FRAME_BYTES, HELLO_BYTES, INVENTORY_PART_BYTES};
use shared::telemetry::{PIECE_BYTES, Report};
use shared::wire::{Down, Up};
use std::future::pending;
use tokio::select;

/// Facts and inventories yield to everything else.
const FACTS_PRIORITY: i32 = -1;
/// Telemetry yields to facts, too.
const TELEMETRY_PRIORITY: i32 = -2;
/// Bytes of one frame of telemetry: a piece and what is around it.
const TELEMETRY_BYTES: usize = PIECE_BYTES + 1024;
/// Bytes of one frame of an inventory: a part and what is around it.
const INVENTORY_BYTES: usize = INVENTORY_PART_BYTES + 1024;

impl Connection {
    /// The agent's end of a session. The coordinator learns of it by the first message, the hello.
    ///
    /// # Errors
    /// The loss of the connection.
    pub async fn open_session(&self) -> Result<(AgentTx, AgentRx), LinkError> {
        let (send, receive) = self.quic.open_bi().await?;
        let tx = AgentTx {
            control: send,
            facts: self.lane(Kind::Facts, FACTS_PRIORITY),
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
            inventory: None,
            fresh: None,
            limit: HELLO_BYTES,
        };
        Ok((CoordinatorTx { control: send }, rx))
    }

    /// The agent's stream of telemetry, made with its first message; only in a session that was
    /// accepted with that feature.
    #[must_use]
    pub fn telemetry(&self) -> TelemetryTx {
        TelemetryTx(self.lane(Kind::Telemetry, TELEMETRY_PRIORITY))
    }

    /// The agent's stream of its inventory, made with its first part; only in a session that was
    /// accepted with that feature.
    #[must_use]
    pub fn inventory(&self) -> InventoryTx {
        InventoryTx(self.lane(Kind::Inventory, FACTS_PRIORITY))
    }

    fn lane(&self, kind: Kind, priority: i32) -> Lane {
        Lane {
            connection: self.clone(),
            stream: None,
            kind,
            priority,
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

/// A stream upward that is made with its first message. A call that is dropped halfway leaves it
/// unusable.
#[derive(Debug)]
struct Lane {
    connection: Connection,
    stream: Option<SendStream>,
    kind: Kind,
    priority: i32,
}

impl Lane {
    async fn send(&mut self, message: &Up) -> Result<(), LinkError> {
        let frame = frame::encode(self.kind, message)?;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = self.connection.quic.open_uni().await?;
                let _ = stream.set_priority(self.priority); // fails only on a closed stream
                none.insert(stream)
            }
        };
        Ok(stream.write_all(&frame).await?)
    }
}

/// Sends the agent's messages. A call that is dropped halfway leaves the stream unusable: await it.
#[derive(Debug)]
pub struct AgentTx {
    control: SendStream,
    facts: Lane,
}

impl AgentTx {
    /// Sends one message: facts in their stream, everything else in the control stream. Returns
    /// when the link has taken it, which says nothing of its arrival.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for one that is too large, or the loss of the connection.
    pub async fn send(&mut self, message: &Up) -> Result<(), LinkError> {
        if matches!(message, Up::Facts(_) | Up::Packed(_)) {
            return self.facts.send(message).await;
        }
        let frame = frame::encode(Kind::Control, message)?;
        Ok(self.control.write_all(&frame).await?)
    }
}

/// Sends the agent's telemetry. A call that is dropped halfway leaves the stream unusable: await
/// it.
#[derive(Debug)]
pub struct TelemetryTx(Lane);

impl TelemetryTx {
    /// Sends one piece. Returns when the link has taken it, which says nothing of its arrival.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for one that is too large, or the loss of the connection.
    pub async fn send(&mut self, report: Report) -> Result<(), LinkError> {
        self.0.send(&Up::Telemetry(report)).await
    }
}

/// Sends the agent's inventory. A call that is dropped halfway leaves the stream unusable: await
/// it.
#[derive(Debug)]
pub struct InventoryTx(Lane);

impl InventoryTx {
    /// Sends one part. Returns when the link has taken it, which says nothing of its arrival.
    ///
    /// # Errors
    /// [`LinkError::Frame`] for one that is too large, or the loss of the connection.
    pub async fn send(&mut self, part: InventoryPart) -> Result<(), LinkError> {
        self.0.send(&Up::InventoryPart(part)).await
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
    inventory: Option<FrameReader>,
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
            let whole =
                self.facts.is_some() && self.telemetry.is_some() && self.inventory.is_some();
            let wants_stream = self.fresh.is_none() && !whole;
            select! {
                biased;
                read = self.control.next(Kind::Control, limit) => break read,
                read = next_of(&mut self.facts, Kind::Facts, limit) => break read,
                read = next_of(&mut self.telemetry, Kind::Telemetry, TELEMETRY_BYTES) => break read,
                read = next_of(&mut self.inventory, Kind::Inventory, INVENTORY_BYTES) => break read,
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
            tag if tag == Kind::Inventory.tag() => &mut self.inventory,
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
