//! `driftless access`.

use super::who;
use crate::args::{Access as Command, Global};
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::text::{ago, now};
use cloud::api::types::{Ask, GivenAccess, NewAccess, Revoked};
use cloud_core::view::Access;

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
    let mut table = Table::new(["NAME", "ROLE", "CREATED", "BY", "EXPIRES"], out.colour);
    let mut empty = true;
    client.list("/access", |token: Access| {
        empty = false;
        if out.json {
            out.object(&token)?;
            return Ok(true);
        }
        let expires = match token.expires {
            Some(_) if token.expired => "expired".to_owned(),
            Some(at) => ago(at, now()),
            None => "-".to_owned(),
        };
        let row: [Cell; 5] = [
            (&token.name).into(),
            token.role.text().into(),
            ago(token.created, now()).into(),
            (&token.by).into(),
            expires.into(),
        ];
        out.row(&mut table, row)?;
        Ok(true)
    })?;
    match (out.json, empty) {
        (true, _) => Ok(()),
        (false, false) => out.finish(table),
        (false, true) => {
            out.say("no access tokens yet: `driftless access create` makes one");
            Ok(())
        }
    }
}
