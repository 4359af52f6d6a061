//! Frames: `u32` length of the body (little endian), one byte version and kind, the body in
//! postcard.
//!
//! Invariant: memory grows with what has arrived, never with what a header claims; and no byte
//! after a frame is taken from the stream, so raw content may follow it.

use crate::error::LinkError;
use quinn::RecvStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::codec::{self, DecodeError};
use shared::limits::FRAME_BYTES;

/// Version of the frame layout: the upper four bits of a frame's fifth byte.
pub const VERSION: u8 = 1;
const HEADER: usize = 5;
/// Most bytes that are taken from a stream at once.
const STEP: usize = 64 * 1024;

/// What a frame holds, and so what its stream is for: the lower four bits of a frame's fifth byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A message of a session's control stream.
    Control = 1,
    /// A message of a session's facts stream.
    Facts = 2,
    /// What is wanted of a file.
    FileAsk = 3,
    /// The answer to that.
    FileAnswer = 4,
    /// An enrolment or renewal.
    EnrolAsk = 5,
    /// The answer to that.
    EnrolAnswer = 6,
    /// A piece of a log that the coordinator wants.
    LogAsk = 7,
    /// The answer to that.
    LogAnswer = 8,
    /// A message of a session's telemetry stream.
    Telemetry = 9,
    /// A part of an inventory, in a stream of its own.
    Inventory = 10,
}

impl Kind {
    pub(crate) fn tag(self) -> u8 {
        VERSION << 4 | self as u8
    }
}

