//! `check`: what a person looks at first when a gateway does not do what it should. It needs no
//! running agent and no network, and changes nothing.

mod machine;
mod network;

use crate::begin::store_identity;
use crate::cli::Given;
use crate::clock;
use crate::config::Settings;
use crate::control::{Answer, Client, Request};
use crate::data::{self, Identity};
use certs::{Subject, Times, Token, WRITTEN, believable};
use network::Whose;
use rustix::fs::{FlockOperation, flock};
use shared::finding::{Finding, Judgement, worst};
use shared::ids::Hash;
use shared::time::{Span, Unix};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;

const DAY: i64 = 86_400_000;
/// MiB on the disk: too little below the first, little below the second.
const DISK: (u64, u64) = (64, 512);

/// `check`.
pub(crate) fn main(given: &Given) -> ExitCode {
    let findings = findings(given);
    match print(&findings, given.json) {
        Ok(()) if worst(&findings) < Judgement::Error => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    }
}

/// All that is looked at.
pub(crate) fn findings(given: &Given) -> Vec<Finding> {
    let dir = &given.common().data;
    let mut findings = vec![directory(dir), tasks(given, dir)];
    findings.extend([clock_of(&dir.join("pki")), machine::rtc()]);
    findings.extend(host::room(dir, DISK));
    let identity = data::identity_at(dir);
    findings.push(match &identity {
        Ok(Some(identity)) => store(dir, identity),
        Ok(None) => Finding::warning(
            "store",
            "no agent was started on this directory yet",
            "start one with `driftless-agent run`, or name its directory with --data",
        ),
        Err(why) => Finding::error("store", why.clone(), "restore it, or enrol anew"),
    });
    if let Ok(identity) = &identity {
        let known = identity.as_ref().map(Identity::coordinators);
        findings.extend(link(given, &dir.join("pki"), known.unwrap_or_default()));
    }
    findings.extend(machine::kernel());
    findings
}

/// The certificate and the way to the coordinator, or what enrolment needs: the next start's.
fn link(given: &Given, pki: &Path, known: Vec<String>) -> Vec<Finding> {
    // what is wrong with the configuration is told with the tasks
    let settings = Settings::read(given.config.as_deref(), given.flags()).ok();
    let settings = settings.map(|(settings, _)| settings);
    let wanted = settings.as_ref().map(|settings| &settings.coordinators);
    let coordinators = match (known.is_empty(), wanted) {
        (true, Some(wanted)) => wanted.clone(),
        _ => known.clone(),
    };
    if coordinators.is_empty() {
        let text = "none is needed: no coordinator is set";
        return vec![Finding::ok("certificate", text)];
    }
    if !known.is_empty() || certs::kept_certificate(pki).is_some() {
        let mut findings = vec![certificate(pki)];
        findings.extend(network::coordinators(&coordinators, Whose::Node(pki)));
        return findings;
    }
    let file = settings.and_then(|settings| settings.token_file);
    let (finding, token) = token(file.as_deref());
    let whose = Whose::Newcomer(pki, token.map(|token| token.authority));
    let mut findings = vec![finding];
    findings.extend(network::coordinators(&coordinators, whose));
    findings
}

/// The token that a first start enrols with.
fn token(file: Option<&Path>) -> (Finding, Option<Token>) {
    const NAME: &str = "token";
    const MEND: &str = "put there what `driftless token create` prints";
    let Some(file) = file else {
        let text = "no token_file is set: the first start enrols with --token only";
        let mend = "set it to a file with what `driftless token create` prints";
        return (Finding::warning(NAME, text, mend), None);
    };
    let shown = file.display();
    let read = match fs::read_to_string(file) {
        Ok(text) => Token::parse(&text).map_err(|error| format!("{shown}: {error}")),
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
    };
    match read {
        Ok(token) => (Finding::ok(NAME, format!("{shown} holds one")), Some(token)),
        Err(why) => (Finding::error(NAME, why, MEND), None),
    }
}

pub(crate) fn print(findings: &[Finding], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for finding in findings {
        if json {
            writeln!(out, "{}", serde_json::to_string(finding)?)?;
        } else {
            writeln!(out, "{finding}")?;
        }
    }
    Ok(())
}

