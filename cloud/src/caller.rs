//! Who asks: known where a request is let in, and given to the engine with whatever it asks for
//! while it is served. So no handler can forget it.

use cloud_core::access::Caller;
use std::future::Future;

tokio::task_local! {
    static CALLER: Caller;
}

/// Serves a request of `caller`.
pub(crate) async fn serving<F: Future>(caller: Caller, request: F) -> F::Output {
    CALLER.scope(caller, request).await
}

/// Who is served here; nobody where the coordinator asks for itself.
pub(crate) fn current() -> Caller {
    CALLER.try_with(Clone::clone).unwrap_or_default()
}
