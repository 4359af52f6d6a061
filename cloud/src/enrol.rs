//! Enrolment and renewal: tokens are checked, the engine commits the use, then the authority signs.

use crate::app::App;
use crate::clock;
use crate::host::unexpected;
use certs::{Admission, Authority, TokenRecord, TokenRefusal};
use cloud_core::event::{Refused, Reply, Request};
use link::enrol::{EnrolAsk, EnrolRefusal, EnrolReply, EnrolRequest};
use link::{Connection, LinkError};
use shared::codec;
use shared::ids::{Hash, NodeId};
use shared::state::NodeState;
use shared::time::Span;
use std::time::Duration;

/// How long a newcomer may take to ask.
const ASK: Duration = Duration::from_secs(10);
/// Validity of a node's certificate. Long, because a gateway may be offline for a long time; the
/// coordinator judges at each hello whether the node is still one of its own.
pub(crate) const NODE_VALIDITY: Span = Span::secs(10 * 365 * 86_400);
/// How long an expired certificate may still renew itself.
pub(crate) const RENEW_GRACE: Span = Span::secs(365 * 86_400);
/// Most labels of a node, and most bytes of all of them.
const LABELS: (usize, usize) = (64, 8 * 1024);

/// Serves a connection without a certificate: it may ask once.
pub(crate) async fn newcomer(app: &App, connection: &Connection) -> Result<(), LinkError> {
    let asked = tokio::time::timeout(ASK, connection.accept_enrol()).await;
    let (ask, answer) = asked.map_err(|_| LinkError::TimedOut)??;
    let reply = match ask {
        EnrolAsk::Enrol(request) => {
            let name = request.name.clone();
            let reply = enrol(app, request).await;
            let from = connection.address();
            match &reply {
                Ok(EnrolReply::Enrolled { node, .. }) => {
                    tracing::info!(name, %node, %from, "enrolled a node");
                }
                Ok(EnrolReply::Refused(_)) => {}
                Err(refusal) => tracing::warn!(name, %from, %refusal, "enrolment refused"),
            }
            reply
        }
        EnrolAsk::Renew { .. } => Err(EnrolRefusal::NotAllowed(
            "only a node with a certificate can renew it: enrol with a token".into(),
        )),
    };
    answer
        .answer(&reply.unwrap_or_else(EnrolReply::Refused))
        .await
}

async fn enrol(app: &App, request: EnrolRequest) -> Result<EnrolReply, EnrolRefusal> {
    certs::check_name(&request.name).map_err(|error| EnrolRefusal::Name(error.to_string()))?;
    let bytes: usize = request
        .labels
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if request.labels.len() > LABELS.0 || bytes > LABELS.1 {
        let text = format!(
            "a node has at most {} labels of {} bytes in all",
            LABELS.0, LABELS.1
        );
        return Err(EnrolRefusal::Request(text));
    }
    let key = Authority::request_key(&request.request)
        .map_err(|error| EnrolRefusal::Request(error.to_string()))?;
    let node = match admit(app, &request, &key).await? {
        Some(node) => node,
        None => commit(app, &request, &key).await?,
    };
    issue(app, node, &request.name, &request.request)
}

/// Judges the token; the node that this key was enrolled as before, if the answer was lost.
async fn admit(
    app: &App,
    request: &EnrolRequest,
    key: &[u8; 32],
) -> Result<Option<NodeId>, EnrolRefusal> {
    let asked = Request::GetToken {
        id: request.token.id.to_string(),
    };
    let record = match ask(app, asked).await? {
        Reply::Token(record) => record,
        Reply::Refused(refused) => return repeated(app, request, key, &refused).await.map(Some),
        other => return Err(EnrolRefusal::Request(unexpected(&other).to_string())),
    };
    let record: TokenRecord =
        codec::decode(&record).map_err(|_| EnrolRefusal::Token(TokenRefusal::Wrong))?;
    match record.admit(&request.token, &request.name, key, clock::wall()) {
        Ok(Admission::New) => Ok(None),
        Ok(Admission::Again(node)) => Ok(Some(node)),
        Err(refusal) => Err(EnrolRefusal::Token(refusal)),
    }
}

