//! The documents list every reason.

use shared::explain::Reason;

#[test]
fn every_reason_is_documented() {
    let page = include_str!("../../docs/explain.md");
    let missing: Vec<&str> = Reason::ALL
        .iter()
        .map(|reason| reason.text())
        .filter(|text| !page.contains(&format!("| `{text}` |")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/explain.md has no row for {missing:?}"
    );
}
