//! First starts and new incarnations: how an identity and its store come into being together.
//!
//! | step | what is durable behind it |
//! | --- | --- |
//! | 1 | `identity.next`: who it is going to be |
//! | 2 | `store.new`: its store, whole and empty |
//! | 3 | where an incarnation ends: its store below `old/` |
//! | 4 | `store.redb` |
//! | 5 | `identity.json`; `identity.next` is gone |
//!
//! A start that finds `identity.next` goes on behind the last step that was reached.
//!
//! Invariant: a store is made as `store.new` only, so `store.redb` is never an unfinished one: one
//! that is missing, cut or another's is damage, with `identity.next` beside it or without. One that
//! was cut to nothing ends its incarnation like a fork does.

use crate::data::{self, DataDir, DataError, Identity};
use edge_core::store::{Store, StoreError};
use edge_store::Identity as StoreIdentity;
use shared::ids::Incarnation;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Why an identity and its store could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The file system.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The store.
    #[error("the store cannot be made: {0}")]
    Store(#[from] StoreError),
}

impl BeginError {
    /// Whether it may be for want of room. A store does not say.
    fn wants_room(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::Store(error) => matches!(error, StoreError::Failed(_) | StoreError::Full(_)),
            Self::Data(_) => false,
        }
    }
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> BeginError {
    move |source| BeginError::Io { doing, source }
}

/// Makes store and identity of `next`: of a new node, or of an incarnation that succeeds the one
/// that is there.
///
/// # Errors
/// [`BeginError`]; the next start goes on.
pub fn begin(data: &DataDir, next: &Identity) -> Result<(), BeginError> {
    Birth { data, next }.go_on(0)
}

/// Goes on with what an earlier start began and did not end.
///
/// # Errors
/// [`BeginError`]; damage is named, and nothing is changed then.
pub fn resume(data: &DataDir) -> Result<(), BeginError> {
    let Some(next) = data.next_identity()? else {
        return Ok(());
    };
    let birth = Birth { data, next: &next };
    let reached = birth.reached()?;
    tracing::info!(name = %next.name, step = reached, "going on with a start that was interrupted");
    birth.go_on(reached)
}

/// Whose store it is.
#[must_use]
pub fn store_identity(identity: &Identity) -> StoreIdentity {
    StoreIdentity {
        node: identity.node(),
        incarnation: identity.incarnation(),
    }
}

/// Makes what is renamed in `dir` durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

type Step<'a> = fn(&Birth<'a>) -> Result<(), BeginError>;

struct Birth<'a> {
    data: &'a DataDir,
    next: &'a Identity,
}

impl<'a> Birth<'a> {
    const STEPS: [Step<'a>; 5] = [
        Self::announce,
        Self::make_store,
        Self::put_old_aside,
        Self::place_store,
        Self::take_the_name,
    ];

