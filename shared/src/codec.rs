//! Bytes: postcard for everything that is stored or sent, zstd around what is large. Decoding never
//! panics and never allocates beyond the bound it is given.

use crate::ids::Hash;
use crate::limits::WORKFLOW_BYTES;
use crate::workflow::Workflow;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not an encoding of what was expected.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Something follows the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
    /// Not compressed data, or larger than allowed.
    #[error("cannot be decompressed within {0} bytes")]
    Compressed(usize),
    /// Written by a later version.
    #[error("a workflow of format {found}; this version reads up to {known}")]
    Format {
        /// Format found.
        found: u16,
        /// Newest format known.
        known: u16,
    },
}

/// The postcard encoding of `value`.
///
/// # Panics
/// Never for the types of this crate: none of them has an unsized sequence or a failing
/// `Serialize`.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let to = Growing(Vec::with_capacity(MOST));
    postcard::serialize_with_flavor(value, to).expect("types of this crate can always be encoded")
}

/// Nearly all entries have fewer bytes: what holds them does not grow while they are encoded.
const MOST: usize = 128;

/// Bytes that come one after another.
struct Growing(Vec<u8>);

impl Flavor for Growing {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Reads exactly one value from all of `bytes`.
///
/// # Errors
/// [`DecodeError::Malformed`] or [`DecodeError::Trailing`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(DecodeError::Trailing(rest.len())),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

/// Reads one value from the beginning of `bytes`, and what follows it.
///
/// # Errors
/// [`DecodeError::Malformed`].
pub fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// Zeros that stand for what an older version did not write.
const ABSENT: [u8; 64] = [0; 64];

/// Reads exactly one value whose last fields may be newer than its writer: where `bytes` end, zeros
/// are read on (0, `None`, empty, `false`). Fields that are appended to such a value must mean with
/// zero what was meant before they were there. Not for what may be cut on its way: use it where a
/// length, a hash or the store vouches for the bytes.
///
/// # Errors
/// [`DecodeError::Malformed`] or [`DecodeError::Trailing`].
pub fn decode_extended<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    // what its writer wrote whole needs no copy
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => return Ok(value),
        Ok((_, rest)) => return Err(DecodeError::Trailing(rest.len())),
        Err(_) => {}
    }
    let padded = [bytes, &ABSENT].concat();
    match postcard::take_from_bytes(&padded) {
        Ok((value, rest)) => match rest.len().checked_sub(ABSENT.len()) {
            None | Some(0) => Ok(value),
            Some(trailing) => Err(DecodeError::Trailing(trailing)),
        },
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

/// zstd of `bytes` at level 1 (higher levels gain nothing on our records).
///
/// # Panics
/// Never: compressing into memory cannot fail.
#[must_use]
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    PACKER.with_borrow_mut(|packer| {
        packer
            .compress(bytes)
            .expect("zstd into memory cannot fail")
    })
}

thread_local! {
    /// To make one takes longer than to pack a few rows with it.
    static PACKER: RefCell<zstd::bulk::Compressor<'static>> =
        RefCell::new(zstd::bulk::Compressor::new(1).expect("zstd into memory cannot fail"));
    /// To make one takes a fifth of the time of unpacking a batch with it.
    static UNPACKER: RefCell<std::io::Result<zstd::bulk::Decompressor<'static>>> =
        RefCell::new(zstd::bulk::Decompressor::new());
}

/// Most bytes that are unpacked in one piece, into memory of the size that the data claim.
const IN_ONE_PIECE: usize = 1 << 20;

/// First step in which larger pieces are unpacked; each further one doubles what is there.
const STEP: usize = 64 * 1024;
/// Least window that is allowed, bytes: what compressors take that do not know how much will come.
const LEAST_WINDOW: usize = 1 << 21;
/// Largest window that is allowed, as a power of two: the largest that zstd takes unasked.
const MOST_WINDOW_LOG: u32 = 27;

