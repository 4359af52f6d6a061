//! Many agents at once, as the coordinator sees them: each with its own certificate, connection and
//! session over the real transport, all in this process.

use crate::cloud::Coordinator;
use anyhow::{Context, Result, anyhow, bail};
use certs::{Clock, Enrolled, Holder, NodeKey, Token};
use link::enrol::{EnrolAsk, EnrolReply, EnrolRequest};
use link::session::{AgentRx, AgentTx, TelemetryTx};
use link::{Close, Connection, Endpoint, Settings};
use shared::explain::Reason;
use shared::fact::{Body, Fact};
use shared::ids::{BootId, Generation, Incarnation};
use shared::log::{Batch, Direction, Head};
use shared::telemetry::{At, Block, Content, Key, Piece, Report, Sample};
use shared::time::{Now, Stamp, Unix};
use shared::wire::{Down, FEATURES, Hello, PROTOCOL_MAX, PROTOCOL_MIN, Refuse, Up};
use shared::workflow::Resources;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// Agents that enrol at once.
const ENROLLING: usize = 16;
/// Agents that share a socket where they do not come at once.
pub(crate) const PER_SOCKET: usize = 50;
/// Bytes of a report of the newest telemetry and of its acknowledgement, about.
pub(crate) const REPORT: usize = 400;
/// Bytes of its acknowledgement, about.
pub(crate) const ANSWER: usize = 60;
/// How long one agent may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Now {
    edge_agent::clock::now()
}

fn wall() -> Unix {
    now().wall
}

/// Where telemetry begins.
const ORIGIN: At = At { boot: 1, ms: 1 };

/// One agent.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    enrolled: Enrolled,
    incarnation: Incarnation,
    session: u64,
    facts: Head,
}

/// A session that was welcomed.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    incarnation: Incarnation,
    _tx: AgentTx,
    rx: AgentRx,
    telemetry: TelemetryTx,
    /// The newest moment that was reported.
    last: At,
    /// The newest moment that the coordinator has made durable.
    durable: At,
}

/// What a call came to.
enum Call {
    Welcome(Box<(Connection, AgentTx, AgentRx)>),
    /// Not before this pause.
    Later(Duration),
}

/// What swarms run on.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// The agents, and what they run on.
#[derive(Debug)]
pub(crate) struct Swarm {
    runtime: Runtime,
    pub(crate) members: Vec<Member>,
}

