//! A gateway's executor, its processes and its files.

use crate::fault::Kind;
use crate::machine::Proc;
use crate::net::Side;
use crate::people::Purpose;
use crate::plan::Planted;
use crate::queue::MS;
use crate::trace::Lane;
use crate::truth::Ran;
use crate::workload::{Deed, Ending};
use crate::world::{Ev, World};
use cloud_core::event::{Input, Request};
use edge_core::event::{Event, Launch, ProcessEnd};
use shared::explain::Reason;
use shared::fact::OutputFile;
use shared::ids::{AttemptRef, Hash};
use shared::time::{Span, Stamp};

/// The largest size, in bytes, that a fetch takes its time for. A liar may say any, and a fetch of
/// it that is refused must come to its end within the calm.
const LARGEST_FETCHED: u64 = 1 << 24;

fn end(attempt: AttemptRef, reason: Reason) -> ProcessEnd {
    ProcessEnd {
        attempt,
        began: None,
        exit: None,
        reason,
        text: String::new(),
        outputs: Vec::new(),
        cpu_ms: 0,
        peak_memory: 0,
    }
}

impl World {
    /// The executor is asked to start an attempt.
    pub fn begin(&mut self, m: usize, launch: Launch) {
        if self.machines[m].executes(&launch.attempt) {
            return;
        }
        crate::check::one_owner::on_begin(self, m, &launch);
        if self.plan.planted == Some(Planted::NeverBegin) && self.dice.cpu.chance(20) {
            return;
        }
        let running = self.running(m);
        let slots = self.machines[m].slots as usize;
        if launch.queue && running >= slots {
            if let Some(agent) = &mut self.machines[m].agent {
                agent.waiting.push_back(launch);
            }
            return;
        }
        self.spawn(m, &launch);
        if self.plan.planted == Some(Planted::BeginTwice) && self.dice.cpu.chance(20) {
            self.spawn(m, &launch);
        }
    }

    fn running(&self, m: usize) -> usize {
        let machine = &self.machines[m];
        let mine = |one: &&Proc| one.life == machine.process;
        machine.procs.values().filter(mine).count()
    }

    fn stamp(&self, m: usize) -> Stamp {
        let machine = &self.machines[m];
        let now = machine.clocks.now(self.t);
        let boots = machine
            .agent
            .as_ref()
            .map_or(0, |agent| agent.shell.agent().state().boots);
        Stamp {
            boot: boots,
            mono_ms: now.mono.0 / 1_000_000,
            wall: now.wall,
        }
    }

    fn spawn(&mut self, m: usize, launch: &Launch) {
        let attempt = launch.attempt;
        let missing = launch
            .inputs
            .iter()
            .flatten()
            .find(|hash| !self.machines[m].files.contains_key(*hash));
        if let Some(hash) = missing {
            let mut end = end(attempt, Reason::InputMissing);
            end.text = format!("{hash} is not here");
            self.tell(m, Event::Ended(end));
            return;
        }
        self.machines[m].dirs.insert(attempt);
        let Some(deed) = self.deed(&attempt) else {
            self.fail(
                "explained",
                format!("{attempt:?} of a run that nobody submitted"),
            );
            return;
        };
        if deed.ends == Ending::CannotStart {
            self.happened(Kind::CannotStart);
            self.tell(m, Event::Ended(end(attempt, Reason::CannotStart)));
            return;
        }
        let began = self.stamp(m);
        self.last_pid += 1;
        let pid = self.last_pid;
        let life = self.machines[m].process;
        crate::check::one_owner::on_spawn(self, m, attempt);
        crate::check::limits::on_spawn(self, m, attempt);
        crate::check::bounded::on_spawn(self, m);
        let ran = self.ran.len();
        self.ran_by_task
            .entry((attempt.slice.run, attempt.task))
            .or_default()
            .push(ran);
        self.ran.push(Ran {
            machine: m,
            life: self.machines[m].life,
            attempt,
            from: self.t,
            to: None,
            seen: false,
            end: None,
        });
        let stopping = false;
        self.machines[m].procs.insert(
            pid,
            Proc {
                attempt,
                life,
                began,
                deed,
                stopping,
                ran,
            },
        );
        if deed.ends == Ending::Never {
            self.happened(Kind::TaskHang);
        } else {
            self.queue.at(self.t + deed.length, Ev::ProcEnds(m, pid));
        }
        self.trace.mark(self.t, Lane::Node(m), 6, pid);
        self.trace.say(self.t, Lane::Node(m), || {
            let what = crate::tell::attempt(&self.flows, &attempt);
            format!("process {pid} begins: {what}")
        });
        self.tell(m, Event::Began { attempt, at: began });
    }

