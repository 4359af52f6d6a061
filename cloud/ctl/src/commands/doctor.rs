//! `driftless doctor`: what a person looks at first when a coordinator does not do what it should.
//! It changes nothing, and works also when the coordinator does not run.

use crate::args::Global;
use crate::client::Client;
use crate::config;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::target::{by_api, data_dir};
use crate::text::{now, rough};
use certs::{Authority, WRITTEN};
use cloud::api::types::{self, Health};
use cloud_core::view::{Left, Node, Wait};
use shared::finding::{Finding, Judgement, worst};
use shared::state::NodeState;
use shared::time::{Span, Unix};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub(crate) const EXAMPLES: &str = "\
Examples:
  driftless doctor
  sudo driftless doctor --data /var/lib/driftless/coordinator --json
  driftless doctor --api HOST:PORT                 from afar: only what the coordinator itself says

Each line is ok, warning or error, with the mend. It changes nothing and works also when the
coordinator does not run. Exit codes: 0 no error, 1 an error";

const MIB: u64 = 1 << 20;
/// MiB on the disk: too little below the first, little below the second.
const DISK: (u64, u64) = (256, 2048);
const DAY: i64 = 86_400_000;
/// The authority is to be changed so many days before its end.
const AUTHORITY_DAYS: i64 = 365;

pub(super) fn run(global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let findings = findings(global)?;
    for finding in &findings {
        if out.json {
            out.object(finding)?;
        } else {
            out.line(&finding.to_string())?;
        }
    }
    Ok(match worst(&findings) {
        Judgement::Error => Code::Failed,
        _ => Code::Done,
    })
}

/// All that is looked at.
pub(super) fn findings(global: &Global) -> Result<Vec<Finding>, Failure> {
    let dir = data_dir(global);
    let client = Client::new(global);
    let health = client
        .as_ref()
        .map_err(|failure| failure.what.clone())
        .and_then(|client| {
            let health = client.get::<Health>("/healthz");
            health.map_err(|failure| failure.what)
        });
    let mut findings = Vec::new();
    if !by_api(global) {
        findings.push(directory(&dir));
        findings.extend(host::room(&dir, DISK));
        findings.push(authority(&dir.join("authority")));
        findings.push(store(&dir, health.is_ok()));
    }
    findings.push(clock(now()));
    match (&health, &client) {
        (Ok(health), Ok(client)) => {
            let text = format!("version {}, agents at {}", health.version, health.listen);
            findings.push(Finding::ok("coordinator", text));
            findings.extend(fleet(client)?);
            if !by_api(global) {
                findings.extend(backups(global, client)?);
            }
        }
        (health, _) => {
            let why = health.as_ref().err().cloned().unwrap_or_default();
            let mend = "start it (`systemctl start driftless-coordinator`, `driftless serve`), and look into its log";
            findings.push(Finding::error("coordinator", why, mend));
        }
    }
    Ok(findings)
}

fn directory(dir: &Path) -> Finding {
    const NAME: &str = "directory";
    let shown = dir.display();
    let meta = match fs::metadata(dir) {
        Ok(meta) => meta,
        Err(error) => {
            let text = format!("{shown} cannot be looked at: {error}");
            return Finding::error(NAME, text, "name the coordinator's directory with --data");
        }
    };
    if !dir.join("format").is_file() {
        let text = format!("{shown} is no coordinator's directory: it holds no `format`");
        return Finding::error(NAME, text, "name the coordinator's directory with --data");
    }
    let (own, owner) = (rustix::process::geteuid().as_raw(), meta.uid());
    if own != owner && own != 0 {
        let text = format!("{shown} belongs to user {owner}, and this is user {own}");
        return Finding::error(
            NAME,
            text,
            "run this as the user that the coordinator runs as",
        );
    }
    let keys = fs::read_dir(dir.join("authority")).into_iter().flatten();
    for key in keys.filter_map(Result::ok) {
        let open = key
            .metadata()
            .is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
        if open && key.path().extension().is_some_and(|ending| ending == "key") {
            let text = format!(
                "{} is open to others: it may have leaked",
                key.path().display()
            );
            return Finding::error(NAME, text, "chmod 600 it");
        }
    }
    Finding::ok(NAME, format!("{shown} is the coordinator's own"))
}

fn clock(wall: Unix) -> Finding {
    if wall < WRITTEN {
        let text = format!("it shows {wall}; this program was written at {WRITTEN}");
        let mend = "set it (`timedatectl set-ntp true`): certificates and schedules depend on it";
        return Finding::error("clock", text, mend);
    }
    Finding::ok("clock", format!("it shows {wall}"))
}

