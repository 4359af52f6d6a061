//! What the service manager is told: that the coordinator serves, that its engine turns, that it
//! stops. Where nobody listens (`NOTIFY_SOCKET` is not set) nothing is told.

use crate::app::App;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use std::sync::Arc;

/// Agents and people are served.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// It stops, in bounded time.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Tells the service manager that the engine takes its turns, twice in the time after which that
/// takes the coordinator for stuck. Never ends but with the engine.
pub(crate) async fn watch(app: Arc<App>) {
    let Some(limit) = watchdog_enabled() else {
        return;
    };
    while app.engine.turned().await.is_ok() {
        let status = format!("{} nodes are connected", app.sessions.count());
        tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        tokio::time::sleep(limit / 2).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
