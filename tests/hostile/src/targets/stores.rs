//! What lies on disks: rows of both stores, telemetry of the coordinator, backups.

use super::cores::{self, NOW};
use crate::samples::{self, LIFE, NODE};
use crate::target::{Bound, Form, Target, Verdict, class};
use cloud::backup::{Head as BackupHead, Summary};
use cloud_core::engine::Engine;
use cloud_core::event::{Input, Request, RequestId};
use cloud_core::memory::MemStore;
use cloud_core::store::{AggregateId, Store as _, Transaction};
use cloud_core::telemetry::{Book, Journal, Keep, MemoryJournal};
use cloud_store::journal::Walk;
use cloud_store::snapshot::Contents;
use edge_core::driver::Driver;
use edge_core::memory::{Disk, MemStore as EdgeStore};
use edge_core::store::{Commit, Store as _};
use serde::{Deserialize, Serialize};
use shared::codec;
use shared::ids::{Generation, Hash};
use shared::log::{Direction, Head};
use shared::telemetry::frame;
use shared::time::Unix;
use shared::wire::LogId;
use std::io::Write as _;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "cloud-rows",
        fed_by: "the coordinator's disk and backups: rows, as journal and backup read them",
        form: Form::Bytes,
        bound: Bound::new(64, 48 << 10),
        cost: 5,
        words: &[],
        seeds: cloud_rows,
        check: check_cloud_rows,
    },
    Target {
        name: "cloud-open",
        fed_by: "the coordinator's disk: what a start reads",
        form: Form::Bytes,
        bound: Bound::new(256, 64 << 10).within(5),
        cost: 20,
        words: &[],
        seeds: cloud_rows,
        check: check_cloud_open,
    },
    Target {
        name: "agent-open",
        fed_by: "the agent's disk: snapshot and marks, what a start reads",
        form: Form::Bytes,
        bound: Bound::new(256, 64 << 10).within(5),
        cost: 10,
        words: &[],
        seeds: agent_rows,
        check: check_agent_open,
    },
    Target {
        name: "telemetry-book",
        fed_by: "the coordinator's disk: telemetry of a node; a node: pieces",
        form: Form::Bytes,
        bound: Bound::new(64, 16 << 10),
        cost: 5,
        words: &[],
        seeds: books,
        check: check_book,
    },
    Target {
        name: "backup",
        fed_by: "people: backup files that are verified or restored",
        form: Form::Bytes,
        bound: Bound::new(64, 64 << 10).within(5),
        cost: 20,
        words: &[],
        seeds: backups,
        check: check_backup,
    },
];

/// Table, key, value.
type Row = (u8, Vec<u8>, Vec<u8>);

const AGGREGATES: u8 = 1;
const ROWS: u8 = 2;
const INBOXES: u8 = 3;
const FACTS: u8 = 5;
const DIRECTIVES: u8 = 6;

/// Where it is not so, real values are missing and the run must not pass.
const WRITTEN: &str = "what a working engine or agent wrote can be read";

/// All rows of a coordinator that has a node, runs and a schedule.
fn rows() -> Result<Vec<Row>, String> {
    let mut store = cores::coordinator()?;
    let mut rows = Vec::new();
    let text = |error: cloud_core::store::StoreError| error.to_string();
    let mut ids = Vec::new();
    store
        .aggregates(&mut |id, version, head| {
            ids.push(id);
            let value = [&version.to_le_bytes()[..], head].concat();
            rows.push((AGGREGATES, id.key().to_vec(), value));
        })
        .map_err(text)?;
    for id in ids {
        store
            .rows(id, "", &mut |name, value| {
                let key = [&id.key()[..], name.as_bytes()].concat();
                rows.push((ROWS, key, value.to_vec()));
            })
            .map_err(text)?;
    }
    store
        .inboxes(&mut |to, from, number, bytes| {
            let key = [&to.key()[..], &from.key()[..], &number.to_be_bytes()].concat();
            rows.push((INBOXES, key, bytes.to_vec()));
        })
        .map_err(text)?;
    let log = LogId {
        node: NODE,
        incarnation: LIFE,
    };
    let key = |number: u64| [&NODE.0[..], &LIFE.0[..], &number.to_be_bytes()].concat();
    for entry in store.directives(log, 0, 1000, 1 << 20).map_err(text)? {
        let value = [&entry.head.hash.0[..], &entry.bytes].concat();
        rows.push((DIRECTIVES, key(entry.head.number), value));
    }
    let after = Head::origin(NODE, LIFE, Direction::Up);
    let entries = samples::facts();
    let head = after.then_all(&entries);
    let plain = codec::encode(&((log, after, head), &entries));
    let segments = [
        [&[0], &plain[..]].concat(),
        [&[1], &codec::compress(&plain)[..]].concat(),
        [
            &[2],
            &codec::encode(&(log, after, head))[..],
            &codec::compress(&codec::encode(&entries))[..],
        ]
        .concat(),
    ];
    rows.extend(segments.map(|value| (FACTS, key(1), value)));
    Ok(rows)
}

