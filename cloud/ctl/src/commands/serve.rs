//! `driftless serve`.

use crate::args::{Global, Serve};
use crate::exit::{Code, Failure, chain};
use crate::output::Output;
use crate::target::{DEFAULT_API, data_dir};
use cloud::{Options, Ready, ServeError};
use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use tracing_subscriber::EnvFilter;

pub(super) fn run(args: &Serve, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    start_log(out);
    let options = Options {
        data: data_dir(global),
        listen: address("--listen", &args.listen)?,
        api: address("--api", global.api.as_deref().unwrap_or(DEFAULT_API))?,
        file_budget: args.file_budget,
        retention: args.retention,
    };
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

fn address(flag: &str, text: &str) -> Result<SocketAddr, Failure> {
    let bare = text
        .strip_prefix("http://")
        .unwrap_or(text)
        .trim_end_matches('/');
    let wrong = |why: String| {
        Failure::new(
            Code::Usage,
            format!("{flag} is '{text}', which is no address: {why}"),
        )
        .hint("write ADDRESS:PORT, as in 127.0.0.1:4480, 0.0.0.0:4433 or [::]:4433")
    };
    let mut found = bare
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?;
    found
        .next()
        .ok_or_else(|| wrong("it has no address".to_owned()))
}

/// The coordinator's own log, on standard error: `DRIFTLESS_LOG` says how much (`info` by default).
fn start_log(out: &Output) {
    let filter = EnvFilter::try_from_env("DRIFTLESS_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,cloud=info,cloud_core=info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(out.live && std::io::stderr().is_terminal());
    // A second log in one process (a test, the demo) keeps the first one's settings.
    let started = if out.json {
        log.json().try_init()
    } else {
        log.try_init()
    };
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on_are_checked() {
        assert_eq!(address("--api", "127.0.0.1:0").unwrap().port(), 0);
        assert_eq!(address("--api", "http://127.0.0.1:80/").unwrap().port(), 80);
        for wrong in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999"] {
            let failure = address("--listen", wrong).unwrap_err();
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.what.contains("--listen"), "{failure}");
        }
    }
}