fn authority(dir: &Path) -> Finding {
    const NAME: &str = "authority";
    if !dir.join("authority.crt").is_file() {
        let text = format!("{} holds no authority", dir.display());
        return Finding::error(
            NAME,
            text,
            "restore it from a backup; a first `serve` makes it",
        );
    }
    let looked = Authority::look(dir);
    match looked.and_then(|present| present.next(dir).map(|next| (present, next))) {
        Ok((present, _)) => judge_authority(&present, now()),
        Err(error) => {
            let text = crate::exit::chain(&error);
            Finding::error(
                NAME,
                text,
                "restore the whole directory `authority` from a backup",
            )
        }
    }
}

fn judge_authority(authority: &Authority, now: Unix) -> Finding {
    let Some(until) = authority.until() else {
        let text = "its certificate cannot be read";
        return Finding::error("authority", text, "restore it from a backup");
    };
    let days = (until.0 - now.0) / DAY;
    let print = authority.fingerprint().to_string();
    let text = format!("{}… until {until} ({days} days)", &print[..12]);
    match days < AUTHORITY_DAYS {
        true => Finding::warning(
            "authority",
            text,
            "exchange it while nodes can renew: `driftless authority rotate begin`",
        ),
        false => Finding::ok("authority", text),
    }
}

fn store(dir: &Path, running: bool) -> Finding {
    const NAME: &str = "store";
    let path = dir.join("store.redb");
    let size = match fs::metadata(&path).map(|meta| meta.len()) {
        Ok(0) => Err("store.redb is empty".to_owned()),
        Ok(size) => Ok(size / MIB),
        Err(error) => Err(format!("store.redb: {error}")),
    };
    let damaged =
        "restore a backup: `driftless serve` refuses what it cannot read, and changes nothing";
    match size {
        Err(text) => Finding::error(NAME, text, damaged),
        Ok(mib) if running || in_use(&path) => Finding::ok(NAME, format!("{mib} MiB, in use")),
        // only looked at: a store of the first release stays one, for whoever goes back to it
        Ok(mib) => match cloud_store::snapshot::looked(&path) {
            Ok(_) => Finding::ok(
                NAME,
                format!("{mib} MiB, it can be opened; nothing runs on it"),
            ),
            Err(error) => Finding::error(NAME, crate::exit::chain(&error), damaged),
        },
    }
}

/// Whether a coordinator works on it, also one that does not answer (yet).
fn in_use(path: &Path) -> bool {
    let lock = fs::File::open(path).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(fs::TryLockError::WouldBlock)))
}

/// What the coordinator itself says of its nodes and of what waits.
fn fleet(client: &Client) -> Result<Vec<Finding>, Failure> {
    let (mut nodes, mut waits) = (Vec::new(), Vec::new());
    client.list("/nodes", |node: Node| {
        nodes.push(node);
        Ok(true)
    })?;
    client.list("/waits", |wait: Wait| {
        waits.push(wait);
        Ok(true)
    })?;
    let authority = client.get("/authority")?;
    Ok(vec![
        judge_nodes(&nodes),
        judge_certificates(&nodes, now()),
        judge_exchange(&authority),
        judge_waits(&waits, now()),
    ])
}

/// Whether backups that the coordinator is to make by itself are made.
fn backups(global: &Global, client: &Client) -> Result<Option<Finding>, Failure> {
    let told = config::whereabouts(global);
    let dir = told.text("backup.dir");
    if dir.is_empty() {
        return Ok(None);
    }
    let newest = client.get::<types::Backup>("/backup/newest")?.at;
    Ok(Some(judge_backups(
        dir,
        newest,
        told.span("backup.every"),
        now(),
    )))
}

fn judge_backups(dir: &str, newest: Option<Unix>, every: Span, now: Unix) -> Finding {
    const NAME: &str = "backups";
    let age = newest.map(|at| Span(now.0.saturating_sub(at.0).max(0).unsigned_abs()));
    let text = match age {
        Some(age) if age.0 <= every.0.saturating_mul(2) => {
            return Finding::ok(NAME, format!("the newest one is {} old", rough(age)));
        }
        Some(age) => format!(
            "one is due every {every}, and the newest is {} old",
            rough(age)
        ),
        None => "none was made yet".to_owned(),
    };
    let mend = format!("the coordinator's log says why; can its user write to {dir}?");
    Finding::warning(NAME, text, &mend)
}

/// Names of nodes, the first few.
fn names<'n>(nodes: impl Iterator<Item = &'n Node>) -> String {
    first_of(nodes.map(|node| node.name.as_str()).collect())
}

