//! The container files, built on an image that is made of this machine (no registry is asked), and
//! run with their volumes, user and health checks.

use e2e::agent::{binary, is_root, skip, stderr, stdout, wait_for};
use e2e::fleet::output;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// podman with a store of its own, in a temporary directory.
struct Podman(TempDir);

impl Podman {
    fn new() -> Option<Self> {
        let mut version = Command::new("podman");
        let version = version.arg("--version").stdout(Stdio::null()).status();
        if !is_root() || !version.is_ok_and(|status| status.success()) {
            skip("containers need root, podman and runc (Debian: apt-get install podman runc)");
            return None;
        }
        Some(Self(tempfile::tempdir().expect("a temporary directory")))
    }

    fn command(&self, args: &[&str]) -> Command {
        let at = |name: &str| self.0.path().join(name).display().to_string();
        let mut command = Command::new("podman");
        command.args([
            "--root",
            &at("store"),
            "--runroot",
            &at("run"),
            "--tmpdir",
            &at("tmp"),
        ]);
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        command.args(["--runtime", "runc", "--events-backend", "file"]);
        command.args(args).stdin(Stdio::null());
        command
    }

    fn try_run(&self, args: &[&str]) -> Output {
        output(&mut self.command(args))
    }

    fn run(&self, args: &[&str]) -> String {
        let done = self.try_run(args);
        assert!(done.status.success(), "podman {args:?}: {}", stderr(&done));
        stdout(&done).trim().to_owned()
    }

    /// An image of this machine's programs.
    fn import_base(&self) {
        let root = self.0.path().join("base");
        let script = deploy().join("base-root.sh");
        let made = Command::new("sh")
            .arg(script)
            .arg(&root)
            .args(["id", "cat"])
            .output();
        let made = made.expect("sh can be started");
        assert!(made.status.success(), "{}", stderr(&made));
        let tar = self.0.path().join("base.tar");
        let mut pack = Command::new("tar");
        pack.arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".");
        assert!(pack.status().expect("tar can be started").success());
        let _ = self.run(&["import", &tar.display().to_string(), "driftless-base"]);
    }

    fn build(&self, role: &str, program: &str) {
        let context = self.0.path().join(role);
        fs::create_dir(&context).expect("the test's directory can be written");
        fs::copy(binary(program), context.join(program))
            .expect("the test's directory can be written");
        let file = deploy()
            .join(format!("Containerfile.{role}"))
            .display()
            .to_string();
        let context = context.display().to_string();
        let base = [
            "--build-arg",
            "BASE=localhost/driftless-base",
            "--layers=false",
        ];
        let how = [
            "build",
            "--format",
            "docker",
            "--isolation",
            "chroot",
            "-f",
            &file,
        ];
        let _ = self.run(&[&how[..], &base[..], &["-t", program, &context][..]].concat());
    }

    fn start(&self, name: &str, volume: &str, args: &[&str]) {
        let limits = [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ];
        let how = [
            "run",
            "--detach",
            "--network",
            "host",
            "--name",
            name,
            "--volume",
            volume,
        ];
        let _ = self.run(&[&how[..], &limits[..], args].concat());
        self.wait_healthy(name);
    }

    fn wait_healthy(&self, name: &str) {
        wait_for(&format!("{name} to be healthy"), || {
            let check = self.try_run(&["healthcheck", "run", name]);
            check.status.success().then_some(())
        });
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What cannot be removed shows itself by the temporary directory that stays.
        let _ = self.try_run(&["rm", "--all", "--force", "--time", "0"]);
        let _ = self.try_run(&["rmi", "--all", "--force"]);
    }
}

fn deploy() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

#[test]
fn both_run_in_containers_and_keep_their_volumes() {
    let Some(podman) = Podman::new() else {
        return;
    };
    podman.import_base();
    podman.build("coordinator", "driftless");
    podman.build("agent", "driftless-agent");
    let image = "localhost/driftless";
    let serve = ["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let volume = "coordinator:/var/lib/driftless";
    podman.start("coordinator", volume, &[&[image][..], &serve[..]].concat());
    let inside = |args: &[&str]| podman.run(&[&["exec", "coordinator"][..], args].concat());
    let at = inside(&["cat", "/var/lib/driftless/coordinator/quic.addr"]);
    let token = inside(&["driftless", "token", "create", "--name", "gw-1", "--json"]);
    let token: Value = serde_json::from_str(&token).unwrap();
    let token = format!("DRIFTLESS_TOKEN={}", token["token"].as_str().unwrap());
    let run = [
        "localhost/driftless-agent",
        "run",
        "--name",
        "gw-1",
        "--coordinator",
        &at,
    ];
    let volume = "agent:/var/lib/driftless-agent";
    podman.start(
        "agent",
        volume,
        &[&["--env", &token][..], &run[..]].concat(),
    );
    let spec = podman.0.path().join("flow.yaml");
    fs::write(&spec, "name: f\ntasks: {who: {command: [id, -u]}}\n").unwrap();
    let spec = spec.display().to_string();
    let _ = podman.run(&["cp", &spec, "coordinator:/tmp/flow.yaml"]);
    let id = inside(&["driftless", "submit", "/tmp/flow.yaml"]);
    let _ = inside(&["driftless", "run", "wait", &id, "--timeout", "1m"]);
    assert_eq!(inside(&["driftless", "task", "logs", &id, "who"]), "10001");

    // A power cut: both come back from their volumes.
    let _ = podman.run(&["kill", "agent", "coordinator"]);
    let _ = podman.run(&["wait", "agent", "coordinator"]);
    let _ = podman.run(&["start", "agent"]);
    podman.wait_healthy("agent");
    let kept = podman.run(&["exec", "agent", "driftless-agent", "ps", "--all", "--json"]);
    assert!(kept.contains("\"task\":\"who\""), "{kept}");
    let _ = podman.run(&["start", "coordinator"]);
    podman.wait_healthy("coordinator");
    let state = inside(&["driftless", "run", "get", &id, "--json"]);
    assert!(state.contains("\"state\":\"succeeded\""), "{state}");
    let _ = podman.run(&["stop", "--time", "60", "agent", "coordinator"]);
    let codes = ["agent", "coordinator"]
        .map(|name| podman.run(&["inspect", "--format", "{{.State.ExitCode}}", name]));
    assert_eq!(codes, ["0", "0"]);
}