impl Swarm {
    /// Enrols `count` agents, some at once: alone, each would wait for commits of its own.
    pub(crate) fn enrol(coordinator: &Coordinator, count: usize) -> Result<Self> {
        let runtime = runtime()?;
        let address: SocketAddr = coordinator.address.parse()?;
        let next = AtomicUsize::new(0);
        let some = || {
            let endpoint =
                runtime.block_on(async { Endpoint::client(address, &Settings::agent()) });
            let (endpoint, mut enrolled) = (endpoint?, Vec::new());
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok(enrolled);
                }
                let token = Token::parse(&coordinator.token()?)?;
                let member = runtime.block_on(enrol(&endpoint, address, &token, n));
                enrolled.push((n, member?));
            }
        };
        let enrolled: Result<Vec<_>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..ENROLLING).map(|_| scope.spawn(some)).collect();
            let ended = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow!("a thread that enrols panicked"))?
            });
            ended.collect()
        });
        let mut enrolled = enrolled?.concat();
        enrolled.sort_by_key(|(n, _)| *n);
        let members = enrolled.into_iter().map(|(_, member)| member).collect();
        Ok(Self { runtime, members })
    }

    /// Opens the sessions of all agents at once, each with one fact that must be acknowledged.
    pub(crate) fn connect(&mut self, coordinator: &Coordinator) -> Result<Vec<Session>> {
        let address: SocketAddr = coordinator.address.parse()?;
        let members = &mut self.members;
        self.runtime.block_on(async {
            let mut dials = JoinSet::new();
            for (n, mut member) in members.drain(..).enumerate() {
                dials.spawn(async move {
                    let session = member.connect(address).await;
                    (n, member, session)
                });
            }
            let mut done = dials.join_all().await;
            done.sort_by_key(|(n, ..)| *n);
            let mut sessions = Vec::new();
            for (n, member, session) in done {
                members.push(member);
                sessions.push(session.with_context(|| format!("agent {n}"))?);
            }
            Ok(sessions)
        })
    }

    /// The same one after another, with fewer sockets.
    pub(crate) fn connect_slowly(&mut self, coordinator: &Coordinator) -> Result<Vec<Session>> {
        let address: SocketAddr = coordinator.address.parse()?;
        let members = &mut self.members;
        self.runtime.block_on(async {
            let mut sessions = Vec::new();
            for some in members.chunks_mut(PER_SOCKET) {
                let endpoint = Endpoint::client(address, &Settings::agent())?;
                for member in some {
                    let session = member.work(&endpoint, address);
                    sessions.push(timeout(PATIENCE, session).await??);
                }
            }
            Ok(sessions)
        })
    }

    /// Each agent reports its newest telemetry every `every`, the agents spread over it, for `long`
    /// in all, and hears then at last that something is durable.
    pub(crate) fn report(
        &self,
        sessions: Vec<Session>,
        every: Duration,
        long: Duration,
    ) -> Result<Vec<Session>> {
        let count = sessions.len() as u32;
        self.runtime.block_on(async {
            let (mut talks, begin) = (JoinSet::new(), Instant::now());
            for (n, mut session) in sessions.into_iter().enumerate() {
                talks.spawn(async move {
                    let (mut due, end) = (begin + every * n as u32 / count, begin + long);
                    loop {
                        while let Ok(heard) = timeout_at(due.min(end), session.hear()).await {
                            heard?;
                        }
                        if due >= end {
                            break;
                        }
                        session.report(every).await?;
                        due += every;
                    }
                    while session.durable == ORIGIN {
                        let heard = timeout(PATIENCE, session.hear()).await;
                        let nothing = || format!("agent {n}: nothing was acknowledged");
                        heard.with_context(nothing)??;
                    }
                    Ok(session)
                });
            }
            talks.join_all().await.into_iter().collect()
        })
    }

    /// Opens the session of agent `n` alone, which then closes its session.
    pub(crate) fn connect_alone(&mut self, coordinator: &Coordinator, n: usize) -> Result<()> {
        let address: SocketAddr = coordinator.address.parse()?;
        let member = &mut self.members[n];
        let session = self.runtime.block_on(member.connect(address))?;
        session.connection.close(Close::Done, "measured");
        Ok(())
    }
}

async fn enrol(
    endpoint: &Endpoint,
    address: SocketAddr,
    token: &Token,
    n: usize,
) -> Result<Member> {
    let key = NodeKey::ephemeral()?;
    let tls = certs::enrol_client(token.authority, Clock::new(wall))?;
    let connection = endpoint.dial(address, tls).await?;
    let ask = EnrolAsk::Enrol(EnrolRequest {
        version: "bench".to_owned(),
        token: token.presented.clone(),
        name: format!("swarm-{n}"),
        request: key.request()?,
        labels: BTreeMap::new(),
    });
    let issued = match connection.enrol(&ask).await? {
        EnrolReply::Enrolled { issued, .. } => issued,
        EnrolReply::Certified { certified, .. } => certified.issued,
        EnrolReply::Refused(why) => bail!("{why}"),
    };
    connection.close(Close::Done, "enrolled");
    let enrolled = key.accept(&issued, token.authority)?;
    let mut incarnation = [9; 16];
    incarnation[..8].copy_from_slice(&(n as u64).to_le_bytes());
    let incarnation = Incarnation(incarnation);
    let facts = Head::origin(enrolled.id, incarnation, Direction::Up);
    Ok(Member {
        enrolled,
        incarnation,
        session: 0,
        facts,
    })
}

impl Session {
    /// Reports samples of the time since the last report.
    async fn report(&mut self, passed: Duration) -> Result<()> {
        let every = 3000;
        let mut block = Block::new(1, BootId([5; 16]), 0, self.last.ms);
        for n in 1..=passed.as_millis() as u64 / every {
            let ms = self.last.ms + n * every;
            let key = |metric| Key {
                metric,
                label: String::new(),
            };
            let values = (0..20).map(|m| (key(m), (ms * u64::from(m + 7) % 97).cast_signed()));
            let (wall, values) = (wall(), values.collect());
            block.push(&Sample {
                ms,
                wall,
                fact: 1,
                values,
            });
        }
        let range = block.range();
        let (incarnation, content) = (self.incarnation, Content::Block(block.pack()));
        let piece = Piece { range, content };
        self.telemetry.send(Report { incarnation, piece }).await?;
        self.last = range.upto;
        Ok(())
    }

