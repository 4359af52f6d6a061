//! The door: who asks, and whether the role suffices.
//!
//! On loopback without TLS whoever reaches the API may do everything. Elsewhere a bearer token says
//! who asks. One that tries bad tokens too often is not listened to for a while.

use super::error::ApiError;
use super::server::Peer;
use crate::app::App;
use crate::{caller, clock};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use certs::AccessToken;
use cloud_core::access::{Caller, Role};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Bad tries that are free.
const TRIES: f64 = 10.0;
/// Time after which one more is.
const TRY_AGAIN: Duration = Duration::from_secs(3);
/// Addresses that are remembered.
const ADDRESSES: usize = 4096;

/// Who may use the API.
#[derive(Debug)]
pub(crate) enum Door {
    /// Whoever reaches it: it is on loopback.
    Open,
    /// Who shows a token: one of the fleet's, or that of this start, which stands in the data
    /// directory and makes whoever can read that an admin.
    Guarded {
        /// The token of this start.
        local: AccessToken,
        /// Who showed bad ones.
        tries: Tries,
    },
}

/// Somebody who was let in.
#[derive(Debug, Clone)]
struct Known {
    role: Role,
    caller: Caller,
}

/// Who asks; for the handlers' layer, which knows the role that is needed.
type Judged = Result<Known, Arc<Denied>>;

/// Why somebody is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Denied {
    #[error("this API wants an access token")]
    Missing,
    #[error("this is no access token")]
    Malformed,
    #[error("the access token is not known here: was it revoked, or is it of another coordinator?")]
    Unknown,
    #[error("the access token {0} has expired")]
    Expired(String),
    #[error("too many bad access tokens came from {0}")]
    TooMany(IpAddr),
}

impl Denied {
    fn answer(&self) -> Response {
        let status = match self {
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::UNAUTHORIZED,
        };
        let hint = match self {
            Self::TooMany(_) => "wait a minute".to_owned(),
            _ => "`driftless access create` makes one; give it with --token, DRIFTLESS_TOKEN or \
                  DRIFTLESS_TOKEN_FILE (over HTTP: Authorization: Bearer TOKEN)"
                .to_owned(),
        };
        let mut answer = ApiError::new(status, self.to_string())
            .hint(hint)
            .into_response();
        let headers = answer.headers_mut();
        match self {
            Self::TooMany(_) => {
                headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("60"));
            }
            _ => {
                let value = header::HeaderValue::from_static("Bearer");
                headers.insert(header::WWW_AUTHENTICATE, value);
            }
        }
        answer
    }
}

/// Finds out who asks.
pub(super) async fn meet(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let from = request.extensions().get().map(|Peer(from)| *from);
    let judged = judge(&app, request.headers(), from.map(|from| from.ip()));
    let judged: Judged = match judged {
        Ok((role, token)) => Ok(Known {
            role,
            caller: Caller {
                token,
                from: from.map(|from| from.to_string()).unwrap_or_default(),
            },
        }),
        Err(denied) => Err(Arc::new(denied)),
    };
    request.extensions_mut().insert(judged);
    let answer = next.run(request).await;
    app.answered.count(answer.status());
    answer
}

/// Lets in whoever has the role that a route needs; `None`: everybody.
pub(super) async fn require(least: Option<Role>, request: Request, next: Next) -> Response {
    let judged = request.extensions().get::<Judged>().cloned();
    match (least, judged) {
        (None, _) => next.run(request).await,
        (_, None) => Denied::Missing.answer(),
        (_, Some(Err(denied))) => {
            tracing::info!(path = request.uri().path(), %denied, "the API refused somebody");
            denied.answer()
        }
        (Some(least), Some(Ok(known))) if known.role < least => {
            let name = known.caller.token.as_deref().unwrap_or_default();
            let (has, needs) = (known.role.text(), least.text());
            tracing::info!(
                path = request.uri().path(),
                token = name,
                has,
                needs,
                "role too low"
            );
            let what = format!("the access token {name} has the role {has}; this needs {needs}");
            let hint = "an admin makes another with `driftless access create --role ROLE`";
            ApiError::new(StatusCode::FORBIDDEN, what)
                .hint(hint)
                .into_response()
        }
        (Some(_), Some(Ok(known))) => caller::serving(known.caller, next.run(request)).await,
    }
}

