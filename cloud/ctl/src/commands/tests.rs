//! Commands against a coordinator in this process.
