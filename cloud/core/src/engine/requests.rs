//! Requests of the API: writes wait for their commit, reads are answered with the same commit.

use super::{Answer, Engine};
use crate::access::{Access, Caller};
use crate::audit;
use crate::event::{Output, Refused, Reply, Request, RequestId};
use crate::record::What;
use crate::run::definition::Definition;
use crate::run::{Asked, Run};
use crate::store::{AggregateId, EventId, Prune, Store, StoreError, request_event};
use shared::ids::{Hash, NodeId, RunId};
use shared::limits::SUBMISSION_BYTES;
use shared::state::TaskState;
use shared::wire::RETRY;

pub(super) type Answered = Result<Reply, Refused>;

fn event_id(kind: &str, what: &[u8]) -> EventId {
    let mut bytes = kind.as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(what);
    let mut id = [0; 16];
    id.copy_from_slice(&Hash::of(&bytes).0[..16]);
    id
}

pub(super) fn no_run(run: RunId) -> Refused {
    Refused::NotFound {
        what: "run".to_owned(),
        name: run.to_string(),
    }
}

fn no_task(name: &str) -> Refused {
    Refused::NotFound {
        what: "task".to_owned(),
        name: name.to_owned(),
    }
}

pub(super) fn no_node(name: &str) -> Refused {
    Refused::NotFound {
        what: "node".to_owned(),
        name: name.to_owned(),
    }
}

impl<S: Store> Engine<S> {
    /// Decides on a request; its answer leaves with the commit.
    pub(super) fn request(
        &mut self,
        id: RequestId,
        mut request: Request,
        caller: Caller,
    ) -> Result<(), StoreError> {
        if let Some(by) = request.by_mut() {
            match &caller.token {
                Some(token) => by.clone_from(token),
                // it goes into what is stored and sent again and again
                None => *by = crate::record::bounded(std::mem::take(by)),
            }
        }
        let draft = self.draft(&caller, &request);
        let mut repeated = false;
        let (event, answer) = match request {
            Request::Submit {
                run,
                workflow,
                by,
                idempotency_key,
            } => {
                let event = match &idempotency_key {
                    Some(key) => event_id("submit", key.as_bytes()),
                    None => event_id("run", &run.0),
                };
                let answer = match self.submitted_before(&event)? {
                    Some(first) => {
                        repeated = true;
                        Ok(Reply::Submitted(first))
                    }
                    None => self.submit(run, &workflow, by, event)?,
                };
                (Some(event), answer)
            }
            Request::Enrol {
                token,
                node,
                name,
                labels,
                certificate,
            } => {
                let event = self.next_request();
                let fx = self.effects.entry(AggregateId::Fleet).or_default();
                let wall = self.now.wall;
                let who = (node, name.as_str());
                let answer = self.fleet.enrol(&token, who, labels, certificate, wall, fx);
                if let Ok(Reply::Enrolled(node)) = answer {
                    self.answers_by(AggregateId::Fleet, event);
                    self.tell(What::Enrolled { node, name });
                }
                (Some(event), answer)
            }
            Request::MakeRoom { bytes } => (None, Ok(Reply::Room(self.make_room(bytes)?))),
            read if read.reads() => (None, self.read(read)?),
            write => {
                let event = self.next_request();
                let (aggregate, answer) = self.write(write)?;
                if answer.is_ok() {
                    self.answers_by(aggregate, event);
                }
                (Some(event), answer)
            }
        };
        self.audit(draft, &answer, repeated);
        let reply = answer.unwrap_or_else(Reply::Refused);
        self.answers.push(Answer { id, event, reply });
        Ok(())
    }

    fn next_request(&mut self) -> EventId {
        self.requests = self.requests.wrapping_add(1);
        request_event(self.fleet.generation, self.requests)
    }

