//! The little world of the demo: coordinator, relay, three gateways, and what each of them says
//! right now.

use super::process::{Process, Scratch, interrupted};
use super::screen::Screen;
use crate::client::Client;
use crate::exit::{Code, Failure};
use cloud::api::types::{NewToken, Token};
use cloud_core::view;
use edge_agent::control::{Answer, Client as Local, Request};
use serde_json::Value;
use shared::ids::RunId;
use shared::state::TaskState;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

/// How often everybody is asked.
const TICK: Duration = Duration::from_millis(150);
/// How long a process may take to be there.
const START: Duration = Duration::from_secs(20);
/// Tasks that a gateway runs at once.
const CPUS: &str = "2";

/// The stations: label, file, parameter of the workflow that says where it lies.
pub(super) const STATIONS: [(&str, &str, &[u8]); 3] = [
    (
        "seattle",
        "seattle-temps.csv",
        include_bytes!("../../../../deploy/examples/weather/seattle-temps.csv"),
    ),
    (
        "sf",
        "sf-temps.csv",
        include_bytes!("../../../../deploy/examples/weather/sf-temps.csv"),
    ),
    (
        "daily",
        "seattle-weather.csv",
        include_bytes!("../../../../deploy/examples/weather/seattle-weather.csv"),
    ),
];

/// State of a gateway's link, as the relay has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    Open,
    /// Answers are swallowed.
    Mute,
    Cut(Instant),
}

/// A gateway: its agent, and what is known of it.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) station: &'static str,
    pub(super) data: PathBuf,
    pub(super) source: PathBuf,
    pub(super) link: LinkState,
    address: SocketAddr,
    process: Option<Process>,
    /// Its tasks, and those that have succeeded, as it says.
    pub(super) total: usize,
    pub(super) done: usize,
    pub(super) running: Vec<String>,
    /// Last fact, and the last one that it knows to be acknowledged.
    pub(super) facts: u64,
    pub(super) acknowledged: u64,
    /// Its own word about its link.
    pub(super) says: String,
    /// Tasks of it that have succeeded, as the coordinator knows; the last fact that is folded
    /// there.
    pub(super) known: usize,
    pub(super) folded: u64,
    pub(super) kills: u32,
}

