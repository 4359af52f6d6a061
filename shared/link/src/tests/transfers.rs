//! Files: whole, cut and resumed, damaged, refused.

use super::*;
use crate::Close;
use crate::bulk::{self, BulkError, FileRefusal, Wish};
use crate::frame::{self, FrameReader, Kind};
use contents::{Dir, FilesError};
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

const MB: u64 = 1024 * 1024;
const BUDGET: u64 = 100 * MB;

/// A file store of each side.
fn stores() -> (TempDir, Dir, Dir) {
    let home = tempfile::tempdir().unwrap();
    let open = |name: &str| Dir::open(&home.path().join(name), BUDGET).unwrap();
    let (ours, theirs) = (open("ours"), open("theirs"));
    (home, ours, theirs)
}

fn content(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

/// Grants every wish of the peer until the connection ends.
async fn serve(connection: Connection, dir: Dir) {
    while let Ok(stream) = connection.accept_file().await {
        let dir = dir.clone();
        tokio::spawn(async move {
            if let Ok(ask) = stream.wish().await {
                let _ = ask.grant(&dir).await; // the peer is told
            }
        });
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, BulkError>) -> FileRefusal {
    match result {
        Err(BulkError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_large_file_that_was_cut_off_goes_on_where_it_stopped() {
    let fleet = Fleet::new();
    let (_home, ours, theirs) = stores();
    let bytes = content(20 * MB);
    let hash = theirs.insert_bytes(&bytes).unwrap();
    let size = bytes.len() as u64;

    let (_client, agent, server) = fleet.connect(&Settings::agent()).await;
    let cutting = async {
        // Sends the first 5 MB of the true content, sees them stored, and is gone.
        let (mut send, receive) = server.quic.accept_bi().await.unwrap();
        let wish: Wish = FrameReader::new(receive)
            .next(Kind::FileAsk, 1000)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(wish, Wish::Get { hash, from: 0 });
        let follows = frame::encode(Kind::FileAnswer, &(0u8, size)).unwrap();
        send.write_all(&follows).await.unwrap();
        send.write_all(&bytes[..5 * MB as usize]).await.unwrap();
        while ours.partial(hash) < 5 * MB {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.close(Close::Stopping, "cut");
    };
    let (cut, ()) = tokio::join!(bulk::get(&agent, hash, size, &ours), cutting);
    assert!(
        matches!(cut, Err(BulkError::Link(LinkError::Closed { .. }))),
        "{cut:?}"
    );
    assert_eq!(ours.partial(hash), 5 * MB);

    let (_client, agent, server) = fleet.connect(&Settings::agent()).await;
    tokio::spawn(serve(server, theirs));
    let done = bulk::get(&agent, hash, size, &ours).await.unwrap();
    assert_eq!(
        done,
        bulk::Done {
            resumed_from: 5 * MB,
            sent: 15 * MB
        }
    );
    assert_eq!(fs::read(ours.find(hash).unwrap().0).unwrap(), bytes);
    let again = bulk::get(&agent, hash, size, &ours).await.unwrap();
    assert_eq!(
        again,
        bulk::Done {
            resumed_from: size,
            sent: 0
        }
    );
}

#[tokio::test]
async fn an_upload_goes_on_behind_what_the_other_side_has() {
    let fleet = Fleet::new();
    let (_home, ours, theirs) = stores();
    let bytes = content(3 * MB);
    let hash = ours.insert_bytes(&bytes).unwrap();
    let contents::Begin::From(mut part) = theirs.begin_write(hash, 3 * MB).unwrap() else {
        panic!("it is not there yet")
    };
    part.append(&bytes[..MB as usize]).unwrap();
    let (_client, agent, server) = fleet.connect(&Settings::agent()).await;
    tokio::spawn(serve(server, theirs.clone()));
    assert_eq!(
        refusal(bulk::put(&agent, hash, &ours).await),
        FileRefusal::Busy
    );
    drop(part);
    let done = bulk::put(&agent, hash, &ours).await.unwrap();
    assert_eq!(
        done,
        bulk::Done {
            resumed_from: MB,
            sent: 2 * MB
        }
    );
    assert_eq!(fs::read(theirs.find(hash).unwrap().0).unwrap(), bytes);
    let again = bulk::put(&agent, hash, &ours).await.unwrap();
    assert_eq!(again.sent, 0);
}

#[tokio::test]
async fn damaged_content_is_refused_in_both_directions() {
    let fleet = Fleet::new();
    let (_home, ours, theirs) = stores();
    let bytes = content(MB);
    let hash = Hash::of(&bytes);
    let (_client, agent, server) = fleet.connect(&Settings::agent()).await;
    tokio::spawn(serve(server, theirs.clone()));
    let damage = |dir: &Dir| {
        let path = dir.find(hash).unwrap().0;
        let mut changed = bytes.clone();
        changed[700_000] ^= 1;
        fs::write(path, changed).unwrap();
    };
    theirs.insert_bytes(&bytes).unwrap();
    damage(&theirs);
    let got = bulk::get(&agent, hash, MB, &ours).await;
    assert!(
        matches!(got, Err(BulkError::Files(FilesError::Corrupt { .. }))),
        "{got:?}"
    );
    assert_eq!(
        (ours.find(hash), ours.partial(hash), ours.used()),
        (None, 0, 0)
    );

    theirs.remove(hash).unwrap();
    ours.insert_bytes(&bytes).unwrap();
    damage(&ours);
    assert_eq!(
        refusal(bulk::put(&agent, hash, &ours).await),
        FileRefusal::Corrupt
    );
    assert_eq!(
        (theirs.find(hash), theirs.partial(hash), theirs.used()),
        (None, 0, 0)
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let fleet = Fleet::new();
    let (home, ours, theirs) = stores();
    let (_client, agent, server) = fleet.connect(&Settings::agent()).await;
    let small = Dir::open(&home.path().join("small"), MB).unwrap();
    let asked = server.clone();
    tokio::spawn(serve(server, small));
    let missing = bulk::get(&agent, Hash([1; 32]), 5, &ours).await;
    assert_eq!(refusal(missing), FileRefusal::Missing);
    assert_eq!(ours.used(), 0, "what was reserved is given back");
    let hash = ours.insert_bytes(&content(2 * MB)).unwrap();
    let full = FileRefusal::NoRoom {
        used: 0,
        budget: MB,
    };
    assert_eq!(refusal(bulk::put(&agent, hash, &ours).await), full);
    let lie = bulk::put(&agent, Hash([2; 32]), &ours).await;
    assert!(matches!(lie, Err(BulkError::Files(FilesError::Missing(_)))));

    // The coordinator may ask the agent, too, and the agent may say no.
    let asking = bulk::get(&asked, hash, 2 * MB, &theirs);
    let refusing = async {
        let ask = agent.accept_file().await.unwrap().wish().await.unwrap();
        assert_eq!(ask.wish(), Wish::Get { hash, from: 0 });
        ask.refuse(FileRefusal::NotAllowed).await.unwrap();
    };
    let (asked, ()) = tokio::join!(asking, refusing);
    assert_eq!(refusal(asked), FileRefusal::NotAllowed);
}

#[tokio::test]
async fn many_files_at_once_all_arrive() {
    let fleet = Fleet::new();
    let (_home, ours, theirs) = stores();
    let hashes: Vec<Hash> = (0..20u64)
        .map(|n| theirs.insert_bytes(&content(MB + n)[n as usize..]).unwrap())
        .collect();
    let (_client, agent, server) = fleet.connect(&Settings::agent()).await;
    tokio::spawn(serve(server, theirs));
    let tasks: Vec<_> = hashes
        .iter()
        .map(|hash| {
            let (agent, ours, hash) = (agent.clone(), ours.clone(), *hash);
            tokio::spawn(async move { bulk::get(&agent, hash, MB, &ours).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(hashes.iter().all(|hash| ours.find(*hash).is_some()));
}