    /// The step of `aggregate` answers a request. Its id is looked for only if the end of this very
    /// commit is not known, so those of earlier commits go.
    fn answers_by(&mut self, aggregate: AggregateId, event: EventId) {
        let settled = std::mem::take(&mut self.settled);
        let fx = self.effects.entry(aggregate).or_default();
        fx.events.push(event);
        fx.prune.extend(settled.into_iter().map(Prune::Event));
        self.asked.push(event);
    }

    /// The run that answered this submission when it was sent before.
    fn submitted_before(&mut self, event: &EventId) -> Result<Option<RunId>, StoreError> {
        let pending = self
            .effects
            .iter()
            .find(|(_, fx)| fx.events.contains(event))
            .map(|(id, _)| *id);
        let known = match pending {
            Some(known) => Some(known),
            None => self.store.event(event)?.map(|(known, _)| known),
        };
        Ok(match known {
            Some(AggregateId::Run(first)) => Some(first),
            _ => None,
        })
    }

    fn submit(
        &mut self,
        id: RunId,
        packed: &[u8],
        by: String,
        event: EventId,
    ) -> Result<Answered, StoreError> {
        let aggregate = AggregateId::Run(id);
        if self.runs.contains_key(&id) {
            return Ok(Err(Refused::State(format!("run {id} exists already"))));
        }
        if packed.len() > SUBMISSION_BYTES {
            let text = format!("the compiled workflow has more than {SUBMISSION_BYTES} bytes");
            return Ok(Err(Refused::Malformed(text)));
        }
        let (workflow, hash) = match shared::codec::unpack(packed) {
            Ok(unpacked) => unpacked,
            Err(error) => return Ok(Err(Refused::Malformed(error.to_string()))),
        };
        if workflow.schedule.is_some() {
            let text = "the workflow has a schedule; make it with `driftless schedule create`";
            return Ok(Err(Refused::Malformed(text.to_owned())));
        }
        if let Err(why) = audit::workflow(&workflow) {
            return Ok(Err(Refused::Malformed(why)));
        }
        let mut run = Run::unknown(id, self.now.wall);
        run.head.by = by;
        run.head.event = Some(event);
        let fx = self.effects.entry(aggregate).or_default();
        fx.events.push(event);
        run.define(packed, hash, Definition::new(workflow), fx);
        self.runs.insert(id, run);
        self.plan.insert(id);
        Ok(Ok(Reply::Submitted(id)))
    }

    fn write(&mut self, request: Request) -> Result<(AggregateId, Answered), StoreError> {
        let at = self.now.wall;
        let fleet = AggregateId::Fleet;
        Ok(match request {
            Request::Cancel { run, by, why } => {
                let asked = Asked { at, by, why };
                let done = self.step_known(run, |run, fx| run.cancel(asked, fx))?;
                (AggregateId::Run(run), done)
            }
            Request::Pause { run, on, by } => {
                let asked = Asked::plain(at, by);
                let done = self.step_known(run, |run, fx| run.pause(on, asked, fx))?;
                (AggregateId::Run(run), done)
            }
            Request::Retry { run, from, by } => {
                (AggregateId::Run(run), self.retry(run, from.as_deref(), by)?)
            }
            Request::Answer {
                run,
                task,
                yes,
                input,
                by,
            } => {
                let answer = |run: &mut Run, fx: &mut crate::effects::Effects| {
                    let position = run.task_named(&task).ok_or_else(|| no_task(&task))?;
                    run.answer(position, yes, &input, (by, at), fx)
                };
                (AggregateId::Run(run), self.step_known(run, answer)?)
            }
            admit @ (Request::AddToken { .. }
            | Request::RevokeToken { .. }
            | Request::Certify { .. }
            | Request::Exchange { .. }
            | Request::Revoke { .. }) => self.write_admission(admit),
            Request::AcceptGone { node, by: _ } => (fleet, self.accept_gone(node)),
            Request::ForgetNode { node, by } => {
                (AggregateId::Node(node), self.forget_node(node, &by))
            }
            Request::ReleaseQuarantine { node, by } => {
                (AggregateId::Node(node), self.release_quarantine(node, &by))
            }
            Request::Drain { node, on, by } => {
                (AggregateId::Node(node), self.drain_node(node, on, &by))
            }
            Request::ChangeNode { node, change, by } => {
                (AggregateId::Node(node), self.change_node(node, change, &by))
            }
            Request::ForgetRun { run, by } => {
                let done = self.forget_now(run, Asked::plain(at, by))?;
                (AggregateId::Run(run), done)
            }
            // that it was asked for is on record; nothing else changes
            Request::BackupTaken { .. } => (fleet, Ok(Reply::Done)),
            Request::BackupDone {
                at, place, cursors, ..
            } => {
                let backup = crate::fleet::Backup { at, place };
                (fleet, Ok(self.backup_done(backup, &cursors)))
            }
            change @ Request::Configure { .. } => (fleet, self.settings(&change)),
            Request::CreateSchedule {
                schedule,
                workflow,
                node,
                replace,
                by,
                ..
            } => self.create_schedule(schedule, workflow, node, replace, by),
            Request::AskSchedule { name, ask, by } => self.ask_schedule(&name, ask, &by),
            other => (fleet, self.write_access(other)),
        })
    }