    /// What an attempt will do, or did.
    pub(crate) fn deed(&self, attempt: &AttemptRef) -> Option<Deed> {
        let flow = self.flows.get(&attempt.slice.run)?;
        let habit = flow.habits.get(attempt.task.0 as usize)?;
        Some(habit.deed(self.plan.seed, attempt))
    }

    /// A process ends by itself.
    pub(crate) fn proc_ends(&mut self, m: usize, pid: u64) {
        let until = self.machines[m].frozen_until;
        let Some(proc) = self.machines[m].procs.get(&pid) else {
            return;
        };
        if until > self.t {
            self.queue.at(until, Ev::ProcEnds(m, pid));
            return;
        }
        let (exit, reason) = match proc.deed.ends {
            Ending::Well => (0, Reason::ExitedZero),
            Ending::OutputMissing if self.writes_outputs(proc.attempt) => {
                (0, Reason::OutputMissing)
            }
            Ending::OutputMissing => (0, Reason::ExitedZero),
            Ending::Exit(code) => (code, Reason::ExitedNonzero),
            Ending::Signal(signal) => (-signal, Reason::Signalled),
            Ending::CannotStart | Ending::Never => return,
        };
        if reason != Reason::ExitedZero {
            self.happened(Kind::TaskFailure);
        }
        self.finish(m, pid, exit, reason);
    }

    fn writes_outputs(&self, attempt: AttemptRef) -> bool {
        self.flows.get(&attempt.slice.run).is_some_and(|flow| {
            !flow.workflow.tasks[attempt.task.0 as usize]
                .outputs
                .is_empty()
        })
    }

    /// A process is gone after it was told to stop.
    pub(crate) fn proc_stopped(&mut self, m: usize, pid: u64, signal: i32) {
        if self.machines[m].procs.contains_key(&pid) {
            if signal == 9 {
                self.happened(Kind::TermIgnored);
            }
            self.finish(m, pid, -signal, Reason::Signalled);
        }
    }

    fn finish(&mut self, m: usize, pid: u64, exit: i32, reason: Reason) {
        let Some(proc) = self.machines[m].procs.remove(&pid) else {
            return;
        };
        let seen = self.machines[m].agent.is_some() && self.machines[m].process == proc.life;
        let ran = &mut self.ran[proc.ran];
        ran.to = Some(self.t);
        ran.seen = seen;
        ran.end = Some(reason);
        self.trace.mark(self.t, Lane::Node(m), 7, pid);
        self.trace.say(self.t, Lane::Node(m), || {
            format!("process {pid} ends: {exit}")
        });
        if !seen {
            return;
        }
        let outputs = if reason == Reason::ExitedZero {
            self.keep_outputs(m, proc.attempt)
        } else {
            Vec::new()
        };
        let took = (self.t - self.ran[proc.ran].from) / MS;
        let mut end = end(proc.attempt, reason);
        end.began = Some(proc.began);
        end.exit = Some(exit);
        end.outputs = outputs;
        end.cpu_ms = took / 2;
        end.peak_memory = 1 << 20;
        self.tell(m, Event::Ended(end));
        self.next_waiting(m);
    }

    fn next_waiting(&mut self, m: usize) {
        while self.running(m) < self.machines[m].slots as usize {
            let Some(agent) = &mut self.machines[m].agent else {
                return;
            };
            let Some(launch) = agent.waiting.pop_front() else {
                return;
            };
            self.spawn(m, &launch);
        }
    }

    fn keep_outputs(&mut self, m: usize, attempt: AttemptRef) -> Vec<OutputFile> {
        let Some(flow) = self.flows.get(&attempt.slice.run) else {
            return Vec::new();
        };
        let habit = flow.habits[attempt.task.0 as usize];
        let count = flow.workflow.tasks[attempt.task.0 as usize].outputs.len();
        let outputs: Vec<OutputFile> = (0..count)
            .map(|n| OutputFile {
                hash: habit.output(&attempt, n),
                size: habit.size,
            })
            .collect();
        for file in &outputs {
            self.machines[m].files.insert(file.hash, file.size);
        }
        outputs
    }

    /// The shell is asked to put a file into its store.
    pub fn keep(&mut self, m: usize, bytes: &[u8]) {
        let size = bytes.len() as u64;
        self.machines[m].files.insert(Hash::of(bytes), size);
    }

