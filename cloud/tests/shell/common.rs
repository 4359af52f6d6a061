//! A coordinator in this process, on loopback and free ports, and a client for its API.

use cloud::{Options, Ready, ServeError};
use serde_json::Value;
use shared::codec;
use shared::spec::{self, SentFiles};
use shared::time::Unix;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Longest time that a test waits for something.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A coordinator that runs until it is dropped.
pub(crate) struct Coordinator {
    pub(crate) ready: Ready,
    pub(crate) dir: Option<TempDir>,
    agent: ureq::Agent,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// Options for a coordinator on free ports.
pub(crate) fn options(data: &Path) -> Options {
    Options {
        data: data.to_path_buf(),
        listen: "127.0.0.1:0".parse().unwrap(),
        api: "127.0.0.1:0".parse().unwrap(),
        file_budget: 1 << 20,
        access: cloud::Guarded::default(),
        record: cloud_core::record::Limits::default(),
        retention: cloud_core::event::RETENTION,
        certificate_life: cloud::CERTIFICATE_LIFE,
        renewal_grace: cloud::RENEWAL_GRACE,
        backup: None,
        scheduler: shared::config::scheduler::Scheduler::default(),
        hellos_at_once: cloud::HELLOS_AT_ONCE,
    }
}

/// Runs a coordinator until `stop`; for starts that are expected to fail, too.
pub(crate) fn serve(
    options: Options,
    ready: mpsc::Sender<Ready>,
    stop: oneshot::Receiver<()>,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let stop = async {
        let _ = stop.await;
    };
    let told = |is: &Ready| drop(ready.send(is.clone()));
    let served = runtime.block_on(cloud::serve(options, stop, told));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// The error of a coordinator that cannot start.
pub(crate) fn refused(options: Options) -> ServeError {
    let (ready, is_ready) = mpsc::channel();
    let (_keep, stop) = oneshot::channel();
    let error = serve(options, ready, stop).unwrap_err();
    assert!(is_ready.try_recv().is_err(), "it said that it was ready");
    error
}

impl Coordinator {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = options(&dir.path().join("data"));
        let mut coordinator = Self::start_with(options);
        coordinator.dir = Some(dir);
        coordinator
    }

    pub(crate) fn start_with(options: Options) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || serve(options, ready, stopped));
        let Ok(ready) = is_ready.recv_timeout(PATIENCE) else {
            panic!("not ready: {:?}", thread.join())
        };
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let config = config.timeout_global(Some(PATIENCE)).build();
        let (stop, thread) = (Some(stop), Some(thread));
        Self {
            ready,
            dir: None,
            agent: config.into(),
            stop,
            thread,
        }
    }

    /// Stops it and gives its end.
    pub(crate) fn stop(mut self) -> Result<(), ServeError> {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/v1{path}", self.ready.api)
    }

    /// Status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        read(self.agent.get(self.url(path)).call())
    }

    /// Status and JSON.
    pub(crate) fn json(&self, path: &str) -> (u16, Value) {
        let (status, text) = self.get(path);
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}")),
        )
    }

    /// The lines of a list.
    pub(crate) fn lines(&self, path: &str) -> Vec<Value> {
        let (status, text) = self.get(path);
        assert_eq!(status, 200, "{text}");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.send("POST", path, &[], body.as_bytes())
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, Value) {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.len() > 64 << 10 {
            request = request.header("expect", "100-continue");
        }
        let (status, text) = read(self.agent.run(request.body(body).unwrap()));
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// Status, media type and text of whatever answers.
    pub(crate) fn raw(&self, method: &str, uri: &str, body: &[u8]) -> (u16, String, String) {
        let request = ureq::http::Request::builder().method(method).uri(uri);
        let mut answer = self.agent.run(request.body(body).unwrap()).unwrap();
        let kind = answer.headers().get("content-type").cloned();
        let kind = kind.map(|kind| kind.to_str().unwrap().to_owned());
        let bytes = answer.body_mut().read_to_vec().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (answer.status().as_u16(), kind.unwrap_or_default(), text)
    }

    /// Asks until the answer is as wanted.
    pub(crate) fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let (_, value) = self.json(path);
            if wanted(&value) {
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "{path} stays {value}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn submit(&self, packed: &[u8], headers: &[(&str, &str)]) -> (u16, Value) {
        self.send("POST", "/runs?by=tester", headers, packed)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), text)
}

/// A compiled workflow, packed.
pub(crate) fn packed(text: &str, files: &SentFiles) -> Vec<u8> {
    let compiled = spec::submission("test.yaml", text, &BTreeMap::new(), files, Unix(0));
    codec::pack(&compiled.unwrap()).0
}

/// Two tasks, one behind the other.
pub(crate) const TWO: &str = "\
name: two
tasks:
  first: {command: [echo, hello], outputs: [a.txt]}
  second: {command: [cat, a.txt], inputs: [a.txt]}
";
