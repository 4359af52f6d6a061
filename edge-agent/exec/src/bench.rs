//! A worker's directories: one for each attempt, made just before its program is executed.
//!
//! Making and removing a directory costs a sixth of starting a small process, renaming one a
//! fraction of that. So settled directories that are as new are used again, for attempts that need
//! nothing laid into them: an empty directory is tagged by an odd time of modification, which
//! whatever is made or removed in it sets to the present (a task that puts it back on purpose fools
//! only tasks of its own user, whose directories it could write to anyway). Each worker has a
//! parent directory of its own: two workers in one would wait for each other.

use crate::attempt::{Debris, Node, Trouble};
use crate::creds::Home;
use crate::environ::below;
use crate::files::{open_dir, open_node_file, open_regular};
use crate::model::{InputFile, Launch};
use crate::procs::{LastPid, Orphans};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, mkdirat,
    renameat, statat, utimensat,
};
use rustix::pipe::{PipeFlags, pipe_with};
use shared::explain::Reason;
use shared::ids::Hash;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Settled directories kept for use.
const SPARE: usize = 32;
/// Bytes read from a process at once: what a pipe holds.
const BUFFER: usize = 64 * 1024;

/// A pipe, its reading end first.
type Pipe = (OwnedFd, OwnedFd);

/// What a worker keeps from one attempt to the next.
#[derive(Debug)]
pub(crate) struct Bench {
    dir: PathBuf,
    /// The same, open.
    fd: OwnedFd,
    spare: Vec<String>,
    /// Seconds that an empty directory's time of modification is set to: not zero or one, which
    /// archives set, and in the past.
    tag: i64,
    /// Pipes for the next attempt's output and errors, if they are made already.
    pipes: Option<[Pipe; 2]>,
    /// What is left of the attempt before.
    pub(crate) debris: Option<Debris>,
    /// What the worker's thread is when it is not somebody else.
    pub(crate) home: Home,
    pub(crate) null: File,
    pub(crate) buffer: Vec<u8>,
    pub(crate) orphans: Orphans,
    pub(crate) last: LastPid,
}

/// Where an attempt works.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Where its program starts.
    pub(crate) cwd: PathBuf,
    /// What it reads from.
    pub(crate) stdin: Option<File>,
}

impl Bench {
    /// The bench of worker `number`, which is the calling thread.
    pub(crate) fn new(node: &Node, number: usize) -> io::Result<Self> {
        let dir = node.work.join(number.to_string());
        make_parent(&dir, node.identity.owner().is_some())?;
        let fd = open_dir(&dir)?;
        let null = File::open("/dev/null")?;
        let buffer = vec![0; BUFFER];
        let mut drawn = [0; 4];
        rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self {
            dir,
            fd,
            spare: Vec::new(),
            tag: 1000 + i64::from(u32::from_ne_bytes(drawn) >> 2),
            pipes: None,
            debris: None,
            home: Home::of_this_thread(node.identity)?,
            null,
            buffer,
            orphans: Orphans::adopt(node.options.list_orphans),
            last: LastPid::open(),
        })
    }

    /// Clears up after the attempt before and makes what the next one needs whatever it is, while
    /// nobody waits for this worker.
    pub(crate) fn prepare(&mut self) {
        self.debris = None;
        if self.pipes.is_none() {
            // what fails here fails again when it is needed, and is told then
            self.pipes = make_pipes().ok();
        }
    }

    /// Pipes for an attempt's output and errors.
    pub(crate) fn pipes(&mut self) -> rustix::io::Result<[Pipe; 2]> {
        self.pipes.take().map_or_else(make_pipes, Ok)
    }

    /// The directory of the attempt called `name`, made or not.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Directories of settled attempts: they may go.
    pub(crate) fn settled(&mut self, names: Vec<String>) {
        self.spare.extend(names);
    }

    /// Whether [`Bench::tidy`] would remove anything.
    pub(crate) fn untidy(&self) -> bool {
        !self.spare.is_empty()
    }

    /// Removes settled directories beyond `keep`.
    pub(crate) fn tidy(&mut self, keep: usize) {
        while self.spare.len() > keep {
            if let Some(name) = self.spare.pop() {
                remove(&self.dir.join(name));
            }
        }
    }

    /// Makes the directory of an attempt, called `name`, with its inputs and nothing else.
    pub(crate) fn place(
        &mut self,
        node: &Node,
        launch: &Launch,
        name: &str,
    ) -> Result<Place, Trouble> {
        self.tidy(SPARE);
        let dir = self.dir.join(name);
        let task = &launch.task;
        let empty = launch.inputs.is_empty() && task.workdir.is_empty() && task.stdin.is_none();
        if empty && self.reuse(node, name) {
            return Ok(Place {
                cwd: dir.clone(),
                dir,
                stdin: None,
            });
        }
        mkdirat(&self.fd, name, Mode::RWXU)
            .map_err(|e| Trouble::io("cannot make the attempt's directory", e.into()))?;
        let laid = lay(node, launch, &dir);
        if laid.is_err() {
            // nothing began, and the missing directory must say so
            remove(&dir);
        } else if empty {
            // without its tag it is not used again, that is all
            let _ = utimensat(&self.fd, name, &self.tagged(), AtFlags::SYMLINK_NOFOLLOW);
        }
        laid
    }

    /// Turns a settled directory into that called `name` if it is empty and was not changed.
    fn reuse(&mut self, node: &Node, name: &str) -> bool {
        while let Some(old) = self.spare.pop() {
            if self.is_as_new(node, &old) && renameat(&self.fd, &old, &self.fd, name).is_ok() {
                return true;
            }
            remove(&self.dir.join(old));
        }
        false
    }

    fn is_as_new(&self, node: &Node, name: &str) -> bool {
        let Ok(stat) = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return false;
        };
        let owner = node.identity.owner();
        let owned = owner.is_none_or(|(uid, _)| uid.as_raw() == stat.st_uid);
        stat.st_mode & 0o7777 == 0o700 && owned && stat.st_mtime == self.tag
    }

    fn tagged(&self) -> Timestamps {
        let unchanged = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        Timestamps {
            last_access: unchanged,
            last_modification: Timespec {
                tv_sec: self.tag,
                tv_nsec: 0,
            },
        }
    }
}

