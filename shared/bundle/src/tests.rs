//! Bundles that are read again.

use super::*;

const TOKEN: &str = "dft1-beef0123-0011223344556677-00112233445566778899aabbccddeeff-01020304";

#[test]
fn secrets_are_taken_out_of_text() {
    let access = TOKEN.replace("dft1", "dfa1");
    let key = "-----BEGIN EC PRIVATE KEY-----\nMIG\n-----END EC PRIVATE KEY-----";
    let certificate = "-----BEGIN CERTIFICATE-----\nMIH\n-----END CERTIFICATE-----";
    for (text, clean, removed) in [
        (
            format!("a '{TOKEN}', {access}."),
            "a '[removed]', [removed].".to_owned(),
            2,
        ),
        (
            format!("{certificate}\n{key}\nend"),
            format!("{certificate}\n[removed]\nend"),
            1,
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nMIG".to_owned(),
            "[removed]".to_owned(),
            1,
        ),
        (
            "dft1- and ------BEGIN".to_owned(),
            "[removed] and ------BEGIN".to_owned(),
            1,
        ),
        (
            "nothing at all: ä…".to_owned(),
            "nothing at all: ä…".to_owned(),
            0,
        ),
    ] {
        assert_eq!(scrub(&text), (clean, removed));
    }
}

#[test]
fn a_bundle_says_what_is_in_it_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let long = format!("{TOKEN}{}\nthe last line\n", "x".repeat(600_000));
    fs::write(&log, long).unwrap();
    let path = dir.path().join("bundle.tar.zst");
    let make = || {
        let mut bundle = Bundle::new("test", "1.2.3", Unix(5000));
        bundle.json("machine.json", &machine());
        bundle.json_or("sizes.json", sizes(dir.path()));
        bundle.json_or::<u8>("none.json", Err(format!("for {TOKEN}")));
        bundle.log(Some(&log), "none");
        bundle.write(&path)
    };
    let manifest = make().unwrap();
    assert_eq!(manifest.missing[0].why, "for [removed]");
    assert_eq!(manifest.parts[2].bytes, "the last line\n".len() as u64);
    let again = make().unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    let unpacked = zstd::decode_all(fs::File::open(&path).unwrap()).unwrap();
    let mut archive = tar::Archive::new(&unpacked[..]);
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let wanted = ["manifest", "machine", "sizes"].map(|n| format!("driftless-support/{n}.json"));
    assert_eq!(names[..3], wanted);
    assert_eq!(names[3], "driftless-support/log.txt");
}
