//! A disk with a volatile cache beneath redb (layer 2).
//!
//! Writes go to the cache and are remembered; a sync makes them durable. A power cut leaves what is
//! durable plus a random part of what was not, torn at a granularity and in any order. A failed
//! sync drops the dirty pages while the cache goes on showing them, as Linux does.

use crate::rng::Rng;
use edge_store::{RESERVE, Reserve};
use redb::StorageBackend;
use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What a disk reads and writes as one.
const SECTOR: u64 = 512;
/// What a file system gives to a file as one.
const BLOCK: usize = 4096;
/// Blocks of a reserve.
const RESERVED: usize = RESERVE as usize / BLOCK;
/// The byte of redb's header that says which of its two roots counts, and which no checksum covers:
/// another root is an older store, which is an accident of its own (`What::PutBack`).
const WHICH_ROOT: u64 = 9;

#[derive(Debug, Clone)]
enum Op {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Debug, Default)]
struct State {
    /// What a power cut surely leaves.
    durable: Vec<u8>,
    /// What the machine sees.
    live: Vec<u8>,
    /// Not synced yet, in order.
    dirty: Vec<Op>,
    /// Which blocks of what the machine sees take room: a file is as long as its user said, and
    /// takes what was written of it.
    used: Vec<bool>,
    /// Blocks of the reserve beside the file.
    reserve: usize,
    /// How many of them a power cut surely leaves.
    lasting_reserve: usize,
    /// No more blocks than that.
    quota: Option<usize>,
    /// How it is full.
    full: Full,
    /// The reserve held its room when it became full.
    full_with_reserve: bool,
    /// Blocks written since the last sync, where writing takes new ones.
    fresh: BTreeSet<usize>,
    /// Blocks that they replace, which are free with the next sync.
    replaced: usize,
    /// So many more operations that change something succeed, then the machine is gone.
    fuse: Option<u64>,
    /// The next sync fails.
    sync_fails: bool,
    /// A sync says that it was done and was not, so often of a thousand (negative control).
    lies_milli: u64,
    lie_rng: Option<Rng>,
    happened: Happened,
}

/// How a disk is full.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Whoever writes a block again takes a new one, until the next sync: the file system copies on
    /// write.
    pub copies: bool,
    /// Others take what is given back.
    pub others: bool,
}

/// What the disk did to its user.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    /// Bytes written.
    pub written: u64,
    /// Syncs done.
    pub syncs: u64,
    /// Syncs that failed and were not counted yet.
    pub failed_syncs: u64,
    /// Writes or growths refused for want of room and not counted yet.
    pub refused: u64,
    /// Reserves given back and not counted yet.
    pub given_back: u64,
    /// Syncs that lied.
    pub lies: u64,
}

/// What a power cut did to the writes that were not synced.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Writes of which everything survived.
    pub kept: u64,
    /// Writes of which nothing survived.
    pub lost: u64,
    /// Writes of which a part survived.
    pub torn: u64,
}

