//! What is kept of a world for its timeline: the states of machines over time, seen from outside
//! after each event. Only worlds that are replayed have one; processes, facts and what was said are
//! in the world anyway.

use crate::drawing::{Band, Drawing, Lane, Look, Mark, Millis, Span};
use crate::machine::Machine;
use crate::queue::{MS, SEC, Time};
use crate::trace::{Lane as Whose, Note, Sort};
use crate::truth::{FactRow, Ran};
use crate::world::World;
use shared::explain::Reason;
use shared::ids::RunId;
use std::collections::{BTreeMap, BTreeSet};

/// A state: how it looks, what it is called.
type State = (Look, &'static str);

/// States one after the other.
#[derive(Debug, Default)]
struct Strip {
    /// Since when, which, and the highest number that was seen with it.
    states: Vec<(Time, State, u64)>,
}

impl Strip {
    fn see(&mut self, at: Time, state: State, number: u64) {
        match self.states.last_mut() {
            Some((_, last, most)) if *last == state => *most = number.max(*most),
            _ => self.states.push((at, state, number)),
        }
    }

    fn look(&self) -> Look {
        self.states
            .last()
            .map_or(Look::Off, |(_, state, _)| state.0)
    }

    /// A band of it; states of less than `least` are left to the one before.
    fn band(&self, name: &str, end: Time, least: Time, unit: &str) -> Band {
        let mut spans: Vec<Span> = Vec::new();
        for (position, (from, (look, text), most)) in self.states.iter().enumerate() {
            let next = self.states.get(position + 1);
            let to = next.map_or(end, |(at, _, _)| *at);
            let text = match most {
                0 => (*text).to_owned(),
                most => format!("{text}, up to {most} {unit}"),
            };
            let short = to - from < least && *look == Look::Half;
            match spans.last_mut() {
                Some(last) if short || last.look == *look && last.text == text => {
                    last.to = millis(to);
                }
                _ if from == &to => {}
                _ => spans.push(Span {
                    from: millis(*from),
                    to: millis(to),
                    look: *look,
                    text,
                }),
            }
        }
        Band {
            name: name.to_owned(),
            spans,
        }
    }
}

/// The states of a machine.
#[derive(Debug, Default)]
struct Strips {
    agent: Strip,
    link: Strip,
    known: Strip,
    /// Branches of history that its disk belonged to, since when.
    lives: Vec<(usize, Time)>,
}

/// The states of all machines.
#[derive(Debug, Default)]
pub struct Record {
    cloud: Strip,
    backup: Strip,
    machines: Vec<Strips>,
}

fn millis(at: Time) -> Millis {
    at / MS
}

impl Record {
    fn see(&mut self, world: &World) {
        let (t, cloud) = (world.t, &world.cloud);
        let state = match () {
            () if cloud.engine.is_none() => (Look::Down, "coordinator is down"),
            () if cloud.deaf > 0 => (Look::Half, "runs, answers no dial"),
            () if cloud.full => (Look::Half, "runs, no room on its disk"),
            () => (Look::Up, "coordinator runs"),
        };
        self.cloud.see(t, state, 0);
        if world.plan.backups.is_some() {
            let state = match cloud.backups.is_busy() {
                true => (Look::Half, "a backup is being made"),
                false => (Look::Up, "no backup is being made"),
            };
            self.backup.see(t, state, 0);
        }
        self.machines
            .resize_with(world.machines.len(), Default::default);
        for (m, strips) in self.machines.iter_mut().enumerate() {
            strips.see(world, m);
        }
    }

    /// One letter for the coordinator and for each gateway that is not cut out.
    fn letters(&self, absent: &BTreeSet<usize>) -> String {
        let mut out = letter(&self.cloud, None).to_string();
        let machines = self.machines.iter().enumerate();
        for (_, strips) in machines.filter(|(m, _)| !absent.contains(m)) {
            out.push(' ');
            out.push(letter(&strips.agent, Some(&strips.link)));
        }
        out
    }
}

/// What `Record::letters` says, for the head of a timeline.
pub const LETTERS: &str = "beside each line: the coordinator, then each gateway, \
     │ runs, ┊ with a hindered link, x with a cut link, o process down, . no power";

fn letter(process: &Strip, link: Option<&Strip>) -> char {
    match (process.look(), link.map(Strip::look)) {
        (Look::Off, _) => '.',
        (Look::Down, _) => 'o',
        (_, Some(Look::Down)) => 'x',
        (_, Some(Look::Half)) => '┊',
        _ => '│',
    }
}

impl Strips {
    fn see(&mut self, world: &World, m: usize) {
        let machine = &world.machines[m];
        self.agent.see(world.t, agent(machine), 0);
        self.link.see(world.t, link(machine), 0);
        let Some(life) = world.lives.get(machine.life) else {
            self.known.see(world.t, (Look::Off, "not enrolled"), 0);
            return;
        };
        if self
            .lives
            .last()
            .is_none_or(|(last, _)| *last != machine.life)
        {
            self.lives.push((machine.life, world.t));
        }
        let head = world.cloud.truth.heads.get(&life.log);
        let known = head.map_or(0, |head| head.number);
        let behind = (life.facts.len() as u64).saturating_sub(known);
        let state = match (world.has_session(m), behind) {
            _ if machine.destroyed => (Look::Off, "destroyed"),
            (false, _) if life.silent.is_some() => (Look::Half, "link paused by somebody"),
            (false, _) => (Look::Down, "no session"),
            (true, 0) => (Look::Up, "coordinator knows all facts"),
            (true, _) => (Look::Half, "coordinator lags behind"),
        };
        self.known.see(world.t, state, behind);
    }
}

fn agent(machine: &Machine) -> State {
    match &machine.agent {
        _ if machine.destroyed => (Look::Off, "destroyed, or switched off"),
        _ if !machine.power => (Look::Off, "no power"),
        None => (Look::Down, "agent is down"),
        Some(_) if machine.full => (Look::Half, "agent runs, no room on the disk"),
        Some(_) => (Look::Up, "agent runs"),
    }
}

fn link(machine: &Machine) -> State {
    let link = &machine.link;
    match (link.cuts_up > 0, link.cuts_down > 0) {
        (true, true) => (Look::Down, "link cut"),
        (true, false) => (Look::Half, "link dead upwards"),
        (false, true) => (Look::Half, "link dead downwards"),
        _ if link.slow > 0 => (Look::Half, "link slow"),
        _ => (Look::Up, "link whole"),
    }
}

impl World {
    /// Looks at what the last event changed, if somebody wants a timeline.
    pub(crate) fn record(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.see(self);
        if self.trace.has_fresh() {
            self.trace.flush(&record.letters(&self.plan.gone.agents));
        }
        self.record = Some(record);
    }

    /// What happened, drawn, if somebody wanted a timeline.
    pub(crate) fn finish_record(&mut self) -> Option<Drawing> {
        self.record();
        let record = self.record.take()?;
        let notes = self.trace.take_notes();
        let seed = self.plan.seed;
        let mut lanes = vec![record.cloud_lane(self)];
        let absent = &self.plan.gone.agents;
        let there: Vec<usize> = (0..record.machines.len())
            .filter(|m| !absent.contains(m))
            .collect();
        lanes.extend(there.iter().map(|m| record.machine_lane(self, *m)));
        let mut moments = Vec::new();
        for note in notes {
            let place = match note.lane {
                Whose::Node(m) => there.iter().position(|one| *one == m).map(|n| n + 1),
                Whose::Cloud | Whose::World => Some(0),
            };
            let mark = mark(&note);
            match (note.sort, place) {
                (Sort::Phase | Sort::Violation, _) | (_, None) => moments.push(mark),
                (_, Some(n)) => lanes[n].marks.push(mark),
            }
        }
        let size = crate::tell::size(&self.plan);
        let layer = self.plan.layer.number();
        Some(Drawing {
            title: format!("Seed {seed}, layer {layer}"),
            notes: vec![format!("Simulated: {size}.")],
            end: millis(self.t),
            lanes,
            moments,
            ..Drawing::default()
        })
    }
}

fn mark(note: &Note) -> Mark {
    let look = match note.sort {
        Sort::Fault => Look::Fault,
        Sort::Talk | Sort::Deed => Look::Deed,
        Sort::Backup => Look::Backup,
        Sort::Phase => Look::Phase,
        Sort::Violation => Look::Broken,
    };
    let text = match note.sort {
        Sort::Deed => format!("somebody {}", note.text),
        _ => note.text.clone(),
    };
    Mark {
        at: millis(note.at),
        look,
        text,
    }
}

/// States of a side's knowledge that last less are no lag.
const LAG: Time = 10 * SEC;

impl Record {
    fn cloud_lane(&self, world: &World) -> Lane {
        let mut bands = vec![self.cloud.band("process", world.t, 0, "")];
        if world.plan.backups.is_some() {
            bands.push(self.backup.band("backups", world.t, 0, ""));
        }
        let mut runs: BTreeMap<RunId, (Time, Time, u64, u64)> = BTreeMap::new();
        for ran in &world.ran {
            let entry = (ran.from, ran.from, 0, 0);
            let entry = runs.entry(ran.attempt.slice.run).or_insert(entry);
            entry.1 = ran.to.unwrap_or(world.t).max(entry.1);
            entry.2 += 1;
            entry.3 += u64::from(outcome(ran).0 != Look::Done);
        }
        let bars = runs.into_iter().map(|(run, (from, to, attempts, bad))| {
            let name = world.flows.get(&run).map_or("", |flow| &flow.workflow.name);
            let text = format!("{name}: {attempts} attempts, {bad} without success; run {run}");
            Span {
                from: millis(from),
                to: millis(to),
                look: Look::Whole,
                text,
            }
        });
        Lane {
            name: "coordinator".to_owned(),
            bands,
            bars: bars.collect(),
            bars_name: "runs".to_owned(),
            ..Lane::default()
        }
    }

    fn machine_lane(&self, world: &World, m: usize) -> Lane {
        let (strips, machine) = (&self.machines[m], &world.machines[m]);
        let bands = vec![
            strips.agent.band("agent", world.t, 0, ""),
            strips.link.band("link", world.t, 0, ""),
            strips.known.band("in step", world.t, LAG, "facts ahead"),
        ];
        let mine = world.ran.iter().filter(|ran| ran.machine == m);
        let detail = match machine.copy_of {
            Some(_) => "its disk, copied".to_owned(),
            None => machine
                .labels
                .values()
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
        };
        Lane {
            name: machine.name.clone(),
            detail,
            marks: Vec::new(),
            bands,
            ticks: strips.facts(world),
            ticks_name: "facts".to_owned(),
            bars: mine.map(|ran| bar(world, ran)).collect(),
            bars_name: "tasks".to_owned(),
        }
    }
}

impl Strips {
    /// A tick for each commit with facts.
    fn facts(&self, world: &World) -> Vec<Mark> {
        let mut ticks = Vec::new();
        for (position, (life, since)) in self.lives.iter().enumerate() {
            let until = self.lives.get(position + 1).map_or(world.t, |next| next.1);
            let mut commit: Vec<String> = Vec::new();
            for (number, row) in (1..).zip(&world.lives[*life].facts) {
                if row.at < *since || row.at > until {
                    continue;
                }
                commit.push(format!("{number} {}", told(world, row)));
                if row.ends {
                    ticks.push(Mark {
                        at: millis(row.at),
                        look: Look::Fact,
                        text: format!("facts {}", std::mem::take(&mut commit).join("; ")),
                    });
                }
            }
        }
        ticks
    }
}

fn told(world: &World, row: &FactRow) -> String {
    match &row.fact {
        Some(fact) => crate::tell::fact(&world.flows, &fact.body),
        None => "of an unknown kind".to_owned(),
    }
}

fn outcome(ran: &Ran) -> State {
    match (ran.to, ran.end) {
        (None, _) => (Look::Open, "still runs"),
        (Some(_), None) => (Look::Killed, "killed together with its machine or agent"),
        (Some(_), Some(_)) if !ran.seen => (Look::Killed, "ended while its agent was down"),
        (_, Some(Reason::ExitedZero)) => (Look::Done, "succeeded"),
        (_, Some(Reason::Signalled)) => (Look::Stopped, "ended by a signal"),
        _ => (Look::Failed, "failed"),
    }
}

fn bar(world: &World, ran: &Ran) -> Span {
    let (look, what) = outcome(ran);
    let attempt = crate::tell::attempt(&world.flows, &ran.attempt);
    let text = format!("{attempt}, epoch {}: {what}", ran.attempt.slice.epoch.0);
    Span {
        from: millis(ran.from),
        to: millis(ran.to.unwrap_or(world.t)),
        look,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_spans_and_short_lags_none() {
        let mut strip = Strip::default();
        let (up, half) = ((Look::Up, "up"), (Look::Half, "lags"));
        for (at, state, number) in [(0, up, 0), (20, half, 3), (21, up, 0), (40, half, 7)] {
            strip.see(at * SEC, state, number);
        }
        strip.see(50 * SEC, half, 9);
        let band = strip.band("in step", 90 * SEC, LAG, "facts");
        let spans: Vec<_> = band
            .spans
            .iter()
            .map(|one| (one.from, one.to, one.look))
            .collect();
        assert_eq!(spans, [(0, 40_000, Look::Up), (40_000, 90_000, Look::Half)]);
        assert_eq!(band.spans[1].text, "lags, up to 9 facts");
    }
}