/// Owner, modes, and whether it can be written.
fn directory(dir: &Path) -> Finding {
    const NAME: &str = "directory";
    let shown = dir.display();
    let meta = match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            return Finding::error(NAME, format!("{shown} is no directory"), "name another one");
        }
        Err(error) => {
            let text = format!("{shown} cannot be looked at: {error}");
            return Finding::error(NAME, text, "name the agent's directory with --data");
        }
    };
    let (own, owner) = (rustix::process::geteuid().as_raw(), meta.uid());
    if own != owner && own != 0 {
        let text = format!("{shown} belongs to user {owner}, and this is user {own}");
        return Finding::error(NAME, text, "run this as the user that the agent runs as");
    }
    if meta.permissions().mode() & 0o022 != 0 {
        let text = format!("{shown} can be written by others");
        return Finding::error(NAME, text, "chmod go-w it: others could put tasks there");
    }
    let key = dir.join("pki/node.key");
    if let Ok(meta) = fs::metadata(&key)
        && meta.permissions().mode() & 0o077 != 0
    {
        let text = format!("{} is open to others: it may have leaked", key.display());
        return Finding::error(
            NAME,
            text,
            "chmod 600 it, and enrol the node with a new key",
        );
    }
    if rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_err() {
        let text = format!("{shown} cannot be written");
        return Finding::error(NAME, text, "mount its file system for writing");
    }
    Finding::ok(NAME, format!("{shown} is the agent's own"))
}

/// Which user tasks run as.
fn tasks(given: &Given, dir: &Path) -> Finding {
    let settings = match Settings::read(given.config.as_deref(), given.flags()) {
        Ok((settings, _)) => settings,
        Err(mistakes) => {
            let text = format!("the configuration has mistakes: {mistakes}");
            let mend = "`driftless-agent config check` shows them all; the agent does not start";
            return Finding::error("tasks", text, mend);
        }
    };
    let own = rustix::process::geteuid().as_raw();
    // The agent's user owns its directory; who looks at it may be somebody else.
    let agent = fs::metadata(dir).map_or(own, |meta| meta.uid());
    judge_tasks(agent, &settings)
}

fn judge_tasks(agent: u32, settings: &Settings) -> Finding {
    const NAME: &str = "tasks";
    let (uid, gid) = settings.run_as;
    if agent != 0 && settings.run_as_named && uid != agent {
        let text = format!("they shall run as user {uid}, and the agent is user {agent}");
        let mend = "remove tasks.run_as, or run the agent as root: only root may change users";
        return Finding::error(NAME, text, mend);
    }
    match (agent, settings.allow_root) {
        (0, true) => Finding::warning(
            NAME,
            "they run as root",
            "remove tasks.allow_root where they need not",
        ),
        (0, false) => Finding::ok(NAME, format!("they run as user {uid}, group {gid}")),
        _ => Finding::ok(NAME, format!("they run as the agent's own user, {agent}")),
    }
}

/// The wall clock against what is known of the time.
fn clock_of(pki: &Path) -> Finding {
    judge_clock(clock::now().wall, Times::read(pki).heard)
}

fn judge_clock(wall: Unix, heard: Unix) -> Finding {
    const NAME: &str = "clock";
    const MEND: &str = "set it (`timedatectl set-ntp true`, or `date -s`); the agent goes on with \
                        what the coordinator says";
    let floor = heard.max(WRITTEN);
    if wall < floor {
        let text = format!("it shows {wall}, and {floor} has been already");
        return Finding::error(NAME, text, MEND);
    }
    if believable(wall, floor) < wall {
        let text = format!("it shows {wall}; the last time that was heard is {floor}");
        return Finding::warning(NAME, text, MEND);
    }
    Finding::ok(NAME, format!("{wall}, not before what was heard last"))
}

/// What `status` shows of the certificate; none if there is none.
pub(crate) fn certificate_view(dir: &Path) -> Option<serde_json::Value> {
    let pki = dir.join("pki");
    let known = certs::kept_certificate(&pki)?;
    let times = Times::read(&pki);
    let left = known.until.0 - believable(clock::now().wall, times.heard).0;
    Some(serde_json::json!({
        "until": known.until,
        "key": Hash(known.key).hex(),
        "days_left": left.div_euclid(DAY),
        "renews": times.renew_at(&known),
    }))
}

fn certificate(pki: &Path) -> Finding {
    let Some(known) = certs::kept_certificate(pki) else {
        return Finding::error(
            "certificate",
            "there is none that can be read",
            "enrol with a token of `driftless token create --replace NAME`",
        );
    };
    let times = Times::read(pki);
    judge_certificate(&known, times, believable(clock::now().wall, times.heard))
}

fn judge_certificate(known: &Subject, times: Times, now: Unix) -> Finding {
    const NAME: &str = "certificate";
    let left = known.until.0.saturating_sub(now.0);
    let span = Span(left.unsigned_abs() / 1000 * 1000);
    if left < 0 {
        let text = format!("of {}: it expired {span} ago", known.name);
        let mend =
            "let the agent reach the coordinator: it renews by itself within the grace period";
        return Finding::error(NAME, text, mend);
    }
    let (days, due) = (left / DAY, times.renew_at(known));
    let text = format!(
        "of {}: good for {days} days, until {}, key {}",
        known.name,
        known.until,
        Hash(known.key).hex()
    );
    if due < now {
        let mend = "its renewal is due: the agent renews as soon as it reaches the coordinator";
        return Finding::warning(NAME, text, mend);
    }
    Finding::ok(NAME, text)
}

