//! `driftless serve`.

use crate::args::Global;
use crate::config::{self, Configured};
use crate::exit::{Code, Failure, chain};
use crate::output::Output;
use clap::Args;
use cloud::{Ready, ServeError};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Run the coordinator until it is told to stop (Ctrl-C or SIGTERM).
#[derive(Args, Debug, Default)]
#[command(after_help = "\
Examples:
  driftless serve
  driftless serve --config /etc/driftless/coordinator.toml
  driftless serve --data /var/lib/driftless/coordinator --listen 0.0.0.0:4433 --api 127.0.0.1:4480

The data directory holds the state, the keys and the files; it is made if it does not exist, and only
one coordinator uses it at a time. Without --data: DRIFTLESS_DATA, else what the configuration says, else
/var/lib/driftless/coordinator for root and ~/.local/state/driftless/coordinator for others. A flag wins
over its environment variable (DRIFTLESS_COORDINATOR_ and the key's name in capitals), that over the
configuration file, /etc/driftless/coordinator.toml if it is there. With --api ADDR the API listens there
(127.0.0.1:4480 without it). On loopback every program of this machine may use it; elsewhere it speaks
TLS and asks for access tokens (`driftless access create`).
Port 0 takes a free port; DIR/quic.addr and DIR/api.addr say which.")]
pub(crate) struct Serve {
    /// Where agents connect (QUIC over UDP) [default: 0.0.0.0:4433]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Most bytes that the file store may take [default: 16GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) file_budget: Option<String>,
    /// How long runs are kept after their end [default: 7d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) retention: Option<String>,
    /// How long a node's certificate is good, renewed after two thirds of that [default: 90d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) certificate_life: Option<String>,
    /// How long an expired certificate may still be renewed [default: 365d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) renewal_grace: Option<String>,
    /// How the log is written: text or json [default: text, json with --json]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log: Option<String>,
    /// Ask for TLS and access tokens on loopback, too
    #[arg(long)]
    pub(crate) api_tls: bool,
    /// The API's own certificate chain (PEM) [default: the fleet's authority makes one]
    #[arg(long, value_name = "FILE", requires = "api_key")]
    pub(crate) api_cert: Option<String>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "api_cert")]
    pub(crate) api_key: Option<String>,
    /// A name or address under which the API is reached (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) api_name: Vec<String>,
    /// Make backups by itself, in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) backup_dir: Option<String>,
    /// How often [default: 1d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) backup_every: Option<String>,
    /// How many of them are kept [default: 7]
    #[arg(long, value_name = "N")]
    pub(crate) backup_keep: Option<String>,
}

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
    let scheme = if ready.guarded { "https" } else { "http" };
    out.say(&format!(
        "coordinator ready: agents at {} (UDP), API at {scheme}://{}, data in {}",
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
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&configured.log_filter))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(out.live && std::io::stderr().is_terminal());
    // A second log in one process (a test, the demo) keeps the first one's settings.
    let started = match configured.log_json {
        true => log.json().with_span_list(false).try_init(),
        false => log.try_init(),
    };
    drop(started);
}
