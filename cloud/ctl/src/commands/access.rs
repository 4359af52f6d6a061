//! `driftless access`.

use super::list::List;
use super::who;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::Cell;
use crate::text::{ago, now};
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use cloud::api::types::{Ask, GivenAccess, NewAccess, Revoked};
use cloud_core::access::Role;
use cloud_core::view::Access;
use shared::time::Span;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a token for the API.
    #[command(after_help = "\
Examples:
  driftless access create --role viewer --name dashboard
  driftless access create --role operator --name ci --expires 90d
  DRIFTLESS_TOKEN=$(driftless access create --role admin --name ann)

A viewer reads; an operator also starts and steers runs; an admin also decides who belongs to the fleet
and who may use the API. The token is a secret and printed once. The API asks for one where it is not on
loopback, or with `serve --api-tls`. Commands that can read the coordinator's data directory need none.")]
    Create {
        /// What its bearer may do
        #[arg(long, value_name = "ROLE", value_parser = roles())]
        role: String,
        /// Its name, shown with whatever is done with it
        #[arg(long)]
        name: String,
        /// How long it is good; until it is revoked without it
        #[arg(long, value_name = "DURATION", value_parser = crate::text::parse_span)]
        expires: Option<Span>,
    },
    /// List the tokens.
    List,
    /// End a token: who shows it is refused at once.
    Revoke {
        /// Its name
        name: String,
    },
}

fn roles() -> PossibleValuesParser {
    PossibleValuesParser::new(Role::ALL.iter().map(|role| role.text()))
}

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    match command {
        Command::Create {
            role,
            name,
            expires,
        } => {
            let wanted = NewAccess {
                name,
                role,
                expires_in_ms: expires.map(|span| span.0),
                by: who(),
            };
            create(&client.post("/access", &wanted)?, out)?;
        }
        Command::List => list(&client, out)?,
        Command::Revoke { name } => {
            let ask = Ask {
                by: who(),
                why: String::new(),
            };
            let path = format!("/access/{}/revoke", escape(&name));
            let revoked: Revoked = client.post(&path, &ask)?;
            if out.json {
                out.object(&revoked)?;
            } else {
                out.say(&format!("{} is good for nothing any more", revoked.revoked));
            }
        }
    }
    Ok(Code::Done)
}

fn create(given: &GivenAccess, out: &mut Output) -> Result<(), Failure> {
    if out.json {
        return out.object(given);
    }
    out.line(&given.token)?;
    let until = match given.expires {
        Some(at) => format!("until {at}"),
        None => "until it is revoked".to_owned(),
    };
    let (role, name) = (given.role.text(), &given.name);
    out.say(&format!(
        "{name} is {role} {until}; the token is shown this once. Give it with --token, \
         DRIFTLESS_TOKEN or DRIFTLESS_TOKEN_FILE",
    ));
    Ok(())
}

fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let header = ["NAME", "ROLE", "CREATED", "BY", "EXPIRES"];
    let none = "no access tokens yet: `driftless access create` makes one";
    let list = List {
        path: "/access",
        header,
        none,
    };
    list.print(client, out, row).map(drop)
}

fn row(token: &Access) -> [Cell; 5] {
    let expires = match token.expires {
        Some(_) if token.expired => "expired".to_owned(),
        Some(at) => ago(at, now()),
        None => "-".to_owned(),
    };
    [
        (&token.name).into(),
        token.role.text().into(),
        ago(token.created, now()).into(),
        (&token.by).into(),
        expires.into(),
    ]
}