impl Gateway {
    pub(super) fn alive(&self) -> bool {
        self.process.is_some()
    }
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct World {
    // In the order in which things end when they are dropped: the directory last.
    pub(super) gateways: Vec<Gateway>,
    coordinator: Process,
    relay: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(super) client: Client,
    pub(super) run: Option<RunId>,
    pub(super) state: String,
    pub(super) screen: Screen,
    agent: Option<PathBuf>,
    pub(super) scratch: Scratch,
}

fn failed(what: impl Into<String>) -> Failure {
    Failure::new(Code::Failed, what)
}

fn os(args: &[&str]) -> Vec<OsString> {
    args.iter().map(Into::into).collect()
}

/// Waits until `ready` gives something.
fn wait_for<T>(
    what: &str,
    process: &mut Process,
    mut ready: impl FnMut() -> Option<T>,
) -> Result<T, Failure> {
    let limit = Instant::now() + START;
    while Instant::now() < limit {
        interrupted()?;
        process.must_live()?;
        if let Some(value) = ready() {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(failed(format!(
        "{what} is not ready after {} s",
        START.as_secs()
    )))
}

impl World {
    /// Starts coordinator and relay; the agents follow by `start_agent`.
    pub(super) fn start(
        scratch: Scratch,
        agent: Option<PathBuf>,
        screen: Screen,
    ) -> Result<Self, Failure> {
        let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let at = |name: &str| scratch.path().join(name);
        let data = at("coordinator");
        let mut args = os(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
            "--data",
        ]);
        args.push(data.clone().into());
        let mut coordinator = Process::start(
            "the coordinator",
            &own,
            &args,
            &at("coordinator.log"),
            false,
        )?;
        let address = |name: &str| {
            fs::read_to_string(data.join(name))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        let (quic, api): (SocketAddr, SocketAddr) =
            wait_for("the coordinator", &mut coordinator, || {
                Some((address("quic.addr")?, address("api.addr")?))
            })?;
        let mut args = os(&["demo-relay", "--target", &quic.to_string(), "--log"]);
        args.push(at("relay.jsonl").into());
        args.extend(
            STATIONS
                .iter()
                .map(|(station, ..)| format!("gw-{station}").into()),
        );
        let mut relay = Process::start("the relay", &own, &args, &at("relay.log"), true)?;
        let (orders, answers) = relay
            .pipes()
            .ok_or_else(|| failed("the relay has no pipes"))?;
        let mut answers = BufReader::new(answers);
        let said = read_json(&mut answers)?;
        let lanes: Vec<SocketAddr> =
            serde_json::from_value(said["lanes"].clone()).map_err(|e| failed(e.to_string()))?;
        let gateways = STATIONS.iter().zip(lanes);
        let gateways = gateways
            .map(|((station, file, content), address)| {
                gateway(&scratch, station, file, content, address)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let client = Client::at(format!("http://{api}"));
        Ok(Self {
            gateways,
            coordinator,
            relay,
            orders,
            answers,
            client,
            run: None,
            state: String::new(),
            screen,
            agent,
            scratch,
        })
    }

    /// Starts the agent of a gateway; the first time it enrols.
    pub(super) fn start_agent(&mut self, at: usize) -> Result<(), Failure> {
        let gateway = &mut self.gateways[at];
        let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let program = self.agent.as_deref().unwrap_or(&own);
        let mut args = if self.agent.is_some() {
            vec![]
        } else {
            os(&["agent"])
        };
        args.extend(os(&[
            "run",
            "--cpus",
            CPUS,
            "--idle-timeout",
            "4",
            "--redial-max",
            "1",
            "--data",
        ]));
        args.push(gateway.data.clone().into());
        args.push("--allow-read".into());
        let folder = gateway.source.parent();
        args.extend(folder.map(|folder| folder.as_os_str().to_owned()));
        if !gateway.data.join("identity.json").exists() {
            let name = Some(gateway.name.clone());
            let token: Token = self.client.post(
                "/tokens",
                &NewToken {
                    name,
                    ..NewToken::default()
                },
            )?;
            let (address, label) = (
                gateway.address.to_string(),
                format!("station={}", gateway.station),
            );
            args.extend(os(&["--coordinator", &address, "--token", &token.token]));
            args.extend(os(&["--name", &gateway.name, "--label", &label]));
        }
        let log = self.scratch.path().join(format!("{}.log", gateway.name));
        gateway.process = Some(Process::start(&gateway.name, program, &args, &log, false)?);
        Ok(())
    }

    /// kill -9 of an agent.
    pub(super) fn kill_agent(&mut self, at: usize) {
        if let Some(process) = self.gateways[at].process.take() {
            process.kill();
            self.gateways[at].kills += 1;
        }
    }

    /// Gives the relay an order about a gateway's lane.
    pub(super) fn relay(&mut self, at: usize, order: &str) -> Result<(), Failure> {
        let gateway = &mut self.gateways[at];
        let told =
            writeln!(self.orders, "{order} {}", gateway.name).and_then(|()| self.orders.flush());
        told.map_err(|error| failed(format!("the relay takes no orders: {error}")))?;
        let answer = read_json(&mut self.answers)?;
        if let Some(error) = answer.get("error") {
            return Err(failed(format!("the relay refused: {error}")));
        }
        gateway.link = match order {
            "cut" => LinkState::Cut(Instant::now()),
            "mute" => LinkState::Mute,
            _ => LinkState::Open,
        };
        Ok(())
    }

    /// Asks everybody, shows it, and waits until `done` or the limit.
    pub(super) fn until(
        &mut self,
        what: &str,
        seconds: u64,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<(), Failure> {
        let limit = Instant::now() + Duration::from_secs(seconds);
        loop {
            interrupted()?;
            self.look()?;
            self.show();
            if done(self) {
                return Ok(());
            }
            if Instant::now() > limit {
                let what = format!("{what}: not seen within {seconds} s ({})", self.standing());
                return Err(failed(what));
            }
            std::thread::sleep(TICK);
        }
    }

    /// Where everybody stands, for a message.
    fn standing(&self) -> String {
        let one = |g: &Gateway| {
            format!(
                "{} is {} with {} of {} done, {} known, facts {} of {} acknowledged, {} folded",
                g.name, g.says, g.done, g.total, g.known, g.acknowledged, g.facts, g.folded
            )
        };
        let all: Vec<String> = self.gateways.iter().map(one).collect();
        format!("run {}; {}", self.state, all.join("; "))
    }

    /// Lets time pass.
    pub(super) fn rest(&mut self, time: Duration) -> Result<(), Failure> {
        let limit = Instant::now() + time;
        self.until("time to pass", 60, |_| Instant::now() >= limit)
    }

    fn show(&mut self) {
        let lines = super::screen::picture(&self.gateways, &self.state, &self.screen);
        self.screen.draw(&lines);
    }

    /// Asks everybody once.
    fn look(&mut self) -> Result<(), Failure> {
        self.coordinator.must_live()?;
        self.relay.must_live()?;
        for gateway in &mut self.gateways {
            if let Some(process) = &mut gateway.process {
                process.must_live()?;
                // An agent that is still starting answers next time.
                let _ = look_at(gateway);
            }
        }
        if let Some(run) = self.run {
            let found: view::Run = self.client.get(&format!("/runs/{run}"))?;
            self.state = found.state;
            let mut known = vec![0; self.gateways.len()];
            let (path, gateways) = (format!("/runs/{run}/tasks"), &self.gateways);
            self.client.list(&path, |task: view::Task| {
                let node = gateways
                    .iter()
                    .position(|g| task.node.as_ref() == Some(&g.name));
                if let Some(node) = node.filter(|_| task.state == TaskState::Succeeded.text()) {
                    known[node] += 1;
                }
                Ok(true)
            })?;
            self.gateways
                .iter_mut()
                .zip(known)
                .for_each(|(gateway, known)| gateway.known = known);
        }
        let gateways = &mut self.gateways;
        self.client.list("/nodes", |node: view::Node| {
            if let Some(gateway) = gateways.iter_mut().find(|g| g.name == node.name) {
                gateway.folded = node.as_of.fact;
            }
            Ok(true)
        })
    }

    /// Stops all processes and gives the directory back.
    pub(super) fn stop(self) -> Scratch {
        let Self {
            gateways,
            coordinator,
            relay,
            orders,
            scratch,
            ..
        } = self;
        let agents: Vec<Process> = gateways.into_iter().filter_map(|g| g.process).collect();
        agents.iter().for_each(Process::ask_to_stop);
        for agent in agents {
            agent.wait(Duration::from_secs(8));
        }
        coordinator.ask_to_stop();
        coordinator.wait(Duration::from_secs(8));
        // The relay ends with its input.
        drop(orders);
        relay.wait(Duration::from_secs(2));
        scratch
    }
}

fn gateway(
    scratch: &Scratch,
    station: &'static str,
    file: &str,
    content: &[u8],
    address: SocketAddr,
) -> Result<Gateway, Failure> {
    let name = format!("gw-{station}");
    let folder = scratch.path().join(format!("{name}.station"));
    let source = folder.join(file);
    let written = fs::create_dir(&folder).and_then(|()| fs::write(&source, content));
    written.map_err(|error| failed(format!("cannot write {}: {error}", source.display())))?;
    Ok(Gateway {
        data: scratch.path().join(&name),
        name,
        station,
        source,
        link: LinkState::Open,
        address,
        process: None,
        total: 0,
        done: 0,
        running: Vec::new(),
        facts: 0,
        acknowledged: 0,
        says: "starting".to_owned(),
        known: 0,
        folded: 0,
        kills: 0,
    })
}

fn read_json(from: &mut impl BufRead) -> Result<Value, Failure> {
    let mut line = String::new();
    from.read_line(&mut line)
        .map_err(|error| failed(format!("the relay is silent: {error}")))?;
    serde_json::from_str(&line).map_err(|_| failed(format!("the relay said '{}'", line.trim())))
}

/// Asks an agent over its socket, as `driftless-agent ps` and `status` do.
fn look_at(gateway: &mut Gateway) -> Result<(), Failure> {
    let mut client = Local::connect(&gateway.data).map_err(|error| failed(error.to_string()))?;
    let mut answers = |request: &Request| -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        client
            .send(request, &[])
            .map_err(|error| failed(error.to_string()))?;
        loop {
            match client
                .next_answer()
                .map_err(|error| failed(error.to_string()))?
            {
                Answer::Value { value } => return Ok(vec![value]),
                Answer::Item { value } => items.push(value),
                Answer::Done => return Ok(items),
                other => return Err(failed(format!("odd answer: {other:?}"))),
            }
        }
    };
    let status = answers(&Request::Status)?.pop().unwrap_or_default();
    let tasks = answers(&Request::Ps { all: true })?;
    let is = |task: &Value, state: TaskState| task["state"] == state.text();
    // A start that is only committed ahead has not begun.
    let runs = |task: &&Value| is(task, TaskState::Running) && !task["began"].is_null();
    let running = tasks
        .iter()
        .filter(runs)
        .filter_map(|task| task["task"].as_str());
    gateway.total = tasks.len();
    gateway.done = tasks
        .iter()
        .filter(|task| is(task, TaskState::Succeeded))
        .count();
    gateway.running = running.map(str::to_owned).collect();
    gateway.says = status["link"].as_str().unwrap_or_default().to_owned();
    gateway.facts = status["facts"].as_u64().unwrap_or_default();
    gateway.acknowledged = gateway.facts
        - status["behind"]
            .as_u64()
            .unwrap_or_default()
            .min(gateway.facts);
    Ok(())
}