fn make_pipes() -> rustix::io::Result<[Pipe; 2]> {
    Ok([
        pipe_with(PipeFlags::CLOEXEC)?,
        pipe_with(PipeFlags::CLOEXEC)?,
    ])
}

/// Makes a directory that holds those of attempts: not readable for tasks, but passable.
pub(crate) fn make_parent(dir: &Path, passable: bool) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mode = if passable { 0o711 } else { 0o700 };
    fchmod(open_dir(dir)?, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// Removes an attempt's directory with what is in it; never follows a link.
pub(crate) fn remove(dir: &Path) {
    let removed = fs::remove_dir(dir).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => fs::remove_dir_all(dir),
    });
    if let Err(error) = removed {
        tracing::warn!(%error, dir = %dir.display(), "an attempt's directory stays");
    }
}

/// Fills a fresh directory. It belongs to the agent until all is laid, so no task can reach into it
/// before; only then it is handed to the user that the task runs as.
fn lay(node: &Node, launch: &Launch, dir: &Path) -> Result<Place, Trouble> {
    let mut dirs = BTreeSet::new();
    let mut make = |path: &Path| {
        dirs.extend(
            path.ancestors()
                .filter(|p| !p.as_os_str().is_empty())
                .map(|p| dir.join(p)),
        );
        fs::create_dir_all(dir.join(path))
    };
    for (path, from) in &launch.inputs {
        let to = below(path).ok_or_else(|| leaves("input", path))?;
        make(to.parent().unwrap_or_else(|| Path::new("")))
            .map_err(|e| Trouble::io("cannot make the directory of an input", e))?;
        match from {
            InputFile::Stored(hash) => lay_stored(node, hash, &dir.join(to))?,
            InputFile::NodeFile(path) => lay_node_file(node, path, &dir.join(to))?,
        }
    }
    let task = &launch.task;
    let mut cwd = dir.to_owned();
    if !task.workdir.is_empty() && task.workdir != "." {
        let path = below(&task.workdir).ok_or_else(|| leaves("workdir", &task.workdir))?;
        make(path).map_err(|e| Trouble::io("cannot make the task's workdir", e))?;
        cwd.push(path);
    }
    let stdin = task
        .stdin
        .as_deref()
        .map(|path| open_stdin(dir, path))
        .transpose()?;
    if let Some((uid, gid)) = node.identity.owner() {
        let own = |path: &Path| hand_over(path, uid, gid);
        dirs.iter()
            .try_for_each(|path| own(path))
            .and_then(|()| own(dir))
            .map_err(|e| {
                Trouble::io(
                    "cannot give the attempt's directory to the user of tasks",
                    e,
                )
            })?;
    }
    Ok(Place {
        dir: dir.to_owned(),
        cwd,
        stdin,
    })
}

fn hand_over(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(chownat(CWD, path, Some(uid), Some(gid), flags)?)
}

fn leaves(what: &str, path: &str) -> Trouble {
    let path = path.escape_default();
    Trouble::new(
        Reason::CannotStart,
        format!("{what} path '{path}' leaves the attempt's directory"),
    )
}

fn open_stdin(dir: &Path, path: &str) -> Result<File, Trouble> {
    let below = below(path).ok_or_else(|| leaves("stdin", path))?;
    open_dir(dir)
        .and_then(|dir| open_regular(dir, below))
        .map_err(|e| {
            let text = format!(
                "stdin '{}' is not among the inputs: {e}",
                path.escape_default()
            );
            Trouble::new(Reason::InputMissing, text)
        })
}

/// A link is enough where the task's user can neither change the file nor its mode.
fn lay_stored(node: &Node, hash: &Hash, to: &Path) -> Result<(), Trouble> {
    let from = contents::place(&node.options.data.join("files"), *hash);
    if node.identity.owner().is_some() && fs::hard_link(&from, to).is_ok() {
        return Ok(());
    }
    let file = File::open(&from).map_err(|e| {
        Trouble::new(
            Reason::InputMissing,
            format!("input {hash} is not in the content store: {e}"),
        )
    })?;
    copy(file, to)
}

fn lay_node_file(node: &Node, path: &str, to: &Path) -> Result<(), Trouble> {
    let file = open_node_file(path, &node.options.read_roots)
        .map_err(|text| Trouble::new(Reason::InputMissing, text))?;
    copy(file, to)
}

fn copy(mut from: File, to: &Path) -> Result<(), Trouble> {
    let copied = File::create_new(to).and_then(|mut file| {
        // shares blocks where the file system can
        io::copy(&mut from, &mut file)?;
        Ok(fchmod(&file, Mode::from_raw_mode(0o444))?)
    });
    copied.map_err(|e| Trouble::io("cannot lay down an input", e))
}
