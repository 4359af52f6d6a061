//! SPDX licence expressions: which packages can be used under the licences that we accept.

use super::metadata::Metadata;

/// Brackets nested deeper than this are nonsense, not a licence.
const DEPTH_MAX: usize = 16;

/// Packages that no choice among the accepted licences covers.
pub(crate) fn check(metadata: &Metadata, accepted: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.packages() {
        let label = format!("{} {}", package.name, package.version);
        let Some(expression) = &package.licence else {
            findings.push(format!("{label} names no licence: replace it"));
            continue;
        };
        match is_covered(expression, accepted) {
            Ok(true) => {}
            Ok(false) => findings.push(format!(
                "{label} is under `{expression}`, which LICENCES does not cover: replace the crate"
            )),
            Err(why) => findings.push(format!("{label} is under `{expression}`: {why}")),
        }
    }
    findings
}

/// Whether an expression holds when exactly the accepted licences do.
///
/// `A/B` is the old way to write `A OR B`. `A WITH exception` is accepted where `A` is, since an
/// exception only allows more.
fn is_covered(expression: &str, accepted: &[&str]) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut parser = Parser {
        tokens: spaced.split_whitespace().collect(),
        at: 0,
        accepted,
    };
    let covered = parser.any(0)?;
    match parser.peek() {
        None => Ok(covered),
        Some(token) => Err(format!("`{token}` is not expected there")),
    }
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    accepted: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self, depth: usize) -> Result<bool, String> {
        let mut covered = self.all(depth)?;
        while self.take("OR") {
            covered |= self.all(depth)?;
        }
        Ok(covered)
    }

    fn all(&mut self, depth: usize) -> Result<bool, String> {
        let mut covered = self.one(depth)?;
        while self.take("AND") {
            covered &= self.one(depth)?;
        }
        Ok(covered)
    }

    fn one(&mut self, depth: usize) -> Result<bool, String> {
        if self.take("(") {
            if depth == DEPTH_MAX {
                return Err(format!("more than {DEPTH_MAX} nested brackets"));
            }
            let covered = self.any(depth + 1)?;
            return if self.take(")") {
                Ok(covered)
            } else {
                Err("a `)` is missing".to_owned())
            };
        }
        let licence = self.name()?;
        if self.take("WITH") {
            self.name()?;
        }
        Ok(self.accepted.contains(&licence))
    }

    fn name(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            None => Err("a licence is missing at the end".to_owned()),
            Some(token @ ("AND" | "OR" | "WITH" | "(" | ")")) => {
                Err(format!("a licence is missing before `{token}`"))
            }
            Some(name) => {
                self.at += 1;
                Ok(name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::metadata::fake::graph;

    const ACCEPTED: &[&str] = &["MIT", "Apache-2.0", "ISC"];

    #[test]
    fn expressions_are_decided_as_spdx_says() {
        for (expression, covered) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("MIT AND ISC", true),
            // AND binds closer than OR.
            ("MIT OR ISC AND GPL-3.0", true),
            ("GPL-3.0 AND MIT OR ISC", true),
            ("GPL-3.0 AND (MIT OR ISC)", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
            ("((MIT))", true),
            ("Unlicense/MIT", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-2.0 WITH Classpath-exception-2.0 OR ISC", true),
            // Names are whole words.
            ("MIT-0", false),
        ] {
            assert_eq!(
                is_covered(expression, ACCEPTED),
                Ok(covered),
                "{expression}"
            );
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let deep = "(".repeat(1_000_000);
        for (expression, why) in [
            ("", "missing at the end"),
            ("MIT OR", "missing at the end"),
            ("OR MIT", "missing before `OR`"),
            ("(MIT", "a `)` is missing"),
            ("MIT)", "`)` is not expected"),
            ("MIT ISC", "`ISC` is not expected"),
            ("MIT WITH", "missing at the end"),
            (&deep, "nested brackets"),
        ] {
            let error = is_covered(expression, ACCEPTED).unwrap_err();
            assert!(error.contains(why), "{error} should say {why}");
        }
    }

    #[test]
    fn each_package_in_breach_is_named() {
        let metadata = graph(&[
            "good 1.0.0 MIT crates.io",
            "bad 2.0.0 GPL-3.0 crates.io",
            "none 3.0.0 - crates.io",
        ]);
        let findings = check(&metadata, ACCEPTED);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(
            findings[0].starts_with("bad 2.0.0 is under `GPL-3.0`"),
            "{findings:?}"
        );
        assert!(
            findings[1].starts_with("none 3.0.0 names no licence"),
            "{findings:?}"
        );
    }
}
