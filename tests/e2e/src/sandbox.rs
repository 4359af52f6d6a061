//! A machine of its own to install into: the programs of this one, its own `/etc`, `/var`, `/run`
//! and `/usr/local`, users and boots. It is a directory that processes are put into (chroot) with
//! mounts that nobody else sees, so only root has one; the network is that of this machine.

use crate::agent::{binary, is_root, skip, stderr, wait_for};
use crate::unit::{Notices, Unit};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Mounts what this machine shares and becomes the command, with the same process number.
const ENTER: &str = r#"
set -e
root=$1 user=$2; shift 2
for dir in usr bin sbin lib lib32 lib64 libx32 dev proc sys; do
    [ -d "/$dir" ] && [ ! -L "/$dir" ] && mount --rbind "/$dir" "$root/$dir"
done
mount --bind "$root/local" "$root/usr/local"
mount --bind "$root/boot_id" "$root/proc/sys/kernel/random/boot_id"
exec chroot --userspec="$user" --groups="" "$root" "$@"
"#;

/// A machine to install into.
#[derive(Debug)]
pub struct Sandbox {
    root: TempDir,
}

impl Sandbox {
    /// A machine with the deploy directory in `/src` and the built programs in `/src/built`; none,
    /// and the reason on standard error, where this process may not make one.
    ///
    /// # Panics
    /// If a file of it cannot be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        let mut probe = Command::new("unshare");
        let probe = probe.args(["--mount", "true"]).stderr(Stdio::null());
        if !is_root() || !probe.status().is_ok_and(|status| status.success()) {
            skip("only root with mounts of its own can install into a sandbox");
            return None;
        }
        let sandbox = Self {
            root: tempfile::tempdir().expect("a temporary directory"),
        };
        fs::set_permissions(sandbox.root.path(), Permissions::from_mode(0o755)).expect("a mode");
        sandbox.furnish();
        Some(sandbox)
    }

    fn furnish(&self) {
        for name in [
            "usr",
            "dev",
            "proc",
            "sys",
            "local/bin",
            "etc",
            "var/lib",
            "run",
            "tmp",
        ] {
            fs::create_dir_all(self.path(name)).expect("a directory");
        }
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            let own = Path::new("/").join(name);
            match fs::read_link(&own) {
                Ok(target) => symlink(target, self.path(name)).expect("a link"),
                Err(_) if own.is_dir() => fs::create_dir(self.path(name)).expect("a directory"),
                Err(_) => {}
            }
        }
        fs::set_permissions(self.path("tmp"), Permissions::from_mode(0o1777)).expect("a mode");
        fs::write(self.path("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("a file");
        fs::write(self.path("etc/group"), "root:x:0:\n").expect("a file");
        fs::write(self.path("etc/hosts"), "127.0.0.1 localhost\n").expect("a file");
        self.new_boot();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        copy(&deploy.join("install.sh"), &self.path("src/install.sh"));
        for name in ["agent", "coordinator"] {
            let toml = format!("{name}.toml");
            copy(&deploy.join(&toml), &self.path("src").join(&toml));
            let unit = format!("systemd/driftless-{name}.service");
            copy(&deploy.join(&unit), &self.path("src").join(&unit));
        }
        for name in ["driftless", "driftless-agent"] {
            copy(&binary(name), &self.path("src/built").join(name));
        }
    }

    /// A path of it as this machine sees it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.path().join(inside.trim_start_matches('/'))
    }

    /// A command in it; `user` as in `driftless:driftless`.
    #[must_use]
    pub fn command(&self, user: &str, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command.args(["sh", "-c", ENTER, "sh"]);
        command.arg(self.root.path()).arg(user).args(words);
        command.env_clear().stdin(Stdio::null());
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command
    }

    /// Runs a command in it as root.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = self.command("0:0", words);
        command.output().expect("a command can be started")
    }

    /// Runs a command in it as root that must succeed; what it wrote.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn succeeds(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let told = stderr(&output);
        assert!(output.status.success(), "{words:?}: {told}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Owner's number and mode of a path.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn owner_and_mode(&self, inside: &str) -> (u32, u32) {
        let meta = fs::metadata(self.path(inside)).expect("it is there");
        (meta.uid(), meta.mode() & 0o7777)
    }

    /// The number of a user of it.
    #[must_use]
    pub fn uid(&self, user: &str) -> Option<u32> {
        let passwd = fs::read_to_string(self.path("etc/passwd")).ok()?;
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(user))?;
        line.split(':').nth(2)?.parse().ok()
    }

    /// From now on the kernel says that it has booted anew.
    ///
    /// # Panics
    /// If that cannot be written.
    pub fn new_boot(&self) {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel's uuids");
        // In place: processes that run see it through their mounts.
        fs::write(self.path("boot_id"), id).expect("the sandbox can be written");
    }

    /// Takes the power away: everything in it is gone at once.
    ///
    /// # Panics
    /// If something does not go.
    pub fn cut_power(&self) {
        wait_for("all processes of the sandbox to be gone", || {
            let left = self.processes();
            for pid in &left {
                // It may have ended meanwhile.
                let _ = kill_process(*pid, Signal::KILL);
            }
            left.is_empty().then_some(())
        });
        for name in ["run", "tmp"] {
            for entry in fs::read_dir(self.path(name))
                .expect("a directory")
                .flatten()
            {
                // What is a directory may stay: it holds sockets at most.
                let _ = fs::remove_file(entry.path());
            }
        }
        self.new_boot();
    }

    /// Its processes that are not over.
    fn processes(&self) -> Vec<Pid> {
        let own = self.root.path().canonicalize().expect("it is there");
        let inside = |pid: &i32| {
            let root = fs::read_link(format!("/proc/{pid}/root"));
            root.is_ok_and(|root| root == own)
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(inside).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a file lies in a directory")).expect("a directory");
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// A service of a sandbox, run as its unit file says.
#[derive(Debug)]
pub struct Service<'s> {
    sandbox: &'s Sandbox,
    unit: Unit,
    child: Option<Child>,
    notices: Option<Notices>,
    /// The interval of the watchdog; shorter than in the unit, since a test waits for it.
    watchdog: Duration,
}

impl<'s> Service<'s> {
    /// A service that is installed in the sandbox and does not run.
    #[must_use]
    pub fn installed(sandbox: &'s Sandbox, name: &str) -> Self {
        let unit = Unit::read(&sandbox.path(&format!("etc/systemd/system/{name}.service")));
        Self {
            sandbox,
            unit,
            child: None,
            notices: None,
            watchdog: Duration::from_secs(1),
        }
    }

    /// Its unit.
    #[must_use]
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Starts it as systemd does and waits until it says that it is ready.
    ///
    /// # Panics
    /// If it runs already, or ends before.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.unit.name);
        assert_eq!(self.unit.service("Type"), "notify");
        let (user, group) = (self.unit.service("User"), self.unit.service("Group"));
        let state = Path::new("/var/lib").join(self.unit.service("StateDirectory"));
        let mode = self.unit.service("StateDirectoryMode");
        let state = state.display().to_string();
        let made = ["install", "-d", "-o", user, "-g", group, "-m", mode, &state];
        let _ = self.sandbox.succeeds(&made);
        let socket = format!("run/{}.notify", self.unit.name);
        let notices = Notices::listen(&self.sandbox.path(&socket));
        let words = self.unit.command_line();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.sandbox.command(&format!("{user}:{group}"), &words);
        command.env("NOTIFY_SOCKET", format!("/{socket}"));
        command.env("WATCHDOG_USEC", self.watchdog.as_micros().to_string());
        command.env("STATE_DIRECTORY", state);
        command.env("CONFIGURATION_DIRECTORY", "/etc/driftless");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path());
        command.stdout(Stdio::null()).stderr(log.expect("a log"));
        let mut child = command.spawn().expect("a service can be started");
        wait_for(&format!("{} to be ready", self.unit.name), || {
            let ended = child.try_wait().ok().flatten();
            assert!(ended.is_none(), "{ended:?}: {}", self.log());
            (notices.count("READY=1") > 0).then_some(())
        });
        self.child = Some(child);
        self.notices = Some(notices);
    }

    fn log_path(&self) -> PathBuf {
        self.sandbox.path(&format!("{}.log", self.unit.name))
    }

    /// What it wrote to standard error, in all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What it told since its last start.
    ///
    /// # Panics
    /// If it was never started.
    #[must_use]
    pub fn notices(&self) -> &Notices {
        self.notices.as_ref().expect("it was started")
    }

    /// Sends a signal to its main process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("a child can be signalled");
    }

    /// Waits for the end of its main process, then does to what is left what the unit says.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let ended = wait_for(&format!("the end of {}", self.unit.name), || {
            child.try_wait().ok()?
        });
        assert_eq!(self.unit.service("KillMode"), "mixed", "the rest is killed");
        let uid = self.sandbox.uid(self.unit.service("User"));
        for pid in self.sandbox.processes() {
            let path = format!("/proc/{}", pid.as_raw_nonzero());
            if fs::metadata(path).ok().map(|meta| meta.uid()) == uid {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        ended
    }

    /// Its main process is gone since the power is.
    pub fn is_without_power(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It was killed, or the sandbox was not cut off and the test fails elsewhere.
            let _ = child.wait();
        }
    }
}