/// All rows at once, and each alone.
fn cloud_rows() -> Vec<Vec<u8>> {
    let rows = rows().expect(WRITTEN);
    let small = rows.iter().filter(|row| row.2.len() < 20_000);
    let mut all: Vec<Vec<u8>> = small.map(|row| codec::encode(&vec![row])).collect();
    all.push(codec::encode(&rows));
    all
}

fn check_cloud_rows(input: &[u8]) -> Verdict {
    let rows = match codec::decode::<Vec<Row>>(input) {
        Ok(rows) => rows,
        Err(error) => return Ok(class(&error)),
    };
    let (mut contents, mut walk) = (Contents::default(), Walk::default());
    let mut bad = 0_u32;
    for (table, key, value) in &rows {
        bad += u32::from(contents.note(*table, key, value).is_err());
        let mut entries = 0;
        walk.row::<String>(*table, key, value, &mut |_| {
            entries += 1;
            Ok(())
        })?;
    }
    let verdicts = walk.finish();
    let broken = verdicts.iter().filter_map(|v| v.broken.as_ref()).next();
    let good = if bad == 0 { "ok " } else { "" };
    Ok(format!(
        "{good}{:?} {}",
        rows.len().checked_ilog2(),
        broken.map(|text| class(text)).unwrap_or_default()
    ))
}

/// Puts the rows that this one belongs to into a store.
fn fill(rows: &[Row]) -> Option<MemStore> {
    let mut store = MemStore::new();
    for (table, key, value) in rows.iter().filter(|row| row.0 == AGGREGATES) {
        debug_assert_eq!(*table, AGGREGATES);
        let aggregate = AggregateId::from_key(key)?;
        let of = |row: &&Row| row.0 == ROWS && row.1.starts_with(key) && row.1.len() > key.len();
        let named = rows.iter().filter(of).filter_map(|row| {
            let name = String::from_utf8(row.1[key.len()..].to_vec()).ok()?;
            Some((name, Some(row.2.clone())))
        });
        let transaction = Transaction {
            rows: named.collect(),
            ..Transaction::of(aggregate, 0, value.get(8..)?.to_vec())
        };
        store.commit(&[transaction]).ok()?;
    }
    Some(store)
}

fn check_cloud_open(input: &[u8]) -> Verdict {
    let mut given = match codec::decode::<Vec<Row>>(input) {
        Ok(rows) => rows,
        Err(error) => return Ok(class(&error)),
    };
    // what is not given is as it was
    thread_local! {
        static WHOLE: Vec<Row> = rows().expect(WRITTEN);
    }
    WHOLE.with(|whole| {
        for row in whole {
            if !given
                .iter()
                .any(|other| other.0 == row.0 && other.1 == row.1)
            {
                given.push(row.clone());
            }
        }
    });
    let Some(store) = fill(&given) else {
        return Ok("no such row".to_owned());
    };
    let mut engine = match Engine::open(store, cores::engine_config(), NOW, 1) {
        Ok(engine) => engine,
        Err(error) => return Ok(class(&error)),
    };
    let mut inputs = vec![Input::Wake];
    let requests = [
        Request::Nodes,
        Request::Runs { state: None },
        Request::Waits,
        Request::Tasks {
            run: shared::ids::RunId([3; 16]),
            state: None,
        },
    ];
    inputs.extend((1..).zip(requests).map(|(id, request)| Input::Request {
        id: RequestId(id),
        request: Box::new(request),
        caller: cloud_core::access::Caller::default(),
    }));
    let mut count = 0;
    match engine.run(NOW, inputs, &mut |_| count += 1) {
        Ok(()) => Ok(format!("ok {count}")),
        Err(error) => Ok(class(&error)),
    }
}

