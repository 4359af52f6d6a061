//! A file as a storage backend that never writes to it: what is written is kept in memory.

use redb::StorageBackend;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are kept together.
const BLOCK: u64 = 4096;

/// A file with what was written over it. Opening a store that was not closed in order writes some
/// of its pages; that is all that lies in memory.
#[derive(Debug)]
pub struct Overlay {
    file: File,
    /// Bytes of the file itself.
    size: u64,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// How much of the file still shows through.
    shown: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// What the file system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let written = Mutex::new(Written {
            len: size,
            shown: size,
            blocks: BTreeMap::new(),
        });
        Ok(Self {
            file,
            size,
            written,
        })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it is now.
    fn block(&self, written: &Written, number: u64) -> io::Result<Box<[u8]>> {
        if let Some(block) = written.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK as usize].into_boxed_slice();
        let at = number * BLOCK;
        let there = written.shown.saturating_sub(at).min(BLOCK) as usize;
        self.file.read_exact_at(&mut block[..there], at)?;
        Ok(block)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.saturating_add(out.len() as u64) > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let block = self.block(&written, at / BLOCK)?;
            let from = (at % BLOCK) as usize;
            let count = (block.len() - from).min(out.len() - done);
            out[done..done + count].copy_from_slice(&block[from..from + count]);
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        // What is cut off must not show through when it grows again.
        written.shown = written.shown.min(len);
        written.blocks.split_off(&len.div_ceil(BLOCK));
        if !len.is_multiple_of(BLOCK)
            && let Some(block) = written.blocks.get_mut(&(len / BLOCK))
        {
            block[(len % BLOCK) as usize..].fill(0);
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let number = at / BLOCK;
            let mut block = self.block(&written, number)?;
            let from = (at % BLOCK) as usize;
            let count = (block.len() - from).min(data.len() - done);
            block[from..from + count].copy_from_slice(&data[done..done + count]);
            written.blocks.insert(number, block);
            done += count;
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }
}
