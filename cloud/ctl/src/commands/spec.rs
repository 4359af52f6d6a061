//! `driftless lint` and `driftless graph`, and how specifications are read: on this machine, so
//! that all mistakes are shown at once and nothing is sent before there are none.

use crate::exit::{Code, Failure, written};
use crate::output::Output;
use crate::text::{Style, now, safe};
use clap::{Args, ValueEnum};
use shared::graph;
use shared::ids::Hash;
use shared::limits::SPEC_BYTES;
use shared::spec::{self, Mistake, Mistakes, SentFiles};
use shared::time::Unix;
use shared::workflow::Workflow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::path::PathBuf;

/// What is given along with a specification.
#[derive(Args, Debug, Default)]
pub(crate) struct Given {
    /// A parameter's value (may be repeated)
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = crate::text::parse_pair)]
    pub(crate) params: Vec<(String, String)>,
    /// A file for the input of that name (may be repeated)
    #[arg(long = "file", value_name = "NAME=PATH", value_parser = crate::text::parse_pair)]
    pub(crate) files: Vec<(String, String)>,
}

/// Check a specification: all mistakes at once, or the whole of it with every default.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless lint flow.yaml
  driftless lint flow.yaml --param month=7 > expanded.yaml")]
pub(crate) struct Lint {
    /// The specification (YAML); - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
}

/// Show the tasks of a specification and their edges, after transitive reduction.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless graph flow.yaml
  driftless graph flow.yaml --format dot | dot -Tsvg > flow.svg
  driftless graph flow.yaml --format svg > flow.svg")]
pub(crate) struct Graph {
    /// The specification (YAML); - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// How a graph is written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Levels of tasks, for a terminal
    Text,
    /// Graphviz
    Dot,
    /// Mermaid
    Mermaid,
    /// A picture
    Svg,
    /// For programs
    Json,
}

/// A specification with what was given along with it.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    text: String,
    params: BTreeMap<String, String>,
    /// Content and size of the files to send, by the name of the input.
    pub(super) files: SentFiles,
    /// Where they are.
    pub(super) paths: BTreeMap<String, PathBuf>,
}

impl Source {
    /// Reads the file (`-`: standard input) and hashes the files that go with it.
    pub(crate) fn read(file: &Path, given: &Given, out: &mut Output) -> Result<Self, Failure> {
        let name = if file == Path::new("-") {
            "standard input".to_owned()
        } else {
            file.display().to_string()
        };
        let bytes = read_bounded(file).map_err(|error| unreadable(&name, &error))?;
        let text = match spec::utf8(&name, &bytes) {
            Ok(text) => text.to_owned(),
            Err(mistakes) => return Err(tell(&mistakes, None, out)?),
        };
        let params = unique("--param", &given.params)?;
        let (mut files, mut paths) = (SentFiles::new(), BTreeMap::new());
        for (input, path) in unique("--file", &given.files)? {
            let path = PathBuf::from(path);
            let shown = path.display().to_string();
            files.insert(
                input.clone(),
                digest(&path).map_err(|e| unreadable(&shown, &e))?,
            );
            paths.insert(input, path);
        }
        Ok(Self {
            name,
            text,
            params,
            files,
            paths,
        })
    }

    /// Compiles it; all mistakes are shown.
    pub(crate) fn compile(&self, out: &mut Output) -> Result<Workflow, Failure> {
        self.compile_at(now(), out)
    }

    /// Compiles it as if it was submitted then.
    pub(crate) fn compile_at(&self, at: Unix, out: &mut Output) -> Result<Workflow, Failure> {
        let compiled = spec::submission(&self.name, &self.text, &self.params, &self.files, at);
        match compiled {
            Ok(workflow) => Ok(workflow),
            Err(mistakes) => Err(tell(&mistakes, Some(&self.text), out)?),
        }
    }
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = SPEC_BYTES as u64 + 1;
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    if bytes.len() > SPEC_BYTES {
        return Err(io::Error::other(format!(
            "it has more than {} MiB",
            SPEC_BYTES >> 20
        )));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        _ => Code::Failed,
    };
    Failure::new(code, format!("cannot read {name}: {error}"))
}

