//! edge-agent/store
