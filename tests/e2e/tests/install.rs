//! `deploy/install.sh`: what it puts where, twice, in another version, and what it takes away.

use e2e::agent::{binary, stderr, stdout};
use e2e::fleet::output;
use e2e::sandbox::Sandbox;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const COORDINATOR: &[&str] = &["/src/install.sh", "coordinator", "--from", "/src/built"];
const AGENT: &[&str] = &[
    "/src/install.sh",
    "agent",
    "--from",
    "/src/built",
    "--name",
    "gw-7",
];

/// Everything below a directory: names with modes and contents of small files.
fn tree(dir: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().expect("it can be read"));
        let small = meta.is_file() && meta.len() < 1 << 20;
        let content = if small {
            fs::read(&path).expect("it can be read")
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(
            path.display().to_string(),
            (meta.permissions().mode(), content),
        );
    }
    found
}

fn state(sandbox: &Sandbox) -> BTreeMap<String, (u32, Vec<u8>)> {
    let places = ["etc", "var", "local"].map(|name| tree(&sandbox.path(name)));
    places.into_iter().flatten().collect()
}

/// A sandbox with both installed.
fn installed() -> Option<Sandbox> {
    let sandbox = Sandbox::new()?;
    let told = sandbox.succeeds(&with_backups());
    assert!(told.contains("systemd does not run here"), "{told}");
    assert!(told.contains("/usr/local/bin/driftless serve"), "{told}");
    let labels = ["--label", "site=plant-3", "--label", "line=2"];
    let _ = sandbox.succeeds(&[AGENT, &labels].concat());
    Some(sandbox)
}

fn with_backups() -> Vec<&'static str> {
    [COORDINATOR, &["--backup-dir", "/var/lib/driftless/backups"]].concat()
}

#[test]
fn users_directories_and_files_are_as_they_should() {
    let Some(sandbox) = installed() else {
        return;
    };
    let (server, gateway) = (sandbox.uid("driftless"), sandbox.uid("driftless-agent"));
    let (server, gateway) = (server.unwrap(), gateway.unwrap());
    for (path, owner, mode) in [
        ("var/lib/driftless", server, 0o750),
        ("var/lib/driftless/backups", server, 0o700),
        ("var/lib/driftless-agent", gateway, 0o711),
        ("etc/driftless/coordinator.toml", 0, 0o644),
        ("etc/driftless/agent.toml", 0, 0o644),
        ("etc/systemd/system/driftless-coordinator.service", 0, 0o644),
        ("etc/systemd/system/driftless-agent.service", 0, 0o644),
        ("local/bin/driftless", 0, 0o755),
        ("local/bin/driftless-agent", 0, 0o755),
    ] {
        assert_eq!(sandbox.owner_and_mode(path), (owner, mode), "{path}");
    }
    let config = fs::read_to_string(sandbox.path("etc/driftless/agent.toml")).unwrap();
    for line in [
        "\nname = \"gw-7\"\n",
        "\nlabels = {\"site\" = \"plant-3\", \"line\" = \"2\"}\n",
        "\n#coordinator = []\n",
    ] {
        assert!(config.contains(line), "{line}: {config}");
    }
    let before = state(&sandbox);
    let _ = sandbox.succeeds(&with_backups());
    let told = sandbox.succeeds(AGENT);
    assert!(
        told.contains("kept /etc/driftless/agent.toml as it is"),
        "{told}"
    );
    assert_eq!(state(&sandbox), before, "the second time changes nothing");
}

#[test]
fn an_upgrade_and_a_removal_keep_what_people_wrote_until_it_is_purged() {
    let Some(sandbox) = installed() else {
        return;
    };
    let config = sandbox.path("etc/driftless/agent.toml");
    let changed = format!(
        "{}# changed by a person\n",
        fs::read_to_string(&config).unwrap()
    );
    fs::write(&config, &changed).unwrap();
    let identity = sandbox.path("var/lib/driftless-agent/identity.json");
    fs::write(&identity, "{}").unwrap();
    let built = sandbox.path("src/built/driftless-agent");
    let old = fs::read(&built).unwrap();
    let new = [&old[..], b"new"].concat();
    fs::write(&built, &new).unwrap();
    let _ = sandbox.succeeds(AGENT);
    let program = sandbox.path("local/bin/driftless-agent");
    let previous = sandbox.path("local/bin/driftless-agent.previous");
    assert!(
        fs::read(&program).unwrap() == new,
        "the new program is there"
    );
    assert!(
        fs::read(&previous).unwrap() == old,
        "and the old one beside it"
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), changed);

    let told = sandbox.succeeds(&["/src/install.sh", "remove", "agent"]);
    assert!(told.contains("kept /var/lib/driftless-agent"), "{told}");
    assert!(!program.exists() && !previous.exists());
    assert!(config.exists() && identity.exists());
    assert!(
        sandbox.path("local/bin/driftless").exists(),
        "of the other role"
    );
    let _ = sandbox.succeeds(&["/src/install.sh", "remove", "--purge"]);
    assert_eq!(
        (sandbox.uid("driftless"), sandbox.uid("driftless-agent")),
        (None, None)
    );
    for gone in [
        "etc/driftless",
        "var/lib/driftless",
        "var/lib/driftless-agent",
    ] {
        assert!(!sandbox.path(gone).exists(), "{gone}");
    }
    let _ = sandbox.succeeds(&["/src/install.sh", "remove", "--purge"]);
}

