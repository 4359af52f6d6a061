//! Frames in files of telemetry: `u32` length, 4 bytes of the body's BLAKE3, the body. What was
//! torn at the end of a file is told apart from what is whole.

use crate::ids::Hash;

const HEADER: usize = 8;

/// The frame that holds `body`.
#[must_use]
pub fn encode(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + body.len());
    // Bodies are pieces and lists with a bound far below 4 GiB; a longer one reads as damaged.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&Hash::of(body).0[..4]);
    frame.extend_from_slice(body);
    frame
}

/// A whole frame within bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Where it begins.
    pub offset: usize,
    /// Where it ends.
    pub end: usize,
    /// What it holds.
    pub body: &'a [u8],
}

/// The whole frames at the beginning of `bytes`; what follows the last one is torn or damaged.
pub fn scan(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let frame = frame_at(bytes, at)?;
        at = frame.end;
        Some(frame)
    })
}

fn frame_at(bytes: &[u8], offset: usize) -> Option<Frame<'_>> {
    let (header, rest) = bytes.get(offset..)?.split_first_chunk::<HEADER>()?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let body = rest.get(..length)?;
    (Hash::of(body).0[..4] == header[4..]).then_some(Frame {
        offset,
        end: offset + HEADER + length,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_read_and_a_torn_end_is_left() {
        let mut bytes = encode(b"one");
        bytes.extend(encode(b"second"));
        let whole = bytes.len();
        let found = |bytes: &[u8]| {
            let bodies: Vec<Vec<u8>> = scan(bytes).map(|f| f.body.to_vec()).collect();
            bodies
        };
        assert_eq!(found(&bytes), [b"one".to_vec(), b"second".to_vec()]);
        for cut in 11..whole {
            assert_eq!(found(&bytes[..cut]), [b"one".to_vec()], "{cut}");
        }
        bytes[whole - 1] ^= 1;
        assert_eq!(found(&bytes).len(), 1);
        assert!(found(&[0; 7]).is_empty());
        assert!(found(&[255; 64]).is_empty());
    }
}
