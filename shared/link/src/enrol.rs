//! Enrolment and renewal: one question and one answer on a connection of their own. Whether the
//! answer is yes is decided elsewhere.

use crate::endpoint::Connection;
use crate::error::{Close, LinkError};
use crate::frame::{self, FrameReader, Kind};
use certs::{Certified, Issued, Presented, TokenRefusal};
use quinn::SendStream;
use serde::{Deserialize, Serialize};
use shared::ids::NodeId;
use shared::limits::HELLO_BYTES;
use shared::time::Unix;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an answer may take to arrive before the connection is closed behind it.
const FAREWELL: Duration = Duration::from_secs(5);

/// What is asked. Variants are numbered by position and may only be appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EnrolAsk {
    /// 0: become a node, on an anonymous connection.
    Enrol(EnrolRequest),
    /// 1: a new certificate for the node that the present one names, expired or not.
    Renew {
        /// The signing request ([`certs::NodeKey::request`]).
        request: Vec<u8>,
    },
}

/// Who wants to become a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// Version of the program, for people.
    pub version: String,
    /// The token.
    pub token: Presented,
    /// The name it wants.
    pub name: String,
    /// The signing request ([`certs::NodeKey::request`]).
    pub request: Vec<u8>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The answer. Variants are numbered by position and may only be appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EnrolReply {
    /// 0: yes.
    Enrolled {
        /// The node's id.
        node: NodeId,
        /// Its certificate and the authority's.
        issued: Issued,
        /// Wall clock of the coordinator.
        now: Unix,
    },
    /// 1: no, and why.
    Refused(EnrolRefusal),
    /// 2: yes, to one who knows how to renew ([`certs::ALPN_CERTIFICATE`]).
    Certified {
        /// The node's id.
        node: NodeId,
        /// Its certificate, and whom to trust.
        certified: Certified,
    },
}

/// Why nobody is enrolled. Variants are numbered by position and may only be appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum EnrolRefusal {
    /// 0: the token.
    #[error("enrolment refused: {0}")]
    Token(TokenRefusal),
    /// 1: the name is no name for a node.
    #[error("enrolment refused: {0}")]
    Name(String),
    /// 2: a node of this name is known.
    #[error(
        "enrolment refused: a node named '{name}' is known already; to put this machine in its \
         place use a token of `driftless token create --replace {name}`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// 3: the signing request cannot be used.
    #[error("enrolment refused: {0}")]
    Request(String),
    /// 4: only a node with a certificate can renew it, and only a newcomer can enrol.
    #[error("refused: {0}")]
    NotAllowed(String),
    /// 5: later.
    #[error("the coordinator is busy: try again later")]
    Busy,
}

impl Connection {
    /// The agent's side: asks and waits for the answer.
    ///
    /// # Errors
    /// The loss of the connection, or an answer that cannot be understood.
    pub async fn enrol(&self, ask: &EnrolAsk) -> Result<EnrolReply, LinkError> {
        let (mut send, receive) = self.quic.open_bi().await?;
        send.write_all(&frame::encode(Kind::EnrolAsk, ask)?).await?;
        let _ = send.finish(); // fails only on a stream that was closed before
        let reply = FrameReader::new(receive)
            .next(Kind::EnrolAnswer, HELLO_BYTES)
            .await?;
        reply.ok_or(LinkError::Ended)
    }

    /// The coordinator's side: waits for the question.
    ///
    /// # Errors
    /// The loss of the connection, or a question that cannot be understood: the peer is told so and
    /// the connection is closed.
    pub async fn accept_enrol(&self) -> Result<(EnrolAsk, EnrolAnswer), LinkError> {
        let (send, receive) = self.quic.accept_bi().await?;
        let read = FrameReader::new(receive)
            .next(Kind::EnrolAsk, HELLO_BYTES)
            .await;
        if let Err(LinkError::Frame(error)) = &read {
            self.close(Close::Protocol, &error.to_string());
        }
        let ask = read?.ok_or(LinkError::Ended)?;
        Ok((
            ask,
            EnrolAnswer {
                connection: self.clone(),
                send,
            },
        ))
    }
}

/// Somebody who waits for an answer.
#[derive(Debug)]
pub struct EnrolAnswer {
    connection: Connection,
    send: SendStream,
}

impl EnrolAnswer {
    /// Answers, waits until it arrived, and closes the connection.
    ///
    /// # Errors
    /// The loss of the connection: the agent will ask again with the same key.
    pub async fn answer(mut self, reply: &EnrolReply) -> Result<(), LinkError> {
        self.send
            .write_all(&frame::encode(Kind::EnrolAnswer, reply)?)
            .await?;
        let _ = self.send.finish(); // fails only on a stream that was closed before
        let arrived = tokio::time::timeout(FAREWELL, self.send.stopped()).await;
        self.connection.close(Close::Done, "answered");
        if arrived.is_err() {
            Err(LinkError::TimedOut)
        } else {
            Ok(())
        }
    }
}
