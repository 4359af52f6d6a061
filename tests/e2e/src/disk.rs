//! A file system of its own, small enough to be filled.

use crate::agent::{is_root, stderr};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files that take all the room: one of large pieces, and one of single bytes behind it.
const FILLERS: [(&str, usize); 2] = [("fill", 64 * 1024), ("fill.rest", 1)];

/// A file system in memory; unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many MiB at `at`, which is made. Only root can: nothing for others.
    ///
    /// # Panics
    /// If root cannot, either.
    #[must_use]
    pub fn mount(at: &Path, mib: u32) -> Option<Self> {
        if !is_root() {
            return None;
        }
        fs::create_dir(at).expect("the test's directory can be written");
        let size = format!("size={mib}m,mode=755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at);
        let output = mount.output().expect("mount can be started");
        assert!(output.status.success(), "mount: {}", stderr(&output));
        Some(Self { at: at.to_owned() })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Takes all its room, up to the last byte.
    pub fn fill(&self) {
        for (name, piece) in FILLERS {
            let Ok(mut file) = File::create(self.at.join(name)) else {
                // No room for another name: it is full.
                return;
            };
            let zeros = vec![0; piece];
            while file.write_all(&zeros).is_ok() {}
        }
    }

    /// Gives the room back.
    pub fn free(&self) {
        for (name, _) in FILLERS {
            // What was not made need not be removed.
            let _ = fs::remove_file(self.at.join(name));
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what a killed process held is let go a moment later.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
