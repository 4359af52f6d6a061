//! Sessions: hello and welcome, facts beside the control stream, ends.

use super::*;
use crate::Close;
use shared::log::Batch;
use shared::wire::Down;
use std::time::Duration;
use tokio::time::sleep;

fn facts(number: u64, bytes: usize) -> Up {
    let after = Head {
        number,
        hash: Hash([3; 32]),
    };
    Up::Facts(Batch::new(after, vec![vec![number as u8; bytes]]))
}

/// A session after hello and a first answer.
macro_rules! session {
    ($agent:expr, $theirs:expr) => {{
        let (mut tx, mut rx) = $agent.open_session().await.unwrap();
        tx.send(&hello()).await.unwrap();
        let (mut their_tx, mut their_rx) = $theirs.accept_session().await.unwrap();
        assert_eq!(their_rx.recv().await.unwrap(), hello());
        their_rx.accepted();
        their_tx.send(&Down::Ping { nonce: 1 }).await.unwrap();
        assert_eq!(rx.recv().await.unwrap(), Down::Ping { nonce: 1 });
        rx.accepted();
        (tx, rx, their_tx, their_rx)
    }};
}

#[tokio::test]
async fn messages_keep_their_order_within_each_stream() {
    let fleet = Fleet::new();
    let (_client, agent, theirs) = fleet.connect(&Settings::agent()).await;
    let (mut tx, _rx, _their_tx, mut their_rx) = session!(agent, theirs);
    let sending = async {
        for n in 0..50 {
            tx.send(&facts(n, 100_000)).await.unwrap();
            tx.send(&Up::Pong { nonce: n }).await.unwrap();
        }
    };
    let receiving = async {
        let (mut batches, mut pongs) = (0, 0);
        while batches + pongs < 100 {
            match their_rx.recv().await.unwrap() {
                Up::Facts(batch) => {
                    assert_eq!(batch, Batch::new(batch.after, batch.entries.clone()));
                    assert_eq!(batch.after.number, batches);
                    batches += 1;
                }
                Up::Pong { nonce } => {
                    assert_eq!(nonce, pongs);
                    pongs += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        (batches, pongs)
    };
    let ((), counted) = tokio::join!(sending, receiving);
    assert_eq!(counted, (50, 50));
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing() {
    let fleet = Fleet::new();
    let (_client, agent, theirs) = fleet.connect(&Settings::agent()).await;
    let (mut tx, _rx, _their_tx, mut their_rx) = session!(agent, theirs);
    let sending = async {
        for n in 0..20 {
            tx.send(&facts(n, 300_000)).await.unwrap();
        }
    };
    let receiving = async {
        let mut next = 0;
        while next < 20 {
            tokio::select! {
                biased;
                read = their_rx.recv() => {
                    let Up::Facts(batch) = read.unwrap() else { panic!("only facts were sent") };
                    assert_eq!(batch.after.number, next);
                    next += 1;
                }
                () = sleep(Duration::from_micros(200)) => {}
            }
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn a_close_says_why_and_a_refusal_arrives_before_it() {
    let fleet = Fleet::new();
    let (_client, agent, theirs) = fleet.connect(&Settings::agent()).await;
    let (_tx, mut rx, mut their_tx, _their_rx) = session!(agent, theirs);
    let refusing = async {
        their_tx.send(&Down::WantFacts { from: 7 }).await.unwrap();
        their_tx.finish().await;
        theirs.close(Close::Replaced, "a newer session");
    };
    let reading = async {
        assert_eq!(rx.recv().await.unwrap(), Down::WantFacts { from: 7 });
        assert!(matches!(rx.recv().await, Err(LinkError::Ended)));
        agent.closed().await
    };
    let ((), end) = tokio::join!(refusing, reading);
    let LinkError::Closed {
        close: Close::Replaced,
        text,
    } = end
    else {
        panic!("{end}")
    };
    assert_eq!(text, "a newer session");
}

#[tokio::test]
async fn silence_ends_a_connection_and_keep_alives_hold_it() {
    let short = Settings {
        keep_alive: Span(0),
        idle: Span(400),
        ..Settings::coordinator()
    };
    let fleet = Fleet::with(&short);
    let (_client, agent, theirs) = fleet.connect(&short).await;
    let (here, there) = tokio::join!(agent.closed(), theirs.closed());
    assert!(matches!(
        (here, there),
        (LinkError::TimedOut, LinkError::TimedOut)
    ));

    let alive = Settings {
        keep_alive: Span(50),
        ..short
    };
    let (_client, agent, theirs) = fleet.connect(&alive).await;
    sleep(Duration::from_millis(1200)).await;
    let _ = session!(agent, theirs);
}

#[tokio::test]
async fn a_session_goes_on_from_another_address() {
    let fleet = Fleet::new();
    let (client, agent, theirs) = fleet.connect(&Settings::agent()).await;
    let (mut tx, mut rx, mut their_tx, mut their_rx) = session!(agent, theirs);
    let before = theirs.address();
    client
        .rebind(std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
        .unwrap();
    tx.send(&Up::Pong { nonce: 9 }).await.unwrap();
    assert_eq!(their_rx.recv().await.unwrap(), Up::Pong { nonce: 9 });
    their_tx.send(&Down::Ping { nonce: 10 }).await.unwrap();
    assert_eq!(rx.recv().await.unwrap(), Down::Ping { nonce: 10 });
    assert_ne!(theirs.address().port(), before.port());
}

#[test]
fn a_coordinator_that_was_killed_and_came_back_is_noticed_by_its_reset_key() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (life, ours) = (runtime(), runtime());
    let fleet = life.block_on(async { Fleet::new() });
    let settings = Settings {
        keep_alive: Span(100),
        idle: Span(5000),
        ..Settings::agent()
    };
    let client = ours.block_on(async { fleet.client(&settings) });
    // The two runtimes take turns, as two processes would, until the handshake is done.
    let tls = fleet.node(&fleet.authority);
    let accepting = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| life.block_on(fleet.accept()).unwrap().1);
        let agent = ours.block_on(client.dial(fleet.address, tls)).unwrap();
        (agent, accepting.join().unwrap())
    });
    let (agent, theirs) = accepting;
    let Fleet {
        authority,
        server,
        address,
    } = fleet;
    drop(life); // kill -9: nobody is told
    drop((server, theirs));
    ours.block_on(async {
        let end = async {
            let mut server = listen(&authority, address, &Settings::coordinator());
            while server.is_err() {
                sleep(Duration::from_millis(10)).await;
                server = listen(&authority, address, &Settings::coordinator());
            }
            let end = agent.closed().await;
            drop(server);
            end
        };
        let end = end.await;
        assert!(matches!(end, LinkError::Restarted), "{end}");
    });
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let fleet = Fleet::new();
    let error = listen(&fleet.authority, fleet.address, &Settings::coordinator()).unwrap_err();
    assert!(matches!(error, LinkError::Bind { address, .. } if address == fleet.address));
}
