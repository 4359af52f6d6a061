//! Watches a target from beside it: the input under way lies in a file, so that it is known even
//! when the process dies of it, and one that never ends, or asks for more memory than there is,
//! ends the process.

use crate::alloc::is_refused;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// An input that takes longer than this never ends.
pub(crate) const HANG: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Exit code of a process whose input broke a promise: none of those of an error.
pub(crate) const FAILED: u8 = 70;
/// Exit code of a process whose input did not end.
pub(crate) const HUNG: i32 = 71;
/// Exit code of a process whose input asked for too much memory.
pub(crate) const GREEDY: i32 = 72;

/// The input under way.
#[derive(Debug)]
pub(crate) struct Watch {
    file: File,
    /// Counts beginnings and ends: odd while an input is under way.
    turn: Arc<AtomicU64>,
}

impl Watch {
    /// Watches the inputs of this process, with the one under way in `path`; one that takes longer
    /// than `hang` never ends.
    pub(crate) fn start(path: &Path, hang: Duration) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        let turn = Arc::new(AtomicU64::new(0));
        let seen = turn.clone();
        std::thread::spawn(move || watch(&seen, hang));
        Ok(Self { file, turn })
    }

    /// This input is given now.
    pub(crate) fn begin(&self, input: &[u8]) {
        let mut framed = Vec::with_capacity(8 + input.len());
        framed.extend_from_slice(&(input.len() as u64).to_le_bytes());
        framed.extend_from_slice(input);
        // Without it the input of a process that dies is not known; nothing else depends on it.
        let _ = self.file.write_all_at(&framed, 0);
        self.turn.fetch_add(1, Relaxed);
    }

    /// It is over.
    pub(crate) fn end(&self) {
        self.turn.fetch_add(1, Relaxed);
    }
}

fn watch(turn: &AtomicU64, hang: Duration) {
    let (mut last, mut stands) = (0, Duration::ZERO);
    loop {
        std::thread::sleep(LOOK);
        if is_refused() {
            std::process::exit(GREEDY);
        }
        let now = turn.load(Relaxed);
        if now == last && now % 2 == 1 {
            stands += LOOK;
        } else {
            (last, stands) = (now, Duration::ZERO);
        }
        if stands > hang {
            std::process::exit(HUNG);
        }
    }
}

/// The input that was under way when the process with this file died.
pub(crate) fn under_way(path: &Path) -> Option<Vec<u8>> {
    let framed = fs::read(path).ok()?;
    let (length, rest) = framed.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.get(..length).map(<[u8]>::to_vec)
}
