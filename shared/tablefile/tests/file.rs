//! A store's file is verified without being changed, and made small without being lost.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs;
use std::path::{Path, PathBuf};
use tablefile::{Damage, Overlay, compact, verify};

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

/// A store that held much more than it does.
fn store(dir: &Path) -> PathBuf {
    let path = dir.join("store.redb");
    let database = Database::create(&path).unwrap();
    for round in 0..20_u64 {
        let mut txn = database.begin_write().unwrap();
        txn.set_quick_repair(true);
        {
            let mut table = txn.open_table(ROWS).unwrap();
            for n in 0..100 {
                let bytes = [round as u8; 2000];
                table.insert(round * 100 + n, &bytes[..]).unwrap();
            }
        }
        txn.commit().unwrap();
    }
    let txn = database.begin_write().unwrap();
    txn.open_table(ROWS)
        .unwrap()
        .retain(|number, _| number >= 1950)
        .unwrap();
    txn.commit().unwrap();
    path
}

fn rows(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let overlay = Overlay::of(path).unwrap();
    let database = Database::builder().create_with_backend(overlay).unwrap();
    let txn = database.begin_read().unwrap();
    let table = txn.open_table(ROWS).unwrap();
    let all = table.iter().unwrap().map(|row| {
        let (number, bytes) = row.unwrap();
        (number.value(), bytes.value().to_vec())
    });
    all.collect()
}

#[test]
fn it_becomes_small_and_holds_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path());
    let before = rows(&path);
    let mut steps = 0;
    let done = compact(&path, &mut |_| steps += 1).unwrap();
    assert!(done.after * 2 < done.before, "{done:?}");
    assert_eq!(fs::metadata(&path).unwrap().len(), done.after);
    assert!(steps > 3);
    assert_eq!(rows(&path), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_copy_that_a_crash_left_behind_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path());
    fs::write(dir.path().join("store.compact"), b"half").unwrap();
    verify(&path).unwrap();
    compact(&path, &mut |_| {}).unwrap();
    assert_eq!(rows(&path).len(), 50);
}

#[test]
fn every_cut_and_every_changed_byte_that_matters_is_found_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path());
    compact(&path, &mut |_| {}).unwrap();
    let whole = fs::read(&path).unwrap();
    assert!(!verify(&path).unwrap().unclean);
    assert_eq!(fs::read(&path).unwrap(), whole, "looking changes nothing");
    for cut in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(verify(&path).is_err(), "cut to {cut}");
        assert_eq!(fs::read(&path).unwrap(), &whole[..cut]);
    }
    // A byte in the middle of a value: each row has 2,000 equal bytes.
    let at = whole
        .windows(64)
        .position(|window| window == [19; 64])
        .unwrap();
    let mut bent = whole;
    bent[at] ^= 1;
    fs::write(&path, &bent).unwrap();
    assert!(matches!(verify(&path), Err(Damage::Broken(_))));
    assert!(compact(&path, &mut |_| {}).is_err());
    assert_eq!(fs::read(&path).unwrap(), bent, "it stays as it is");
}

/// Of the header only the byte that says which of its two roots counts is under no checksum.
#[test]
fn a_bit_that_rots_anywhere_is_found_or_changes_nothing() {
    const WHICH_ROOT: usize = 9;
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path());
    compact(&path, &mut |_| {}).unwrap();
    let before = rows(&path);
    let whole = fs::read(&path).unwrap();
    let bits = (0..320 * 8).chain((320 * 8..whole.len() * 8).step_by(512 * 8 + 11));
    let mut found = 0;
    for bit in bits.filter(|bit| bit / 8 != WHICH_ROOT) {
        let mut bent = whole.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bent).unwrap();
        match verify(&path) {
            Ok(_) => assert_eq!(rows(&path), before, "bit {bit} of {} bytes", whole.len()),
            Err(_) => found += 1,
        }
    }
    assert!(found > 200, "{found}");
}

/// The commands are typed as root, and the program that goes on with the store is not root.
#[test]
fn it_stays_its_owners() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let meta = fs::metadata(&path).unwrap();
    // only root can give a file away
    let other = match chown(&path, Some(65_534), Some(65_533)) {
        Ok(()) => (65_534, 65_533),
        Err(_) => (meta.uid(), meta.gid()),
    };
    compact(&path, &mut |_| ()).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (after.uid(), after.gid(), after.mode() & 0o7777),
        (other.0, other.1, 0o640)
    );
}
