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
    let told = stdout(&dry);
    assert!(
        !told.contains("installed") && !told.contains("kept"),
        "nothing is said to be done: {told}"
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
        (
            &["coordinator", "--backup-dir", "backups"],
            "write it from / on",
        ),
        (
            &["coordinator", "--backup-dir", "/home/backups"],
            "the service sees nothing of /home/backups",
        ),
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

/// A program that is named like a real one and refuses every configuration, as a later version may.
fn refusing(path: &Path) {
    fs::write(path, "#!/bin/sh\necho 'error: no such key' >&2; exit 2\n")
        .expect("it can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it can be written");
}

#[test]
fn a_program_that_refuses_the_configuration_is_not_put_in_place() {
    let image = tempfile::tempdir().unwrap();
    let root = image.path().display().to_string();
    let done = install(&["agent", "--name", "gw-7", "--root", &root]);
    assert!(done.status.success(), "{}", stderr(&done));
    let program = image.path().join("usr/local/bin/driftless-agent");
    let before = fs::read(&program).unwrap();
    let new = tempfile::tempdir().unwrap();
    refusing(&new.path().join("driftless-agent"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/install.sh");
    let mut upgrade = Command::new("sh");
    upgrade
        .arg(script)
        .args(["agent", "--root", &root, "--from"]);
    let refused = output(upgrade.arg(new.path()));
    let told = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    assert!(fs::read(&program).unwrap() == before);
}

#[test]
fn a_gateway_that_works_alone_is_told_how_to_join() {
    let image = tempfile::tempdir().unwrap();
    let root = image.path().display().to_string();
    let done = install(&["agent", "--name", "gw-7", "--root", &root]);
    assert!(done.status.success(), "{}", stderr(&done));
    let state = image.path().join("var/lib/driftless-agent");
    fs::write(state.join("identity.json"), "{}").unwrap();
    let file = image.path().join("token-of-people");
    fs::write(&file, token("beef0123")).unwrap();
    let file = file.display().to_string();
    let coordinator = ["--coordinator", "a.example:4433"];
    let joins = [
        &["agent", "--root", &root, "--token-file", &file],
        &coordinator[..],
    ]
    .concat();
    let refused = install(&joins);
    let told = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    let lines = [
        "coordinator = [\"a.example:4433\"]\n",
        "token_file = \"/var/lib/driftless-agent/token\"\n",
    ];
    for line in lines {
        assert!(told.contains(line), "{line}: {told}");
    }
    let config = image.path().join("etc/driftless/agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{}{text}", lines.concat())).unwrap();
    let done = install(&joins);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(state.join("token").exists(), "it works alone so far");
    fs::remove_file(state.join("token")).unwrap();
    fs::create_dir(state.join("pki")).unwrap();
    fs::write(state.join("pki/node.crt"), "").unwrap();
    let told = stdout(&install(&joins));
    assert!(told.contains("enrolled already"), "{told}");
    assert!(!state.join("token").exists());
}

#[test]
fn a_service_that_could_not_enrol_is_not_started() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let joins = [AGENT, &["--coordinator", "a.example:4433"]].concat();
    let refused = sandbox.run(&joins);
    let told = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("give --token-file"), "{told}");
    assert!(!sandbox.path("etc/driftless/agent.toml").exists());
    let told = sandbox.succeeds(&[&joins[..], &["--no-start"]].concat());
    assert!(
        told.contains("missing: /var/lib/driftless-agent/token"),
        "{told}"
    );
    // as an upgrade
    assert_eq!(sandbox.run(AGENT).status.code(), Some(2));
    fs::write(sandbox.path("tmp/token"), token("beef0123")).unwrap();
    let _ = sandbox.succeeds(&[&joins[..], &["--token-file", "/tmp/token"]].concat());
}

#[test]
fn backups_have_a_directory_that_the_service_may_write_and_outlive_a_purge() {
    let image = tempfile::tempdir().unwrap();
    let root = image.path().display().to_string();
    let coordinator = |dir: &str| install(&["coordinator", "--root", &root, "--backup-dir", dir]);
    let own = coordinator("/var/lib/driftless/backups");
    assert!(own.status.success(), "{}", stderr(&own));
    let dropin = "etc/systemd/system/driftless-coordinator.service.d/backups.conf";
    let dropin = image.path().join(dropin);
    assert!(!dropin.exists(), "the unit allows that one");
    let other = coordinator("/srv/driftless");
    assert!(other.status.success(), "{}", stderr(&other));
    assert_eq!(
        fs::read_to_string(&dropin).unwrap(),
        "[Service]\nReadWritePaths=-/srv/driftless\n"
    );
    let state = image.path().join("var/lib/driftless");
    fs::remove_dir(state.join("backups")).unwrap();
    std::os::unix::fs::symlink("/etc", state.join("backups")).unwrap();
    let linked = coordinator("/var/lib/driftless/backups");
    assert!(stderr(&linked).contains("is a link"), "{}", stderr(&linked));
    fs::remove_file(state.join("backups")).unwrap();
    fs::create_dir_all(state.join("backups")).unwrap();
    fs::create_dir_all(state.join("coordinator")).unwrap();
    fs::write(state.join("backups/one.backup"), "all").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/install.sh");
    let mut purge = Command::new("sh");
    purge
        .arg(script)
        .args(["remove", "coordinator", "--purge", "--root", &root]);
    let purged = output(&mut purge);
    let told = stdout(&purged);
    assert!(purged.status.success(), "{}", stderr(&purged));
    assert!(
        told.contains("but for /var/lib/driftless/backups"),
        "{told}"
    );
    assert!(state.join("backups/one.backup").exists() && !state.join("coordinator").exists());
    assert!(!dropin.exists() && !image.path().join("etc/driftless/coordinator.toml").exists());
}

#[test]
fn root_follows_no_link_that_a_task_planted_for_the_token() {
    let Some(sandbox) = installed() else {
        return;
    };
    let victim = sandbox.path("etc/victim");
    fs::write(&victim, "precious").unwrap();
    let config = sandbox.path("etc/driftless/agent.toml");
    let lines =
        "coordinator = [\"a.example:4433\"]\ntoken_file = \"/var/lib/driftless-agent/token\"\n";
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{lines}{text}")).unwrap();
    let place = sandbox.path("var/lib/driftless-agent/token");
    std::os::unix::fs::symlink("/etc/victim", &place).unwrap();
    fs::write(sandbox.path("tmp/token"), token("beef0123")).unwrap();
    let _ = sandbox.succeeds(&[AGENT, &["--token-file", "/tmp/token"]].concat());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(sandbox.owner_and_mode("etc/victim").0, 0);
    assert!(fs::symlink_metadata(&place).unwrap().is_file());
    let owner = sandbox.uid("driftless-agent").unwrap();
    let place = "var/lib/driftless-agent/token";
    assert_eq!(sandbox.owner_and_mode(place), (owner, 0o600));
}
