//! Both sides over loopback, in one process.

mod enrolment;
mod hostile;
mod sessions;
mod transfers;

use crate::{Connection, Endpoint, LinkError, Settings};
use certs::{Authority, ClientTls, Clock, Holder, NodeKey, Peer, Trusted, WRITTEN, session_client};
use shared::ids::{BootId, Generation, Hash, Incarnation, NodeId};
use shared::log::Head;
use shared::time::{Now, Span, Unix};
use shared::wire::{Hello, Up};
use shared::workflow::Resources;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

const DAY: Span = Span::secs(86_400);
const ID: NodeId = NodeId([5; 16]);

fn clock() -> Clock {
    Clock::new(|| WRITTEN)
}

/// A coordinator that listens, and what is needed to dial it.
struct Fleet {
    authority: Authority,
    server: Endpoint,
    address: SocketAddr,
}

fn listen(
    authority: &Authority,
    at: SocketAddr,
    settings: &Settings,
) -> Result<Endpoint, LinkError> {
    let shown = Holder::new(&authority.coordinator(WRITTEN, DAY).unwrap()).unwrap();
    let trusted = Trusted::new(&[authority.certificate().clone()]).unwrap();
    let tls = certs::server(&trusted, &shown, clock(), DAY).unwrap();
    Endpoint::server(at, tls, authority.transport(), settings)
}

impl Fleet {
    fn new() -> Self {
        Self::with(&Settings::coordinator())
    }

    fn with(settings: &Settings) -> Self {
        let authority = Authority::ephemeral().unwrap();
        let server = listen(&authority, (Ipv4Addr::LOCALHOST, 0).into(), settings).unwrap();
        let address = server.address().unwrap();
        Self {
            authority,
            server,
            address,
        }
    }

    /// TLS of a node of `by`, which trusts this fleet.
    fn node(&self, by: &Authority) -> ClientTls {
        let key = NodeKey::ephemeral().unwrap();
        let issued = by
            .node(&key.request().unwrap(), ID, "gw-7", WRITTEN, DAY)
            .unwrap();
        let enrolled = key.accept(&issued, by.fingerprint()).unwrap();
        let shown = Holder::new(&enrolled.credential).unwrap();
        session_client(&[self.authority.certificate().clone()], &shown, clock()).unwrap()
    }

    fn client(&self, settings: &Settings) -> Endpoint {
        Endpoint::client(self.address, settings).unwrap()
    }

    async fn accept(&self) -> Result<(Peer, Connection), LinkError> {
        self.server.accept().await.unwrap().finish(&clock()).await
    }

    /// Both ends of a connection with a node, and the node's endpoint.
    async fn connect(&self, settings: &Settings) -> (Endpoint, Connection, Connection) {
        let client = self.client(settings);
        let tls = self.node(&self.authority);
        let (dialled, accepted) = tokio::join!(client.dial(self.address, tls), self.accept());
        let (peer, theirs) = accepted.unwrap();
        assert!(matches!(&peer, Peer::Node(caller) if caller.id == ID && caller.name == "gw-7"));
        (client, dialled.unwrap(), theirs)
    }
}

fn hello() -> Up {
    let head = Head {
        number: 0,
        hash: Hash([0; 32]),
    };
    Up::Hello(Box::new(Hello {
        protocol_min: 1,
        protocol_max: 1,
        features: 0,
        version: "test".into(),
        node: ID,
        name: "gw-7".into(),
        incarnation: Incarnation([1; 16]),
        boot: BootId([2; 16]),
        session: 1,
        proof: None,
        facts_first: 1,
        facts: head,
        directives: head,
        ack: None,
        generation: Generation(0),
        now: Now {
            wall: Unix(1),
            ..Now::default()
        },
        clock_trusted: true,
        labels: BTreeMap::new(),
        capacity: Resources::default(),
        succeeds: None,
        directive_seal: None,
    }))
}