    /// The executor is asked to end an attempt.
    pub fn stop(&mut self, m: usize, attempt: AttemptRef, grace: Span) {
        let machine = &mut self.machines[m];
        let process = machine.process;
        let found = machine
            .procs
            .iter_mut()
            .find(|(_, one)| one.attempt == attempt && one.life == process);
        if let Some((pid, proc)) = found {
            if std::mem::replace(&mut proc.stopping, true) {
                return;
            }
            let kill = grace.nanos();
            let (after, signal) = match proc.deed.after_term {
                Some(after) if after < kill => (after, 15),
                _ => (kill, 9),
            };
            let pid = *pid;
            self.queue
                .at(self.t + after, Ev::ProcStopped(m, pid, signal));
            return;
        }
        if let Some(agent) = &mut machine.agent {
            agent.waiting.retain(|launch| launch.attempt != attempt);
        }
        self.tell(m, Event::Ended(end(attempt, Reason::NeverBegan)));
    }

    /// All processes of a machine that nobody watches any more are ended.
    pub fn end_old_processes(&mut self, m: usize) {
        let all = std::mem::take(&mut self.machines[m].procs);
        for (pid, proc) in all {
            self.ran[proc.ran].to = Some(self.t);
            self.trace.mark(self.t, Lane::Node(m), 8, pid);
            self.trace
                .say(self.t, Lane::Node(m), || format!("process {pid} is killed"));
        }
    }

    /// An agent asks for a file of the coordinator.
    pub fn fetch(&mut self, m: usize, hash: Hash, size: u64) {
        let delay = self.delay(m) + size.min(LARGEST_FETCHED) * 1000;
        let process = self.machines[m].process;
        // a refusal weighs nothing: only a file that is sent takes its time on the line
        let is_sent = !self.machines[m].files.contains_key(&hash)
            && self.machines[m].link.whole()
            && self.cloud.engine.is_some()
            && self.cloud.files.contains_key(&hash);
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        if agent.fetching.insert(hash) {
            let line = match is_sent {
                true => self.queue_file_on_line(m, Side::Agent, size),
                false => 0,
            };
            let at = self.t + delay + line;
            self.queue.at(at, Ev::Fetched(m, process, hash, size));
        }
    }

    /// A fetch ends, well or not.
    pub(crate) fn fetched(&mut self, m: usize, process: u64, hash: Hash, size: u64) {
        if self.machines[m].process != process {
            return;
        }
        let reachable = self.machines[m].link.whole() && self.cloud.engine.is_some();
        let there = self.cloud.files.contains_key(&hash);
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        agent.fetching.remove(&hash);
        let here = self.machines[m].files.contains_key(&hash);
        if here || reachable && there && !self.machines[m].full {
            self.machines[m].files.insert(hash, size);
            self.tell(m, Event::FileHere { hash });
        } else {
            let why = if reachable {
                "not there yet"
            } else {
                "no link"
            }
            .to_owned();
            self.tell(m, Event::FileNotThere { hash, why });
        }
    }

    /// An agent brings a file to the coordinator.
    pub fn upload(&mut self, m: usize, hash: Hash, size: u64) {
        let sent = match self.cloud.files.contains_key(&hash) {
            true => 0, // it is offered, and not wanted
            false => size,
        };
        let delay = self.delay(m) + sent * 1000;
        let process = self.machines[m].process;
        if !self.machines[m].files.contains_key(&hash) {
            let (here, why) = (false, format!("{hash} to upload is not here"));
            self.trace.say(self.t, Lane::Node(m), || why.clone());
            self.tell(m, Event::NotUploaded { hash, here, why });
            return;
        }
        let is_sent = self.machines[m].link.whole() && self.cloud.engine.is_some();
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        if agent.uploading.insert(hash, size).is_none() {
            let line = match is_sent {
                true => self.queue_file_on_line(m, Side::Cloud, sent),
                false => 0,
            };
            let at = self.t + delay + line;
            self.queue.at(at, Ev::Uploaded(m, process, hash, size));
        }
    }

    /// An upload ends, or fails: the core tries it again.
    pub(crate) fn uploaded(&mut self, m: usize, process: u64, hash: Hash, size: u64) {
        if self.machines[m].process != process {
            return;
        }
        let reachable = self.machines[m].link.whole() && self.cloud.engine.is_some();
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        agent.uploading.remove(&hash);
        if !reachable || self.cloud.full {
            if reachable {
                self.ask(Request::MakeRoom { bytes: size }, Purpose::Act);
            }
            let (here, why) = (true, "not reachable, or full".to_owned());
            self.tell(m, Event::NotUploaded { hash, here, why });
            return;
        }
        self.cloud.files.insert(hash, size);
        self.tell_cloud(Input::FileStored { hash, size });
        self.tell(m, Event::Uploaded { hash });
    }
}
