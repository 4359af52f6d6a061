//! The coordinator in this process, over loopback: its API and its link.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

mod access;
mod api;
mod common;
mod described;
mod rotation;
mod sessions;