    /// Changes the access tokens, and tells the shell which are good.
    fn write_access(&mut self, request: Request) -> Answered {
        let done = match request {
            Request::AddAccess {
                name,
                role,
                id,
                hash,
                expires,
                by,
            } => {
                let token = Access {
                    role,
                    id,
                    hash,
                    created: self.now.wall,
                    by,
                    expires,
                };
                self.fleet.add_access(&name, token)
            }
            Request::RevokeAccess { name, by: _ } => self.fleet.revoke_access(&name),
            _ => Err(Refused::Malformed("not a request".to_owned())),
        };
        if done.is_ok() {
            let tokens = self.fleet.access.clone();
            self.outputs.push(Output::Access(tokens));
        }
        done
    }

    fn step_known(
        &mut self,
        id: RunId,
        step: impl FnOnce(&mut Run, &mut crate::effects::Effects) -> Result<(), Refused>,
    ) -> Result<Answered, StoreError> {
        if !self.is_here(id) {
            return Ok(Err(no_run(id)));
        }
        let done = self.step_run(id, |run, _, fx| step(run, fx))?;
        Ok(done.unwrap_or(Ok(())).map(|()| Reply::Done))
    }

    fn retry(&mut self, id: RunId, from: Option<&str>, by: String) -> Result<Answered, StoreError> {
        let asked = Asked::plain(self.now.wall, by);
        if let Some(name) = self.keeps_cancel(id) {
            let text = format!(
                "the run was cancelled, and the agent of node {name} is too old to let it run \
                 again there: upgrade it first"
            );
            return Ok(Err(Refused::State(text)));
        }
        if !self.is_here(id) {
            return Ok(Err(no_run(id)));
        }
        let done = self.step_run(id, |run, at, fx| {
            let from = from.map(|id| run.task_named(id).ok_or_else(|| no_task(id)));
            run.retry(at, from.transpose()?, asked, fx)
        })?;
        Ok(done.unwrap_or(Ok(())).map(|()| Reply::Done))
    }

    /// A node that knows of the run's cancel and cannot be told that it no longer stands.
    fn keeps_cancel(&self, id: RunId) -> Option<&str> {
        let run = self.runs.get(&id)?;
        run.head.cancel.as_ref()?;
        let nodes = run.head.slices.iter().map(|s| self.nodes.get(&s.node));
        let mut nodes = nodes.flatten().filter(|n| n.forgotten.is_none());
        let old = nodes.find(|n| n.features & RETRY == 0)?;
        Some(&old.name)
    }