/// The role and the name of the token that was shown.
fn judge(
    app: &App,
    headers: &HeaderMap,
    from: Option<IpAddr>,
) -> Result<(Role, Option<String>), Denied> {
    let Door::Guarded { local, tries } = &app.door else {
        return Ok((Role::Admin, None));
    };
    let Some(shown) = headers.get(header::AUTHORIZATION) else {
        return Err(Denied::Missing);
    };
    let from = from.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    if !tries.may(from, Instant::now()) {
        return Err(Denied::TooMany(from));
    }
    let known = shown
        .to_str()
        .ok()
        .and_then(bearer)
        .ok_or(Denied::Malformed)
        .and_then(|token| find(app, local, &token));
    if known.is_err() {
        tries.bad(from, Instant::now());
    }
    known
}

fn bearer(header: &str) -> Option<AccessToken> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(())?;
    AccessToken::parse(token.trim())
}

fn find(
    app: &App,
    local: &AccessToken,
    token: &AccessToken,
) -> Result<(Role, Option<String>), Denied> {
    if token.fits(&local.hash()) {
        return Ok((Role::Admin, None));
    }
    let (good, id) = (app.engine.access(), token.id());
    let good = good.borrow();
    let mut found = good.iter().filter(|(_, one)| one.id == id);
    let Some((name, known)) = found.find(|(_, one)| token.fits(&one.hash)) else {
        return Err(Denied::Unknown);
    };
    if known
        .expires
        .is_some_and(|expires| expires <= clock::wall())
    {
        return Err(Denied::Expired(name.clone()));
    }
    Ok((known.role, Some(name.clone())))
}

/// Whether the token of somebody who was let in is still good; for answers that go on for long.
pub(super) fn stands(app: &App, caller: &Caller) -> bool {
    let Some(name) = &caller.token else {
        return true;
    };
    let good = app.engine.access();
    let good = good.borrow();
    let until = good.get(name).map(|known| known.expires);
    until.is_some_and(|until| until.is_none_or(|until| until > clock::wall()))
}

/// Bad tries by address: each has so many, and gets them back with time.
#[derive(Debug, Default)]
pub(crate) struct Tries(Mutex<BTreeMap<IpAddr, (f64, Instant)>>);

impl Tries {
    fn left(known: Option<&(f64, Instant)>, now: Instant) -> f64 {
        let Some((left, at)) = known else {
            return TRIES;
        };
        let since = now.saturating_duration_since(*at).as_secs_f64();
        (left + since / TRY_AGAIN.as_secs_f64()).min(TRIES)
    }

    fn may(&self, from: IpAddr, now: Instant) -> bool {
        let tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self::left(tries.get(&network(from)), now) >= 1.0
    }

    fn bad(&self, from: IpAddr, now: Instant) {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= ADDRESSES {
            tries.retain(|_, one| Self::left(Some(one), now) < TRIES);
        }
        if tries.len() >= ADDRESSES {
            tries.pop_first();
        }
        let left = Self::left(tries.get(&network(from)), now);
        tries.insert(network(from), (left - 1.0, now));
    }
}

/// One client has many addresses of IPv6, but one network.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(one) => {
            let mut bytes = one.octets();
            bytes[8..].fill(0);
            IpAddr::V6(bytes.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_tries_run_out_and_come_back_with_time() {
        let (tries, start) = (Tries::default(), Instant::now());
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..10 {
            assert!(tries.may(one, start));
            tries.bad(one, start);
        }
        assert!(!tries.may(one, start) && !tries.may(neighbour, start));
        assert!(tries.may(other, start));
        assert!(!tries.may(one, start + Duration::from_secs(2)));
        assert!(tries.may(one, start + Duration::from_secs(4)));
        for n in 0..10_000_u32 {
            tries.bad(IpAddr::V4(n.into()), start);
        }
        assert!(tries.0.lock().unwrap().len() <= ADDRESSES);
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        let token = AccessToken::create();
        for good in [
            format!("Bearer {}", token.text()),
            format!("bearer  {}", token.text()),
        ] {
            assert_eq!(bearer(&good).as_ref(), Some(&token));
        }
        for bad in [
            token.text(),
            format!("Basic {}", token.text()),
            "Bearer".to_owned(),
        ] {
            assert_eq!(bearer(&bad), None);
        }
    }
}
