//! cloud/core