fn first_of(mut names: Vec<&str>) -> String {
    let more = names.len().saturating_sub(5);
    names.truncate(5);
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn judge_nodes(nodes: &[Node]) -> Finding {
    const NAME: &str = "nodes";
    let of = |state: NodeState| nodes.iter().filter(move |node| node.state == state.text());
    let quarantined = names(of(NodeState::Quarantined));
    let (online, offline) = (
        of(NodeState::Online).count(),
        of(NodeState::Offline).count(),
    );
    let text = format!("{online} online, {offline} offline");
    if !quarantined.is_empty() {
        let text = format!("{text}; in quarantine: {quarantined}");
        let mend = "`driftless node get NAME` says why; `node release` or `node forget` ends it";
        return Finding::warning(NAME, text, mend);
    }
    Finding::ok(NAME, text)
}

fn judge_certificates(nodes: &[Node], now: Unix) -> Finding {
    const NAME: &str = "certificates";
    let here = |node: &&Node| node.state != NodeState::Forgotten.text();
    let soon = Unix(now.0 + 7 * DAY);
    let late = nodes.iter().filter(here).filter(|node| {
        let until = node.certificate.as_ref().map(|known| known.until);
        until.is_some_and(|until| until < soon)
    });
    let late = names(late);
    if late.is_empty() {
        return Finding::ok(NAME, "none expires within a week");
    }
    let text = format!("expired, or within a week: {late}");
    let mend =
        "let these nodes reach the coordinator: they renew by themselves; `driftless cert list`";
    Finding::warning(NAME, text, mend)
}

fn judge_exchange(authority: &types::Authority) -> Finding {
    const NAME: &str = "exchange";
    // one that was not heard since it was enrolled is not known to carry another
    let counts = |left: &&Left| authority.next.is_some() || left.authority.is_some();
    let left = authority.left.iter().filter(counts);
    let left: Vec<&str> = left.map(|left| &*left.node).collect();
    let (carry, nodes) = (authority.carry, authority.nodes);
    let text = format!("{carry} of {nodes} nodes carry a certificate of");
    match (&authority.next, left.is_empty()) {
        (None, true) => Finding::ok(NAME, format!("{text} the authority")),
        (None, false) => Finding::warning(
            NAME,
            format!("{text} the authority; not {}", first_of(left)),
            "a node whose certificate is of one that was given up is enrolled anew: \
             `driftless token create --replace NAME`",
        ),
        (Some(_), _) if authority.backup < authority.since => Finding::warning(
            NAME,
            format!("{text} the next authority, which is in no backup"),
            "`driftless backup create PATH`: without it the fleet would have to be enrolled anew",
        ),
        (Some(_), true) => Finding::warning(
            NAME,
            format!("{text} the next authority"),
            "end it: `driftless authority rotate finish`",
        ),
        (Some(_), false) => Finding::warning(
            NAME,
            format!("{text} the next authority; not {}", first_of(left)),
            "`driftless authority rotate status` shows what each waits for",
        ),
    }
}

fn judge_waits(waits: &[Wait], now: Unix) -> Finding {
    const NAME: &str = "waits";
    let Some(oldest) = waits.iter().map(|wait| wait.since).min() else {
        return Finding::ok(NAME, "nothing waits for a person");
    };
    let age = Span(now.0.saturating_sub(oldest.0).max(0) as u64);
    let text = format!(
        "{} wait for a person, the oldest for {}",
        waits.len(),
        rough(age)
    );
    Finding::warning(
        NAME,
        text,
        "`driftless waits list` shows them with the command that ends each",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_looked_at_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let made = cloud_store::open_file(&path, true).unwrap();
        let busy = store(dir.path(), false);
        assert!(busy.text.ends_with("in use"), "it runs and does not answer");
        drop(made);
        let before = fs::read(&path).unwrap();
        let found = store(dir.path(), false);
        assert_eq!(found.state, Judgement::Ok, "{}", found.text);
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, "a letter").unwrap();
        assert_eq!(store(dir.path(), false).state, Judgement::Error);
    }

    #[test]
    fn clocks_and_authorities_are_judged() {
        assert_eq!(clock(Unix(0)).state, Judgement::Error);
        assert_eq!(clock(WRITTEN).state, Judgement::Ok);
        let authority = Authority::ephemeral().unwrap();
        assert_eq!(judge_authority(&authority, WRITTEN).state, Judgement::Ok);
        let end = authority.until().unwrap();
        let late = Unix(end.0 - 30 * DAY);
        assert_eq!(judge_authority(&authority, late).state, Judgement::Warning);
        let backups = |newest| judge_backups("b", newest, Span::secs(60), Unix(300_000)).state;
        assert_eq!(backups(None), Judgement::Warning);
        assert_eq!(backups(Some(Unix(170_000))), Judgement::Warning);
        assert_eq!(backups(Some(Unix(180_000))), Judgement::Ok);
        assert_eq!(judge_waits(&[], WRITTEN).state, Judgement::Ok);
        assert_eq!(judge_nodes(&[]).text, "0 online, 0 offline");
    }
}
