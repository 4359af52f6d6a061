//! What a hostile peer may send, and what it is told.

use super::*;
use crate::Close;
use crate::frame::{self, FrameError, Kind};
use shared::limits::HELLO_BYTES;
use shared::wire::Down;

/// What the coordinator makes of `bytes` on a control stream, and what the sender is told.
async fn send_raw(fleet: &Fleet, bytes: &[u8]) -> (LinkError, String) {
    let (_client, agent, theirs) = fleet.connect(&Settings::agent()).await;
    let (mut send, _receive) = agent.quic.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    let (_tx, mut rx) = theirs.accept_session().await.unwrap();
    let error = rx.recv().await.unwrap_err();
    let LinkError::Closed {
        close: Close::Protocol,
        text,
    } = agent.closed().await
    else {
        panic!("the sender is told")
    };
    (error, text)
}

#[tokio::test]
async fn bad_frames_are_named_to_both_sides_and_the_coordinator_goes_on() {
    let fleet = Fleet::new();
    let good = frame::encode(Kind::Control, &hello()).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let large = u32::try_from(HELLO_BYTES + 1).unwrap().to_le_bytes();
    let oversized = [large.as_slice(), &[0x11], &[0; 100]].concat();
    let cases = [
        (oversized, "65537 bytes; at this point 65536"),
        (changed(3, 0xff), "at this point 65536 are allowed"),
        (good[..good.len() - 1].to_vec(), "the stream ended after"),
        (vec![1, 0], "the stream ended after 2 of 5 bytes"),
        (changed(4, 0x21), "version 2"),
        (changed(4, 0x13), "kind 3 where kind 1"),
        (changed(5, 0x7f), "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "version"),
    ];
    for (bytes, wanted) in cases {
        let (error, told) = send_raw(&fleet, &bytes).await;
        let LinkError::Frame(error) = error else {
            panic!("{error}")
        };
        assert!(
            error.to_string().contains(wanted),
            "{error} should say: {wanted}"
        );
        assert_eq!(told, error.to_string());
    }
    let (_client, agent, theirs) = fleet.connect(&Settings::agent()).await;
    let (mut tx, _rx) = agent.open_session().await.unwrap();
    tx.send(&hello()).await.unwrap();
    assert_eq!(
        theirs
            .accept_session()
            .await
            .unwrap()
            .1
            .recv()
            .await
            .unwrap(),
        hello()
    );
}

/// The same the other way round: what the agent makes of a coordinator that has gone mad.
#[tokio::test]
async fn bad_frames_of_a_coordinator_are_named_to_both_sides_and_the_agent_dials_again() {
    let fleet = Fleet::new();
    let good = frame::encode(Kind::Control, &Down::Ping { nonce: 1 }).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut cases = vec![
        (changed(3, 0xff), "at this point 65536 are allowed"),
        (good[..good.len() - 1].to_vec(), "the stream ended after"),
        (changed(4, 0x21), "version 2"),
        (changed(4, 0x12), "kind 2 where kind 1"),
        (changed(5, 0x7f), "malformed"),
    ];
    cases.extend((0..20u8).map(|n| ([[n; 4], [0xee; 4]].concat(), "")));
    for (bytes, wanted) in cases {
        let (_client, agent, theirs) = fleet.connect(&Settings::agent()).await;
        let (mut tx, mut rx) = agent.open_session().await.unwrap();
        tx.send(&hello()).await.unwrap();
        let (mut send, _receive) = theirs.quic.accept_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let error = rx.recv().await.unwrap_err();
        let LinkError::Frame(error) = error else {
            panic!("{bytes:?}: {error}")
        };
        assert!(error.to_string().contains(wanted), "{error}: {wanted}");
        let told = theirs.closed().await;
        let LinkError::Closed { close, text } = told else {
            panic!("{told}")
        };
        assert_eq!((close, text), (Close::Protocol, error.to_string()));
    }
}

#[tokio::test]
async fn random_bytes_end_their_own_connection_only() {
    let fleet = Fleet::new();
    let mut state = 7u64;
    for _ in 0..30 {
        let bytes: Vec<u8> = (0..500)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let (error, _) = send_raw(&fleet, &bytes).await;
        assert!(matches!(error, LinkError::Frame(_)), "{error}");
    }
}

#[tokio::test]
async fn nobody_sends_much_before_the_hello_is_accepted() {
    let fleet = Fleet::new();
    let (_client, agent, theirs) = fleet.connect(&Settings::agent()).await;
    let (mut tx, _rx) = agent.open_session().await.unwrap();
    let Up::Hello(mut greedy) = hello() else {
        unreachable!()
    };
    greedy.version = "x".repeat(HELLO_BYTES);
    tx.send(&Up::Hello(greedy)).await.unwrap();
    let (_their_tx, mut their_rx) = theirs.accept_session().await.unwrap();
    let error = their_rx.recv().await.unwrap_err();
    assert!(matches!(
        error,
        LinkError::Frame(FrameError::TooLarge { limit: HELLO_BYTES, claimed }) if claimed > limit()
    ));
}

fn limit() -> usize {
    HELLO_BYTES
}
