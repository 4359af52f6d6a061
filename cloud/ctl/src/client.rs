//! Speaks to the coordinator's API.

use crate::args::Global;
use crate::exit::{Code, Failure, chain};
use crate::target::{self, Target};
use cloud::api::types::{BYTES, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body, RequestBuilder};

/// Most bytes of one answer that is read whole, or of one line of a list.
const ANSWER_BYTES: u64 = 64 << 20;

/// A coordinator's API.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    target: RefCell<Target>,
    global: Option<Global>,
}

/// A value in a path or a query, with everything escaped that means something there.
pub(crate) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let one = |b: u8| {
        if plain(b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    };
    text.bytes().map(one).collect()
}

impl Client {
    /// The coordinator that flags and environment name; nothing is sent yet.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let client = Self::of(target::find(global)?)?;
        Ok(Self {
            global: Some(global.clone()),
            ..client
        })
    }

    /// Looks again where the coordinator is: it may have been started anew at another address.
    pub(crate) fn find_again(&self) {
        if let Some(Ok(target)) = self.global.as_ref().map(target::find) {
            *self.target.borrow_mut() = target;
        }
    }

    /// The API at `base` (`http://HOST:PORT`), which asks for nothing.
    pub(crate) fn at(base: String) -> Self {
        let target = Target {
            base,
            token: None,
            roots: Vec::new(),
        };
        Self::with(target, TlsConfig::default())
    }

    fn of(target: Target) -> Result<Self, Failure> {
        if !target.base.starts_with("https://") {
            return Ok(Self::with(target, TlsConfig::default()));
        }
        let mut roots = Vec::new();
        for path in &target.roots {
            let wrong = |why: String| {
                let what = format!("cannot use the certificates in {}: {why}", path.display());
                Failure::new(Code::Usage, what).hint("--ca wants a file in PEM")
            };
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let before = roots.len();
            roots.extend(parse_pem(&text).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            }));
            if roots.len() == before {
                return Err(wrong("there is none in it".to_owned()));
            }
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(certs::provider())
            .root_certs(RootCerts::new_with_certs(&roots))
            .build();
        Ok(Self::with(target, tls))
    }

    fn with(target: Target, tls: TlsConfig) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .user_agent(concat!("driftless/", env!("CARGO_PKG_VERSION")))
            .proxy(None)
            .tls_config(tls)
            .build();
        Self {
            agent: config.into(),
            target: RefCell::new(target),
            global: None,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1{path}", self.target.borrow().base)
    }

    /// A request with the access token, if there is one.
    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.target.borrow().token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Reads one object.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.read(self.open(path)?)
    }

    /// The coordinator's figures, as Prometheus reads them.
    pub(crate) fn figures(&self) -> Result<String, Failure> {
        let url = format!("{}/metrics", self.target.borrow().base);
        let mut answer = self.checked(self.signed(self.agent.get(url)).call())?;
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES);
        text.read_to_string()
            .map_err(|error| self.broken(&chain(&error)))
    }

    /// Opens an answer to be read as a stream.
    pub(crate) fn open(&self, path: &str) -> Result<Response<Body>, Failure> {
        self.checked(self.signed(self.agent.get(self.url(path))).call())
    }

    /// Reads a list, one object at a time, for as long as `each` wants more.
    pub(crate) fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        mut each: impl FnMut(T) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let mut lines = BufReader::new(self.open(path)?.into_body().into_reader());
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines
                .by_ref()
                .take(ANSWER_BYTES)
                .read_until(b'\n', &mut line);
            match read {
                Ok(0) => return Ok(()),
                Ok(_) if line.ends_with(b"\n") => {}
                Ok(_) => return Err(self.broke_off("it ends in the middle of a line")),
                Err(error) => return Err(self.broke_off(&error.to_string())),
            }
            let item = serde_json::from_slice(&line).map_err(|e| self.broken(&e.to_string()))?;
            if !each(item)? {
                return Ok(());
            }
        }
    }

    /// Whether there is something at `path`.
    pub(crate) fn has(&self, path: &str) -> Result<bool, Failure> {
        let answer = self.signed(self.agent.head(self.url(path))).call();
        match answer {
            Ok(answer) if answer.status() == StatusCode::NOT_FOUND => Ok(false),
            answer => self.checked(answer).map(|_| true),
        }
    }

    /// Asks for something and reads the answer.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.signed(self.agent.post(self.url(path)));
        self.read(self.checked(request.send_json(body))?)
    }

    /// Sends bytes with these headers and reads the answer.
    pub(crate) fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<T, Failure> {
        let request = self.signed(self.agent.post(self.url(path)));
        let mut request = request.content_type(BYTES);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.read(self.checked(request.send(body))?)
    }

    /// Puts a file of `size` bytes. Storing a large one takes its time.
    pub(crate) fn put(&self, path: &str, size: u64, body: &File) -> Result<(), Failure> {
        let request = self
            .signed(self.agent.put(self.url(path)))
            .content_type(BYTES);
        let request = request.header("content-length", size.to_string());
        // A refusal then comes instead of the content, not in the middle of it.
        let request = request.header("expect", "100-continue");
        let request = request.config().timeout_recv_response(None).build();
        self.checked(request.send(body)).map(|_| ())
    }

    fn read<T: DeserializeOwned>(&self, mut answer: Response<Body>) -> Result<T, Failure> {
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES)
            .read_to_vec();
        let text = text.map_err(|error| self.broken(&chain(&error)))?;
        serde_json::from_slice(&text).map_err(|error| self.broken(&error.to_string()))
    }

    /// The answer, if it is a good one.
    fn checked(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Failure> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(64 << 10)
            .read_to_vec();
        let problem = serde_json::from_slice::<Problem>(&text.unwrap_or_default());
        let problem = problem.map_err(|_| {
            let what = format!("{} answers with status {status}", self.target.borrow().base);
            Failure::new(Code::Failed, what).hint("is it the API of a Driftless coordinator?")
        })?;
        let code = match status {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unreachable,
            StatusCode::INSUFFICIENT_STORAGE => Code::Refused,
            _ if status.is_client_error() => Code::Refused,
            _ => Code::Failed,
        };
        Err(Failure {
            code,
            what: problem.error,
            hint: problem.hint,
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let why = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => chain(other),
        };
        let what = format!(
            "cannot reach the coordinator at {}: {why}",
            self.target.borrow().base
        );
        let distrusted = match error {
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
            // what TLS says of a certificate comes as an error of the stream
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
            _ => false,
        };
        // an answer of TLS is none of HTTP
        let secured = matches!(error, ureq::Error::Protocol(_))
            && self.target.borrow().base.starts_with("http://");
        if secured {
            return Failure::new(Code::Unreachable, what)
                .hint("if the API there speaks TLS, write https://HOST:PORT");
        }
        Failure::new(Code::Unreachable, what).hint(match distrusted {
            true => {
                "the API's certificate must come from a file in --ca (or DRIFTLESS_CA), and name \
                 this host: authority/authority.crt in the coordinator's data directory is the \
                 fleet's; where the fleet has changed its authority, copy it anew"
            }
            false => {
                "does `driftless serve` run there? name another with --api HOST:PORT or --data DIR"
            }
        })
    }

    fn broke_off(&self, why: &str) -> Failure {
        let base = &self.target.borrow().base;
        let what = format!("the answer of {base} broke off: {why}");
        Failure::new(Code::Unreachable, what).hint("did the coordinator stop? try again")
    }

    fn broken(&self, why: &str) -> Failure {
        let what = format!(
            "the answer of {} cannot be read: {why}",
            self.target.borrow().base
        );
        Failure::new(Code::Failed, what).hint("is it the API of a Driftless coordinator?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_paths_are_escaped() {
        assert_eq!(escape("a b/é?"), "a%20b%2F%C3%A9%3F");
    }

    #[test]
    fn nobody_listening_is_said_with_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = Client::at(format!("http://{address}"));
        let failure = client.get::<Problem>("/healthz").unwrap_err();
        assert_eq!(failure.code, Code::Unreachable);
        assert!(failure.what.contains(&address.to_string()), "{failure}");
    }
}