    fn accept_gone(&mut self, node: Option<NodeId>) -> Answered {
        let Some(hold) = &self.fleet.hold else {
            return Err(Refused::State("no hold is in force".to_owned()));
        };
        match node {
            Some(id) if !hold.nodes.contains(&id) => {
                let text = format!("the hold does not wait for node {id}");
                Err(Refused::State(text))
            }
            _ => {
                self.heard_since_hold(node);
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn forget_node(&mut self, id: NodeId, by: &str) -> Answered {
        let at = self.now.wall;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Err(no_node(&id.to_string()));
        };
        if node.forgotten.is_some() {
            return Ok(Reply::Done);
        }
        let fx = self.effects.entry(AggregateId::Node(id)).or_default();
        node.forget(id, at, by, fx);
        if let Some(live) = self.links.get_mut(&id).and_then(|l| l.live.take()) {
            self.conns.remove(&live.conn);
            self.outputs.push(Output::Close {
                conn: live.conn,
                why: format!("the node was declared gone by {by}"),
            });
        }
        self.heard_since_hold(Some(id));
        Ok(Reply::Done)
    }

    fn release_quarantine(&mut self, id: NodeId, by: &str) -> Answered {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Err(no_node(&id.to_string()));
        };
        let (suspect, key) = (node.suspect.take(), node.unconfirmed_key.take());
        if suspect.is_none() && key.is_none() {
            let text = format!("node {} is not in quarantine", node.name);
            return Err(Refused::State(text));
        }
        if key.is_some() {
            node.note(format!("its key was confirmed by {by}"));
        }
        if suspect.is_some() {
            node.believed = std::mem::take(&mut node.unproven);
            node.note(format!("released from quarantine by {by}"));
        }
        self.plan_all = true;
        Ok(Reply::Done)
    }

    /// Loads the runs that an answer counts or names tasks of.
    fn load_for(&mut self, request: &Request) -> Result<(), StoreError> {
        let wanted = |run: &Run| match request {
            Request::Waits | Request::Runs { .. } | Request::RunsChangedSince { .. } => {
                let paused = run.count(TaskState::Paused) > 0;
                paused || !run.head.in_doubt.is_empty() || !run.head.asking.is_empty()
            }
            Request::Conflicts { run: of } => {
                of.is_none_or(|of| of == run.id) && !run.head.abouts.is_empty()
            }
            Request::Nodes | Request::Node { .. } => {
                !run.head.state.is_final() && run.count(TaskState::Running) > 0
            }
            _ => false,
        };
        let bare = self.runs.iter().filter(|(_, r)| r.body.is_none());
        let ids: Vec<RunId> = bare.filter(|(_, r)| wanted(r)).map(|(id, _)| *id).collect();
        ids.into_iter().try_for_each(|id| self.load_body(id))
    }

    fn read(&mut self, request: Request) -> Result<Answered, StoreError> {
        self.load_for(&request)?;
        Ok(match request {
            Request::GetToken { id } => self
                .fleet
                .token(&id, self.now.wall)
                .map(|token| Reply::Token(token.record.clone())),
            Request::EnrolledBefore { token, key, first } => {
                let wall = self.now.wall;
                let before = self.fleet.enrolled_before(&token, (&key, first), wall);
                let unknown = || Refused::NotFound {
                    what: "token".to_owned(),
                    name: token.clone(),
                };
                let used = |(record, node)| Reply::UsedToken(record, node);
                before.map(used).ok_or_else(unknown)
            }
            Request::Tokens => Ok(Reply::Tokens(self.fleet.view_tokens(self.now.wall))),
            Request::Schedules => Ok(Reply::Schedules(self.view_schedules())),
            Request::Schedule { name } => self.read_schedule(&name),
            Request::NextSlots { name, count } => self.read_slots(&name, count),
            Request::Runs { state } => {
                let here = |r: &&Run| r.head.gone.is_none();
                let wanted = |r: &&Run| here(r) && state.is_none_or(|s| r.head.state == s);
                let mut runs: Vec<&Run> = self.runs.values().filter(wanted).collect();
                runs.sort_by_key(|r| (std::cmp::Reverse(r.head.submitted), r.id));
                Ok(Reply::Runs(runs.iter().map(|r| self.view_run(r)).collect()))
            }
            Request::RunsChangedSince { version } => Ok(self.changed_since(version)),
            Request::Nodes => Ok(Reply::Nodes(self.view_nodes())),
            Request::Node { name } => match self.node_named(&name) {
                Some(id) => Ok(Reply::Node(Box::new(self.view_one_node(id)))),
                None => Err(no_node(&name)),
            },
            asked @ Request::Settings { .. } => self.settings(&asked),
            asked @ (Request::NodeWork { .. } | Request::SyncStatus { .. }) => {
                return self.read_of_node(asked);
            }
            Request::Ground { workflow } => return self.read_ground(&workflow),
            Request::Waits => Ok(Reply::Waits(self.waits())),
            Request::Conflicts { run: Some(run) } if !self.is_here(run) => Err(no_run(run)),
            Request::Conflicts { run } => Ok(Reply::Conflicts(self.all_conflicts(run))),
            Request::Access => Ok(Reply::Access(self.view_access())),
            Request::Figures => Ok(Reply::Figures(Box::new(self.figures()))),
            Request::Events { after, limit } => return self.read_events(after, limit),
            Request::Audit { after, limit } => Ok(self.read_audit(after, limit)?),
            Request::Carriers { authority } => {
                Ok(Reply::Carriers(Box::new(self.carriers(&authority))))
            }
            Request::Backup => {
                let newest = self.fleet.backup.as_ref();
                Ok(Reply::Backup(newest.map(|b| (b.at, b.place.clone()))))
            }
            Request::Run { run }
            | Request::Tasks { run, .. }
            | Request::Task { run, .. }
            | Request::Explain { run, .. }
            | Request::Workflow { run } => {
                if !self.is_here(run) {
                    return Ok(Err(no_run(run)));
                }
                self.load_body(run)?;
                return self.read_run(run, request);
            }
            _ => Err(Refused::Malformed("not a request".to_owned())),
        })
    }

    fn changed_since(&self, version: u64) -> Reply {
        let ids = self.changed.iter().filter(|(_, at)| **at > version);
        let runs = ids.filter_map(|(id, _)| self.runs.get(id));
        let runs = runs.filter(|r| r.head.gone.is_none());
        Reply::Changed {
            version: self.watch,
            runs: runs.map(|r| self.view_run(r)).collect(),
        }
    }

    fn read_run(&mut self, id: RunId, request: Request) -> Result<Answered, StoreError> {
        if let Request::Workflow { .. } = request {
            let row = self.store.row(AggregateId::Run(id), "w")?;
            let unknown = || Refused::State(format!("the workflow of run {id} is not known"));
            return Ok(row.map(Reply::Workflow).ok_or_else(unknown));
        }
        let Some(run) = self.runs.get(&id) else {
            return Ok(Err(no_run(id)));
        };
        let found = |task: &str| {
            run.task_named(task).ok_or_else(|| Refused::NotFound {
                what: "task".to_owned(),
                name: task.to_owned(),
            })
        };
        Ok(match request {
            Request::Run { .. } => Ok(Reply::Run(Box::new(self.view_run(run)))),
            Request::Tasks { state, .. } => Ok(Reply::Tasks(self.view_tasks(run, state))),
            Request::Task { task, .. } => {
                found(&task).map(|t| Reply::Task(Box::new(self.view_task(run, t))))
            }
            Request::Explain { task, .. } => {
                found(&task).map(|t| Reply::Explain(Box::new(self.explain(run, t))))
            }
            _ => Err(Refused::Malformed("not a request".to_owned())),
        })
    }

    pub(super) fn node_named(&self, name: &str) -> Option<NodeId> {
        let by_id = || name.parse().ok().filter(|id| self.nodes.contains_key(id));
        self.fleet.names.get(name).copied().or_else(by_id)
    }
}