/// The store: by the agent that runs on it, else by opening it.
fn store(dir: &Path, identity: &Identity) -> Finding {
    const NAME: &str = "store";
    if let Ok(mut client) = Client::connect(dir) {
        return match client.ask(&Request::Status, &[]) {
            Ok(Answer::Value { value }) => {
                let (facts, link) = (&value["facts"], value["link"].as_str().unwrap_or("?"));
                Finding::ok(NAME, format!("the agent runs on it: {facts} facts, {link}"))
            }
            Ok(other) => Finding::error(NAME, format!("{other:?}"), "look into the agent's log"),
            Err(error) => Finding::error(NAME, error.to_string(), "look into the agent's log"),
        };
    }
    let path = dir.join("store.redb");
    match fs::metadata(&path).map(|meta| meta.len()) {
        Ok(0) => return damaged("store.redb is empty"),
        Err(error) => return damaged(&format!("store.redb: {error}")),
        Ok(_) => {}
    }
    let lock = File::open(dir.join("agent.lock"));
    let held = lock.map(|lock| (flock(&lock, FlockOperation::NonBlockingLockShared), lock));
    if let Ok((Err(_), _)) = &held {
        let text = "an agent holds the directory and does not answer";
        return Finding::error(NAME, text, "look into its log; it may be starting or stuck");
    }
    drop(held);
    // Looked at without a write, and without the lock of an agent that may start now.
    match edge_store::look(&path, store_identity(identity)) {
        Ok(_) => Finding::ok(NAME, "it can be opened; no agent runs on it"),
        Err(error) => damaged(&error.to_string()),
    }
}

fn damaged(why: &str) -> Finding {
    let mend = "put the missing file back, or move the directory away and enrol anew with a token \
                of `driftless token create --replace NAME`";
    Finding::error("store", why, mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use certs::Role;
    use shared::config::Flag;
    use shared::ids::NodeId;

    #[test]
    fn the_user_of_tasks_is_told_and_judged() {
        let settings = |flags: &[(&'static str, &str)]| {
            let flag = |(key, value): &(&'static str, &str)| Flag {
                key,
                flag: "",
                values: vec![(*value).to_owned()],
            };
            let flags = flags.iter().map(flag).collect();
            Settings::read(Some(Path::new("/dev/null")), flags)
                .expect("no mistake")
                .0
        };
        let named = settings(&[("tasks.run_as", "33:33")]);
        let open = settings(&[("tasks.allow_root", "true")]);
        let plain = settings(&[]);
        for (agent, settings, state, text) in [
            (
                0,
                &plain,
                Judgement::Ok,
                "they run as user 65534, group 65534",
            ),
            (0, &open, Judgement::Warning, "they run as root"),
            (
                7,
                &plain,
                Judgement::Ok,
                "they run as the agent's own user, 7",
            ),
            (
                33,
                &named,
                Judgement::Ok,
                "they run as the agent's own user, 33",
            ),
            (
                7,
                &named,
                Judgement::Error,
                "they shall run as user 33, and the agent is user 7",
            ),
        ] {
            let found = judge_tasks(agent, settings);
            assert_eq!((found.state, &*found.text), (state, text));
        }
    }

    #[test]
    fn a_wrong_clock_is_told_from_a_right_one() {
        let state = |wall: i64, heard| judge_clock(Unix(wall), heard).state;
        let heard = Unix(WRITTEN.0 + 100 * DAY);
        assert_eq!(state(0, Unix(0)), Judgement::Error);
        assert_eq!(state(WRITTEN.0, heard), Judgement::Error);
        assert_eq!(state(heard.0 + DAY, heard), Judgement::Ok);
        assert_eq!(state(heard.0 + 400 * DAY, heard), Judgement::Warning);
    }

    #[test]
    fn a_certificate_is_good_due_or_expired() {
        let known = Subject {
            role: Role::Node(NodeId([1; 16])),
            name: "gw-7".into(),
            key: [0; 32],
            from: Unix(0),
            until: Unix(90 * DAY),
        };
        let times = Times {
            heard: Unix(0),
            issued: Some(Unix(0)),
        };
        let at = |day: i64| judge_certificate(&known, times, Unix(day * DAY + 1));
        assert_eq!(at(59).state, Judgement::Ok);
        assert_eq!(at(61).state, Judgement::Warning);
        assert!(at(61).text.contains("good for 28 days"));
        assert_eq!(at(91).state, Judgement::Error);
        assert!(at(91).text.contains("expired 1d ago"), "{}", at(91).text);
    }
}