/// Content and size of a file, without having all of it in memory.
fn digest(path: &Path) -> io::Result<(Hash, u64)> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut hasher = Hash::hasher();
    let mut size = 0u64;
    let mut block = vec![0; 256 << 10];
    loop {
        match file.read(&mut block)? {
            0 => return Ok((hasher.finish(), size)),
            n => {
                hasher.update(&block[..n]);
                size += n as u64;
            }
        }
    }
}

fn unique(flag: &str, pairs: &[(String, String)]) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), value.clone()).is_some() {
            return Err(Failure::new(
                Code::Usage,
                format!("{flag} {name} is given twice"),
            ));
        }
    }
    Ok(map)
}

/// Shows all mistakes (as data with `--json`) and gives the failure that sums them up.
fn tell(mistakes: &Mistakes, text: Option<&str>, out: &mut Output) -> Result<Failure, Failure> {
    for mistake in &mistakes.mistakes {
        if out.json {
            out.object(mistake)?;
        } else {
            out.say(&picture(mistake, text, out.live));
        }
    }
    let count = mistakes.mistakes.len() + mistakes.more;
    let shown = match mistakes.more {
        0 => String::new(),
        _ => format!(", the first {} are shown", mistakes.mistakes.len()),
    };
    let file = mistakes
        .mistakes
        .first()
        .map_or("the specification", |first| first.file.as_str());
    let s = if count == 1 { "" } else { "s" };
    Ok(Failure::new(
        Code::Specification,
        format!("{file} has {count} mistake{s}{shown}"),
    ))
}

/// A mistake with the line it is in.
fn picture(mistake: &Mistake, text: Option<&str>, colour: bool) -> String {
    let Mistake {
        file,
        line,
        column,
        what,
        mend,
    } = mistake;
    let place = Style::Bold.paint(&format!("{file}:{line}:{column}"), colour);
    let found = text.and_then(|text| text.lines().nth(*line as usize - 1));
    let found = found.filter(|found| found.chars().count() <= 200);
    let excerpt = found.map_or_else(String::new, |found| {
        let number = Style::Dim.paint(&format!("{line:5} | "), colour);
        let caret = Style::Bad.paint("^", colour);
        let pad = " ".repeat(8 + *column as usize - 1);
        format!(
            "{number}{}\n{pad}{caret}\n",
            safe(&found.replace('\t', " "))
        )
    });
    let label = Style::Good.paint("mend:", colour);
    let (what, mend) = (safe(what), safe(mend));
    format!("{place}: {what}\n{excerpt}  {label} {mend}\n")
}

/// `driftless lint`
pub(super) fn lint(args: &Lint, out: &mut Output) -> Result<Code, Failure> {
    let source = Source::read(&args.file, &args.given, out)?;
    match spec::lint(&source.name, &source.text, &source.params, &source.files) {
        Ok(spec) if out.json => out.line(spec.expanded_json().trim_end())?,
        Ok(spec) => written(out.raw().write_all(spec.expanded().as_bytes()))?,
        Err(mistakes) => return Err(tell(&mistakes, Some(&source.text), out)?),
    }
    out.flush()?;
    Ok(Code::Done)
}

/// `driftless graph`
pub(super) fn graph(args: &Graph, out: &mut Output) -> Result<Code, Failure> {
    let workflow = Source::read(&args.file, &args.given, out)?.compile(out)?;
    let format = match args.format {
        _ if out.json => graph::Format::Json,
        Format::Text => graph::Format::Text,
        Format::Dot => graph::Format::Dot,
        Format::Mermaid => graph::Format::Mermaid,
        Format::Svg => graph::Format::Svg,
        Format::Json => graph::Format::Json,
    };
    written(
        out.raw()
            .write_all(graph::render(&workflow, format).as_bytes()),
    )?;
    out.flush()?;
    Ok(Code::Done)
}