    /// Hears one message. A call that is dropped loses nothing.
    async fn hear(&mut self) -> Result<()> {
        if let Down::Telemetry(receipt) = self.rx.recv().await? {
            let known = receipt
                .ranges
                .last()
                .map_or(self.durable, |range| range.upto);
            self.durable = self.durable.max(known);
        }
        Ok(())
    }
}

impl Member {
    async fn connect(&mut self, address: SocketAddr) -> Result<Session> {
        let endpoint = Endpoint::client(address, &Settings::agent())?;
        timeout(PATIENCE, self.work(&endpoint, address))
            .await
            .context("it took too long")?
    }

    /// Dials, says hello, and has one fact acknowledged. Who is told to call again does so, as
    /// agents do.
    async fn work(&mut self, endpoint: &Endpoint, address: SocketAddr) -> Result<Session> {
        let (connection, tx, rx) = loop {
            match self.call(endpoint, address).await? {
                Call::Welcome(session) => break *session,
                Call::Later(pause) => tokio::time::sleep(pause).await,
            }
        };
        self.tell(connection, tx, rx).await
    }

    async fn call(&mut self, endpoint: &Endpoint, address: SocketAddr) -> Result<Call> {
        let holder = Holder::new(&self.enrolled.credential)?;
        let tls = certs::session_client(&self.enrolled.authorities, &holder, Clock::new(wall))?;
        let connection = endpoint.dial(address, tls).await?;
        let (mut tx, mut rx) = connection.open_session().await?;
        self.session += 1;
        tx.send(&Up::Hello(Box::new(self.hello()))).await?;
        match rx.recv().await? {
            Down::Welcome(_) => rx.accepted(),
            Down::Refuse(Refuse {
                retry_after: Some(pause),
                ..
            }) => return Ok(Call::Later(Duration::from_millis(pause.0))),
            other => bail!("not welcome: {other:?}"),
        }
        Ok(Call::Welcome(Box::new((connection, tx, rx))))
    }

    /// Has a fact acknowledged.
    async fn tell(
        &mut self,
        connection: Connection,
        mut tx: AgentTx,
        mut rx: AgentRx,
    ) -> Result<Session> {
        let batch = Batch::new(self.facts, vec![self.fact().encode()]);
        self.facts = batch.head();
        tx.send(&Up::Facts(batch)).await?;
        loop {
            match rx.recv().await? {
                Down::Ack(ack) if ack.head == self.facts => break,
                Down::Refuse(refuse) => bail!("refused: {}", refuse.text),
                _ => {}
            }
        }
        Ok(Session {
            telemetry: connection.telemetry(),
            connection,
            incarnation: self.incarnation,
            _tx: tx,
            rx,
            last: ORIGIN,
            durable: ORIGIN,
        })
    }

    fn fact(&self) -> Fact {
        Fact {
            at: Stamp {
                boot: 1,
                mono_ms: now().mono.0 / 1_000_000,
                wall: wall(),
            },
            seen: 0,
            body: Body::Refused {
                directive: 0,
                slice: None,
                reason: Reason::Malformed,
                text: String::new(),
            },
        }
    }

    fn hello(&self) -> Hello {
        let (node, incarnation) = (self.enrolled.id, self.incarnation);
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features: FEATURES,
            version: "bench".to_owned(),
            node,
            name: self.enrolled.name.clone(),
            incarnation,
            boot: BootId([5; 16]),
            session: self.session,
            proof: None,
            facts_first: 1,
            facts: self.facts,
            directives: Head::origin(node, incarnation, Direction::Down),
            ack: None,
            generation: Generation(0),
            now: now(),
            clock_trusted: true,
            labels: BTreeMap::new(),
            capacity: Resources {
                cpu_milli: 1000,
                ..Resources::default()
            },
            succeeds: None,
            directive_seal: None,
        }
    }
}