/// A used token is good once more for the key that it enrolled: the answer may have been lost. The
/// signing request proves the key, and the node's id was made of it.
async fn repeated(
    app: &App,
    request: &EnrolRequest,
    key: &[u8; 32],
    refused: &Refused,
) -> Result<NodeId, EnrolRefusal> {
    let node = id_of(key);
    if let Reply::Node(known) = ask(
        app,
        Request::Node {
            name: request.name.clone(),
        },
    )
    .await?
        && known.id == node
        && known.state != NodeState::Forgotten.text()
    {
        return Ok(node);
    }
    Err(match refused {
        Refused::NotFound { .. } => EnrolRefusal::Token(TokenRefusal::Wrong),
        other => EnrolRefusal::NotAllowed(other.to_string()),
    })
}

/// The id of a node that enrols with this key for the first time.
fn id_of(key: &[u8; 32]) -> NodeId {
    let digest = Hash::of(&[b"driftless node 1".as_slice(), key].concat());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.0[..16]);
    NodeId(id)
}

/// Uses the token up and makes (or replaces) the node.
async fn commit(app: &App, request: &EnrolRequest, key: &[u8; 32]) -> Result<NodeId, EnrolRefusal> {
    let derived = id_of(key);
    let known = ask(
        app,
        Request::Node {
            name: derived.to_string(),
        },
    )
    .await?;
    let fresh = matches!(known, Reply::Refused(Refused::NotFound { .. }));
    let enrol = Request::Enrol {
        token: request.token.id.to_string(),
        node: if fresh {
            derived
        } else {
            NodeId(clock::random())
        },
        name: request.name.clone(),
        labels: request.labels.clone(),
    };
    match ask(app, enrol).await? {
        Reply::Enrolled(node) => Ok(node),
        Reply::Refused(Refused::NameTaken(name)) => Err(EnrolRefusal::NameTaken { name }),
        Reply::Refused(refused) => Err(EnrolRefusal::NotAllowed(refused.to_string())),
        other => Err(EnrolRefusal::Request(unexpected(&other).to_string())),
    }
}

async fn ask(app: &App, request: Request) -> Result<Reply, EnrolRefusal> {
    app.engine
        .ask(request)
        .await
        .map_err(|_| EnrolRefusal::Busy)
}

fn issue(app: &App, node: NodeId, name: &str, request: &[u8]) -> Result<EnrolReply, EnrolRefusal> {
    let issued = app
        .authority
        .node(request, node, name, clock::wall(), NODE_VALIDITY);
    let issued = issued.map_err(|error| EnrolRefusal::Request(error.to_string()))?;
    Ok(EnrolReply::Enrolled {
        node,
        issued,
        now: clock::wall(),
    })
}

/// Serves a node whose certificate has expired: it may renew it, once, if it is still one of ours.
pub(crate) async fn renew(
    app: &App,
    connection: &Connection,
    node: NodeId,
    name: &str,
) -> Result<(), LinkError> {
    let asked = tokio::time::timeout(ASK, connection.accept_enrol()).await;
    let (wish, answer) = asked.map_err(|_| LinkError::TimedOut)??;
    let reply = match wish {
        EnrolAsk::Renew { request } => match ask(app, Request::Node { name: name.into() }).await {
            Ok(Reply::Node(known))
                if known.id == node && known.state != NodeState::Forgotten.text() =>
            {
                issue(app, node, name, &request)
            }
            Ok(_) => Err(EnrolRefusal::NotAllowed(format!(
                "{name} is not a node of this fleet any more: enrol it with a token"
            ))),
            Err(refusal) => Err(refusal),
        },
        EnrolAsk::Enrol(_) => Err(EnrolRefusal::NotAllowed(
            "only a newcomer can enrol; this one can renew".into(),
        )),
    };
    answer
        .answer(&reply.unwrap_or_else(EnrolReply::Refused))
        .await
}