/// Names and values of rows and marks.
type Named = Vec<(bool, String, Vec<u8>)>;

/// What an agent wrote that was assigned a slice.
fn agent_rows() -> Vec<Vec<u8>> {
    let all = cores::agent_written().expect(WRITTEN);
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|one| codec::encode(&vec![one])).collect();
    seeds.push(codec::encode(&all));
    seeds
}

fn check_agent_open(input: &[u8]) -> Verdict {
    let mut given = match codec::decode::<Named>(input) {
        Ok(given) => given,
        Err(error) => return Ok(class(&error)),
    };
    thread_local! {
        static WHOLE: Named = cores::agent_written().expect(WRITTEN);
    }
    WHOLE.with(|whole| {
        for row in whole {
            if !given
                .iter()
                .any(|other| other.0 == row.0 && other.1 == row.1)
            {
                given.push(row.clone());
            }
        }
    });
    let disk = Disk::new(NODE, LIFE);
    let mut commit = Commit::default();
    for (is_row, name, value) in given {
        match is_row {
            true => commit.rows.push((name, Some(value))),
            false => commit.marks.push((name, value)),
        }
    }
    commit.snapshot = Some((0, 0));
    let mut store = EdgeStore::new(disk);
    store.commit(&commit).map_err(|error| error.to_string())?;
    match Driver::open(store, cores::agent_config()) {
        Ok(driver) => {
            let agent = driver.agent();
            Ok(format!("ok {:?}", agent.ps(true).len().checked_ilog2()))
        }
        Err(error) => Ok(class(&error)),
    }
}

/// Bodies of frames, each behind its length.
fn books() -> Vec<Vec<u8>> {
    let journal = MemoryJournal::default();
    let mut out = Vec::new();
    if let Ok(mut book) = Book::open(journal.clone(), Keep::default()) {
        for piece in samples::pieces() {
            let report = shared::telemetry::Report {
                incarnation: LIFE,
                piece,
            };
            let _ = book.take(report, NOW.wall);
        }
        let _ = book.sync();
    }
    for found in frame::scan(&journal.read().unwrap_or_default()) {
        out.extend((found.body.len() as u32).to_le_bytes());
        out.extend_from_slice(found.body);
    }
    vec![out]
}

fn check_book(input: &[u8]) -> Verdict {
    let (mut file, mut rest) = (Vec::new(), input);
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let Some((body, behind)) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)
        else {
            break;
        };
        file.extend(frame::encode(body));
        rest = behind;
    }
    file.extend_from_slice(rest);
    let mut journal = MemoryJournal::default();
    journal.replace(&file).map_err(|error| error.to_string())?;
    let mut book = match Book::open(journal, Keep::default()) {
        Ok(book) => book,
        Err(error) => return Ok(class(&error)),
    };
    let receipt = book.receipt(LIFE);
    let mut blocks = 0;
    book.visit(|_, _| blocks += 1)
        .map_err(|error| error.to_string())?;
    let missing = book.missing().len();
    let mut taken = 0;
    for piece in samples::pieces() {
        let incarnation = LIFE;
        let report = shared::telemetry::Report { incarnation, piece };
        taken += u32::from(book.take(report, NOW.wall).is_ok());
    }
    book.sync().map_err(|error| error.to_string())?;
    Ok(format!(
        "ok {blocks} {missing} {taken} {:?}",
        receipt.ranges.len().checked_ilog2()
    ))
}

/// Items of a backup, as its file has them.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Item {
    Head(BackupHead),
    Part {
        kind: u32,
        name: String,
        size: u64,
    },
    Piece(Vec<u8>),
    PartEnd(Hash),
    Row {
        table: u8,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    RowsEnd {
        rows: u64,
        hash: Hash,
    },
    End {
        summary: Summary,
        hash: Hash,
    },
}