/// A disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// A disk that holds `image`.
    #[must_use]
    pub fn of(image: Vec<u8>) -> Self {
        let disk = Self::default();
        {
            let mut state = disk.lock();
            state.live.clone_from(&image);
            state.used = used_blocks(&image);
            state.durable = image;
        }
        disk
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the machine sees.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.lock().live.clone()
    }

    /// Length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.lock().live.len() as u64
    }

    /// Bytes that the file takes.
    #[must_use]
    pub fn used(&self) -> u64 {
        (self.lock().file_blocks() * BLOCK) as u64
    }

    /// What it did to its user so far.
    #[must_use]
    pub fn happened(&self) -> Happened {
        self.lock().happened
    }

    /// Syncs that failed since this was asked last.
    pub fn take_failed_syncs(&self) -> u64 {
        std::mem::take(&mut self.lock().happened.failed_syncs)
    }

    /// Writes or growths that were refused for want of room since this was asked last.
    pub fn take_refused(&self) -> u64 {
        std::mem::take(&mut self.lock().happened.refused)
    }

    /// Reserves that were given back since this was asked last.
    pub fn take_given_back(&self) -> u64 {
        std::mem::take(&mut self.lock().happened.given_back)
    }

    /// It takes no more than `quota` bytes from now on, those of the reserve among them.
    pub fn set_quota(&self, quota: Option<u64>) {
        let mut state = self.lock();
        state.quota = quota.map(|bytes| bytes as usize / BLOCK);
        state.full = Full::default();
        state.forget_fresh();
    }

    /// From now on there is no room but what it takes already.
    pub fn fill_up(&self, full: Full) {
        let mut state = self.lock();
        state.quota = Some(state.blocks());
        state.full = full;
        state.full_with_reserve = state.reserve == RESERVED;
        state.forget_fresh();
    }

    /// Whether there is an end to what it takes.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.lock().quota.is_some()
    }

    /// Whether it is full, and what its reserve held then is left to its user.
    #[must_use]
    pub fn is_spared(&self) -> bool {
        let state = self.lock();
        state.quota.is_some() && state.full_with_reserve && !state.full.others
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self) {
        self.lock().sync_fails = true;
    }

    /// After `ops` more changes everything fails: the machine dies in the middle of a commit.
    pub fn burn_after(&self, ops: u64) {
        self.lock().fuse = Some(ops);
    }

    /// Lets so many syncs of a thousand lie.
    pub fn lie(&self, milli: u64, rng: Rng) {
        let mut state = self.lock();
        state.lies_milli = milli;
        state.lie_rng = Some(rng);
    }

    /// The file is removed: another one begins empty in its place. The reserve beside it stays.
    pub fn remove_file(&self) {
        let mut state = self.lock();
        state.durable.clear();
        state.live.clear();
        state.dirty.clear();
        state.used.clear();
        state.forget_fresh();
    }

    /// The process ended, the machine did not: all writes so far are there, and faults are over.
    pub fn survive_kill(&self) {
        let mut state = self.lock();
        state.fuse = None;
        state.sync_fails = false;
    }

    /// What lies there changes while nobody uses it: a few bits anywhere, or half of the bits of a
    /// sector. The header is hit more often than its size would have it.
    pub fn rot(&self, rng: &mut Rng) {
        let mut state = self.lock();
        let size = state.durable.len() as u64;
        if size == 0 {
            return;
        }
        let first = if rng.chance(150) {
            SECTOR.min(size)
        } else {
            size
        };
        let whole_sector = rng.chance(300);
        let sector = rng.below(first) / SECTOR * SECTOR;
        let bits = if whole_sector {
            SECTOR * 4
        } else {
            1 + rng.below(4)
        };
        for _ in 0..bits {
            let at = match whole_sector {
                true => (sector + rng.below(SECTOR)).min(size - 1),
                false => rng.below(first),
            };
            if at != WHICH_ROOT {
                state.durable[at as usize] ^= 1 << rng.below(8);
            }
        }
        let durable = state.durable.clone();
        state.used = used_blocks(&durable);
        state.live = durable;
        state.forget_fresh();
    }

    /// The machine lost its power: rebuilds what is left.
    pub fn cut_power(&self, rng: &mut Rng) -> Damage {
        let mut state = self.lock();
        let dirty = std::mem::take(&mut state.dirty);
        let mut image = std::mem::take(&mut state.durable);
        let damage = crash(&mut image, &dirty, rng);
        state.live.clone_from(&image);
        state.used = used_blocks(&image);
        state.durable = image;
        state.reserve = state.lasting_reserve;
        state.forget_fresh();
        state.fuse = None;
        state.sync_fails = false;
        damage
    }
}

/// Lays a random part of `dirty` over `image`.
fn crash(image: &mut Vec<u8>, dirty: &[Op], rng: &mut Rng) -> Damage {
    let grain = [4096, 512, 1][rng.below(3) as usize];
    let keep = [500, 100, 900, 0, 1000][rng.below(5) as usize];
    let spare_one = rng.chance(300);
    let mut order: Vec<usize> = (0..dirty.len()).collect();
    if rng.chance(500) {
        rng.shuffle(&mut order);
    }
    let victim = rng.below(dirty.len() as u64) as usize;
    let mut len = image.len();
    let mut damage = Damage::default();
    for position in order {
        let keep = match (spare_one, position == victim) {
            (true, true) => 0,
            (true, false) => 1000,
            (false, _) => keep,
        };
        match &dirty[position] {
            Op::Len(to) => {
                if rng.chance(keep) {
                    len = *to;
                }
            }
            Op::Write(at, bytes) => tear(image, *at, bytes, (grain, keep), rng, &mut damage),
        }
    }
    image.resize(len, 0);
    damage
}

