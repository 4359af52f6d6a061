//! The safe ways in and out of an attempt's directory, and from there into the content store.

use contents::Dir;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use shared::fact::OutputFile;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Takes an output into the store; its name is durable after a sync of the store.
pub(crate) fn take(files: &Dir, from: &mut File) -> io::Result<OutputFile> {
    let (hash, size) = files.add(from)?;
    Ok(OutputFile { hash, size })
}

/// Opens `path` below `dir`, never through a symbolic link and never out of `dir`.
pub(crate) fn open_below(dir: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(&dir, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => walk(dir, path, flags),
        other => Ok(other?),
    }
}

/// The same on kernels (or in containers) without `openat2`: one component at a time.
fn walk(dir: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let step = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let mut parts = path
        .components()
        .filter(|c| *c != Component::CurDir)
        .peekable();
    let mut at = openat(dir, ".", step, Mode::empty())?;
    while let Some(Component::Normal(part)) = parts.next() {
        if parts.peek().is_none() {
            return Ok(openat(&at, part, flags, Mode::empty())?);
        }
        at = openat(&at, part, step, Mode::empty())?;
    }
    Err(io::Error::from(io::ErrorKind::InvalidInput))
}

/// Opens a directory by an absolute path.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Opens the regular file `path` below `dir` for reading; waits for nothing (a pipe, a device).
pub(crate) fn open_regular(dir: impl AsFd, path: &Path) -> io::Result<File> {
    let file = File::from(open_below(dir, path, OFlags::RDONLY | OFlags::NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Opens a file of the node that is allowed as an input: a regular one below one of `roots`.
pub(crate) fn open_node_file(path: &str, roots: &[PathBuf]) -> Result<File, String> {
    let shown = path.escape_default();
    let real = fs::canonicalize(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    for root in roots {
        let Ok(root) = fs::canonicalize(root) else {
            continue;
        };
        if let Ok(rest) = real.strip_prefix(&root)
            && !rest.as_os_str().is_empty()
        {
            let opened = open_dir(&root).and_then(|dir| open_regular(dir, rest));
            return opened.map_err(|e| format!("cannot read {shown}: {e}"));
        }
    }
    Err(format!(
        "this node does not allow {shown} as an input; its read roots must name a directory above it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_opening_refuse_links_and_escapes() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("d");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(data.path().join("secret"), "s").unwrap();
        fs::write(dir.join("sub/plain"), "p").unwrap();
        std::os::unix::fs::symlink("../secret", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("..", dir.join("up")).unwrap();
        let fd = open_dir(&dir).unwrap();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        assert!(open_below(&fd, Path::new("sub/plain"), OFlags::RDONLY).is_ok());
        assert!(walk(&fd, Path::new("sub/plain"), flags).is_ok());
        for bad in ["link", "up/secret", "../secret", "sub/none"] {
            assert!(
                open_below(&fd, Path::new(bad), OFlags::RDONLY).is_err(),
                "{bad}"
            );
            assert!(walk(&fd, Path::new(bad), flags).is_err(), "{bad}");
        }
    }
}
