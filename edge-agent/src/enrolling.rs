//! How a gateway becomes a node: by a token, once. What it was given lies in `pki` then.

use crate::linking::{resolve, runtime, settings, text};
use crate::renewing::Renewing;
use certs::{Enrolled, NodeKey, Token};
use link::Endpoint;
use link::enrol::{EnrolAsk, EnrolReply, EnrolRequest};
use shared::ids::NodeId;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Enrols by `token` with the first of `coordinators` that answers, keeps what it issued in `pki`,
/// and returns the identity that it gave. A node that is somebody already (`known`) keeps nothing
/// that makes it another one.
///
/// # Errors
/// What to tell a person.
pub(crate) fn enrol(
    coordinators: &[String],
    token: &str,
    (name, known): (&str, Option<NodeId>),
    labels: &BTreeMap<String, String>,
    pki: &Path,
) -> Result<NodeId, String> {
    let token = Token::parse(token).map_err(|error| format!("the token: {error}"))?;
    let key = NodeKey::open_or_create(pki).map_err(|error| text(&error))?;
    let request = EnrolRequest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        token: token.presented.clone(),
        name: name.to_owned(),
        request: key.request().map_err(|error| text(&error))?,
        labels: labels.clone(),
    };
    let reply = runtime()?.block_on(async {
        let mut failures = Vec::new();
        for coordinator in coordinators {
            match ask_to_enrol(coordinator, (&token, pki), &request).await {
                Ok(reply) => return Ok(reply),
                Err(why) => failures.push(why),
            }
        }
        Err(failures.join("; "))
    })?;
    if let (EnrolReply::Enrolled { node, .. } | EnrolReply::Certified { node, .. }, Some(known)) =
        (&reply, known)
        && *node != known
    {
        return Err(format!(
            "the token makes this gateway node {node}, and its data directory is that of node \
             {known}: start it on an empty data directory, or take a token for this node"
        ));
    }
    match reply {
        EnrolReply::Refused(refusal) => Err(refusal.to_string()),
        EnrolReply::Enrolled { issued, now, .. } => key
            .keep(pki, &issued, token.authority, now)
            .map(|enrolled| enrolled.id)
            .map_err(|error| text(&error)),
        EnrolReply::Certified { certified, .. } => key
            .keep_certified(pki, &certified)
            .map(|enrolled| enrolled.id)
            .map_err(|error| text(&error)),
    }
}

async fn ask_to_enrol(
    coordinator: &str,
    (token, pki): (&Token, &Path),
    request: &EnrolRequest,
) -> Result<EnrolReply, String> {
    let failed =
        |error: &dyn std::error::Error| format!("enrolling at {coordinator}: {}", text(error));
    let mut last = String::new();
    for address in resolve(coordinator).await? {
        let endpoint = Endpoint::client(address, &settings(Duration::from_secs(20)))
            .map_err(|error| failed(&error))?;
        let tls = certs::enrol_client(token.authority, Renewing::new(pki).clock())
            .map_err(|error| failed(&error))?;
        match endpoint.dial(address, tls).await {
            Ok(connection) => {
                let reply = connection.enrol(&EnrolAsk::Enrol(request.clone())).await;
                return reply.map_err(|error| failed(&error));
            }
            Err(error) => last = failed(&error),
        }
    }
    Err(last)
}

/// The node that `pki` holds an enrolment of, if it is one of this name: an earlier start got so
/// far. Its token is used up.
#[must_use]
pub(crate) fn kept(pki: &Path, name: &str) -> Option<NodeId> {
    if !pki.is_dir() {
        return None;
    }
    let kept = enrolled(pki).ok()?;
    (kept.name == name).then_some(kept.id)
}

/// What `pki` holds of an enrolment.
pub(crate) fn enrolled(pki: &Path) -> Result<Enrolled, String> {
    let key = NodeKey::open_or_create(pki).map_err(|error| text(&error))?;
    key.enrolled(pki)
        .map_err(|error| text(&error))?
        .ok_or_else(|| format!("{} holds no certificate; enrol with --token", pki.display()))
}
