//! Where a program's configuration comes from: its file, and variables of its environment.

use shared::config::{FILE_BYTES, Reader};
use shared::spec::{Mistake, Mistakes};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A program's configuration file, and what its variables are called.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// The file that is read unless another one is named; it may be absent.
    pub file: &'static str,
    /// The variable that names another file.
    pub variable: &'static str,
    /// How the variables of single keys begin.
    pub prefix: &'static str,
}

impl Sources {
    /// Reads the file and the environment into `reader`. `named` is a file that a flag named: it
    /// must be there, as one that the environment names.
    ///
    /// # Errors
    /// The file cannot be read; what it says wrongly is in the reader.
    pub fn read(&self, named: Option<&Path>, reader: &mut Reader) -> Result<(), Mistakes> {
        let (path, must_be_there) = self.path(named);
        match read_bounded(&path) {
            Ok(text) => reader.file(&path.display().to_string(), &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be_there => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
        self.environment(reader);
        Ok(())
    }

    /// Reads the file into `reader` as far as it can be read: for commands that only want to know
    /// where the program is, and may be another user's, who may not read the file.
    pub fn read_file_leniently(&self, named: Option<&Path>, reader: &mut Reader) {
        let (path, _) = self.path(named);
        if let Ok(text) = read_bounded(&path) {
            reader.file(&path.display().to_string(), &text);
        }
    }

    /// Reads the variables of single keys into `reader`; names and values that are no UTF-8 are
    /// none of ours.
    pub fn environment(&self, reader: &mut Reader) {
        let all = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        reader.environment(self.prefix, &[self.variable], all);
    }

    /// The file's path, and whether somebody named it.
    fn path(&self, named: Option<&Path>) -> (PathBuf, bool) {
        let variable = || std::env::var_os(self.variable).filter(|value| !value.is_empty());
        match named
            .map(Path::to_owned)
            .or_else(|| variable().map(PathBuf::from))
        {
            Some(path) => (path, true),
            None => (PathBuf::from(self.file), false),
        }
    }
}

/// The text of a file that is no larger than a configuration may be.
fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES as u64 + 1).read_to_string(&mut text)?;
    match text.len() > FILE_BYTES {
        true => Err(io::Error::other("it is larger than a configuration can be")),
        false => Ok(text),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Mistakes {
    let mistake = Mistake {
        file: path.display().to_string(),
        line: 0,
        column: 0,
        what: format!("the configuration cannot be read: {error}"),
        mend: "name another one with --config, or /dev/null for none".to_owned(),
    };
    Mistakes {
        mistakes: vec![mistake],
        more: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Key, Kind};

    const KEYS: &[Key] = &[Key::new("name", Kind::Text, "nobody")];
    const SOURCES: Sources = Sources {
        file: "/nowhere/of/any.toml",
        variable: "DRIFTLESS_HOST_TEST_CONFIG",
        prefix: "DRIFTLESS_HOST_TEST_",
    };

    fn name(named: Option<&Path>) -> Result<String, String> {
        let mut reader = Reader::new(KEYS);
        let told = |mistakes: Mistakes| mistakes.to_string();
        SOURCES.read(named, &mut reader).map_err(told)?;
        Ok(reader.settle().map_err(told)?.text("name").to_owned())
    }

    #[test]
    fn a_file_may_be_absent_unless_somebody_named_it() {
        assert_eq!(name(None).unwrap(), "nobody");
        let told = name(Some(Path::new("/nowhere/else.toml"))).unwrap_err();
        assert!(told.contains("/nowhere/else.toml"), "{told}");
        assert!(told.contains("the configuration cannot be read"), "{told}");
        assert!(told.contains("--config"), "{told}");
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, "name = 'gw'\n").unwrap();
        assert_eq!(name(Some(&path)).unwrap(), "gw");
        std::fs::write(&path, "#".repeat(FILE_BYTES + 1)).unwrap();
        let told = name(Some(&path)).unwrap_err();
        assert!(told.contains("larger than a configuration"), "{told}");
        let mut reader = Reader::new(KEYS);
        SOURCES.read_file_leniently(Some(&path), &mut reader);
        assert_eq!(reader.settle().unwrap().text("name"), "nobody");
    }
}
