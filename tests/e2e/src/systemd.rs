//! systemd itself as the first process of a [`Sandbox`], in namespaces of its own: units are run by
//! the program that they are written for. It starts nothing of this machine's own services.

use crate::agent::{stderr, stdout};
use crate::sandbox::Sandbox;
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long systemd may take to come up before it is taken for one that cannot run here.
const PATIENCE: Duration = Duration::from_secs(30);
/// Makes the sandbox the root of a mount namespace and becomes systemd.
const BOOT: &str = r#"
set -e
root=$1
mount --bind "$root" "$root"
for dir in usr bin sbin lib lib32 lib64 libx32 dev sys; do
    [ -d "/$dir" ] && [ ! -L "/$dir" ] && mount --rbind "/$dir" "$root/$dir"
done
mount --bind "$root/local" "$root/usr/local"
for wants in "$root"/usr/lib/systemd/system/*.wants; do mount -t tmpfs tmpfs "$wants"; done
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/mnt"
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=sandbox PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=console --unit=multi-user.target
"#;

/// A sandbox with systemd.
#[derive(Debug)]
pub struct Systemd {
    sandbox: Sandbox,
    child: Child,
    init: String,
}

impl Systemd {
    /// Boots a sandbox; none, and the reason on standard error, where that cannot be done.
    ///
    /// # Panics
    /// If a file of it cannot be made.
    #[must_use]
    pub fn boot() -> Option<Self> {
        let sandbox = Sandbox::new()?;
        fs::write(sandbox.path("etc/machine-id"), "0123456789abcdef".repeat(2)).expect("a file");
        let log = fs::File::create(sandbox.path("systemd.log")).expect("a file");
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        command.args(["--uts", "--ipc", "--cgroup", "sh", "-c", BOOT, "sh"]);
        command.arg(sandbox.path("")).stdin(Stdio::null());
        let again = log.try_clone().expect("a descriptor");
        let child = command.stdout(log).stderr(again).spawn().ok()?;
        let mut booted = Self {
            sandbox,
            child,
            init: String::new(),
        };
        if booted.comes_up() {
            return Some(booted);
        }
        let log = fs::read_to_string(booted.sandbox.path("systemd.log")).unwrap_or_default();
        eprintln!("skipped: systemd cannot run in namespaces here: {log}");
        None
    }

    fn comes_up(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(100));
            let own = self.child.id();
            let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
            let children = children.unwrap_or_default();
            self.init = children.trim().to_owned();
            let state = stdout(&self.run(&["systemctl", "is-system-running"]));
            if ["running", "degraded"].contains(&state.trim()) {
                return true;
            }
        }
        false
    }

    /// Its sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Runs a command in it as root.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--pid", "--uts", "--ipc"]);
        command.args(["--cgroup", "--root", "--wd=/"]).args(words);
        command.env_clear().stdin(Stdio::null());
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command.output().expect("a command can be started")
    }

    /// Runs a command in it as root that must succeed; what it wrote.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn succeeds(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let log = || fs::read_to_string(self.sandbox.path("systemd.log")).unwrap_or_default();
        assert!(
            output.status.success(),
            "{words:?}: {}{}\n{}",
            stdout(&output),
            stderr(&output),
            log()
        );
        stdout(&output).trim().to_owned()
    }

    /// A property of a unit.
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.succeeds(&["systemctl", "show", "--value", "--property", name, unit])
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // With it its first process goes, and with that all others of the namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
