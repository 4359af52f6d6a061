//! The table of routes: each has the least role that it needs, and there is no other way to add
//! one.

use super::door;
use super::error::Limit;
use crate::app::App;
use axum::Router;
use axum::extract::{Extension, Request};
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::routing::{MethodFilter, on};
use cloud_core::access::Role;
use std::sync::Arc;

/// Most bytes of a body, unless a route says otherwise.
const BODY: usize = 64 * 1024;

/// A route, as the API's description has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `GET`, `POST`, `PUT`.
    pub method: &'static str,
    /// Its path, with `{names}`.
    pub path: String,
    /// The least role that it needs; none: it is open to everybody.
    pub least: Option<Role>,
}

/// Collects routes.
pub(super) struct Routes {
    router: Router<Arc<App>>,
    table: Vec<Route>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            router: Router::new(),
            table: Vec::new(),
        }
    }

    pub(super) fn get<H, T>(self, path: &'static str, least: Role, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        self.add(("GET", MethodFilter::GET), path, Some(least), BODY, handler)
    }

    /// A route that needs no token.
    pub(super) fn open<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        self.add(("GET", MethodFilter::GET), path, None, BODY, handler)
    }

    pub(super) fn post<H, T>(self, path: &'static str, least: Role, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        self.post_up_to(BODY, path, least, handler)
    }

    /// A route whose body may have so many bytes.
    pub(super) fn post_up_to<H, T>(
        self,
        bytes: usize,
        path: &'static str,
        least: Role,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let method = ("POST", MethodFilter::POST);
        self.add(method, path, Some(least), bytes, handler)
    }

    pub(super) fn put<H, T>(self, path: &'static str, least: Role, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        self.add(("PUT", MethodFilter::PUT), path, Some(least), BODY, handler)
    }

    fn add<H, T>(
        mut self,
        (method, filter): (&'static str, MethodFilter),
        path: &'static str,
        least: Option<Role>,
        body: usize,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let guarded = on(filter, handler)
            .layer(Extension(Limit(body)))
            .route_layer(from_fn(move |request: Request, next: Next| {
                door::require(least, request, next)
            }));
        self.router = self.router.route(path, guarded);
        self.table.push(Route {
            method,
            path: path.to_owned(),
            least,
        });
        self
    }

    /// The router, and what is in it.
    pub(super) fn done(self) -> (Router<Arc<App>>, Vec<Route>) {
        (self.router, self.table)
    }
}
