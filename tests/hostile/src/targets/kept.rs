//! What lies on disks of those who may come in: records of tokens, identities of agents.

use crate::samples::{LIFE, NODE};
use crate::target::{Bound, Form, Target, Verdict, class};
use certs::{Presented, TokenId, TokenRecord, TokenUse};
use edge_agent::data::{DataDir, Identity};
use shared::codec;
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
];

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
