//! Room for a file that comes: where the budget is used up, the engine says what may go for it.

use crate::app::App;
use cloud_core::event::{Reply, Request};
use shared::ids::Hash;

/// Of the budget at least so much is asked for at once: the engine reads much to find it.
const PART: u64 = 64;

/// Makes room for a file of this size, as far as something may go for it. What is still missing is
/// refused by the file store.
pub(crate) async fn make(app: &App, hash: Hash, size: u64) {
    let lacks = app.files.lacks(hash, size);
    if lacks == 0 {
        return;
    }
    let bytes = lacks.max(app.file_budget / PART);
    // when the engine has stopped nothing is stored either
    if let Ok(Reply::Room(freed)) = app.engine.ask(Request::MakeRoom { bytes }).await {
        tracing::info!(size, freed, "files of runs that are over went to make room");
    }
}