/// Writes each aligned grain of `bytes` with a chance of `keep` of a thousand.
fn tear(
    image: &mut Vec<u8>,
    at: usize,
    bytes: &[u8],
    (grain, keep): (usize, u64),
    rng: &mut Rng,
    damage: &mut Damage,
) {
    let end = at + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    let (mut kept, mut lost) = (0_u64, 0_u64);
    let mut from = at;
    while from < end {
        // bytes one by one would take too long: a run of them shares one throw
        let step = if grain == 1 { 64 } else { grain };
        let mut to = ((from / step + 1) * step).min(end);
        if grain == 1 {
            to = (from + 1 + rng.below(step as u64) as usize).min(end);
        }
        if rng.chance(keep) {
            image[from..to].copy_from_slice(&bytes[from - at..to - at]);
            kept += 1;
        } else {
            lost += 1;
        }
        from = to;
    }
    match (kept, lost) {
        (_, 0) => damage.kept += 1,
        (0, _) => damage.lost += 1,
        _ => damage.torn += 1,
    }
}

/// Blocks of a file in which anything was written, as far as that can be seen.
fn used_blocks(image: &[u8]) -> Vec<bool> {
    let blocks = image.chunks(BLOCK);
    blocks
        .map(|block| block.iter().any(|byte| *byte != 0))
        .collect()
}

impl State {
    /// Blocks that the file takes.
    fn file_blocks(&self) -> usize {
        self.used.iter().filter(|used| **used).count()
    }

    /// Blocks that are taken.
    fn blocks(&self) -> usize {
        self.file_blocks() + self.replaced + self.reserve
    }

    fn has_room(&self, blocks: usize) -> bool {
        self.quota
            .is_none_or(|quota| self.blocks() + blocks <= quota)
    }

    fn forget_fresh(&mut self) {
        self.fresh.clear();
        self.replaced = 0;
    }

    /// Takes the blocks of these bytes, if there is room for them.
    fn take(&mut self, from: usize, to: usize) -> Result<()> {
        let range = from / BLOCK..to.div_ceil(BLOCK);
        let copies = self.full.copies;
        let is_new = |n: &usize| !self.used[*n] || copies && !self.fresh.contains(n);
        let new = range.clone().filter(is_new).count();
        if new > 0 && !self.has_room(new) {
            self.happened.refused += 1;
            return Err(Error::from_raw_os_error(ENOSPC));
        }
        if copies {
            for n in range.clone() {
                self.replaced += usize::from(self.fresh.insert(n) && self.used[n]);
            }
        }
        self.used[range].fill(true);
        Ok(())
    }

