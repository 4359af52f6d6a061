//! Key files: whole or absent, readable by their owner alone, never through a symbolic link.

use rustix::fs::OFlags;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// No key or certificate file of ours is larger.
const FILE_BYTES: u64 = 64 * 1024;

/// Why a key file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The operating system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Others can read a secret.
    #[error("{} is open to others (mode {mode:03o}): a secret may have leaked; chmod 600 it", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Larger than any key.
    #[error("{} is larger than 64 KiB: not a key or certificate", .0.display())]
    TooLarge(PathBuf),
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FilesError + 'a {
    move |source| FilesError::Io {
        doing,
        path: path.to_path_buf(),
        source,
    }
}

/// Makes `dir` (and its parents) for the owner alone, if it does not exist.
pub(crate) fn make_dir(dir: &Path) -> Result<(), FilesError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("make directory", dir))
}

/// Makes `dir/name` hold `bytes`, durably: either the old content stays or the new one is there.
pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
    let aside = dir.join(format!(".{name}.new"));
    let path = dir.join(name);
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &aside)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(&aside)
        .map_err(io_error("create", &aside))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", &aside))?;
    std::fs::rename(&aside, &path).map_err(io_error("rename to", &path))?;
    sync(dir)
}

/// Gives `dir/from` the name `to`, durably and in place of what was there.
pub(crate) fn rename(dir: &Path, from: &str, to: &str) -> Result<(), FilesError> {
    let to = dir.join(to);
    std::fs::rename(dir.join(from), &to).map_err(io_error("rename to", &to))?;
    sync(dir)
}

fn sync(dir: &Path) -> Result<(), FilesError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync directory", dir))
}

/// The content of `dir/name`; none if there is no such file.
pub(crate) fn read(dir: &Path, name: &str, secret: bool) -> Result<Option<Vec<u8>>, FilesError> {
    let path = dir.join(name);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(&path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error("open", &path))?,
    };
    let meta = file.metadata().map_err(io_error("look at", &path))?;
    if !meta.is_file() {
        return Err(FilesError::NotRegular(path));
    }
    let mode = meta.mode() & 0o777;
    if secret && mode & 0o077 != 0 {
        return Err(FilesError::Exposed { path, mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", &path))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(FilesError::TooLarge(path));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn secrets_are_private_whole_and_not_reached_through_links() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("keys");
        make_dir(&dir).unwrap();
        assert!(read(&dir, "a", true).unwrap().is_none());
        std::fs::write(dir.join(".a.new"), "left by a crash").unwrap();
        write(&dir, "a", b"one").unwrap();
        write(&dir, "a", b"two").unwrap();
        assert_eq!(read(&dir, "a", true).unwrap().unwrap(), b"two");
        assert_eq!(
            std::fs::read_dir(&dir).unwrap().count(),
            1,
            "nothing is left aside"
        );
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("a"))), (0o700, 0o600));

        std::fs::set_permissions(dir.join("a"), PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(
            read(&dir, "a", true),
            Err(FilesError::Exposed { mode: 0o640, .. })
        ));
        assert!(
            read(&dir, "a", false).is_ok(),
            "a certificate may be read by all"
        );
        symlink(dir.join("a"), dir.join("b")).unwrap();
        assert!(matches!(
            read(&dir, "b", false),
            Err(FilesError::Io { doing: "open", .. })
        ));
        std::fs::create_dir(dir.join("c")).unwrap();
        assert!(matches!(
            read(&dir, "c", false),
            Err(FilesError::NotRegular(_))
        ));
        std::fs::write(dir.join("d"), vec![0; 70_000]).unwrap();
        assert!(matches!(
            read(&dir, "d", false),
            Err(FilesError::TooLarge(_))
        ));
    }
}
