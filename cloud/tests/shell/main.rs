//! The coordinator in this process, over loopback: its API and its link.

mod api;
mod common;
mod sessions;
