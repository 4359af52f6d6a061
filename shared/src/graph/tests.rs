//! Golden cases of the graph, and properties of the reduction over random graphs.

use super::*;
use crate::spec;
use crate::time::Unix;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;

fn compiled(text: &str) -> Workflow {
    let none = BTreeMap::new();
    spec::submission("f.yaml", text, &BTreeMap::new(), &none, Unix(0))
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// A workflow of tasks `id: needs [extra fields]`.
fn flow(tasks: &[(&str, &str, &str)]) -> Workflow {
    let mut text = "name: flow\ntasks:\n".to_owned();
    for (id, needs, extra) in tasks {
        let _ = writeln!(
            text,
            "  {id}: {{command: ['true'], needs: [{needs}]{extra}}}"
        );
    }
    compiled(&text)
}

fn edges(workflow: &Workflow) -> Vec<String> {
    let name = |index: &TaskIdx| workflow.tasks[index.0 as usize].id.clone();
    let tasks = workflow.tasks.iter();
    tasks
        .flat_map(|t| t.needs.iter().map(move |n| format!("{}→{}", name(n), t.id)))
        .collect()
}

#[test]
fn the_edge_around_a_chain_is_removed() {
    let workflow = flow(&[("a", "", ""), ("b", "a", ""), ("c", "a, b", "")]);
    assert_eq!(edges(&workflow), ["a→b", "b→c"]);
    let ranks: Vec<u64> = workflow.tasks.iter().map(|task| task.upward_rank).collect();
    assert_eq!(ranks, [3000, 2000, 1000]);
}

#[test]
fn an_estimate_is_the_work_of_its_task_and_is_found_again_in_the_ranks() {
    let workflow = flow(&[
        ("a", "", ", estimate: 5m"),
        ("b", "a", ""),
        ("c", "a", ", estimate: 1s"),
        ("d", "b, c", ", estimate: 20ms"),
        ("e", "d", ", estimate: 1h, when: 1 == 2"),
    ]);
    assert_eq!(
        estimates(&workflow),
        [Some(300_000), None, Some(1001), Some(20), Some(0)]
    );
    let path = critical_path(&workflow);
    assert_eq!(path, [0, 2, 3, 4].map(TaskIdx), "{workflow:?}");
    let plain = flow(&[("a", "", ""), ("b", "a", "")]);
    assert_eq!(estimates(&plain), [None, None]);
}

#[test]
fn an_edge_stays_where_the_path_around_it_hides_an_end() {
    // `b` runs although `a` failed: only the edge from `a` tells `c`.
    let hides = flow(&[
        ("a", "", ""),
        ("b", "a", ", trigger_rule: all_done"),
        ("c", "a, b", ""),
    ]);
    assert_eq!(edges(&hides), ["a→b", "a→c", "b→c"]);
    let asks = flow(&[
        ("a", "", ""),
        ("b", "a", ""),
        ("c", "a, b", ", trigger_rule: one_failed"),
    ]);
    assert_eq!(edges(&asks), ["a→b", "a→c", "b→c"]);
    let skipped = flow(&[
        ("a", "", ""),
        ("b", "a", ", when: 1 == 2"),
        ("c", "a, b", ""),
    ]);
    assert_eq!(edges(&skipped), ["a→b", "a→c", "b→c"]);
    // The rule of the first task on the path does not matter: its end is what is handed on.
    let first = flow(&[
        ("z", "", ""),
        ("a", "z", ", trigger_rule: all_done"),
        ("b", "a", ""),
        ("c", "a, b, z", ""),
    ]);
    assert_eq!(edges(&first), ["z→a", "a→b", "z→c", "b→c"]);
}

#[test]
fn an_input_names_its_writer_even_where_the_edge_is_gone() {
    let workflow = compiled(
        "name: f\ntasks:\n  a: {command: [a], outputs: [x]}\n  \
         b: {command: [b], inputs: [x], outputs: [y]}\n  c: {command: [c], inputs: [x, y]}\n",
    );
    assert_eq!(edges(&workflow), ["a→b", "b→c"]);
    let sources: Vec<_> = workflow.tasks[2]
        .inputs
        .iter()
        .map(|i| i.source.clone())
        .collect();
    let from = |task| crate::workflow::Source::Task {
        task: TaskIdx(task),
        output: 0,
    };
    assert_eq!(sources, [from(0), from(1)]);
}

#[test]
fn a_long_chain_under_one_root_is_reduced_to_the_chain() {
    let count = 20_000;
    let mut text = "name: f\ntasks:\n  t0: {command: [x]}\n".to_owned();
    for n in 1..count {
        let _ = writeln!(text, "  t{n}: {{command: [x], needs: [t0, t{}]}}", n - 1);
    }
    let workflow = compiled(&text);
    assert!(workflow.tasks[1..].iter().all(|task| task.needs.len() == 1));
    assert_eq!(workflow.tasks[0].upward_rank, count * 1000);
    assert_eq!(
        critical_path(&workflow).len(),
        usize::try_from(count).unwrap()
    );
}

#[test]
fn leaves_that_are_alike_are_merged_in_batches() {
    let mut text = "name: f\nmerge_leaves: 3\ntasks:\n  root: {command: [x]}\n".to_owned();
    for n in 0..7 {
        let _ = writeln!(text, "  leaf{n}: {{command: [x, '{n}'], needs: [root]}}");
    }
    text += "  big: {command: [x], needs: [root], resources: {cpu: 2}}\n";
    text += "  once: {command: [x], needs: [root], side_effects: at_most_once}\n";
    text += "  other: {command: [x], needs: [root], priority: 1}\n";
    let batches: Vec<_> = compiled(&text)
        .tasks
        .iter()
        .map(|task| task.batch)
        .collect();
    let (a, b) = (Some(0), Some(1));
    assert_eq!(batches, [None, a, a, a, b, b, b, None, None, None, None]);
    let off = compiled(&text.replace("merge_leaves: 3", "merge_leaves: 1"));
    assert!(off.tasks.iter().all(|task| task.batch.is_none()));
}

#[test]
fn every_format_names_every_task_and_marks_the_critical_path() {
    let workflow = flow(&[
        ("a", "", ""),
        ("b", "a", ""),
        ("c", "b", ""),
        ("side", "a", ""),
    ]);
    for format in Format::ALL {
        let text = render(&workflow, format);
        for task in &workflow.tasks {
            assert!(text.contains(&task.id), "{format}: {text}");
        }
        assert!(text.ends_with('\n'));
        assert_eq!(format.text().parse(), Ok(format));
    }
    let text = render(&workflow, Format::Text);
    assert!(
        text.contains("critical path (●), 3 tasks: a → b → c"),
        "{text}"
    );
    assert!(render(&workflow, Format::Dot).contains("t0 -> t1 [color"));
    assert!(render(&workflow, Format::Mermaid).contains("class t0,t1,t2 critical"));
    assert!(render(&workflow, Format::Svg).contains("class=\"hot line\""));
    assert!(render(&workflow, Format::Json).contains("\"critical_path\":[\"a\",\"b\",\"c\"]"));
    assert_eq!(
        "png".parse::<Format>().unwrap_err().to_string(),
        "'png' is no format of graphs; use text, dot, mermaid, svg or json"
    );
}

#[test]
fn drawings_escape_what_people_write() {
    let workflow = compiled("name: f\ntasks:\n  a: {shell: 'echo \"<&>\" > x'}\n");
    let svg = render(&workflow, Format::Svg);
    assert!(
        svg.contains("&quot;&lt;&amp;&gt;&quot;") && !svg.contains("\"<&"),
        "{svg}"
    );
    assert!(render(&workflow, Format::Dot).contains("\\\"<&>\\\""));
}

/// Which tasks each task is reached from by paths whose inner tasks all hand on.
fn reached(tasks: &[(Vec<usize>, bool)]) -> Vec<Vec<bool>> {
    let mut reached: Vec<Vec<bool>> = Vec::new();
    for (needs, _) in tasks {
        let mut row = vec![false; tasks.len()];
        for need in needs {
            row[*need] = true;
            if tasks[*need].1 {
                row.iter_mut()
                    .zip(&reached[*need])
                    .for_each(|(mine, theirs)| *mine |= theirs);
            }
        }
        reached.push(row);
    }
    reached
}

fn random_graph() -> impl Strategy<Value = Vec<(Vec<usize>, bool)>> {
    let row = (
        proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        prop::bool::weighted(0.8),
    );
    proptest::collection::vec(row, 1..40).prop_map(|rows| {
        let mut graph = Vec::new();
        for (n, (picks, hands_on)) in rows.into_iter().enumerate() {
            let mut needs: Vec<usize> = picks
                .iter()
                .filter(|_| n > 0)
                .map(|p| p.index(n.max(1)))
                .collect();
            needs.sort_unstable();
            needs.dedup();
            graph.push((needs, hands_on));
        }
        graph
    })
}

proptest! {
    #[test]
    fn reduction_keeps_what_reaches_what_and_leaves_nothing_redundant(graph in random_graph()) {
        let ids: Vec<String> = (0..graph.len()).map(|n| format!("t{n}")).collect();
        let rows: Vec<_> = graph.iter().zip(&ids).map(|((needs, hands_on), id)| {
            let needs: Vec<_> = needs.iter().map(|n| ids[*n].clone()).collect();
            (id.as_str(), needs.join(", "), if *hands_on { "" } else { ", trigger_rule: all_done" })
        }).collect();
        let rows: Vec<_> =
            rows.iter().map(|(id, needs, rule)| (*id, needs.as_str(), *rule)).collect();
        let workflow = flow(&rows);
        let reduced: Vec<(Vec<usize>, bool)> = workflow.tasks.iter().zip(&graph)
            .map(|(task, (_, h))| (task.needs.iter().map(|n| n.0 as usize).collect(), *h))
            .collect();
        let before = reached(&graph);
        prop_assert_eq!(&before, &reached(&reduced));
        for (task, (needs, hands_on)) in graph.iter().enumerate() {
            if !hands_on {
                prop_assert_eq!(needs, &reduced[task].0);
                continue;
            }
            for need in &reduced[task].0 {
                let mut others = reduced[task].0.iter().filter(|w| *w != need);
                let around = others.any(|w| graph[*w].1 && before[*w][*need]);
                prop_assert!(!around, "t{} → t{} is redundant", need, task);
            }
        }
    }

    #[test]
    fn every_graph_can_be_drawn(graph in random_graph()) {
        let ids: Vec<String> = (0..graph.len()).map(|n| format!("t{n}")).collect();
        let rows: Vec<_> = graph.iter().zip(&ids).map(|((needs, _), id)| {
            (id.as_str(), needs.iter().map(|n| ids[*n].clone()).collect::<Vec<_>>().join(", "), "")
        }).collect();
        let rows: Vec<_> =
            rows.iter().map(|(id, needs, rule)| (*id, needs.as_str(), *rule)).collect();
        let workflow = flow(&rows);
        for format in Format::ALL {
            let text = render(&workflow, format);
            prop_assert!(!text.contains("NaN") && !text.contains("inf"));
        }
    }
}
