//! A segment of facts as the table holds it. Facts that came packed are stored as they came.
//!
//! | first byte | what follows |
//! | --- | --- |
//! | 0 | log, head before, head after, entries |
//! | 1 | the same, compressed as a whole (written by the first release only) |
//! | 2 | log, head before, head after; then the packed entries (`shared::log::PackedBatch`) |

use crate::damaged;
use cloud_core::store::{Segment, StoreError};
use shared::codec::{self, DecodeError};
use shared::log::{Entries, Head};
use shared::wire::LogId;

/// Segments of fewer bytes are not compressed.
const SMALL: usize = 512;
/// Bound of a decompressed segment of the first release: the largest batch that a frame can carry,
/// with room for its framing.
const SEGMENT_BYTES: usize = 2 * shared::limits::FRAME_BYTES;

type Frame = (LogId, Head, Head);

pub(crate) fn encode(segment: &Segment) -> Vec<u8> {
    let frame: Frame = (segment.log, segment.after, segment.head);
    let plain = || -> Vec<&[u8]> { segment.entries.iter().collect() };
    let size: usize = segment.entries.iter().map(<[u8]>::len).sum();
    let mut out = Vec::new();
    match &segment.packed {
        Some(packed) => {
            out.push(2);
            out.extend(codec::encode(&frame));
            out.extend_from_slice(packed);
        }
        None if size < SMALL => {
            out.push(0);
            out.extend(codec::encode(&(frame, plain())));
        }
        None => {
            out.push(2);
            out.extend(codec::encode(&frame));
            out.extend(codec::compress(&codec::encode(&plain())));
        }
    }
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Segment, StoreError> {
    read(bytes).map_err(|_| damaged("a segment of facts cannot be read"))
}

fn read(bytes: &[u8]) -> Result<Segment, DecodeError> {
    let malformed = |text: &str| DecodeError::Malformed(text.to_owned());
    let (flag, body) = bytes.split_first().ok_or_else(|| malformed("empty"))?;
    let ((log, after, head), entries) = match flag {
        0 => codec::decode::<(Frame, Vec<Vec<u8>>)>(body).map(own)?,
        1 => {
            let plain = codec::decompress(body, SEGMENT_BYTES)?;
            codec::decode::<(Frame, Vec<Vec<u8>>)>(&plain).map(own)?
        }
        2 => {
            let (frame, packed) = codec::decode_first::<Frame>(body)?;
            (frame, Entries::unpack(packed)?)
        }
        _ => return Err(malformed("of a later version")),
    };
    Ok(Segment {
        log,
        after,
        head,
        entries,
        packed: None,
    })
}

fn own((frame, entries): (Frame, Vec<Vec<u8>>)) -> (Frame, Entries) {
    (frame, entries.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{Incarnation, NodeId};
    use shared::log::{Direction, PackedBatch};

    #[test]
    fn every_form_is_read_back_and_what_is_cut_is_refused() {
        let (node, incarnation) = (NodeId([1; 16]), Incarnation([2; 16]));
        let log = LogId { node, incarnation };
        let after = Head::origin(node, incarnation, Direction::Up);
        for count in [1_u8, 100] {
            let entries: Vec<Vec<u8>> = (0..count).map(|n| vec![n; 20]).collect();
            let head = after.then_all(&entries);
            let segment = Segment {
                log,
                after,
                head,
                entries: entries.iter().collect(),
                packed: None,
            };
            let packed = PackedBatch::new(after, head, &entries).entries;
            let received = Segment {
                packed: Some(packed),
                ..segment.clone()
            };
            let plain = codec::encode(&((log, after, head), entries));
            let forms = [
                encode(&segment),
                encode(&received),
                [&[0][..], &plain].concat(),
                [&[1][..], &codec::compress(&plain)].concat(),
            ];
            for bytes in forms {
                assert_eq!(decode(&bytes), Ok(segment.clone()));
                assert!(decode(&bytes[..bytes.len() - 1]).is_err());
            }
        }
        assert!(decode(&[]).is_err() && decode(&[3]).is_err());
    }
}