/// What was compressed, at most `limit` bytes of it.
///
/// # Errors
/// [`DecodeError::Compressed`].
pub fn decompress(bytes: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    use std::io::Read;
    let refused = |_| DecodeError::Compressed(limit);
    // Our own frames say how large they are: what is small is unpacked in one piece.
    let told = zstd::bulk::Decompressor::upper_bound(bytes);
    if let Some(size) = told.filter(|size| *size <= limit.min(IN_ONE_PIECE)) {
        return UNPACKER.with_borrow_mut(|unpacker| match unpacker {
            Ok(unpacker) => unpacker.decompress(bytes, size).map_err(refused),
            Err(_) => Err(DecodeError::Compressed(limit)),
        });
    }
    let claimed = zstd::zstd_safe::get_frame_content_size(bytes);
    if matches!(claimed, Ok(Some(size)) if size > limit as u64) {
        return Err(DecodeError::Compressed(limit));
    }
    let mut input = zstd::stream::read::Decoder::new(bytes).map_err(refused)?;
    // A frame names the window that it wants, and gets no larger one than all that it may hold.
    let window = limit.max(LEAST_WINDOW).next_power_of_two().ilog2();
    input
        .window_log_max(window.min(MOST_WINDOW_LOG))
        .map_err(refused)?;
    let mut out = Vec::new();
    loop {
        // What grows by itself would double beyond the limit.
        let room = limit + 1 - out.len();
        out.reserve_exact(room.min(out.len().max(STEP)));
        let step = (out.capacity() - out.len()).min(room) as u64;
        let read = (&mut input).take(step).read_to_end(&mut out);
        match read.map_err(refused)? {
            _ if out.len() > limit => return Err(DecodeError::Compressed(limit)),
            // only the end is nearer than what was asked for
            read if (read as u64) < step => return Ok(out),
            _ => {}
        }
    }
}

/// A workflow as entries carry it, and its content hash (of the uncompressed encoding).
#[must_use]
pub fn pack(workflow: &Workflow) -> (Vec<u8>, Hash) {
    let bytes = workflow.encode();
    let hash = Hash::of(&bytes);
    (compress(&bytes), hash)
}

/// The workflow in `packed`, and its content hash.
///
/// # Errors
/// [`DecodeError`]; a later format is told apart from malformed bytes.
pub fn unpack(packed: &[u8]) -> Result<(Workflow, Hash), DecodeError> {
    unpack_within(packed, WORKFLOW_BYTES)
}

/// The same of a workflow that has at most `limit` bytes.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_within(packed: &[u8], limit: usize) -> Result<(Workflow, Hash), DecodeError> {
    let bytes = decompress(packed, limit)?;
    Ok((Workflow::decode(&bytes)?, Hash::of(&bytes)))
}

/// Bytes as one piece instead of a sequence of numbers: the same encoding, much faster. For
/// `#[serde(with = "codec::raw")]`.
pub mod raw {
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    /// As bytes.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    /// From bytes.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_are_refused_within_the_bound() {
        let bomb = compress(&vec![0; 1 << 20]);
        assert_eq!(decompress(&bomb, 1000), Err(DecodeError::Compressed(1000)));
        assert_eq!(
            decompress(b"nonsense", 1000),
            Err(DecodeError::Compressed(1000))
        );
        assert_eq!(decode::<u8>(&[1, 2]), Err(DecodeError::Trailing(1)));
        assert!(matches!(
            decode::<Vec<u64>>(&[255; 9]),
            Err(DecodeError::Malformed(_))
        ));
        let later = crate::workflow::FORMAT + 1;
        assert!(
            unpack(&compress(&encode(&later)))
                .is_err_and(|error| matches!(error, DecodeError::Format { .. }))
        );
    }

    /// A frame of a few bytes that asks for a window of 32 MiB got it, whatever was allowed.
    #[test]
    fn a_frame_gets_no_larger_window_than_all_that_it_may_hold() {
        use std::io::Write;
        let mut frame = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        frame.window_log(25).unwrap();
        frame.write_all(b"little").unwrap();
        let frame = frame.finish().unwrap();
        assert_eq!(decompress(&frame, 1 << 25), Ok(b"little".to_vec()));
        assert_eq!(
            decompress(&frame, 1 << 22),
            Err(DecodeError::Compressed(1 << 22))
        );
        let large = vec![7; 3 << 20];
        assert_eq!(decompress(&compress(&large), 3 << 20), Ok(large));
    }

    #[test]
    fn what_an_older_version_did_not_write_is_read_as_zero() {
        type New = (u32, String, Option<u64>, Vec<u8>);
        let old = encode(&(7_u32, "seven"));
        let none = (7, "seven".to_owned(), None, Vec::new());
        assert_eq!(decode_extended::<New>(&old), Ok(none));
        let new = (7, "seven".to_owned(), Some(8), vec![0; 3]);
        assert_eq!(decode_extended(&encode(&new)), Ok(new.clone()));
        let mut longer = encode(&new);
        longer.push(0);
        assert_eq!(
            decode_extended::<New>(&longer),
            Err(DecodeError::Trailing(1))
        );
        assert!(matches!(
            decode_extended::<New>(&[7, 255, 255, 255, 255, 15]),
            Err(DecodeError::Malformed(_))
        ));
    }
}
