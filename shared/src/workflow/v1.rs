//! Format 1 of the compiled workflow: what the first release wrote. Nothing in here may change.

use super::{Action, Disconnect, Input, Output, Resources, Retry, SideEffects, TriggerRule, When};
use crate::ids::TaskIdx;
use crate::time::{Span, Unix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize)]
pub(super) struct Workflow {
    format: u16,
    name: String,
    description: String,
    labels: BTreeMap<String, String>,
    params: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::tasks")]
    tasks: Vec<Task>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    id: String,
    description: String,
    action: Action,
    env: BTreeMap<String, String>,
    workdir: String,
    stdin: Option<String>,
    needs: Vec<TaskIdx>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    resources: Resources,
    priority: i32,
    retry: Retry,
    timeout: Option<Span>,
    deadline: Option<Unix>,
    kill_grace: Span,
    crash_limit: u32,
    side_effects: SideEffects,
    when: Option<When>,
    trigger_rule: TriggerRule,
    placement: Placement,
    disconnect: Disconnect,
    batch: Option<u32>,
    upward_rank: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Placement {
    node: Option<String>,
    labels: BTreeMap<String, String>,
    site: Option<String>,
}

impl From<Workflow> for super::Workflow {
    fn from(old: Workflow) -> Self {
        Self {
            format: old.format,
            name: old.name,
            description: old.description,
            labels: old.labels,
            params: old.params,
            tasks: old.tasks.into_iter().map(super::Task::from).collect(),
            matrices: Vec::new(),
            schedule: None,
        }
    }
}

impl From<&super::Workflow> for Workflow {
    fn from(new: &super::Workflow) -> Self {
        Self {
            format: new.format,
            name: new.name.clone(),
            description: new.description.clone(),
            labels: new.labels.clone(),
            params: new.params.clone(),
            tasks: new.tasks.iter().map(Task::from).collect(),
        }
    }
}

impl From<Task> for super::Task {
    fn from(old: Task) -> Self {
        Self {
            id: old.id,
            description: old.description,
            action: old.action,
            env: old.env,
            workdir: old.workdir,
            stdin: old.stdin,
            needs: old.needs,
            inputs: old.inputs,
            outputs: old.outputs,
            resources: old.resources,
            priority: old.priority,
            retry: old.retry,
            timeout: old.timeout,
            deadline: old.deadline,
            kill_grace: old.kill_grace,
            crash_limit: old.crash_limit,
            side_effects: old.side_effects,
            when: old.when,
            trigger_rule: old.trigger_rule,
            placement: old.placement.into(),
            disconnect: old.disconnect,
            batch: old.batch,
            upward_rank: old.upward_rank,
            matrix: None,
            retry_left: super::RetryLeft::default(),
        }
    }
}

impl From<&super::Task> for Task {
    fn from(new: &super::Task) -> Self {
        Self {
            id: new.id.clone(),
            description: new.description.clone(),
            action: new.action.clone(),
            env: new.env.clone(),
            workdir: new.workdir.clone(),
            stdin: new.stdin.clone(),
            needs: new.needs.clone(),
            inputs: new.inputs.clone(),
            outputs: new.outputs.clone(),
            resources: new.resources.clone(),
            priority: new.priority,
            retry: new.retry.clone(),
            timeout: new.timeout,
            deadline: new.deadline,
            kill_grace: new.kill_grace,
            crash_limit: new.crash_limit,
            side_effects: new.side_effects,
            when: new.when.clone(),
            trigger_rule: new.trigger_rule,
            placement: (&new.placement).into(),
            disconnect: new.disconnect,
            batch: new.batch,
            upward_rank: new.upward_rank,
        }
    }
}

impl From<Placement> for super::Placement {
    fn from(old: Placement) -> Self {
        Self {
            node: old.node,
            labels: old.labels,
            site: old.site,
            ..Self::default()
        }
    }
}

impl From<&super::Placement> for Placement {
    fn from(new: &super::Placement) -> Self {
        Self {
            node: new.node.clone(),
            labels: new.labels.clone(),
            site: new.site.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Workflow;
    use crate::codec::{self, DecodeError};
    use crate::spec::{self, SentFiles};

    /// A few bytes, unpacked to zeros, were millions of tasks, each of them large in memory.
    #[test]
    fn more_tasks_than_a_workflow_can_have_are_refused_by_their_number() {
        for format in [1_u16, 2] {
            let tasks = crate::limits::TASKS as u64 + 1;
            let mut bytes = codec::encode(&(format, "", "", 0_u8, 0_u8, tasks));
            bytes.resize(bytes.len() + 60 * tasks as usize, 0);
            let error = Workflow::decode(&bytes).expect_err("too many tasks");
            assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn what_the_first_release_compiled_keeps_its_bytes_and_its_hash() {
        let text =
            "name: flow\ntasks: {a: {command: [x], outputs: [y]}, b: {inputs: [y], shell: z}}";
        let params = std::collections::BTreeMap::new();
        let now = crate::time::Unix(0);
        let mut flow = spec::submission("f", text, &params, &SentFiles::new(), now)
            .expect("a correct specification");
        flow.format = 1;
        for task in &mut flow.tasks {
            // it knew no settings that could take the place of what it compiled
            task.retry_left = super::super::RetryLeft::default();
        }
        let old = codec::encode(&super::Workflow::from(&flow));
        let read = Workflow::decode(&old).expect("format 1 is read");
        assert_eq!(read, flow);
        assert_eq!(read.encode(), old);
        let (packed, hash) = codec::pack(&read);
        assert_eq!(codec::unpack(&packed), Ok((flow, hash)));
    }
}
