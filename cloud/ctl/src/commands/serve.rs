//! `driftless serve`.

use crate::args::{Global, Serve};
use crate::config::{self, Configured};
use crate::exit::{Code, Failure, chain};
use crate::output::Output;
use cloud::{Ready, ServeError};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

pub(super) fn run(args: &Serve, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let configured = config::read(global, args);
    let (configured, _) = configured.map_err(|mistakes| config::failure(&mistakes, out))?;
    start_log(&configured, out);
    let options = configured.options;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failed, format!("cannot start threads: {error}")))?;
    let served = runtime.block_on(async {
        let stop = cloud::stop_signal().map_err(|error| {
            Failure::new(Code::Failed, format!("cannot wait for signals: {error}"))
        })?;
        let mut told = Ok(());
        let served = cloud::serve(options, stop, |ready| told = tell(ready, out)).await;
        told?;
        served.map_err(failure)
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    served.map(|()| Code::Done)
}

/// The one line (or object) that says where the coordinator is.
fn tell(ready: &Ready, out: &mut Output) -> Result<(), Failure> {
    if out.json {
        return out.object(ready);
    }
    out.say(&format!(
        "coordinator ready: agents at {} (UDP), API at http://{}, data in {}",
        ready.listen, ready.api, ready.data
    ));
    Ok(())
}

fn failure(error: ServeError) -> Failure {
    let hint = error.hint();
    let failure = Failure::new(Code::Failed, chain(&error));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The coordinator's own log, on standard error.
fn start_log(configured: &Configured, out: &Output) {
    let filter =
        EnvFilter::try_new(&configured.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(out.live && std::io::stderr().is_terminal());
    // A second log in one process (a test, the demo) keeps the first one's settings.
    let started = match configured.log_json {
        true => log.json().try_init(),
        false => log.try_init(),
    };
    drop(started);
}
