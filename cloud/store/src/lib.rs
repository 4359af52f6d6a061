//! cloud/store