    fn burn(&mut self) -> Result<()> {
        match &mut self.fuse {
            Some(0) => Err(Error::from_raw_os_error(EIO)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl StorageBackend for SimDisk {
    fn len(&self) -> Result<u64> {
        Ok(self.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let state = self.lock();
        let from = offset as usize;
        let found = state
            .live
            .get(from..from + out.len())
            .ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.lock();
        state.burn()?;
        let len = len as usize;
        state.live.resize(len, 0);
        state.used.resize(len.div_ceil(BLOCK), false);
        state.dirty.push(Op::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut state = self.lock();
        state.burn()?;
        if std::mem::take(&mut state.sync_fails) {
            state.happened.failed_syncs += 1;
            state.dirty.clear();
            state.forget_fresh();
            return Err(Error::from_raw_os_error(EIO));
        }
        let lies = state.lies_milli;
        if lies > 0 && state.lie_rng.as_mut().is_some_and(|rng| rng.chance(lies)) {
            state.happened.lies += 1;
            return Ok(());
        }
        state.happened.syncs += 1;
        // What was given back stays so: blocks are not written anew before that is durable.
        state.lasting_reserve = state.reserve;
        state.forget_fresh();
        let dirty = std::mem::take(&mut state.dirty);
        apply(&mut state.durable, &dirty);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.lock();
        state.burn()?;
        let from = offset as usize;
        let to = from + data.len();
        if to > state.live.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        state.take(from, to)?;
        state.live[from..to].copy_from_slice(data);
        state.happened.written += data.len() as u64;
        state.dirty.push(Op::Write(from, data.to_vec()));
        Ok(())
    }
}

impl Reserve for SimDisk {
    fn is_held(&self) -> bool {
        self.lock().reserve == RESERVED
    }

    fn take(&self) {
        let mut state = self.lock();
        let missing = RESERVED - state.reserve;
        if state.burn().is_ok() {
            match state.has_room(missing) {
                true => (state.reserve, state.lasting_reserve) = (RESERVED, RESERVED),
                false => state.reserve = 0,
            }
        }
    }

    fn give_back(&self) -> bool {
        let mut state = self.lock();
        if state.reserve == 0 || state.burn().is_err() {
            return false;
        }
        state.reserve = 0;
        state.happened.given_back += 1;
        if state.full.others {
            state.quota = Some(state.blocks());
        }
        true
    }
}

fn apply(image: &mut Vec<u8>, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Len(len) => image.resize(*len, 0),
            Op::Write(at, bytes) => {
                let end = at + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*at..end].copy_from_slice(bytes);
            }
        }
    }
}

/// Ids of attempts whose directories a power cut left behind: a directory that was not synced may
/// be gone.
#[must_use]
pub fn surviving<T: Ord + Copy>(all: &BTreeSet<T>, rng: &mut Rng) -> BTreeSet<T> {
    let keep = [0, 500, 1000][rng.below(3) as usize];
    all.iter().copied().filter(|_| rng.chance(keep)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::{Builder, Database, ReadableDatabase, TableDefinition};

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");

    fn open(disk: &SimDisk) -> Option<Database> {
        Builder::new()
            .set_cache_size(256 * 1024)
            .create_with_backend(disk.clone())
            .ok()
    }

    fn put(db: &Database, n: u64) -> bool {
        let put = || -> std::result::Result<(), redb::Error> {
            let mut write = db.begin_write()?;
            write.set_quick_repair(true);
            write.open_table(TABLE)?.insert(n, n)?;
            write.commit()?;
            Ok(())
        };
        put().is_ok()
    }

    fn last(db: &Database) -> Option<u64> {
        use redb::ReadableTable;
        let read = db.begin_read().ok()?;
        let table = read.open_table(TABLE).ok()?;
        table.last().ok()?.map(|(key, _)| key.value())
    }

    /// Commits until the power goes in the middle of a commit; returns whether the last
    /// acknowledged one is there afterwards.
    fn survives(seed: u64, lies: u64) -> bool {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::default();
        let db = open(&disk).expect("a new disk works");
        assert!(put(&db, 0), "a new disk works");
        disk.lie(lies, Rng::new(seed + 1));
        disk.burn_after(rng.range(1, 120));
        let acknowledged = (1..).take_while(|n| put(&db, *n)).last().unwrap_or(0);
        std::mem::forget(db);
        disk.cut_power(&mut rng);
        disk.lie(0, Rng::new(0));
        let found = std::panic::catch_unwind(|| open(&disk).as_ref().and_then(last));
        found.is_ok_and(|found| found.is_some_and(|found| found >= acknowledged))
    }

    #[test]
    fn an_honest_disk_keeps_what_was_synced() {
        for seed in 0..60 {
            assert!(survives(seed, 0), "seed {seed}");
        }
    }

    #[test]
    fn a_lying_disk_is_noticed() {
        let noticed = (0..60).filter(|seed| !survives(*seed, 300)).count();
        assert!(noticed > 5, "only {noticed} of 60");
    }

    #[test]
    fn a_failed_sync_drops_what_was_dirty_and_a_full_disk_says_so() {
        let disk = SimDisk::of(vec![0; 8]);
        disk.write(0, b"abc").unwrap();
        disk.fail_next_sync();
        assert!(disk.sync_data().is_err());
        assert!(disk.sync_data().is_ok());
        assert_eq!(&disk.image()[..3], b"abc");
        disk.cut_power(&mut Rng::new(1));
        assert_eq!(disk.image(), vec![0; 8]);
        disk.set_len(3 * BLOCK as u64).unwrap();
        disk.set_quota(Some(BLOCK as u64));
        disk.write(0, b"abc").unwrap();
        let refused = disk.write(2 * BLOCK as u64 - 1, b"abc").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(ENOSPC));
        assert_eq!((disk.happened().refused, disk.used()), (1, BLOCK as u64));
    }

    #[test]
    fn a_reserve_has_room_for_what_is_written_when_the_disk_is_full() {
        let disk = SimDisk::of(vec![7; 3 * BLOCK]);
        disk.take();
        let copies = Full {
            copies: true,
            ..Full::default()
        };
        disk.fill_up(copies);
        assert!(disk.is_held() && disk.is_spared());
        assert!(disk.write(0, b"abc").is_err(), "it takes a new block");
        assert!(disk.give_back() && !disk.give_back());
        disk.write(0, b"abc").unwrap();
        disk.take();
        assert!(!disk.is_held(), "a block of its room is in use");
        disk.cut_power(&mut Rng::new(1));
        assert!(disk.is_held(), "that it was given back was not durable");
        assert!(disk.give_back());
        disk.write(0, b"abc").unwrap();
        disk.sync_data().unwrap();
        disk.cut_power(&mut Rng::new(1));
        assert!(!disk.is_held());
        disk.set_quota(None);
        disk.take();
        let others = Full {
            others: true,
            ..copies
        };
        disk.fill_up(others);
        assert!(disk.give_back() && !disk.is_spared());
        assert!(disk.write(0, b"abc").is_err(), "others took it");
        assert_eq!(disk.take_given_back(), 3);
    }
}
