//! `driftless token`.

use crate::args::{Global, Token as Command};
use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::text::{ago, now};
use cloud::api::types::{NewToken, Token};

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let Command::Create {
        name,
        expires,
        replace,
    } = command;
    let wanted = NewToken {
        name,
        expires_in_ms: Some(expires.0),
        replace,
    };
    let token: Token = Client::new(global)?.post("/tokens", &wanted)?;
    if out.json {
        out.object(&token)?;
        return Ok(Code::Done);
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
    Ok(Code::Done)
}
