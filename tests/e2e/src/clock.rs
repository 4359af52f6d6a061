//! A wall clock that a test can move: a library that is loaded before the system's adds what a file
//! says to the wall clock of one process. The clock that counts from the machine's start is not
//! touched, as in the field.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The C library's reading of the wall clock, shifted.
const SHIFTED: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
  int failed = syscall(SYS_clock_gettime, id, at);
  if (failed || id != CLOCK_REALTIME) return failed;
  const char *path = getenv("TEST_CLOCK");
  FILE *file = path ? fopen(path, "r") : NULL;
  long seconds = 0;
  if (file) {
    if (fscanf(file, "%ld", &seconds) == 1) at->tv_sec += seconds;
    fclose(file);
  }
  return 0;
}
"#;

/// The wall clock of processes that run with [`Self::env`].
#[derive(Debug)]
pub struct ShiftedClock {
    library: PathBuf,
    file: PathBuf,
}

impl ShiftedClock {
    /// A clock that goes right until it is shifted; what it needs lies in `dir`.
    ///
    /// # Panics
    /// Without a C compiler, which Rust needs as well, or if `dir` cannot be written.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        let (source, library) = (dir.join("clock.c"), dir.join("libclock.so"));
        fs::write(&source, SHIFTED).expect("the test's directory can be written");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .expect("a C compiler, as Rust needs one to link");
        assert!(built.success(), "the library cannot be built");
        let file = dir.join("clock");
        let made = Self { library, file };
        made.shift(0);
        made
    }

    /// What a process must be started with to see this clock.
    #[must_use]
    pub fn env(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), ("TEST_CLOCK", &self.file)]
    }

    /// The wall clock is this many seconds off from now on.
    ///
    /// # Panics
    /// If its file cannot be written.
    pub fn shift(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        let written = fs::write(&new, seconds.to_string());
        let placed = written.and_then(|()| fs::rename(&new, &self.file));
        placed.expect("the test's directory can be written");
    }
}
