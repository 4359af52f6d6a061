//! Backups that the coordinator makes by itself.

use crate::api::backup::{count, of_running};
use crate::app::App;
use crate::backup::{BackupError, Periodic, Placing, Written, newest, prune, sweep};
use crate::clock;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Pause after a backup that failed, if they are not more frequent anyway.
const AGAIN: Duration = Duration::from_secs(300);
/// Who makes them, for the audit record.
const SELF: &str = "coordinator";

/// Makes a backup whenever the newest one is old enough, until the coordinator stops.
pub(crate) async fn run(app: Arc<App>, periodic: Periodic) {
    let every = Duration::from_millis(periodic.every.0.max(1000));
    loop {
        let age = newest(&periodic.dir).map(|at| SystemTime::now().duration_since(at));
        // A time that lies ahead (the clock went back) counts as now.
        let pause = age.map_or(Duration::ZERO, |age| {
            every.saturating_sub(age.unwrap_or_default())
        });
        tokio::time::sleep(pause).await;
        match make(&app, &periodic).await {
            Ok(place) => tracing::info!(place = %place.display(), "a backup was made"),
            Err(error) => {
                tracing::error!(dir = %periodic.dir.display(), %error, "no backup was made");
                tokio::time::sleep(every.min(AGAIN)).await;
            }
        }
    }
}

async fn make(app: &Arc<App>, periodic: &Periodic) -> Result<PathBuf, BackupError> {
    let path = periodic.path(clock::wall());
    let (for_it, place) = (app.clone(), path.clone());
    let written = tokio::task::spawn_blocking(move || put(&for_it, &place)).await;
    let written = written.map_err(|_| BackupError::Stopping)??;
    let counted = count(app, written, path.display().to_string(), SELF.to_owned()).await;
    // it is whole and in its place, whatever the coordinator makes of it
    prune(&periodic.dir, periodic.keep, &path)
        .map_err(|error| BackupError::Io("remove old backups", error))?;
    counted.map(|()| path)
}

fn put(app: &App, path: &std::path::Path) -> Result<Written, BackupError> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)
            .map_err(|error| BackupError::Io("make the directory of backups", error))?;
        sweep(dir).map_err(|error| BackupError::Io("remove what was cut off", error))?;
    }
    let mut placing = Placing::begin(path)?;
    let (_, written) = of_running(app, placing.file())?;
    placing.finish()?;
    Ok(written)
}
