//! What tasks write down of themselves, outside the directories of the programs.

use std::fmt;

/// Which attempt it is: epoch and number, as tasks see them in `DRIFTLESS_FENCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    /// The epoch of the slice.
    pub epoch: u64,
    /// The number of the attempt in it.
    pub number: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The attempt began.
    Begin,
    /// It is still there.
    Tick,
    /// It read an input: of which task, its checksum and its size.
    Read(String, u32, usize),
    /// It is about to fail on purpose.
    Fail,
    /// All is done, its output is written.
    End,
}

/// One mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What it says.
    pub said: Said,
    /// The run.
    pub run: String,
    /// The task.
    pub task: String,
    /// The attempt.
    pub fence: Fence,
    /// The gateway.
    pub node: usize,
}

impl Mark {
    /// Reads a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, run, task, fence, home, _at, detail @ ..] = words.as_slice() else {
            return None;
        };
        let said = match (*what, detail) {
            ("begin", []) => Said::Begin,
            ("tick", []) => Said::Tick,
            ("fail", []) => Said::Fail,
            ("end", []) => Said::End,
            ("read", [of, sum, size]) => {
                Said::Read((*of).to_owned(), sum.parse().ok()?, size.parse().ok()?)
            }
            _ => return None,
        };
        let (epoch, number) = fence.split_once('.')?;
        let (epoch, number) = (epoch.parse().ok()?, number.parse().ok()?);
        let node = home.split('/').find_map(|part| part.strip_prefix("gw-"))?;
        Some(Self {
            said,
            run: (*run).to_owned(),
            task: (*task).to_owned(),
            fence: Fence { epoch, number },
            node: node.parse().ok()?,
        })
    }
}

/// The checksum that the program `cksum` prints (POSIX): what was read is compared without any code
/// of the programs that are tested.
#[must_use]
pub fn checksum(content: &[u8]) -> u32 {
    let mut length = content.len();
    let mut sum = content.iter().fold(0, |sum, byte| add(sum, *byte));
    while length > 0 {
        sum = add(sum, u8::try_from(length & 0xff).unwrap_or(0));
        length >>= 8;
    }
    !sum
}

fn add(sum: u32, byte: u8) -> u32 {
    let mut sum = sum ^ (u32::from(byte) << 24);
    for _ in 0..8 {
        let carry = sum & 0x8000_0000 != 0;
        sum = (sum << 1) ^ if carry { 0x04c1_1db7 } else { 0 };
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_task_is_read_back() {
        let mark = Mark::parse("read r1 t3 7.2 /tmp/x/disk-1/gw-1/work/0/a 81.07 t2 930766865 9");
        let mark = mark.expect("a mark");
        assert_eq!((mark.fence.to_string().as_str(), mark.node), ("7.2", 1));
        assert_eq!(mark.said, Said::Read("t2".into(), 930_766_865, 9));
        assert_eq!(Mark::parse("begin r1 t3 7 /tmp/gw-1/work 81.07"), None);
        assert_eq!(Mark::parse("begin r1"), None);
    }

    #[test]
    fn the_checksum_is_that_of_cksum() {
        // printf 123456789 | cksum; cksum < /dev/null
        assert_eq!(checksum(b"123456789"), 930_766_865);
        assert_eq!(checksum(b""), 4_294_967_295);
    }
}
