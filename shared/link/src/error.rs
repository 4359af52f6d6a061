//! What can go wrong on the link, in words that tell the caller what to do.

use crate::frame::FrameError;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};
use std::io;
use std::net::SocketAddr;

/// Why one side closed a connection on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// Nothing more to say.
    Done,
    /// The peer or its wish was refused; the text says why.
    Refused,
    /// The peer sent something that cannot be understood.
    Protocol,
    /// A newer session of this node took its place.
    Replaced,
    /// This side stops; dial again later.
    Stopping,
    /// The peer's certificate has expired: it may do one thing, renew it.
    Expired,
    /// A code of a later version.
    Other(u64),
}

impl Close {
    pub(crate) fn code(self) -> VarInt {
        let code = match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Protocol => 2,
            Self::Replaced => 3,
            Self::Stopping => 4,
            Self::Expired => 5,
            Self::Other(code) => code,
        };
        VarInt::from_u64(code).unwrap_or(VarInt::MAX)
    }

    fn from_code(code: VarInt) -> Self {
        match code.into_inner() {
            0 => Self::Done,
            1 => Self::Refused,
            2 => Self::Protocol,
            3 => Self::Replaced,
            4 => Self::Stopping,
            5 => Self::Expired,
            other => Self::Other(other),
        }
    }
}

/// Why a connection could not be made or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket could not be opened.
    #[error("cannot open a UDP socket at {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The settings do not fit together.
    #[error("the link cannot be set up: {0}")]
    Setup(String),
    /// This side does not accept the peer's certificate.
    #[error("the coordinator's certificate is refused")]
    Untrusted(#[source] certs::Refusal),
    /// The handshake failed on this side for another reason, or a client's certificate was refused.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// The peer ended the connection in its TLS or QUIC layer.
    #[error("the peer refused the connection: {0}")]
    RefusedByPeer(String),
    /// The peer closed the connection on purpose.
    #[error("the peer closed the connection ({close:?}): {text}")]
    Closed {
        /// Why.
        close: Close,
        /// Why, in its words.
        text: String,
    },
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard from the peer for the idle timeout")]
    TimedOut,
    /// The peer does not know the connection any more: it was restarted.
    #[error("the peer was restarted")]
    Restarted,
    /// This side closed it.
    #[error("the connection was closed on this side")]
    ClosedHere,
    /// A message that cannot be understood.
    #[error("the peer sent something that cannot be understood")]
    Frame(#[from] FrameError),
    /// The peer ended a stream where a message was due.
    #[error("the peer ended the stream where a message was due")]
    Ended,
    /// The peer gave a stream up.
    #[error("the peer gave the stream up (code {0})")]
    Abandoned(u64),
}

/// Our own words for a refused certificate, without the wrapping that TLS and QUIC put around them.
fn words(text: String) -> String {
    let inner = text.split_once("Other(OtherError(").map(|(_, inner)| inner);
    inner.map_or_else(
        || text.clone(),
        |inner| inner.trim_end_matches(')').to_owned(),
    )
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(error) => Self::Handshake(words(error.to_string())),
            ConnectionError::ConnectionClosed(close) => {
                Self::RefusedByPeer(words(close.to_string()))
            }
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                close: Close::from_code(close.error_code),
                text: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::Reset => Self::Restarted,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
                Self::Handshake(error.to_string())
            }
        }
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Abandoned(code.into_inner()),
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Ended,
        }
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Abandoned(code.into_inner()),
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Ended,
        }
    }
}
