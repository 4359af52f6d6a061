//! `driftless token`.

use super::list::List;
use super::who;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::Cell;
use crate::text::{ago, now};
use clap::Subcommand;
use cloud::api::types::{Ask, NewToken, Token};
use cloud_core::view;
use shared::time::Span;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a token that lets one node join, once.
    #[command(after_help = "\
Examples:
  driftless token create --name gw-7
  driftless token create --replace gw-7     gw-7 was re-imaged and lost its directory
  T=$(driftless token create --expires 15m)

The token is a secret and printed once. It carries the fingerprint of this coordinator's authority.")]
    Create {
        /// The only node name that it may enrol
        #[arg(long)]
        name: Option<String>,
        /// How long it is good
        #[arg(long, value_name = "DURATION", default_value = "1h",
              value_parser = crate::text::parse_span)]
        expires: Span,
        /// Let it take the place of the enrolled node of this name, and of no other: the work of
        /// its lost directory is lost, and its old key is revoked
        #[arg(long, value_name = "NAME", conflicts_with = "name")]
        replace: Option<String>,
    },
    /// List the tokens: open ones, and for a week those that are used, void or expired.
    List,
    /// Make a token void before it is used.
    Revoke {
        /// Its id, or the beginning of it, as `token list` shows it
        id: String,
    },
}

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    match command {
        Command::Create {
            name,
            expires,
            replace,
        } => {
            let wanted = NewToken {
                expires_in_ms: Some(expires.0),
                replace: replace.is_some(),
                name: replace.or(name),
            };
            create(&client, &wanted, out)?;
        }
        Command::List => list(&client, out)?,
        Command::Revoke { id } => revoke(&client, &id, out)?,
    }
    Ok(Code::Done)
}

fn create(client: &Client, wanted: &NewToken, out: &mut Output) -> Result<(), Failure> {
    let token: Token = client.post(&format!("/tokens?by={}", escape(&who())), wanted)?;
    if out.json {
        return out.object(&token);
    }
    out.line(&token.token)?;
    let port = token.listen.rsplit(':').next().unwrap_or("4433");
    let name = token.name.as_deref().unwrap_or("NAME");
    out.say(&format!(
        "good once, until {} ({}). On the gateway:\n  driftless-agent run --coordinator HOST:{port} \
         --token {} --name {name}",
        token.expires,
        ago(token.expires, now()),
        if out.colour { "TOKEN" } else { "…" },
    ));
    Ok(())
}

fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let header = ["ID", "STATE", "FOR", "EXPIRES", "NOTE"];
    let none = "no tokens: make one with `driftless token create`";
    let list = List {
        path: "/tokens",
        header,
        none,
    };
    list.print(client, out, row).map(drop)
}

fn row(token: &view::Token) -> [Cell; 5] {
    let whom = match (&token.name, token.replace) {
        (Some(name), true) => format!("in place of {name}"),
        (Some(name), false) => name.clone(),
        (None, _) => "any name".to_owned(),
    };
    let used = token.used_by.as_ref().map(|by| match token.used_at {
        Some(at) => format!("by {by}, {}", ago(at, now())),
        None => format!("by {by}"),
    });
    [
        (&token.id).into(),
        (&token.state).into(),
        whom.into(),
        ago(token.expires, now()).into(),
        used.or_else(|| token.why.clone())
            .unwrap_or_default()
            .into(),
    ]
}

fn revoke(client: &Client, id: &str, out: &mut Output) -> Result<(), Failure> {
    let ask = Ask {
        by: who(),
        why: String::new(),
    };
    let token: view::Token = client.post(&format!("/tokens/{}/revoke", escape(id)), &ask)?;
    if out.json {
        return out.object(&token);
    }
    out.say(&format!("the token {} lets nobody in any more", token.id));
    Ok(())
}
