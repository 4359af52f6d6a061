//! edge-agent/core
