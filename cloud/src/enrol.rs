//! Enrolment and renewal: tokens are checked, the engine commits the use, then the authority signs.

use crate::app::App;
use crate::clock;
use crate::host::unexpected;
use crate::revoked;
use crate::sessions;
use certs::{Admission, Authority, Caller, Certified, Fingerprint, TokenRecord, TokenRefusal};
use cloud_core::certificate::Certificate;
use cloud_core::event::{Refused, Reply, Request};
use link::enrol::{EnrolAsk, EnrolRefusal, EnrolReply, EnrolRequest};
use link::{Connection, LinkError};
use shared::codec;
use shared::ids::NodeId;
use shared::limits::{LABEL_BYTES, LABELS, labels_fit};
use shared::state::NodeState;
use shared::time::{Span, Unix};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a newcomer may take to ask.
const ASK: Duration = Duration::from_secs(10);
/// Validity of the certificate of a node whose program does not renew it: one of the first release.
const UNRENEWED: Span = Span::secs(10 * 365 * 86_400);
/// Validity of a node's certificate unless set otherwise.
pub const CERTIFICATE_LIFE: Span = Span::secs(90 * 86_400);
/// How long an expired certificate may still be renewed unless set otherwise: gateways may be
/// offline for long.
pub const RENEWAL_GRACE: Span = Span::secs(365 * 86_400);

/// How long certificates are good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lives {
    /// A node's certificate; it is renewed after two thirds of that.
    pub(crate) certificate: Span,
    /// After its end, for one use: to renew it.
    pub(crate) grace: Span,
}

/// Serves a connection without a certificate: it may ask once. `renews` says that its program
/// renews certificates.
pub(crate) async fn newcomer(
    app: &Arc<App>,
    connection: &Connection,
    renews: bool,
) -> Result<(), LinkError> {
    let asked = tokio::time::timeout(ASK, connection.accept_enrol()).await;
    let (ask, answer) = asked.map_err(|_| LinkError::TimedOut)??;
    let reply = match ask {
        EnrolAsk::Enrol(request) => {
            let name = request.name.clone();
            let reply = enrol(app, request, renews).await;
            let from = connection.address();
            match &reply {
                Ok((node, _)) => tracing::info!(name, %node, %from, "enrolled a node"),
                Err(refusal) => tracing::warn!(name, %from, %refusal, "enrolment refused"),
            }
            reply.map(|(_, reply)| reply)
        }
        EnrolAsk::Renew { .. } => Err(EnrolRefusal::NotAllowed(
            "only a node with a certificate can renew it: enrol with a token".into(),
        )),
    };
    answer
        .answer(&reply.unwrap_or_else(EnrolReply::Refused))
        .await
}

async fn enrol(
    app: &Arc<App>,
    request: EnrolRequest,
    renews: bool,
) -> Result<(NodeId, EnrolReply), EnrolRefusal> {
    certs::check_name(&request.name).map_err(|error| EnrolRefusal::Name(error.to_string()))?;
    if !labels_fit(&request.labels) {
        let text = format!("a node has at most {LABELS} labels of {LABEL_BYTES} bytes in all");
        return Err(EnrolRefusal::Request(text));
    }
    let key = Authority::request_key(&request.request)
        .map_err(|error| EnrolRefusal::Request(error.to_string()))?;
    let known = app.authorities.known();
    let wish = Wish {
        by: &known.present,
        others: known.others(&known.present),
        name: &request.name,
        request: &request.request,
        now: app.clock.now(),
        life: if renews {
            app.lives.certificate
        } else {
            UNRENEWED
        },
    };
    let certificate = wish.certificate(key);
    let node = match admit(app, &request, &key).await? {
        Some(node) => {
            certify(app, node, certificate, None).await?;
            node
        }
        None => commit(app, &request, certificate).await?,
    };
    let reply = match wish.sign(node)? {
        certified if renews => EnrolReply::Certified { node, certified },
        Certified { issued, now, .. } => EnrolReply::Enrolled { node, issued, now },
    };
    Ok((node, reply))
}

