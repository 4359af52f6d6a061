//! Settings of the fleet, of a label or of one node.

use super::error::{ApiError, Asked, Body};
use super::types::{NewSetting, ScopeQuery};
use super::{Shared, find};
use crate::app::App;
use axum::extract::State;
use axum::response::Json;
use cloud_core::event::{Reply, Request};
use cloud_core::settings::Scope;
use cloud_core::view::Settings;

/// GET /settings
pub(super) async fn get(
    State(app): Shared,
    Asked(of): Asked<ScopeQuery>,
) -> Result<Json<Settings>, ApiError> {
    let scope = scope(&app, &of).await?;
    view(&app, scope).await
}

/// POST /settings
pub(super) async fn change(
    State(app): Shared,
    Body(new): Body<NewSetting>,
) -> Result<Json<Settings>, ApiError> {
    let (node, label) = (new.node, new.label);
    let scope = scope(&app, &ScopeQuery { node, label }).await?;
    let request = Request::Configure {
        scope: scope.clone(),
        name: new.key,
        value: new.value,
        by: new.by,
    };
    match app.engine.ask(request).await? {
        Reply::Done => view(&app, scope).await,
        other => Err(ApiError::odd(&other)),
    }
}

async fn scope(app: &App, of: &ScopeQuery) -> Result<Scope, ApiError> {
    match (&of.node, &of.label) {
        (None, None) => Ok(Scope::Fleet),
        (Some(node), None) => find::node(app, node).await.map(|node| Scope::Node(node.id)),
        (None, Some(label)) => match label.split_once('=') {
            Some((key, value)) if !key.is_empty() && label.len() <= 512 => Ok(Scope::Label {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(ApiError::malformed(format!("'{label}' is no label")).hint("KEY=VALUE")),
        },
        (Some(_), Some(_)) => Err(ApiError::malformed("both a node and a label are named")
            .hint("name one of them, or none for the fleet")),
    }
}

async fn view(app: &App, scope: Scope) -> Result<Json<Settings>, ApiError> {
    match app.engine.ask(Request::Settings { scope }).await? {
        Reply::Settings(settings) => Ok(Json(settings)),
        other => Err(ApiError::odd(&other)),
    }
}
