//! The fields of a specification: the one table that the reader, the expanded form and the
//! documents' test go by. A field that is not here does not exist.

/// A field of a map.
#[derive(Debug)]
pub struct Field {
    /// As it is written.
    pub name: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// What counts when it is absent, as it would be written; `null` for "unset", empty if it must
    /// be given.
    pub default: &'static str,
}

/// What may stand in a field.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A text.
    Text,
    /// A name of letters, digits, `-`, `_` and `.`.
    Name,
    /// Text for `sh`, never filled in.
    Shell,
    /// A condition over parameters.
    Expression,
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// A decimal number with up to three places; bounds in thousandths.
    Decimal(u32, u32),
    /// Cores or GPUs: `2`, `0.5`, `500m`.
    Share,
    /// `true` or `false`.
    Switch,
    /// A duration of at least so many milliseconds.
    Duration(u64),
    /// A number of bytes with its unit.
    Size,
    /// An instant, or a duration after the submission.
    Deadline,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A path below the attempt's directory.
    Path,
    /// The same, or `.`.
    Directory,
    /// A list of texts.
    Texts,
    /// A list of texts, or one text.
    Command,
    /// A list of exit codes.
    ExitCodes,
    /// A map of names to texts.
    Labels,
    /// A map of variable names to texts.
    Env,
    /// A map of names to whole numbers.
    Counts,
    /// A map of axes to lists of short values.
    Axes,
    /// A map with these fields.
    Block(&'static [Field]),
    /// A map of names to maps with these fields.
    Each(&'static [Field]),
    /// A list of names, paths, or maps with these fields.
    Files(&'static [Field]),
    /// A file's place on the node.
    Source,
    /// A parameter's value.
    Anything,
    /// Fields of tasks, for all of them.
    Defaults(&'static [Field]),
}

const fn field(name: &'static str, kind: Kind, default: &'static str) -> Field {
    Field {
        name,
        kind,
        default,
    }
}

/// Fields that exist in the plan of this product and not yet in this version.
pub const LATER: &[&str] = &[
    "exclusive",
    "stop_after",
    "reconcile",
    "checkpoint",
    "rollback",
    "container",
];

/// What others call a field that no workflow has here: a gateway's owner says who tasks run as.
pub const USER: &[&str] = &["user", "run_as", "run_as_user"];

/// Types of parameters.
pub const PARAM_TYPES: &[&str] = &["string", "integer", "number", "boolean"];

/// A workflow.
pub const WORKFLOW: &[Field] = &[
    field("name", Kind::Name, ""),
    field("description", Kind::Text, "''"),
    field("labels", Kind::Labels, "{}"),
    field("params", Kind::Each(PARAM), "{}"),
    field("merge_leaves", Kind::Integer(1, 1000), "1"),
    field("schedule", Kind::Block(SCHEDULE), "null"),
    field("defaults", Kind::Defaults(TASK), "{}"),
    field("tasks", Kind::Each(TASK), ""),
];

/// A parameter.
pub const PARAM: &[Field] = &[
    field("type", Kind::OneOf(PARAM_TYPES), "string"),
    field("default", Kind::Anything, "null"),
    field("required", Kind::Switch, "null"),
];

/// When a workflow runs by itself.
pub const SCHEDULE: &[Field] = &[
    field("cron", Kind::Text, "null"),
    field("every", Kind::Duration(1), "null"),
    field("timezone", Kind::Text, "UTC"),
    field("catchup", Kind::OneOf(&["none", "latest", "all"]), "none"),
    field("max_catchup", Kind::Integer(1, 1000), "1"),
    field("starting_deadline", Kind::Duration(1), "null"),
    field(
        "overlap",
        Kind::OneOf(&["forbid", "allow", "replace"]),
        "forbid",
    ),
    field("jitter", Kind::Duration(0), "0s"),
];

/// A task.
pub const TASK: &[Field] = &[
    field("description", Kind::Text, "''"),
    field("command", Kind::Command, "null"),
    field("args", Kind::Texts, "[]"),
    field("shell", Kind::Shell, "null"),
    field("approval", Kind::Block(APPROVAL), "null"),
    field("needs", Kind::Texts, "[]"),
    field("inputs", Kind::Files(INPUT), "[]"),
    field("outputs", Kind::Files(OUTPUT), "[]"),
    field("env", Kind::Env, "{}"),
    field("workdir", Kind::Directory, "."),
    field("stdin", Kind::Path, "null"),
    field("resources", Kind::Block(RESOURCES), "{}"),
    field(
        "priority",
        Kind::Integer(i32::MIN as i64, i32::MAX as i64),
        "0",
    ),
    field("retry", Kind::Block(RETRY), "{}"),
    field("estimate", Kind::Duration(1), "null"),
    field("timeout", Kind::Duration(1), "null"),
    field("deadline", Kind::Deadline, "null"),
    field("kill_grace", Kind::Duration(0), "10s"),
    field("crash_limit", Kind::Integer(1, 1000), "5"),
    field(
        "side_effects",
        Kind::OneOf(&["none", "idempotent", "at_most_once"]),
        "none",
    ),
    field("when", Kind::Expression, "null"),
    field(
        "trigger_rule",
        Kind::OneOf(&["all_success", "all_done", "one_failed", "none_failed"]),
        "all_success",
    ),
    field("matrix", Kind::Axes, "{}"),
    field("max_parallel", Kind::Integer(1, 100_000), "null"),
    field("max_fails", Kind::Integer(0, 100_000), "null"),
    field("placement", Kind::Block(PLACEMENT), "{}"),
    field("disconnect", Kind::Block(DISCONNECT), "{}"),
];

/// Fields of a task that say what one task is, and so cannot stand in `defaults`.
pub const OF_ONE_TASK: &[&str] = &[
    "description",
    "command",
    "args",
    "shell",
    "approval",
    "needs",
    "inputs",
    "outputs",
    "stdin",
    "when",
    "matrix",
    "max_parallel",
    "max_fails",
];

/// A question to a person, instead of something to run.
pub const APPROVAL: &[Field] = &[
    field("prompt", Kind::Text, ""),
    field("input", Kind::Each(PARAM), "{}"),
    field("default", Kind::OneOf(&["yes", "no"]), "null"),
    field("deadline", Kind::Deadline, "null"),
];

/// Fields of a task that say how something runs: an approval runs nothing.
pub const OF_RUNNING: &[&str] = &[
    "command",
    "args",
    "shell",
    "inputs",
    "env",
    "workdir",
    "stdin",
    "resources",
    "retry",
    "timeout",
    "deadline",
    "kill_grace",
    "crash_limit",
    "side_effects",
];

/// An input written as a map.
pub const INPUT: &[Field] = &[
    field("name", Kind::Text, "null"),
    field("path", Kind::Path, "null"),
    field("source", Kind::Source, "null"),
];

/// An output written as a map.
pub const OUTPUT: &[Field] = &[
    field("name", Kind::Text, "null"),
    field("path", Kind::Path, "null"),
];

/// What a task occupies.
pub const RESOURCES: &[Field] = &[
    field("cpu", Kind::Share, "1"),
    field("memory", Kind::Size, "0B"),
    field("disk", Kind::Size, "0B"),
    field("gpu", Kind::Share, "0"),
    field("custom", Kind::Counts, "{}"),
];

/// When a failed attempt is followed by another.
pub const RETRY: &[Field] = &[
    field("max_attempts", Kind::Integer(1, 1000), "4"),
    field("initial_interval", Kind::Duration(0), "30s"),
    field("backoff", Kind::Decimal(1000, 100_000), "2"),
    field("max_interval", Kind::Duration(0), "10m"),
    field("jitter", Kind::Decimal(0, 1000), "0.2"),
    field("retry_on", Kind::ExitCodes, "[]"),
    field("no_retry_on", Kind::ExitCodes, "[]"),
    field("on_exhausted", Kind::OneOf(&["fail", "pause"]), "fail"),
];

/// Where a task may run.
pub const PLACEMENT: &[Field] = &[
    field("node", Kind::Name, "null"),
    field("labels", Kind::Labels, "{}"),
    field("site", Kind::Text, "null"),
    field("spread", Kind::Name, "null"),
    field("affinity", Kind::Texts, "[]"),
    field("anti_affinity", Kind::Texts, "[]"),
    field("tolerations", Kind::Texts, "[]"),
];

/// What happens while a task's node cannot be heard.
pub const DISCONNECT: &[Field] = &[
    field("lost_after", Kind::Duration(1), "null"),
    field("replace", Kind::Switch, "false"),
];

/// All fields with their full names (`tasks.retry.max_attempts`), in the order of the table.
/// `defaults` stands for itself: its fields are those of tasks.
#[must_use]
pub fn fields() -> Vec<(String, &'static Field)> {
    fn walk(prefix: &str, table: &'static [Field], into: &mut Vec<(String, &'static Field)>) {
        for field in table {
            let name = format!("{prefix}{}", field.name);
            into.push((name.clone(), field));
            if let Kind::Block(inner) | Kind::Each(inner) | Kind::Files(inner) = field.kind {
                walk(&format!("{name}."), inner, into);
            }
        }
    }
    let mut all = Vec::new();
    walk("", WORKFLOW, &mut all);
    all
}