/// What is asked to be signed.
struct Wish<'a> {
    /// The authority that signs.
    by: &'a Authority,
    /// The others that the node shall trust.
    others: Vec<Vec<u8>>,
    name: &'a str,
    request: &'a [u8],
    now: Unix,
    life: Span,
}

impl Wish<'_> {
    /// As it will be remembered.
    fn certificate(&self, key: [u8; 32]) -> Certificate {
        Certificate {
            key,
            until: certs::valid_until(self.now, self.life),
            authority: self.by.fingerprint().0,
        }
    }

    /// The certificate, once it is committed that `node` may have it.
    fn sign(&self, node: NodeId) -> Result<Certified, EnrolRefusal> {
        let issued = self
            .by
            .node(self.request, node, self.name, self.now, self.life);
        let issued = issued.map_err(|error| EnrolRefusal::Request(error.to_string()))?;
        Ok(Certified {
            issued,
            others: self.others.clone(),
            now: self.now,
        })
    }
}

/// Commits that a certificate is about to be issued.
async fn certify(
    app: &App,
    node: NodeId,
    certificate: Certificate,
    shown: Option<Certificate>,
) -> Result<(), EnrolRefusal> {
    let wish = Request::Certify {
        node,
        certificate,
        shown,
    };
    match ask(app, wish).await? {
        Reply::Done => Ok(()),
        Reply::Refused(Refused::NotFound { .. }) => Err(EnrolRefusal::NotAllowed(
            "it is not a node of this fleet any more: enrol it with a token".into(),
        )),
        Reply::Refused(refused) => Err(EnrolRefusal::NotAllowed(refused.to_string())),
        other => Err(EnrolRefusal::Request(unexpected(&other).to_string())),
    }
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
/// signing request proves the key, and the secret that it held the token.
async fn repeated(
    app: &App,
    request: &EnrolRequest,
    key: &[u8; 32],
    refused: &Refused,
) -> Result<NodeId, EnrolRefusal> {
    let before = Request::EnrolledBefore {
        token: request.token.id.to_string(),
        key: *key,
        first: certs::first_id(key),
    };
    if let Reply::UsedToken(record, node) = ask(app, before).await?
        && let Ok(record) = codec::decode::<TokenRecord>(&record)
        && record.fits(&request.token)
        && is_called(app, node, &request.name).await?
    {
        return Ok(node);
    }
    Err(match refused {
        Refused::NotFound { .. } => EnrolRefusal::Token(TokenRefusal::Wrong),
        other => EnrolRefusal::NotAllowed(other.to_string()),
    })
}

/// Whether the node has this name, and was not declared gone.
async fn is_called(app: &App, node: NodeId, name: &str) -> Result<bool, EnrolRefusal> {
    let name = name.to_owned();
    let known = ask(app, Request::Node { name }).await?;
    Ok(matches!(known, Reply::Node(known)
        if known.id == node && known.state != NodeState::Forgotten.text()))
}

/// Uses the token up and makes (or replaces) the node.
async fn commit(
    app: &Arc<App>,
    request: &EnrolRequest,
    certificate: Certificate,
) -> Result<NodeId, EnrolRefusal> {
    let derived = certs::first_id(&certificate.key);
    let replaced = ask(
        app,
        Request::Node {
            name: request.name.clone(),
        },
    )
    .await?;
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
        certificate,
    };
    match ask(app, enrol).await? {
        Reply::Enrolled(node) => {
            remember(app, node, &replaced, certificate.key).await;
            Ok(node)
        }
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

/// Keeps outside the store that a key was replaced by another one.
async fn remember(app: &Arc<App>, node: NodeId, before: &Reply, key: [u8; 32]) {
    let now = clock::wall();
    let Reply::Node(known) = before else { return };
    revoked::let_in(app, node, &known.name, key, now).await;
    let new = Fingerprint(key).to_string();
    let old = known.certificate.as_ref().map(|old| old.key.clone());
    if old.as_ref().is_some_and(|old| *old != new) {
        let entry = revoked::Entry {
            node,
            name: known.name.clone(),
            key: old,
            at: now,
            why: "a token put another key in its place".into(),
            gone: None,
            let_in: false,
        };
        // the node has its certificate already: told to the log
        let _ = revoked::keep(app, entry).await;
    }
}

/// Serves a node that asks for a new certificate in place of its own, which may have expired. Its
/// key stays.
pub(crate) async fn renew(
    app: &Arc<App>,
    connection: &Connection,
    caller: Caller,
) -> Result<(), LinkError> {
    let asked = tokio::time::timeout(ASK, connection.accept_enrol()).await;
    let (wish, answer) = asked.map_err(|_| LinkError::TimedOut)??;
    let reply = match wish {
        EnrolAsk::Renew { request } => renewed(app, &caller, &request).await,
        EnrolAsk::Enrol(_) => Err(EnrolRefusal::NotAllowed(
            "only a newcomer can enrol; this one can renew".into(),
        )),
    };
    let (name, from) = (&caller.name, connection.address());
    match &reply {
        Ok(certified) => {
            let until = certs::valid_until(certified.now, app.lives.certificate);
            tracing::info!(name, until = until.0, "renewed a certificate");
        }
        Err(refusal) => tracing::warn!(name, %from, %refusal, "renewal refused"),
    }
    let node = caller.id;
    let issued = reply.is_ok();
    let reply = reply.map(|certified| EnrolReply::Certified { node, certified });
    answer
        .answer(&reply.unwrap_or_else(EnrolReply::Refused))
        .await?;
    if issued {
        tokio::spawn(sessions::shall_show(app.clone(), node));
    }
    Ok(())
}

async fn renewed(app: &App, caller: &Caller, request: &[u8]) -> Result<Certified, EnrolRefusal> {
    let key = Authority::request_key(request)
        .map_err(|error| EnrolRefusal::Request(error.to_string()))?;
    if key != caller.key {
        let text = "a renewal keeps its key, and the request is for another one";
        return Err(EnrolRefusal::Request(text.into()));
    }
    let known = app.authorities.known();
    // a connection may be older than the end of an exchange
    let Some(shown) = known.shown(caller) else {
        let text = "the fleet has given up the authority of this certificate; enrol anew";
        return Err(EnrolRefusal::NotAllowed(text.into()));
    };
    let wish = Wish {
        by: known.renewing(),
        others: known.others(known.renewing()),
        name: &caller.name,
        request,
        now: app.clock.now(),
        life: app.lives.certificate,
    };
    certify(app, caller.id, wish.certificate(key), Some(shown)).await?;
    wish.sign(caller.id)
}

/// How often certificates are looked through.
const LOOK: Duration = Duration::from_secs(3600);

/// Warns, once for each certificate, when one should have been renewed long ago: its node is
/// offline, or cannot renew.
pub(crate) async fn warn_of_expiry(app: Arc<App>) {
    let mut told = BTreeSet::new();
    loop {
        let late = Unix(
            clock::wall()
                .0
                .saturating_add(app.lives.certificate.0 as i64 / 6),
        );
        if let Ok(Reply::Nodes(nodes)) = app.engine.ask(Request::Nodes).await {
            let here = nodes.into_iter();
            for node in here.filter(|node| node.state != NodeState::Forgotten.text()) {
                let Some(known) = node.certificate.filter(|known| known.until < late) else {
                    continue;
                };
                if told.insert((node.id, known.until)) {
                    let (name, until) = (node.name, known.until);
                    tracing::warn!(name, %until, "a certificate was not renewed in its time");
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
