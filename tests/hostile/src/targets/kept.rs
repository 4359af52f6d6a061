//! What lies on disks of those who may come in: records of tokens, identities of agents, the list
//! of revocations.

use super::cores;
use crate::samples::{LIFE, NODE};
use crate::target::{Bound, Form, Target, Verdict, class};
use certs::{Presented, TokenId, TokenRecord, TokenUse};
use cloud::revoked::{self, Entry};
use edge_agent::data::{DataDir, Identity};
use shared::codec;
use shared::ids::Hash;
use shared::time::Unix;
use std::collections::BTreeMap;
use std::fs;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "token-record",
        fed_by: "the coordinator's disk: enrolment tokens as the fleet keeps them",
        form: Form::Bytes,
        bound: Bound::new(64, 1024),
        cost: 1,
        words: &[],
        seeds: records,
        check: check_record,
    },
    Target {
        name: "identity",
        fed_by: "the agent's disk: identity.json",
        form: Form::Text,
        bound: Bound::new(64, 1024),
        cost: 10,
        words: &[
            "\"format\": 1",
            "\"node\": ",
            "\"name\": ",
            "\"incarnation\": ",
            "\"succeeds\": null",
            "\"coordinator\": \"a:1\"",
            "\"labels\": {}",
            "\"more_coordinators\": []",
            "18446744073709551616",
            "1e400",
            "\\ud800",
        ],
        seeds: identities,
        check: check_identity,
    },
    Target {
        name: "revocations",
        fed_by: "the coordinator's disk: the list of revocations beside the authority's keys",
        form: Form::Text,
        bound: Bound::new(256, 64 << 10).within(5),
        cost: 5,
        words: &[
            "\"node\":",
            "\"name\":\"gw-7\",",
            "\"key\":null",
            "\"at\":9223372036854775807,",
            "\"at\":-9223372036854775808,",
            "\"gone\":\"ada\",",
            "\"let_in\":true",
            "18446744073709551616",
            "1e400",
            "\\ud800",
        ],
        seeds: revocations,
        check: check_revocations,
    },
];

/// One list in so many is told to an engine, which is slow beside the reader.
const TOLD: u8 = 16;

fn shown() -> Presented {
    Presented {
        id: TokenId([1; 8]),
        secret: [2; 16],
    }
}

/// One that is open, one that is bound to a name, one that was used.
fn records() -> Vec<Vec<u8>> {
    let open = TokenRecord {
        id: shown().id,
        secret_hash: [3; 32],
        expires: Unix(1_790_000_200_000),
        name: None,
        replace: false,
        used: None,
    };
    let bound = TokenRecord {
        name: Some("gw-7".to_owned()),
        replace: true,
        ..open
    };
    let used = TokenRecord {
        used: Some(TokenUse {
            node: NODE,
            key: [4; 32],
            at: Unix(5),
        }),
        ..bound.clone()
    };
    [open, bound, used].iter().map(codec::encode).collect()
}

fn check_record(input: &[u8]) -> Verdict {
    let record = match codec::decode::<TokenRecord>(input) {
        Ok(record) => record,
        Err(error) => return Ok(class(&error)),
    };
    super::comes_back(&record)?;
    match record.admit(&shown(), "gw-7", &[4; 32], Unix(i64::MAX)) {
        Ok(_) => Err("a secret that nobody was given fits".to_owned()),
        Err(refusal) => Ok(format!("ok {}", class(&refusal))),
    }
}

fn identities() -> Vec<Vec<u8>> {
    let labels = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
    let of = |coordinators: &[&str]| {
        let coordinators = coordinators.iter().map(|one| (*one).to_owned()).collect();
        let identity = Identity::new(NODE, "gw-7", LIFE, coordinators, labels.clone());
        serde_json::to_vec_pretty(&identity).unwrap_or_default()
    };
    vec![of(&[]), of(&["a:1"]), of(&["a:1", "[::1]:2", "c:3"])]
}

fn check_identity(input: &[u8]) -> Verdict {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(path, bytes).map_err(|error| error.to_string())
    };
    write("identity.json", input)?;
    write("store.redb", b"store")?;
    let data = DataDir::open(dir.path()).map_err(|error| error.to_string())?;
    let identity = match data.identity() {
        Ok(Some(identity)) => identity,
        Ok(None) => return Err("a file that is there is none".to_owned()),
        Err(error) => return Ok(class(&error)),
    };
    let known = (identity.node().to_string(), identity.incarnation());
    let text = serde_json::to_vec_pretty(&identity).map_err(|error| error.to_string())?;
    write("identity.json", &text)?;
    match data.identity() {
        Ok(Some(again)) if again == identity => {}
        _ => return Err("it is another one when it was written and read".to_owned()),
    }
    let many = identity.coordinators().len().checked_ilog2();
    Ok(format!("ok {} {many:?}", known == (NODE.to_string(), LIFE)))
}

/// Lists as they grow: a node that was declared gone, a key that was replaced, one that was let in
/// again, one that is not of this store.
fn revocations() -> Vec<Vec<u8>> {
    let gone = Entry {
        node: NODE,
        name: "gw-7".to_owned(),
        key: Some("01".repeat(32)),
        at: Unix(1_790_000_100_000),
        why: "stolen".to_owned(),
        gone: Some("ada".to_owned()),
        let_in: false,
    };
    let replaced = Entry {
        key: Some("04".repeat(32)),
        gone: None,
        ..gone.clone()
    };
    let let_in = Entry {
        let_in: true,
        ..replaced.clone()
    };
    let unknown = Entry {
        node: shared::ids::NodeId([7; 16]),
        key: None,
        ..gone.clone()
    };
    let (mut text, mut all) = (Vec::new(), Vec::new());
    for entry in [replaced, let_in, unknown, gone] {
        text.extend(line(&entry));
        all.push(text.clone());
    }
    all
}

fn line(entry: &Entry) -> Vec<u8> {
    let line = serde_json::to_vec(entry).unwrap_or_default();
    [b"\n", &line[..], b"\n"].concat()
}

fn check_revocations(input: &[u8]) -> Verdict {
    let (entries, lost) = revoked::read(input);
    let text: Vec<u8> = entries.iter().flat_map(line).collect();
    match revoked::read(&text) {
        (again, None) if again == entries => {}
        _ => return Err("it is another list when it was written and read".to_owned()),
    }
    let why = lost.map(|(_, error)| class(&error)).unwrap_or_default();
    let count = entries.len();
    if entries.is_empty() || !Hash::of(input).0[0].is_multiple_of(TOLD) {
        return Ok(format!("ok {:?} {why}", count.checked_ilog2()));
    }
    cores::with_engine(|engine, _| {
        for entry in entries {
            cores::ask(engine, entry.request())?;
        }
        Ok(format!("ok told {:?} {why}", count.checked_ilog2()))
    })
}
