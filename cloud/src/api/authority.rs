//! The fleet's authority, and its exchange: begin, look, finish.

use super::Shared;
use super::error::{ApiError, Body, to_the_end};
use super::types::{self, Ask, Finish};
use crate::app::App;
use crate::authorities::ExchangeError;
use crate::sessions;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use cloud_core::event::{Exchange, Reply, Request};
use cloud_core::view::{Carriers, Wait};
use std::sync::Arc;

/// The command that shows how far it is.
const STATUS: &str = "driftless authority rotate status";

impl From<ExchangeError> for ApiError {
    fn from(error: ExchangeError) -> Self {
        let text = sessions::chain(&error);
        match error {
            ExchangeError::Begun => Self::new(StatusCode::CONFLICT, text)
                .hint(format!("`{STATUS}` shows how far it is")),
            ExchangeError::NotBegun => Self::new(StatusCode::CONFLICT, text)
                .hint("`driftless authority rotate begin` begins it"),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
                .hint("look at the disk; the next start goes on with what was written"),
        }
    }
}

/// Which nodes carry certificates of the authority that counts: the next one while it is exchanged.
pub(super) async fn carriers(app: &App) -> Result<Carriers, ApiError> {
    let authority = app.authorities.known().renewing().fingerprint().0;
    match app.engine.ask(Request::Carriers { authority }).await? {
        Reply::Carriers(carriers) => Ok(*carriers),
        other => Err(ApiError::odd(&other)),
    }
}

/// GET /authority
pub(super) async fn get(State(app): Shared) -> Result<Json<types::Authority>, ApiError> {
    view(&app).await.map(Json)
}

async fn view(app: &App) -> Result<types::Authority, ApiError> {
    let carriers = carriers(app).await?;
    let backup = match app.engine.ask(Request::Backup).await? {
        Reply::Backup(newest) => newest.map(|(at, _)| at),
        other => return Err(ApiError::odd(&other)),
    };
    let known = app.authorities.known();
    let all = known.certificates();
    let all: Vec<&[u8]> = all.iter().map(AsRef::as_ref).collect();
    Ok(types::Authority {
        authority: known.present.fingerprint().to_string(),
        until: known.present.until(),
        next: known
            .next
            .as_ref()
            .map(|next| next.fingerprint().to_string()),
        since: known.next.as_ref().and_then(|_| app.authorities.since()),
        backup,
        nodes: carriers.nodes,
        carry: carriers.carry,
        left: carriers.left,
        void_tokens: 0,
        certificates: certs::pem(&all),
    })
}

/// POST /authority/begin
pub(super) async fn begin(
    State(app): Shared,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<types::Authority>, ApiError> {
    to_the_end(begin_now(app, by)).await
}

async fn begin_now(app: Arc<App>, by: String) -> Result<Json<types::Authority>, ApiError> {
    let _turn = app.authorities.turn.lock().await;
    let known = app.authorities.known();
    if known.next.is_some() {
        return Err(ExchangeError::Begun.into());
    }
    let request = Request::Exchange {
        step: Exchange::Begin,
        authority: known.present.fingerprint().0,
        by,
    };
    match app.engine.ask(request).await? {
        Reply::Done => {}
        other => return Err(ApiError::odd(&other)),
    }
    on_disk(&app, |app| app.authorities.begin()).await?;
    let next = app.authorities.known().renewing().fingerprint();
    tracing::warn!(%next, "the fleet changes its authority: nodes are asked to renew");
    sessions::ask_all_to_renew(&app);
    view(&app).await.map(Json)
}

/// POST /authority/finish
pub(super) async fn finish(
    State(app): Shared,
    Body(ask): Body<Finish>,
) -> Result<Json<types::Authority>, ApiError> {
    to_the_end(finish_now(app, ask)).await
}

async fn finish_now(
    app: Arc<App>,
    Finish { by, force }: Finish,
) -> Result<Json<types::Authority>, ApiError> {
    let _turn = app.authorities.turn.lock().await;
    let known = app.authorities.known();
    let next = known.next.as_ref().ok_or(ExchangeError::NotBegun)?;
    let request = Request::Exchange {
        step: Exchange::Finish { force },
        authority: next.fingerprint().0,
        by,
    };
    let (left, void) = match app.engine.ask(request).await? {
        Reply::Exchanged { left, void } => (left, void),
        other => {
            return Err(ApiError::odd(&other).hint(format!(
                "`{STATUS}` shows them; with --force they are left behind and must be enrolled anew"
            )));
        }
    };
    on_disk(&app, |app| app.authorities.finish()).await?;
    let present = next.fingerprint();
    tracing::warn!(%present, ?left, void, "the fleet has changed its authority");
    sessions::close_untrusted(&app);
    // so that they trust the one before no longer
    sessions::ask_all_to_renew(&app);
    let view = view(&app).await?;
    Ok(Json(types::Authority {
        void_tokens: void,
        ..view
    }))
}

/// Writes and syncs files beside the runtime.
async fn on_disk(
    app: &Arc<App>,
    step: impl FnOnce(&App) -> Result<(), ExchangeError> + Send + 'static,
) -> Result<(), ApiError> {
    let with = app.clone();
    let done = tokio::task::spawn_blocking(move || step(&with)).await;
    let failed = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the exchange broke off");
    done.map_err(failed)?.map_err(ApiError::from)
}

/// What of the exchange waits for a person.
pub(super) async fn waits(app: &App) -> Result<Vec<Wait>, ApiError> {
    let carriers = carriers(app).await?;
    let wait = |node, what: String, since, command: String| Wait {
        run: None,
        task: None,
        node,
        what,
        since,
        command: Some(command),
    };
    if app.authorities.known().next.is_some() {
        let since = app.authorities.since().unwrap_or(app.started);
        let (what, command) = match carriers.left.is_empty() {
            true => (
                "all nodes carry certificates of the next authority: the change can be finished"
                    .to_owned(),
                "driftless authority rotate finish".to_owned(),
            ),
            false => (
                format!(
                    "the fleet changes its authority: {} of {} nodes carry certificates of the next",
                    carriers.carry, carriers.nodes
                ),
                STATUS.to_owned(),
            ),
        };
        return Ok(vec![wait(None, what, since, command)]);
    }
    let behind = carriers
        .left
        .into_iter()
        .filter(|left| left.authority.is_some());
    let behind = behind.map(|left| {
        let what = "its certificate is of an authority that the fleet has given up: enrol it anew";
        let command = format!("driftless token create --replace {}", left.node);
        let since = left.heard.unwrap_or(app.started);
        wait(Some(left.node), what.to_owned(), since, command)
    });
    Ok(behind.collect())
}