/// What is wrong with a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than allowed at this point.
    #[error("a frame of {claimed} bytes; at this point {limit} are allowed")]
    TooLarge {
        /// Bytes in its header.
        claimed: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A layout of another version.
    #[error("a frame of version {0}; this side speaks version {VERSION}")]
    Version(u8),
    /// Of a kind that does not belong into this stream.
    #[error("a frame of kind {found} where kind {} ({wanted:?}) is due", *.wanted as u8)]
    Kind {
        /// Kind found.
        found: u8,
        /// Kind due.
        wanted: Kind,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended after {found} of {wanted} bytes of a frame")]
    Truncated {
        /// Bytes of the frame, as far as known.
        wanted: usize,
        /// Bytes that arrived.
        found: usize,
    },
    /// The body is no message.
    #[error("a frame of kind {kind:?} is malformed")]
    Malformed {
        /// Its kind.
        kind: Kind,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
}

/// The frame that carries `message`.
///
/// # Errors
/// [`FrameError::TooLarge`]: the peer would refuse it.
pub fn encode<T: Serialize>(kind: Kind, message: &T) -> Result<Vec<u8>, FrameError> {
    let body = codec::encode(message);
    let claimed = body.len();
    let Some(length) = u32::try_from(claimed)
        .ok()
        .filter(|_| claimed <= FRAME_BYTES)
    else {
        return Err(FrameError::TooLarge {
            claimed,
            limit: FRAME_BYTES,
        });
    };
    let mut frame = Vec::with_capacity(HEADER + claimed);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.push(kind.tag());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// The part of one frame that has arrived.
#[derive(Debug, Default)]
pub struct Partial(Vec<u8>);

impl Partial {
    /// Bytes that are missing before the next look is worth while; 0 when the frame is whole.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the header shows that the frame is not acceptable.
    pub fn missing(&self, kind: Kind, limit: usize) -> Result<usize, FrameError> {
        let Some((header, body)) = self.0.split_first_chunk::<HEADER>() else {
            return Ok(HEADER - self.0.len());
        };
        let tag = header[4];
        if tag >> 4 != VERSION {
            return Err(FrameError::Version(tag >> 4));
        }
        if tag != kind.tag() {
            return Err(FrameError::Kind {
                found: tag & 0xf,
                wanted: kind,
            });
        }
        let claimed = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if claimed > limit {
            return Err(FrameError::TooLarge { claimed, limit });
        }
        Ok(claimed - body.len().min(claimed))
    }

    /// Adds bytes that have arrived: at most as many as are missing.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Reads the whole frame and makes room for the next one.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn take<T: DeserializeOwned>(&mut self, kind: Kind) -> Result<T, FrameError> {
        let frame = std::mem::take(&mut self.0);
        let body = frame.get(HEADER..).unwrap_or_default();
        codec::decode(body).map_err(|source| FrameError::Malformed { kind, source })
    }
}

/// Reads the frames of one stream.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    partial: Partial,
}

impl FrameReader {
    /// The frames of `stream`.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            partial: Partial::default(),
        }
    }

    /// The next frame; none when the stream ended between two frames. A call that is dropped loses
    /// nothing: the next one goes on where it stopped.
    ///
    /// # Errors
    /// [`LinkError::Frame`] or the loss of the connection.
    pub async fn next<T: DeserializeOwned>(
        &mut self,
        kind: Kind,
        limit: usize,
    ) -> Result<Option<T>, LinkError> {
        loop {
            let missing = self.partial.missing(kind, limit)?;
            if missing == 0 && !self.partial.0.is_empty() {
                return Ok(Some(self.partial.take(kind)?));
            }
            let Some(chunk) = self.stream.read_chunk(missing.min(STEP), true).await? else {
                let found = self.partial.0.len();
                let truncated = FrameError::Truncated {
                    wanted: found + missing,
                    found,
                };
                return if found == 0 {
                    Ok(None)
                } else {
                    Err(truncated.into())
                };
            };
            self.partial.feed(&chunk.bytes);
        }
    }

    /// The kind byte of the next frame, which stays to be read; none when the stream ended before
    /// it. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// The loss of the connection.
    pub async fn tag(&mut self) -> Result<Option<u8>, LinkError> {
        while self.partial.0.len() < HEADER {
            let missing = HEADER - self.partial.0.len();
            let Some(chunk) = self.stream.read_chunk(missing, true).await? else {
                return Ok(None);
            };
            self.partial.feed(&chunk.bytes);
        }
        Ok(self.partial.0.get(HEADER - 1).copied())
    }

    /// The stream behind the last frame.
    #[must_use]
    pub fn into_stream(self) -> RecvStream {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads one frame that arrives in pieces of `piece` bytes, as a stream would.
    fn read(bytes: &[u8], piece: usize, limit: usize) -> Result<Option<Vec<u8>>, FrameError> {
        let mut partial = Partial::default();
        let mut rest = bytes;
        loop {
            let missing = partial.missing(Kind::Control, limit)?;
            if missing == 0 && !partial.0.is_empty() {
                return partial.take(Kind::Control).map(Some);
            }
            if rest.is_empty() {
                return Ok(None);
            }
            let (now, later) = rest.split_at(missing.min(piece).min(rest.len()));
            partial.feed(now);
            rest = later;
        }
    }

    #[test]
    fn a_frame_survives_any_splitting_and_takes_nothing_behind_it() {
        let message = vec![7u8; 300];
        let mut bytes = encode(Kind::Control, &message).unwrap();
        bytes.extend_from_slice(b"raw content");
        for piece in 1..bytes.len() {
            assert_eq!(read(&bytes, piece, 1000), Ok(Some(message.clone())));
        }
    }

    #[test]
    fn bad_frames_are_named_and_none_is_believed() {
        let good = encode(Kind::Control, &vec![7u8; 300]).unwrap();
        let bad = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            read(&bytes, 64, 1000).unwrap_err()
        };
        assert_eq!(bad(4, 0x21), FrameError::Version(2));
        assert_eq!(
            bad(4, 0x12),
            FrameError::Kind {
                found: 2,
                wanted: Kind::Control
            }
        );
        let huge = FrameError::TooLarge {
            claimed: 0x7f00_012e,
            limit: 1000,
        };
        assert_eq!(bad(3, 0x7f), huge);
        assert!(matches!(bad(5, 0xff), FrameError::Malformed { .. }));
        let short = FrameError::Malformed {
            kind: Kind::Control,
            source: DecodeError::Trailing(1),
        };
        let trailing = [2, 0, 0, 0, 0x11, 0, 0];
        assert_eq!(read(&trailing, 64, 1000), Err(short));
        let large = vec![0u8; FRAME_BYTES];
        assert!(matches!(
            encode(Kind::Facts, &large),
            Err(FrameError::TooLarge { .. })
        ));
    }

    #[test]
    fn random_bytes_never_panic_and_never_grow_beyond_the_limit() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..20_000 {
            let mut bytes = [0u8; 64];
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            bytes[1..4].fill(0);
            bytes[4] = 0x11;
            let _ = read(&bytes, 16, 64);
        }
    }
}
