//! The engine over redb: every scenario of the core's own tests, and crashes of a real file.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod crash;
mod medium;

#[path = "../../../core/tests/engine/apart.rs"]
mod apart;
#[path = "../../../core/tests/engine/asking.rs"]
mod asking;
#[path = "../../../core/tests/engine/balance.rs"]
mod balance;
#[path = "../../../core/tests/engine/bounds.rs"]
mod bounds;
#[path = "../../../core/tests/engine/byzantine.rs"]
mod byzantine;
#[path = "../../../core/tests/engine/common.rs"]
mod common;
#[path = "../../../core/tests/engine/details.rs"]
mod details;
#[path = "../../../core/tests/engine/drawn_again.rs"]
mod drawn_again;
#[path = "../../../core/tests/engine/exchange.rs"]
mod exchange;
#[path = "../../../core/tests/engine/forgetting.rs"]
mod forgetting;
#[path = "../../../core/tests/engine/inventories.rs"]
mod inventories;
#[path = "../../../core/tests/engine/limits.rs"]
mod limits;
#[path = "../../../core/tests/engine/logs.rs"]
mod logs;
#[path = "../../../core/tests/engine/losses.rs"]
mod losses;
#[path = "../../../core/tests/engine/moves.rs"]
mod moves;
#[path = "../../../core/tests/engine/owners.rs"]
mod owners;
#[path = "../../../core/tests/engine/plans.rs"]
mod plans;
#[path = "../../../core/tests/engine/recollect.rs"]
mod recollect;
#[path = "../../../core/tests/engine/record.rs"]
mod record;
#[path = "../../../core/tests/engine/refusals.rs"]
mod refusals;
#[path = "../../../core/tests/engine/restore.rs"]
mod restore;
#[path = "../../../core/tests/engine/retries.rs"]
mod retries;
#[path = "../../../core/tests/engine/runs.rs"]
mod runs;
#[path = "../../../core/tests/engine/schedules.rs"]
mod schedules;
#[path = "../../../core/tests/engine/sessions.rs"]
mod sessions;
#[path = "../../../core/tests/engine/settings.rs"]
mod settings;
#[path = "../../../core/tests/engine/skew.rs"]
mod skew;
#[path = "../../../core/tests/engine/told.rs"]
mod told;
#[path = "../../../core/tests/engine/window.rs"]
mod window;
