//! Unit files of systemd as its manual describes them, as far as ours use them, and the socket that
//! services tell their state to.

use crate::agent::wait_for;
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// A unit file.
#[derive(Debug)]
pub struct Unit {
    /// Its name without `.service`.
    pub name: String,
    values: BTreeMap<(String, String), Vec<String>>,
}

impl Unit {
    /// Reads a unit file.
    ///
    /// # Panics
    /// If it cannot be read, or holds something that is no section, setting or comment.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut values: BTreeMap<_, Vec<String>> = BTreeMap::new();
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                name.clone_into(&mut section);
                continue;
            }
            let (key, value) = line.split_once('=').expect("a setting has a '='");
            let key = (section.clone(), key.to_owned());
            values.entry(key).or_default().push(value.to_owned());
        }
        let name = path.file_stem().expect("a file has a name");
        let name = name.to_string_lossy().into_owned();
        Self { name, values }
    }

    /// A unit of this repository.
    #[must_use]
    pub fn ours(name: &str) -> Self {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd");
        Self::read(&deploy.join(format!("{name}.service")))
    }

    /// A setting of `[Service]`; empty if it is not there.
    ///
    /// # Panics
    /// If it stands there more than once.
    #[must_use]
    pub fn service(&self, key: &str) -> &str {
        self.get("Service", key)
    }

    /// A setting; empty if it is not there.
    ///
    /// # Panics
    /// If it stands there more than once.
    #[must_use]
    pub fn get(&self, section: &str, key: &str) -> &str {
        let found = self.values.get(&(section.to_owned(), key.to_owned()));
        let found = found.map_or(&[][..], Vec::as_slice);
        assert!(found.len() < 2, "{key} stands in {} twice", self.name);
        found.first().map_or("", String::as_str)
    }

    /// A duration of `[Service]`: a number with `s` or `min`.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn span(&self, key: &str) -> Duration {
        let text = self.service(key);
        let read = |unit: &str| text.strip_suffix(unit)?.parse().ok();
        let seconds = read("min").map_or_else(|| read("s"), |minutes: u64| Some(minutes * 60));
        Duration::from_secs(seconds.unwrap_or_else(|| panic!("{key}={text} is no duration")))
    }

    /// The command line of `ExecStart`.
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        let words = self.service("ExecStart").split_ascii_whitespace();
        words.map(str::to_owned).collect()
    }
}

/// What a service told its manager.
#[derive(Debug)]
pub struct Notices {
    socket: UnixDatagram,
    path: PathBuf,
    seen: Mutex<Vec<String>>,
}

impl Notices {
    /// Listens at `path`; whoever was there before is not heard any more.
    ///
    /// # Panics
    /// If it cannot be listened there.
    #[must_use]
    pub fn listen(path: &Path) -> Self {
        // A manager that was killed leaves its socket.
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).expect("a socket can be made");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, open).expect("its mode can be changed");
        socket.set_nonblocking(true).expect("a socket's mode");
        Self {
            socket,
            path: path.to_owned(),
            seen: Mutex::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All lines that were told so far.
    ///
    /// # Panics
    /// If another thread did while it read them.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let mut seen = self.seen.lock().expect("nobody panicked");
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]);
            seen.extend(text.lines().map(str::to_owned));
        }
        seen.clone()
    }

    /// How often a line was told.
    #[must_use]
    pub fn count(&self, line: &str) -> usize {
        self.all().iter().filter(|told| *told == line).count()
    }

    /// Waits until a line was told so often.
    pub fn wait(&self, line: &str, times: usize) {
        wait_for(&format!("{line} from a service"), || {
            (self.count(line) >= times).then_some(())
        });
    }
}
