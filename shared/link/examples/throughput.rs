//! How fast files and facts travel over loopback with production's settings: `cargo run --release
//! -p link --example throughput`.

use certs::{Authority, Clock, Holder, NodeKey, WRITTEN, session_client};
use contents::Dir;
use link::{Connection, Endpoint, Settings, bulk};
use shared::ids::{Hash, NodeId};
use shared::log::{Batch, Head};
use shared::time::Span;
use shared::wire::Up;
use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

const DAY: Span = Span::secs(86_400);
const MB: u64 = 1024 * 1024;
const FILE: u64 = 512 * MB;
const BATCHES: u64 = 500;

async fn connect() -> Result<(Endpoint, Endpoint, Connection, Connection), Box<dyn Error>> {
    let clock = Clock::new(|| WRITTEN);
    let authority = Authority::ephemeral()?;
    let shown = Holder::new(&authority.coordinator(WRITTEN, DAY)?)?;
    let trusted = certs::Trusted::new(&[authority.certificate().clone()])?;
    let tls = certs::server(&trusted, &shown, clock.clone(), DAY)?;
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let server = Endpoint::server(any, tls, authority.transport(), &Settings::coordinator())?;
    let address = server.address()?;
    let key = NodeKey::ephemeral()?;
    let issued = authority.node(&key.request()?, NodeId([1; 16]), "gw-1", WRITTEN, DAY)?;
    let node = key.accept(&issued, authority.fingerprint())?;
    let tls = session_client(
        &node.authorities,
        &Holder::new(&node.credential)?,
        clock.clone(),
    )?;
    let client = Endpoint::client(address, &Settings::agent())?;
    let accepting = async {
        server
            .accept()
            .await
            .ok_or("closed")?
            .finish(&clock)
            .await
            .map_err(Box::from)
    };
    let (dialled, accepted) = tokio::join!(client.dial(address, tls), accepting);
    let accepted: Result<_, Box<dyn Error>> = accepted;
    Ok((client, server, dialled?, accepted?.1))
}

async fn serve(connection: Connection, dir: Dir) {
    while let Ok(stream) = connection.accept_file().await {
        if let Ok(ask) = stream.wish().await {
            let _ = ask.grant(&dir).await;
        }
    }
}

async fn files(home: &Path) -> Result<(), Box<dyn Error>> {
    let ours = Dir::open(&home.join("ours"), 4 * FILE)?;
    let theirs = Dir::open(&home.join("theirs"), 4 * FILE)?;
    let content: Vec<u8> = (0..FILE).map(|n| (n ^ n >> 9) as u8).collect();
    let hash = theirs.insert_bytes(&content)?;
    let (_client, _server, agent, coordinator) = connect().await?;
    tokio::spawn(serve(coordinator, theirs.clone()));
    let rate = |start: Instant| FILE as f64 / 1e6 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    bulk::get(&agent, hash, FILE, &ours).await?;
    println!(
        "get {} MB, verified and durable: {:.0} MB/s",
        FILE / MB,
        rate(start)
    );
    theirs.remove(hash)?;
    let start = Instant::now();
    bulk::put(&agent, hash, &ours).await?;
    println!(
        "put {} MB, verified and durable: {:.0} MB/s",
        FILE / MB,
        rate(start)
    );
    Ok(())
}

async fn facts() -> Result<(), Box<dyn Error>> {
    let (_client, _server, agent, coordinator) = connect().await?;
    let (mut tx, _rx) = agent.open_session().await?;
    let after = Head {
        number: 0,
        hash: Hash([0; 32]),
    };
    let batch = Up::Facts(Batch::new(after, vec![vec![7; 100]; 1000]));
    tx.send(&Up::Pong { nonce: 0 }).await?;
    let (_their_tx, mut rx) = coordinator.accept_session().await?;
    rx.recv().await?;
    rx.accepted();
    let start = Instant::now();
    let sending = async {
        for _ in 0..BATCHES {
            tx.send(&batch).await?;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    let receiving = async {
        for _ in 0..BATCHES {
            rx.recv().await?;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    tokio::try_join!(sending, receiving)?;
    let rate = (BATCHES * 1000) as f64 / start.elapsed().as_secs_f64();
    println!("facts of 100 bytes in batches of 1000: {rate:.0} a second");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    files(home.path()).await?;
    facts().await
}
