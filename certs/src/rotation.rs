//! How a fleet's authority is exchanged on the disk: the next one is made beside the present one
//! (`next.key`, then `next.crt`), and in the end takes its place (`next.crt`, then `next.key`).
//!
//! | what is there | what it means |
//! | --- | --- |
//! | `next.key` alone, of no certificate | a beginning that was cut short: nobody saw that key |
//! | `next.crt` and `next.key` | the fleet changes its authority |
//! | `next.key` alone, of `authority.crt` | an end that was cut short: opening completes it |
//!
//! Invariant: at each moment there is one pair on the disk that every node which has renewed
//! trusts, and which opening finds.

use crate::authority::{
    Authority, AuthorityError, CERT, KEY, certifies, new_certificate, new_key, read_certificate,
    read_key,
};
use crate::files;
use crate::node::bundle;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use std::path::Path;

pub(crate) const NEXT_KEY: &str = "next.key";
pub(crate) const NEXT_CERT: &str = "next.crt";

impl Authority {
    /// The authority that is to take this one's place, if the fleet changes it. It has the same
    /// other secrets: those stay.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn next(&self, dir: &Path) -> Result<Option<Self>, AuthorityError> {
        let Some(certificate) = read_certificate(dir, NEXT_CERT)? else {
            return Ok(None);
        };
        let missing = || AuthorityError::Missing(dir.join(NEXT_KEY));
        let key = read_key(dir, NEXT_KEY)?.ok_or_else(missing)?;
        if !certifies(&certificate, &key) {
            let (key, cert) = (dir.join(NEXT_KEY), dir.join(NEXT_CERT));
            return Err(AuthorityError::Mismatch { key, cert });
        }
        self.with_secrets(certificate, key).map(Some)
    }

    /// Makes the next authority in `dir`, durably. What a beginning left that was cut short is
    /// written anew.
    ///
    /// # Errors
    /// [`AuthorityError::Changing`] where there is one already; others when it cannot be written.
    pub fn make_next(&self, dir: &Path) -> Result<Self, AuthorityError> {
        if files::read(dir, NEXT_CERT, false)?.is_some() {
            return Err(AuthorityError::Changing);
        }
        let key = new_key(dir, NEXT_KEY)?;
        let certificate = new_certificate(dir, NEXT_CERT, &key)?;
        self.with_secrets(certificate, key)
    }

    /// Puts this next authority in `dir` in the place of the present one, durably. That one's key
    /// is gone then. What an earlier call left half done is completed.
    ///
    /// # Errors
    /// [`AuthorityError`]; another call, or the next opening, completes what was begun.
    pub fn take_place(&self, dir: &Path) -> Result<(), AuthorityError> {
        if files::read(dir, NEXT_CERT, false)?.is_some() {
            files::rename(dir, NEXT_CERT, CERT)?;
        }
        complete(dir)?;
        match Self::look(dir)?.fingerprint() == self.fingerprint() {
            true => Ok(()),
            false => Err(AuthorityError::Missing(dir.join(NEXT_CERT))),
        }
    }

    fn with_secrets(
        &self,
        certificate: CertificateDer<'static>,
        key: KeyPair,
    ) -> Result<Self, AuthorityError> {
        Self::assemble(
            certificate,
            key,
            self.seal().clone(),
            self.transport().clone(),
        )
    }
}

/// Completes a replacement that was cut short.
pub(crate) fn complete(dir: &Path) -> Result<(), AuthorityError> {
    if files::read(dir, NEXT_CERT, false)?.is_some() {
        return Ok(());
    }
    let Some(certificate) = read_certificate(dir, CERT)? else {
        return Ok(());
    };
    // what is left of a beginning may be cut; it is of no use to anybody
    if let Ok(Some(key)) = read_key(dir, NEXT_KEY)
        && certifies(&certificate, &key)
    {
        files::rename(dir, NEXT_KEY, KEY)?;
    }
    Ok(())
}

/// Certificate and key of a replacement that was cut short, `certificate` being in its place
/// already.
pub(crate) fn halfway(
    dir: &Path,
    certificate: CertificateDer<'static>,
) -> Result<(CertificateDer<'static>, KeyPair), AuthorityError> {
    match read_key(dir, NEXT_KEY)? {
        Some(key) if certifies(&certificate, &key) => Ok((certificate, key)),
        _ => Err(AuthorityError::Mismatch {
            key: dir.join(KEY),
            cert: dir.join(CERT),
        }),
    }
}

