//! Many agents at once, as the coordinator sees them: each with its own certificate, connection and
//! session over the real transport, all in this process.

use crate::cloud::Coordinator;
use anyhow::{Context, Result, bail};
use certs::{Clock, Enrolled, Holder, NodeKey, Token};
use link::enrol::{EnrolAsk, EnrolReply, EnrolRequest};
use link::session::{AgentRx, AgentTx};
use link::{Close, Connection, Endpoint, Settings};
use shared::explain::Reason;
use shared::fact::{Body, Fact};
use shared::ids::{BootId, Generation, Incarnation};
use shared::log::{Batch, Direction, Head};
use shared::time::{Now, Stamp, Unix};
use shared::wire::{Down, FEATURES, Hello, PROTOCOL_MAX, PROTOCOL_MIN, Up};
use shared::workflow::Resources;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// How long one agent may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Now {
    edge_agent::clock::now()
}

fn wall() -> Unix {
    now().wall
}

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
    _streams: (AgentTx, AgentRx),
}

/// The agents, and what they run on.
#[derive(Debug)]
pub(crate) struct Swarm {
    runtime: Runtime,
    pub(crate) members: Vec<Member>,
}

impl Swarm {
    /// Enrols `count` agents.
    pub(crate) fn enrol(coordinator: &Coordinator, count: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let address: SocketAddr = coordinator.address.parse()?;
        let mut members = Vec::new();
        for n in 0..count {
            let token = Token::parse(&coordinator.token()?)?;
            members.push(runtime.block_on(enrol(address, &token, n))?);
        }
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

    /// The same for agent `n` alone, which then closes its session.
    pub(crate) fn connect_alone(&mut self, coordinator: &Coordinator, n: usize) -> Result<()> {
        let address: SocketAddr = coordinator.address.parse()?;
        let member = &mut self.members[n];
        let session = self.runtime.block_on(member.connect(address))?;
        session.connection.close(Close::Done, "measured");
        Ok(())
    }
}

async fn enrol(address: SocketAddr, token: &Token, n: usize) -> Result<Member> {
    let key = NodeKey::ephemeral()?;
    let endpoint = Endpoint::client(address, &Settings::agent())?;
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

impl Member {
    async fn connect(&mut self, address: SocketAddr) -> Result<Session> {
        tokio::time::timeout(PATIENCE, self.work(address))
            .await
            .context("it took too long")?
    }

    /// Dials, says hello, and has one fact acknowledged.
    async fn work(&mut self, address: SocketAddr) -> Result<Session> {
        let endpoint = Endpoint::client(address, &Settings::agent())?;
        let holder = Holder::new(&self.enrolled.credential)?;
        let tls = certs::session_client(&self.enrolled.authorities, &holder, Clock::new(wall))?;
        let connection = endpoint.dial(address, tls).await?;
        let (mut tx, mut rx) = connection.open_session().await?;
        self.session += 1;
        tx.send(&Up::Hello(Box::new(self.hello()))).await?;
        match rx.recv().await? {
            Down::Welcome(_) => rx.accepted(),
            other => bail!("not welcome: {other:?}"),
        }
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
            connection,
            _streams: (tx, rx),
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
