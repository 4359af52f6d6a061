//! The way to the coordinator: names, UDP, the handshake, and the largest packet that passes.

use crate::enrolling::enrolled;
use crate::linking::{self, text};
use crate::renewing::Renewing;
use certs::{ClientTls, Fingerprint, Holder};
use link::{Close, Endpoint, LinkError, Settings};
use shared::finding::Finding;
use shared::time::Span;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How long the search for larger packets, or a refusal, is waited for.
const SETTLE: Duration = Duration::from_millis(1_500);
/// QUIC does not work below.
const LEAST_MTU: u16 = 1_200;

/// Who tries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose<'a> {
    /// A node, with what its `pki` holds.
    Node(&'a Path),
    /// One that is to become a node, with the authority of its token.
    Newcomer(&'a Path, Option<Fingerprint>),
}

/// Every address of every coordinator.
pub(super) fn coordinators(coordinators: &[String], whose: Whose<'_>) -> Vec<Finding> {
    let runtime = match linking::runtime() {
        Ok(runtime) => runtime,
        Err(why) => {
            return vec![Finding::error(
                "coordinator",
                why,
                "free memory, or descriptors",
            )];
        }
    };
    let mut findings = Vec::new();
    for name in coordinators {
        match runtime.block_on(linking::resolve(name)) {
            Ok(addresses) => {
                for address in addresses {
                    findings.extend(runtime.block_on(try_address(name, address, whose)));
                }
            }
            Err(why) => {
                let mend = "check the name and the name server (`getent hosts NAME`)";
                findings.push(Finding::error("coordinator", why, mend));
            }
        }
    }
    findings
}

async fn try_address(name: &str, address: SocketAddr, whose: Whose<'_>) -> Vec<Finding> {
    let whom = match name == address.to_string() {
        true => name.to_owned(),
        false => format!("{name} ({address})"),
    };
    match dial(address, whose).await {
        Ok(Met::Unknown) => {
            let text = format!("{whom} answers; whether it is the right one, only a token says");
            vec![Finding::ok("coordinator", text)]
        }
        Ok(Met::Known(trip, mtu)) => {
            let text = format!("{whom} answers in {} ms", trip.as_millis());
            vec![Finding::ok("coordinator", text), judge_mtu(mtu)]
        }
        Err((why, mend)) => {
            vec![Finding::error(
                "coordinator",
                format!("{whom}: {why}"),
                mend,
            )]
        }
    }
}

fn judge_mtu(mtu: u16) -> Finding {
    let text = format!("packets of {mtu} bytes pass");
    match mtu <= LEAST_MTU {
        true => Finding::warning(
            "mtu",
            text,
            "larger ones are swallowed on the way: slower, and nothing else; look for a tunnel",
        ),
        false => Finding::ok("mtu", text),
    }
}

type Failed = (String, &'static str);

/// What came of a try.
enum Met {
    /// The coordinator: its round trip, and the largest packet.
    Known(Duration, u16),
    /// Somebody who speaks QUIC.
    Unknown,
}

/// The TLS settings that a session or an enrolment would have.
fn tls_of(whose: Whose<'_>) -> Result<ClientTls, Failed> {
    let enrol = "enrol with a token of `driftless token create --replace NAME`";
    let here = |why: String| (why, enrol);
    let tls = match whose {
        Whose::Node(pki) => {
            let enrolled = enrolled(pki).map_err(here)?;
            let holder = Holder::new(&enrolled.credential).map_err(|error| here(text(&error)))?;
            let renewing = Renewing::new(pki);
            let (authorities, clock) = (&enrolled.authorities, renewing.clock());
            match renewing.only_renewable() {
                true => certs::renewal_client(authorities, &holder, clock),
                false => certs::session_client(authorities, &holder, clock),
            }
        }
        Whose::Newcomer(pki, authority) => {
            // without a token: nobody's, so that whoever answers is not trusted
            let authority = authority.unwrap_or(Fingerprint([0; 32]));
            certs::enrol_client(authority, Renewing::new(pki).clock())
        }
    };
    tls.map_err(|error| here(text(&error)))
}

async fn dial(address: SocketAddr, whose: Whose<'_>) -> Result<Met, Failed> {
    let tls = tls_of(whose)?;
    let settings = Settings {
        idle: Span::secs(5),
        ..Settings::agent()
    };
    let endpoint = Endpoint::client(address, &settings)
        .map_err(|error| (text(&error), "look at the network"))?;
    let connection = match (endpoint.dial(address, tls).await, whose) {
        (Err(LinkError::Untrusted(_)), Whose::Newcomer(_, None)) => return Ok(Met::Unknown),
        (dialled, _) => dialled.map_err(failed)?,
    };
    let settled = tokio::time::timeout(SETTLE, connection.closed()).await;
    if let Ok(error) = settled {
        return Err(failed(error));
    }
    let found = Met::Known(connection.round_trip(), connection.mtu());
    connection.close(Close::Done, "a check");
    let close = endpoint.close(Close::Done, "a check");
    // Only politeness: the coordinator notices by itself.
    let _ = tokio::time::timeout(SETTLE, close).await;
    Ok(found)
}

fn failed(error: LinkError) -> Failed {
    let mend = match &error {
        LinkError::TimedOut => {
            "nothing answers: is the coordinator up, and does UDP pass (a firewall, a proxy)?"
        }
        LinkError::Untrusted(_) => {
            "another coordinator answers there, or the fleet changed its authority: enrol anew"
        }
        LinkError::RefusedByPeer(_) | LinkError::Closed { .. } => {
            "the coordinator's log and `driftless node get NAME` say why"
        }
        _ => "look at the network",
    };
    (text(&error), mend)
}