fn token(authority: &str) -> String {
    format!(
        "dft1-{authority}-0011223344556677-{}-01020304",
        "ab".repeat(16)
    )
}

fn install(args: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/install.sh");
    let built = binary("driftless")
        .parent()
        .expect("the test's directory can be written")
        .to_owned();
    output(
        Command::new("sh")
            .arg(script)
            .args(args)
            .arg("--from")
            .arg(built),
    )
}

#[test]
fn an_image_is_prepared_without_being_root() {
    let image = tempfile::tempdir().unwrap();
    let root = image.path().display().to_string();
    let file = image.path().join("token-of-people");
    fs::write(&file, format!("  {}\n", token("beef0123"))).unwrap();
    let file = file.display().to_string();
    let agent = |authority: &str, more: &[&str]| {
        let args = [
            "agent",
            "--root",
            &root,
            "--name",
            "gw-7",
            "--coordinator",
            "a.example:4433",
        ];
        let token = [
            "--coordinator",
            "[::1]:4433",
            "--token-file",
            &file,
            "--authority",
            authority,
        ];
        install(&[&args[..], &token[..], more].concat())
    };
    let wrong = agent("beef9999", &[]);
    let told = stderr(&wrong);
    assert_eq!(wrong.status.code(), Some(1), "{told}");
    assert!(
        told.contains("the token is of another fleet: its authority is beef0123"),
        "{told}"
    );
    assert!(!image.path().join("usr").exists(), "nothing is done");
    let dry = agent("BEEF:0123", &["--dry-run"]);
    assert!(dry.status.success(), "{}", stderr(&dry));
    assert!(
        stdout(&dry).contains("would run: install -m 0755"),
        "{}",
        stdout(&dry)
    );
    assert!(!image.path().join("usr").exists(), "nothing is done");
    let done = agent("beef0123", &[]);
    assert!(done.status.success(), "{}", stderr(&done));
    let config = fs::read_to_string(image.path().join("etc/driftless/agent.toml")).unwrap();
    for line in [
        "\ncoordinator = [\"a.example:4433\", \"[::1]:4433\"]\n",
        "\ntoken_file = \"/var/lib/driftless-agent/token\"\n",
    ] {
        assert!(config.contains(line), "{line}: {config}");
    }
    let kept = image.path().join("var/lib/driftless-agent/token");
    assert_eq!(
        fs::read_to_string(&kept).unwrap(),
        format!("{}\n", token("beef0123"))
    );
    assert_eq!(
        fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let removed = ["remove", "agent", "--purge", "--root", &root];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/install.sh");
    let removed = output(Command::new("sh").arg(script).args(removed));
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert!(!kept.exists());
}

#[test]
fn wrong_command_lines_say_what_to_do_and_do_nothing() {
    let image = tempfile::tempdir().unwrap();
    let root = image.path().display().to_string();
    for (args, told) in [
        (&["agent"][..], "the agent needs --name"),
        (&["agent", "--name", ""], "--name needs a value"),
        (&["agent", "--name", "a\"b"], "holds a character"),
        (&["agent", "--label", "site"], "write KEY=VALUE"),
        (
            &["agent", "--name", "a", "--listen", "x:1"],
            "does not belong to 'agent'",
        ),
        (
            &["agent", "--name", "a", "--token-file", "t"],
            "--token-file needs --coordinator",
        ),
        (&["coordinator", "--purge"], "--purge belongs to 'remove'"),
        (&["coordinator", "agent"], "one word too many"),
        (&["install"], "'install' is not known"),
    ] {
        let refused = install(&[args, &["--root", &root]].concat());
        let text = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(told), "{args:?}: {text}");
    }
    let wrong = ["coordinator", "--listen", "nowhere", "--root", &root];
    let refused = install(&wrong);
    assert!(!refused.status.success());
    assert!(
        stderr(&refused).contains("'nowhere' is no address"),
        "{}",
        stderr(&refused)
    );
    assert!(!image.path().join("etc/driftless/coordinator.toml").exists());
}
