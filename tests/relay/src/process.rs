//! The relay as a process: told what to do by lines on its standard input, it answers each by a
//! line, writes down what it did, and ends with its input, so that it never outlives who started
//! it.
//!
//! ```text
//! < {"lanes":["127.0.0.1:40001","127.0.0.1:40002"]}
//! > cut gw-7
//! < {"mono_ms":81234,"lane":"gw-7","what":"cut"}
//! > traffic gw-7
//! < [{"passed":10,"passed_bytes":12000,"dropped":0},{…}]
//! ```

use crate::Relay;
use crate::log::{Line, What};
use rustix::time::{ClockId, clock_gettime};
use std::fs::OpenOptions;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::Path;

/// Relays for the lanes named until `input` ends.
///
/// # Errors
/// Of sockets, of the log, and of input and output.
pub fn serve(
    target: SocketAddr,
    lanes: &[String],
    log: &Path,
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let relay = Relay::start(target, lanes.len(), boot_ms())?;
    let mut log = OpenOptions::new().create(true).append(true).open(log)?;
    let addresses: Vec<SocketAddr> = (0..lanes.len()).map(|lane| relay.address(lane)).collect();
    say(&mut output, &serde_json::json!({ "lanes": addresses }))?;
    for line in input.lines() {
        let line = line?;
        let (order, name) = line.split_once(' ').unwrap_or((&line, ""));
        let Some(lane) = lanes.iter().position(|known| known == name) else {
            say(
                &mut output,
                &serde_json::json!({ "error": format!("no lane '{name}'") }),
            )?;
            continue;
        };
        let Some(what) = carry_out(&relay, lane, order) else {
            if order == "traffic" {
                say(&mut output, &relay.traffic(lane))?;
            } else {
                say(
                    &mut output,
                    &serde_json::json!({ "error": format!("no order '{order}'") }),
                )?;
            }
            continue;
        };
        let done = Line {
            mono_ms: boot_ms(),
            lane: name.to_owned(),
            what,
        };
        say(&mut log, &done)?;
        say(&mut output, &done)?;
    }
    Ok(())
}

/// Carries out an order that leaves a line in the log.
fn carry_out(relay: &Relay, lane: usize, order: &str) -> Option<What> {
    let what = match order {
        "cut" => What::Cut,
        "mute" => What::Mute,
        "join" => What::Join,
        "rebind" => What::Rebind,
        _ => return None,
    };
    match what {
        What::Cut => relay.cut(lane),
        What::Mute => relay.mute(lane),
        What::Join => relay.join(lane),
        What::Rebind => relay.rebind(lane),
    }
    Some(what)
}

fn say(to: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    to.write_all(&text)?;
    to.flush()
}

/// The boot clock, in milliseconds: what stamps of facts are compared with.
#[must_use]
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