    /// Takes the steps that are left. One that finds no room is taken once more in the room that
    /// the incarnation before kept aside: its disk may be full.
    fn go_on(&self, reached: usize) -> Result<(), BeginError> {
        let take = |step: &Step<'a>| match step(self) {
            Err(error) if error.wants_room() && edge_store::give_back(&self.data.store()) => {
                step(self)
            }
            other => other,
        };
        Self::STEPS[reached..].iter().try_for_each(take)
    }

    /// How many steps are behind us; `identity.next` is there.
    fn reached(&self) -> Result<usize, BeginError> {
        let current = self.data.current_identity()?;
        let succeeds = current.as_ref().map(|current| &current.incarnation);
        let same_node = current.as_ref().is_none_or(|c| c.node == self.next.node);
        if self.next.succeeds.as_ref() != succeeds || !same_node {
            return Err(self.damaged("identity.next does not follow identity.json"));
        }
        let is_placed = self.data.store().exists();
        if self.archive().is_some_and(|old| !old.exists()) {
            return match is_placed {
                true => Ok(1),
                false => Err(self.damaged("store.redb is missing")),
            };
        }
        if is_placed {
            self.check_unused()?;
            return Ok(4);
        }
        match self.new_store().exists() {
            true if self.archive().is_some() => Ok(3),
            false if self.archive().is_some() => Err(self.damaged("store.redb is missing")),
            _ => Ok(1),
        }
    }

    fn damaged(&self, what: &str) -> BeginError {
        let dir = self.data.path().display().to_string();
        let what = format!("{what}, and a start that was interrupted does not explain it");
        DataError::Damaged { dir, what }.into()
    }

    /// A store in this place is the one that was made, or another's.
    fn check_unused(&self) -> Result<(), BeginError> {
        let unfit = |error: StoreError| self.damaged(&format!("store.redb: {error}"));
        let identity = store_identity(self.next);
        let mut store = edge_store::open_file(&self.data.store(), identity).map_err(unfit)?;
        let loaded = store.load().map_err(unfit)?;
        match loaded.facts.number + loaded.directives.number {
            0 => Ok(()),
            _ => Err(self.damaged("store.redb has a history")),
        }
    }

    fn new_store(&self) -> PathBuf {
        self.data.path().join("store.new")
    }

    /// Where the store of the incarnation goes that ends.
    fn archive(&self) -> Option<PathBuf> {
        let old: Incarnation = self.next.succeeds.as_ref()?.parse().ok()?;
        Some(self.data.path().join("old").join(format!("{old}.redb")))
    }

    fn announce(&self) -> Result<(), BeginError> {
        // The directory itself may have been made just now.
        let parent = self
            .data
            .path()
            .parent()
            .unwrap_or_else(|| self.data.path());
        sync_dir(parent)
            .and_then(|()| self.data.announce(self.next))
            .map_err(io_error("write identity.next"))
    }

    /// What an interrupted start left of it goes: it was never used.
    fn make_store(&self) -> Result<(), BeginError> {
        let path = self.new_store();
        data::remove_if_there(&path).map_err(io_error("remove store.new"))?;
        drop(edge_store::create_file(&path, store_identity(self.next))?);
        // Closing wrote, too.
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(io_error("sync store.new"))
    }

    fn put_old_aside(&self) -> Result<(), BeginError> {
        let Some(to) = self.archive() else {
            return Ok(());
        };
        let old = self.data.path().join("old");
        fs::create_dir_all(&old)
            .and_then(|()| fs::rename(self.data.store(), &to))
            .and_then(|()| sync_dir(&old))
            .and_then(|()| sync_dir(self.data.path()))
            .map_err(io_error("put the old store aside"))
    }

    fn place_store(&self) -> Result<(), BeginError> {
        fs::rename(self.new_store(), self.data.store())
            .and_then(|()| sync_dir(self.data.path()))
            .map_err(io_error("put the new store in its place"))
    }

    fn take_the_name(&self) -> Result<(), BeginError> {
        self.data
            .confirm()
            .map_err(io_error("put the identity in its place"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_core::store::Commit;
    use shared::ids::NodeId;
    use shared::log::{Direction, Head};
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::process::Command;

    fn node(incarnation: u8) -> Identity {
        let incarnation = Incarnation([incarnation; 16]);
        Identity::new(
            NodeId([1; 16]),
            "gw-7",
            incarnation,
            Vec::new(),
            BTreeMap::new(),
        )
    }

    fn successor(of: &Identity, incarnation: u8) -> Identity {
        Identity {
            succeeds: Some(of.incarnation.clone()),
            ..node(incarnation)
        }
    }

    fn open(data: &DataDir, identity: &Identity) -> edge_store::RedbStore {
        edge_store::open_file(&data.store(), store_identity(identity)).unwrap()
    }

    /// Gives the store a history of one fact.
    fn use_store(data: &DataDir, identity: &Identity) {
        let mut store = open(data, identity);
        let origin = Head::origin(identity.node(), identity.incarnation(), Direction::Up);
        let commit = Commit {
            facts: vec![vec![1]],
            facts_head: Some(origin.then(&[1])),
            ..Commit::default()
        };
        store.commit(&commit).unwrap();
    }

    /// What a power cut in the middle of a step may leave besides what the steps before made
    /// durable.
    fn leave_half(data: &DataDir, step: usize) {
        match step {
            0 => fs::write(data.path().join("identity.json.new"), "{\"for").unwrap(),
            1 => fs::write(data.path().join("store.new"), vec![0; 9000]).unwrap(),
            2 => fs::create_dir_all(data.path().join("old")).unwrap(),
            _ => {}
        }
    }

    fn starts_as(dir: &Path, identity: &Identity) {
        let data = DataDir::open(dir).unwrap();
        resume(&data).unwrap();
        assert_eq!(data.identity().unwrap().as_ref(), Some(identity));
        assert_eq!(open(&data, identity).load().unwrap().facts.number, 0);
        for name in ["identity.next", "store.new"] {
            assert!(!dir.join(name).exists(), "{name} is left");
        }
    }

    #[test]
    fn a_first_start_that_crashed_anywhere_is_nothing_or_goes_on() {
        for steps in 0..=5 {
            for half in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let data = DataDir::open(dir.path()).unwrap();
                let next = node(2);
                let birth = Birth {
                    data: &data,
                    next: &next,
                };
                for step in &Birth::STEPS[..steps] {
                    step(&birth).unwrap();
                }
                if half {
                    leave_half(&data, steps);
                }
                drop(data);
                if steps == 0 {
                    let data = DataDir::open(dir.path()).unwrap();
                    resume(&data).unwrap();
                    assert_eq!(data.identity().unwrap(), None);
                    begin(&data, &next).unwrap();
                }
                starts_as(dir.path(), &next);
            }
        }
    }

    #[test]
    fn a_new_incarnation_that_crashed_anywhere_is_nothing_or_goes_on() {
        for steps in 0..=5 {
            for half in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let data = DataDir::open(dir.path()).unwrap();
                let old = node(2);
                begin(&data, &old).unwrap();
                use_store(&data, &old);
                let next = successor(&old, 3);
                let birth = Birth {
                    data: &data,
                    next: &next,
                };
                for step in &Birth::STEPS[..steps] {
                    step(&birth).unwrap();
                }
                if half {
                    leave_half(&data, steps);
                }
                drop(data);
                if steps == 0 {
                    let data = DataDir::open(dir.path()).unwrap();
                    resume(&data).unwrap();
                    assert_eq!(data.identity().unwrap().as_ref(), Some(&old));
                    begin(&data, &next).unwrap();
                }
                starts_as(dir.path(), &next);
                let kept = dir
                    .path()
                    .join("old")
                    .join(format!("{}.redb", old.incarnation()));
                let mut kept = edge_store::open_file(&kept, store_identity(&old)).unwrap();
                assert_eq!(
                    kept.load().unwrap().facts.number,
                    1,
                    "the old journal is kept"
                );
            }
        }
    }

    /// A tmpfs of 16 MiB at a directory, unmounted at the end.
    struct Small<'a>(&'a Path);

    impl<'a> Small<'a> {
        fn mount(at: &'a Path) -> Option<Self> {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]);
            let done = mount.arg(at).status().is_ok_and(|s| s.success());
            done.then_some(Self(at))
        }
    }

    impl Drop for Small<'_> {
        fn drop(&mut self) {
            // Lazily: a failed test may hold files open.
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }

    /// Needs root, to mount; without it nothing is tested here.
    #[test]
    fn a_store_that_was_cut_to_nothing_is_made_anew_in_the_room_of_its_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let Some(_small) = Small::mount(dir.path()) else {
            return;
        };
        let data = DataDir::open(dir.path()).unwrap();
        let old = node(2);
        begin(&data, &old).unwrap();
        fs::write(data.store(), b"").unwrap();
        let mut filler = File::create(dir.path().join("filler")).unwrap();
        for size in [64 * 1024, 4096, 512] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
        let next = successor(&old, 3);
        begin(&data, &next).unwrap();
        let again = successor(&next, 4);
        drop(data);
        starts_as(dir.path(), &next);
        let data = DataDir::open(dir.path()).unwrap();
        fs::write(data.store(), b"").unwrap();
        while filler.write_all(&[1; 512]).is_ok() {}
        begin(&data, &again).unwrap_err();
    }

    /// What remains of an interrupted start explains no store that is used, empty, cut, another's
    /// or gone.
    #[test]
    fn damage_is_told_from_an_interrupted_start() {
        type Harm = fn(&DataDir, &Identity);
        let first: [(&str, Harm); 4] = [
            ("history", |data, next| use_store(data, next)),
            ("empty", |data, _| fs::write(data.store(), b"").unwrap()),
            ("store.redb", |data, _| {
                let half = fs::metadata(data.store()).unwrap().len() / 2;
                let file = File::options().write(true).open(data.store()).unwrap();
                file.set_len(half).unwrap();
            }),
            ("belongs to", |data, _| {
                fs::remove_file(data.store()).unwrap();
                let other = store_identity(&node(9));
                drop(edge_store::create_file(&data.store(), other).unwrap());
            }),
        ];
        for (says, harm) in first {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(dir.path()).unwrap();
            let next = node(2);
            let birth = Birth {
                data: &data,
                next: &next,
            };
            Birth::STEPS[..4]
                .iter()
                .for_each(|step| step(&birth).unwrap());
            harm(&data, &next);
            refuses(&data, says);
        }
        let later: [(&str, usize, Harm); 3] = [
            ("missing", 2, |data, _| {
                fs::remove_file(data.store()).unwrap()
            }),
            ("missing", 3, |data, _| {
                fs::remove_file(data.path().join("store.new")).unwrap();
            }),
            ("does not follow", 3, |data, _| {
                fs::remove_file(data.path().join("identity.json")).unwrap();
            }),
        ];
        for (says, steps, harm) in later {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(dir.path()).unwrap();
            let old = node(2);
            begin(&data, &old).unwrap();
            let next = successor(&old, 3);
            let birth = Birth {
                data: &data,
                next: &next,
            };
            Birth::STEPS[..steps]
                .iter()
                .for_each(|step| step(&birth).unwrap());
            harm(&data, &next);
            refuses(&data, says);
        }
    }

    fn refuses(data: &DataDir, says: &str) {
        for _ in 0..2 {
            let said = resume(data).unwrap_err().to_string();
            assert!(
                said.contains("is damaged") && said.contains(says),
                "{says}: {said}"
            );
            assert!(data.path().join("identity.next").exists());
        }
    }
}
