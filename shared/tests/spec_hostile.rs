//! Text that means harm or nothing: it is refused with its own mistake, early, and never ends the
//! process.

use proptest::prelude::*;
use shared::limits::SPEC_BYTES;
use shared::spec;
use shared::time::Unix;
use std::collections::BTreeMap;
use std::fmt::Write as _;

fn refused(text: &str) -> String {
    spec::read("f", text).map_or_else(|m| m.to_string(), |_| panic!("this was accepted"))
}

#[test]
fn a_file_of_100_mb_is_refused_by_its_size() {
    let text = "x".repeat(100_000_000);
    assert!(refused(&text).contains("the file has 100000000 bytes, at most"));
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    let mistakes = spec::read_bytes("f", b"name: f\nta\xff: x\n").unwrap_err();
    assert!(
        mistakes
            .to_string()
            .starts_with("f:2:3: the file is not UTF-8 here"),
        "{mistakes}"
    );
    assert!(refused("name: a\0b\n").starts_with("f:1:8: a control character"));
    assert!(spec::read_bytes("f", &[0; 4096]).is_err());
}

#[test]
fn deep_nesting_is_refused() {
    for open in ["[", "{a: ", "- ", "? ", "[{", "a: [", "!!seq [", "&a ["] {
        let text = refused(&open.repeat(10_000));
        assert!(
            text.contains("nested more than 64") || text.contains("not YAML"),
            "{open}: {text}"
        );
    }
    let block: String = (0..10_000).fold(String::new(), |text, n| text + &" ".repeat(n) + "a:\n");
    assert!(refused(&block).contains("nested more than 64") || block.len() > SPEC_BYTES);
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..20 {
        let row = vec![format!("*a{}", n - 1); 10].join(", ");
        let _ = writeln!(text, "a{n}: &a{n} [{row}]");
    }
    let said = refused(&text);
    assert!(
        said.contains("copy more than 100000") || said.contains("keep more than"),
        "{said}"
    );
    // Small ones are fine.
    let text =
        "name: f\ntasks:\n  a: {command: &c [p], env: &e {A: x}}\n  b: {command: *c, env: *e}\n";
    assert!(spec::read("f", text).is_ok());
}

#[test]
fn parameters_and_defaults_cannot_blow_a_file_up() {
    let many = "'${params.x}', ".repeat(20_000);
    let text = format!(
        "name: f\nparams: {{x: {{type: string}}}}\ntasks: {{t: {{command: [p, {many}]}}}}\n"
    );
    let params = [("x".to_owned(), "y".repeat(60_000))].into();
    let mistakes = spec::submission("f", &text, &params, &BTreeMap::new(), Unix(0)).unwrap_err();
    assert!(
        mistakes
            .to_string()
            .contains("parameters make the file longer"),
        "{mistakes}"
    );
    let tasks: String = (0..2000)
        .map(|n| format!("  t{n}: {{command: [p]}}\n"))
        .collect();
    let text = format!(
        "name: f\ndefaults: {{env: {{A: {}}}}}\ntasks:\n{tasks}",
        "x".repeat(100_000)
    );
    assert!(refused(&text).contains("2000 tasks with these defaults are too large"));
}

#[test]
fn a_million_mistakes_are_counted_and_not_kept() {
    let text = format!(
        "name: f\ntasks:\n  t:\n    command: [p]\n    needs: [{}]\n",
        "x, ".repeat(50_000)
    );
    let mistakes = spec::read("f", &text).unwrap_err();
    assert_eq!((mistakes.mistakes.len(), mistakes.more), (1000, 49_000));
}

/// Texts that look like a specification more often than chance would have it.
fn almost_a_specification() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "name",
        "tasks",
        "params",
        "defaults",
        "command",
        "shell",
        "inputs",
        "outputs",
        "needs",
        "retry",
        "when",
        "timeout",
        "deadline",
        "resources",
        "memory",
        "env",
        "source",
        "path",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "'",
        "\"",
        "|",
        ">",
        "&a ",
        "*a",
        "!!str ",
        "${params.x}",
        "matrix",
        "matrix: {a: [b, 1]}",
        "${matrix.a}",
        "$${",
        "1h",
        "512MiB",
        "a",
        "..",
        "/",
        "null",
        "~",
        "true",
        "#",
        "%",
        "@",
        "---\n",
        "...\n",
        "? ",
        "\t",
        "params.x == 1",
        "file:/x",
        "é",
        "\u{feff}",
        "\r\n",
        "<<",
        "-1",
        "1e9",
        "0x10",
    ]);
    proptest::collection::vec(words, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_ends_the_process(text in almost_a_specification()) {
        let _ = spec::read("f", &text);
        let head = "name: f\nparams: {x: {default: y}}\ntasks:\n  t:\n    command: [p]";
        let framed = format!("{head}\n    {text}");
        let none = BTreeMap::new();
        let compile = |text: &str| spec::submission("f", text, &none, &BTreeMap::new(), Unix(0));
        if let Ok(workflow) = compile(&framed) {
            let expanded = spec::read("f", &framed).unwrap().expanded();
            let again = compile(&expanded);
            prop_assert_eq!(Ok(workflow.decided()), again.map_err(|m| format!("{m}\n{expanded}")));
        }
    }

    #[test]
    fn no_bytes_end_the_process(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = spec::read_bytes("f", &bytes);
    }

    #[test]
    fn any_text_survives_the_expanded_form(value in "\\PC{0,40}|[ -~\n\t]{0,40}", shell in "[ -~\n\t]{1,40}") {
        let quoted = serde_json::to_string(&value).unwrap();
        let shell = serde_json::to_string(&shell).unwrap();
        let text = format!("name: f\ntasks:\n  t: {{shell: {shell}, description: {quoted}, env: {{A: {quoted}}}}}\n");
        let none = BTreeMap::new();
        if let Ok(workflow) = spec::submission("f", &text, &BTreeMap::new(), &none, Unix(0)) {
            let expanded = spec::read("f", &text).unwrap().expanded();
            let again = spec::submission("f", &expanded, &BTreeMap::new(), &none, Unix(0));
            prop_assert_eq!(Ok(workflow.decided()), again.map_err(|m| format!("{m}\n{expanded}")));
        }
    }
}

#[test]
fn a_file_of_too_many_values_is_refused_once() {
    let text = "-\n".repeat(4_000_005);
    let mistakes = spec::read("f", &text).unwrap_err();
    assert_eq!(
        (mistakes.mistakes.len(), mistakes.more),
        (1, 0),
        "{mistakes}"
    );
    assert!(mistakes.to_string().contains("more than 4000000 values"));
}
