//! `driftless authority`.

use super::who;
use crate::args::Global;
use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::text::{ago, now};
use clap::Subcommand;
use cloud::api::types::{Ask, Authority, Finish};
use cloud_core::view::Left;
use shared::state::NodeState;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the fleet's authority; with --pem what clients of the API trust.
    #[command(after_help = "\
Examples:
  driftless authority show
  driftless authority show --pem > fleet.pem       then elsewhere: driftless --ca fleet.pem …

While the fleet changes its authority the file has both, so that it is good before and after.")]
    Show {
        /// Print the certificates in PEM
        #[arg(long)]
        pem: bool,
    },
    /// Exchange the authority while the fleet works.
    #[command(subcommand)]
    Rotate(Rotate),
}

#[derive(Subcommand, Debug)]
pub(crate) enum Rotate {
    /// Make the next authority: both are trusted, and nodes are asked to renew by the next.
    #[command(after_help = "\
Examples:
  driftless authority rotate begin
  driftless backup create after-begin.backup       an older backup does not know the next authority
  driftless authority rotate status                until no node is left
  driftless authority rotate finish")]
    Begin,
    /// Show which nodes carry certificates of the next authority, and what is to be done.
    Status,
    /// Let the next authority take the place of the present one, which is given up.
    #[command(after_help = "\
Examples:
  driftless authority rotate finish
  driftless authority rotate finish --force        nodes that are left must be enrolled anew

Open enrolment tokens become void: they name the authority before. Clients elsewhere that trust only
that one need `driftless authority show --pem` again.")]
    Finish {
        /// Also while nodes do not carry a certificate of the next authority
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    let (by, why) = (who(), String::new());
    let authority: Authority = match &command {
        Command::Show { .. } | Command::Rotate(Rotate::Status) => client.get("/authority")?,
        Command::Rotate(Rotate::Begin) => client.post("/authority/begin", &Ask { by, why })?,
        Command::Rotate(Rotate::Finish { force }) => {
            let force = *force;
            client.post("/authority/finish", &Finish { by, force })?
        }
    };
    if let Command::Show { pem: true } = command {
        out.line(authority.certificates.trim_end())?;
        return Ok(Code::Done);
    }
    if out.json {
        out.object(&authority)?;
        return Ok(Code::Done);
    }
    summary(&authority, out)?;
    match &command {
        Command::Show { .. } => {}
        Command::Rotate(Rotate::Finish { .. }) => finished(&authority, out)?,
        Command::Rotate(_) => progress(&authority, out)?,
    }
    Ok(Code::Done)
}

fn summary(authority: &Authority, out: &mut Output) -> Result<(), Failure> {
    let until = authority.until.map(|until| until.to_string());
    let mut fields = vec![
        ("authority", authority.authority.clone().into()),
        ("until", until.unwrap_or_default().into()),
    ];
    if let Some(next) = &authority.next {
        fields.push(("next", next.clone().into()));
        let since = authority.since.map(|since| ago(since, now()));
        fields.push(("since", since.unwrap_or_default().into()));
    }
    let carry = format!("{} of {}", authority.carry, authority.nodes);
    fields.push(("nodes", carry.into()));
    out.facts(&fields)?;
    out.flush()
}

/// What a node that is left waits for.
fn todo(left: &Left, changing: bool) -> String {
    if !changing {
        return format!("driftless token create --replace {}", left.node);
    }
    if left.unconfirmed {
        let name = &left.node;
        return format!(
            "its key took another one's place: compare, `driftless node release {name}`"
        );
    }
    let online = left.state == NodeState::Online.text();
    match (left.asked, online) {
        (true, true) => "it is asked: it renews in a moment".to_owned(),
        (true, false) => "renews by itself when it comes back".to_owned(),
        (false, _) => match left.until {
            Some(until) => format!(
                "its program is not asked: renews after two thirds of a life that ends {}; update it",
                ago(until, now())
            ),
            None => "it was never heard: let it dial, or `driftless node forget` it".to_owned(),
        },
    }
}

fn table(authority: &Authority, out: &mut Output) -> Result<(), Failure> {
    if authority.left.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["NODE", "STATE", "HEARD", "AUTHORITY", "TO DO"], out.colour);
    for left in &authority.left {
        let heard = left.heard.map(|heard| ago(heard, now()));
        let print = left.authority.as_deref().and_then(|print| print.get(..12));
        let row = [
            (&left.node).into(),
            Cell::state(&left.state),
            heard.unwrap_or_default().into(),
            print.unwrap_or_default().into(),
            todo(left, authority.next.is_some()).into(),
        ];
        out.row(&mut table, row)?;
    }
    out.finish(table)
}

/// How far the change is, and what is to be done next.
fn progress(authority: &Authority, out: &mut Output) -> Result<(), Failure> {
    table(authority, out)?;
    if authority.next.is_none() {
        out.say(match authority.left.is_empty() {
            true => "the fleet does not change its authority",
            false => "the fleet does not change its authority; nodes above must be enrolled anew",
        });
        return Ok(());
    }
    if authority.backup < authority.since {
        out.say(
            "make a backup now (`driftless backup create PATH`): an older one does not know the \
             next authority, and a fleet that has changed would have to be enrolled anew",
        );
    }
    out.say(match authority.left.is_empty() {
        true => "all nodes carry certificates of the next one: `driftless authority rotate finish`",
        false => "when no node is left: `driftless authority rotate finish`",
    });
    Ok(())
}

fn finished(authority: &Authority, out: &mut Output) -> Result<(), Failure> {
    table(authority, out)?;
    let void = authority.void_tokens;
    if void > 0 {
        out.say(&format!(
            "{void} open enrolment tokens are void: make new ones with `driftless token create`"
        ));
    }
    out.say(
        "clients elsewhere (--ca, DRIFTLESS_CA) trust it by `driftless authority show --pem`; make a \
         backup now: older ones have the authority before",
    );
    Ok(())
}