/// These certificates (DER) in PEM, one behind the other, as files of trusted ones have them.
#[must_use]
pub fn pem(certificates: &[&[u8]]) -> String {
    String::from_utf8_lossy(&bundle(certificates)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    const NAMES: [&str; 4] = [CERT, KEY, NEXT_CERT, NEXT_KEY];

    /// The files that the rotation touches.
    fn files_of(dir: &Path) -> BTreeMap<&'static str, Vec<u8>> {
        let read = |name: &&'static str| Some((*name, fs::read(dir.join(name)).ok()?));
        NAMES.iter().filter_map(read).collect()
    }

    /// Files as they are before and after a change.
    type Change<'a> = (
        &'a BTreeMap<&'static str, Vec<u8>>,
        &'a BTreeMap<&'static str, Vec<u8>>,
    );

    struct Rotated {
        _home: tempfile::TempDir,
        dir: PathBuf,
        before: BTreeMap<&'static str, Vec<u8>>,
        during: BTreeMap<&'static str, Vec<u8>>,
        after: BTreeMap<&'static str, Vec<u8>>,
    }

    impl Rotated {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let dir = home.path().join("authority");
            let old = Authority::open_or_create(&dir).unwrap();
            assert!(old.next(&dir).unwrap().is_none());
            let before = files_of(&dir);
            let next = old.make_next(&dir).unwrap();
            assert!(matches!(old.make_next(&dir), Err(AuthorityError::Changing)));
            let during = files_of(&dir);
            let found = old.next(&dir).unwrap().unwrap();
            assert_eq!(found.fingerprint(), next.fingerprint());
            next.take_place(&dir).unwrap();
            let after = files_of(&dir);
            let new = Authority::open_or_create(&dir).unwrap();
            assert_eq!(new.fingerprint(), next.fingerprint());
            assert_eq!(new.seal(), old.seal(), "seals outlive the authority");
            assert!(new.next(&dir).unwrap().is_none());
            Self {
                _home: home,
                dir,
                before,
                during,
                after,
            }
        }

        /// Makes the files as they are when of `steps` (a name each) so many were done.
        fn cut(&self, (from, to): Change<'_>, steps: &[&'static str]) {
            for name in NAMES {
                let state = match steps.contains(&name) {
                    true => to,
                    false => from,
                };
                let path = self.dir.join(name);
                match state.get(name) {
                    Some(bytes) => files::write(&self.dir, name, bytes).unwrap(),
                    None => drop(fs::remove_file(&path)),
                }
            }
            // what a write leaves that was cut
            fs::write(self.dir.join(".next.crt.new"), "torn").unwrap();
        }
    }

    #[test]
    fn a_beginning_that_is_cut_short_is_none_and_an_end_is_completed() {
        let rotated = Rotated::new();
        let dir = &rotated.dir;
        let print = || Authority::open_or_create(dir).unwrap().fingerprint();
        rotated.cut((&rotated.before, &rotated.before), &[]);
        let old = print();
        rotated.cut((&rotated.after, &rotated.after), &[]);
        let new = print();

        // begin: next.key, then next.crt
        rotated.cut((&rotated.before, &rotated.during), &[NEXT_KEY]);
        assert_eq!(print(), old);
        let opened = Authority::open_or_create(dir).unwrap();
        assert!(opened.next(dir).unwrap().is_none());
        assert_ne!(opened.make_next(dir).unwrap().fingerprint(), new);
        // finish: authority.crt takes next.crt's content, then authority.key that of next.key
        rotated.cut((&rotated.during, &rotated.after), &[CERT, NEXT_CERT]);
        let halfway = files_of(dir);
        assert_eq!(Authority::look(dir).unwrap().fingerprint(), new);
        assert_eq!(files_of(dir), halfway, "looking changes nothing");
        assert_eq!(print(), new);
        assert_eq!(files_of(dir), rotated.after, "opening completes it");
        assert_eq!(print(), new);
        // and so does another try of the same program
        rotated.cut((&rotated.during, &rotated.during), &[]);
        let present = Authority::open_or_create(dir).unwrap();
        let next = present.next(dir).unwrap().unwrap();
        rotated.cut((&rotated.during, &rotated.after), &[CERT, NEXT_CERT]);
        next.take_place(dir).unwrap();
        assert_eq!(files_of(dir), rotated.after);
        rotated.cut((&rotated.before, &rotated.before), &[]);
        let error = next.take_place(dir).unwrap_err();
        assert!(matches!(error, AuthorityError::Missing(path) if path.ends_with(NEXT_CERT)));
        assert_eq!(
            print(),
            old,
            "whose files somebody took away takes no place"
        );
    }

    #[test]
    fn what_does_not_fit_together_is_named_and_nothing_is_made_anew() {
        let rotated = Rotated::new();
        let dir = &rotated.dir;
        let whole = (&rotated.during, &rotated.during);
        rotated.cut(whole, &[]);
        let old = Authority::open_or_create(dir).unwrap();
        fs::remove_file(dir.join(NEXT_KEY)).unwrap();
        let error = old.next(dir).unwrap_err();
        assert!(matches!(error, AuthorityError::Missing(path) if path.ends_with(NEXT_KEY)));
        rotated.cut(whole, &[]);
        files::write(dir, NEXT_KEY, &rotated.during[KEY]).unwrap();
        let error = old.next(dir).unwrap_err();
        assert!(matches!(error, AuthorityError::Mismatch { .. }), "{error}");
        rotated.cut(whole, &[]);
        fs::write(dir.join(NEXT_CERT), "torn").unwrap();
        let error = old.next(dir).unwrap_err();
        assert!(matches!(error, AuthorityError::Damaged(_)), "{error}");
        rotated.cut(whole, &[]);
        fs::remove_file(dir.join(CERT)).unwrap();
        let error = Authority::open_or_create(dir).unwrap_err();
        assert!(matches!(error, AuthorityError::Missing(path) if path.ends_with(CERT)));
    }
}