/// Items behind a byte that says whether their hashes are made to fit.
fn backups() -> Vec<Vec<u8>> {
    let nothing = Hash([0; 32]);
    let mut items = vec![
        Item::Head(BackupHead {
            version: "0.1.0".to_owned(),
            at: Unix(1_790_000_000_000),
            authority: "ab".repeat(32),
        }),
        Item::Part {
            kind: 0,
            name: "authority.key".to_owned(),
            size: 5,
        },
        Item::Piece(vec![1; 5]),
        Item::PartEnd(nothing),
    ];
    let rows = rows().expect(WRITTEN);
    let of = |(table, key, value): &Row| Item::Row {
        table: *table,
        key: key.clone(),
        value: value.clone(),
    };
    items.extend(rows.iter().filter(|row| row.2.len() < 4000).map(of));
    let count = items.len() as u64 - 4;
    items.extend([
        Item::RowsEnd {
            rows: count,
            hash: nothing,
        },
        Item::End {
            summary: Summary {
                generation: Generation(1_790_000_200),
                nodes: 1,
                runs: 5,
                rows: count,
                files: 0,
                file_bytes: 0,
                gone: vec![samples::NOTHING],
            },
            hash: nothing,
        },
    ]);
    let few: Vec<Item> = items
        .iter()
        .filter(|i| !matches!(i, Item::Row { .. }))
        .cloned()
        .collect();
    vec![
        codec::encode(&(1_u8, &items)),
        codec::encode(&(1_u8, &few)),
        codec::encode(&(0_u8, &few)),
    ]
}

/// Makes the hashes fit what they are of.
fn fit(items: &mut [Item]) {
    let (mut all, mut part, mut rows, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0_u64);
    for item in items {
        match item {
            Item::Part { .. } => part.clear(),
            Item::Piece(bytes) => part.extend_from_slice(bytes),
            Item::PartEnd(hash) => *hash = Hash::of(&part),
            Item::Row { key, value, .. } => {
                rows.extend_from_slice(key);
                rows.extend_from_slice(value);
                count += 1;
            }
            Item::RowsEnd { rows: said, hash } => {
                (*said, *hash) = (count, Hash::of(&rows));
            }
            Item::End { hash, .. } => *hash = Hash::of(&all),
            Item::Head(_) => {}
        }
        all.extend(codec::encode(item));
    }
}

fn check_backup(input: &[u8]) -> Verdict {
    let mut stream = Vec::new();
    match codec::decode::<(u8, Vec<Item>)>(input) {
        Ok((fits, mut items)) => {
            if fits % 2 == 1 {
                fit(&mut items);
            }
            for item in items {
                let bytes = codec::encode(&item);
                stream.extend((bytes.len() as u32).to_le_bytes());
                stream.extend(bytes);
            }
        }
        // what is no list of items is the stream itself
        Err(_) => stream.extend_from_slice(input),
    }
    let magic: &[u8] = b"driftless backup 1\n";
    let text = |error: std::io::Error| error.to_string();
    let bytes = [magic, &codec::compress(&stream)].concat();
    let dir = tempfile::tempdir().map_err(text)?;
    let path = dir.path().join("backup");
    let mut file = std::fs::File::create(&path).map_err(text)?;
    file.write_all(&bytes).map_err(text)?;
    let mut rows = 0;
    let read = cloud::backup::rows::<cloud::backup::BackupError>(&bytes[..], &mut |_, _, _| {
        rows += 1;
        Ok(())
    });
    let read = read.err().map(|error| class(&error)).unwrap_or_default();
    match cloud::backup::check(&path) {
        Ok(found) => {
            // One in a few is restored as well: that makes a store on the disk.
            let restored = match Hash::of(input).0[0] % 16 {
                0 => match cloud::backup::restore(&path, &dir.path().join("data"), &[]) {
                    Ok(_) => "restored".to_owned(),
                    Err(error) => class(&error),
                },
                _ => String::new(),
            };
            Ok(format!("ok {} {read} {restored}", found.nodes.len()))
        }
        Err(error) => Ok(format!("{} {read}", class(&error))),
    }
}
