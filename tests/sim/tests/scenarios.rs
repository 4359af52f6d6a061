//! Seeds as tests: a handful on each layer, the meta test, negative controls, and the seeds that
//! once found a mistake, each with its story; another one where that seed, drawn anew since, no
//! longer meets the accidents of its story.

use sim::fault::Kind;
use sim::plan::{Layer, Plan, Planted};
use sim::runner::run_plan;
use std::process::Command;

fn passes(seed: u64, layer: Layer) {
    keeps_all(Plan::small(seed, layer));
}

fn keeps_all(plan: Plan) {
    meets(plan, &[]);
}

/// A seed as it was when it was found: the fleet's authority was not exchanged yet.
fn early(seed: u64, layer: Layer) -> Plan {
    Plan {
        exchanges: Vec::new(),
        ..Plan::draw(seed, layer)
    }
}

/// Keeps all promises, and its story still happens: accidents of these kinds.
fn meets(plan: Plan, kinds: &[Kind]) {
    let seed = plan.seed;
    let verdict = run_plan(plan, None);
    assert!(
        verdict.violations.is_empty(),
        "{}",
        sim::report::complaint(&verdict)
    );
    assert!(
        verdict.tasks >= 50,
        "seed {seed} has only {} tasks",
        verdict.tasks
    );
    assert!(verdict.agent_hours() >= 6.0);
    for kind in kinds {
        let count = verdict.tally.count(*kind);
        assert!(count > 0, "{} does not happen any more", kind.text());
    }
}

#[test]
fn seeds_on_stores_in_memory_keep_all_promises() {
    for seed in 0..6 {
        passes(seed, Layer::Cores);
    }
}

#[test]
fn seeds_on_simulated_disks_keep_all_promises() {
    for seed in [0, 3] {
        passes(seed, Layer::Disk);
    }
}

/// A node that had been silent for longer than `lost_after` was given the same pinned task again at
/// every wake of the coordinator, and lost it at once: the coordinator turned in circles.
#[test]
fn a_silent_node_is_given_nothing_that_it_would_lose_at_once() {
    meets(Plan::small(9, Layer::Cores), &[Kind::Replaced]);
}

/// The journal held a fact of a kind that only a later version knows; the agent took it for damage
/// and did not start any more.
#[test]
fn a_fact_of_a_later_version_does_not_stop_the_agent() {
    meets(Plan::small(10, Layer::Cores), &[Kind::UnknownFact]);
}

/// A slice that was lost by silence was placed again on the same node: its task began while the
/// process of the old slice was still being ended.
#[test]
fn a_task_never_runs_twice_on_one_node_because_the_run_was_cut_anew() {
    meets(Plan::small(7, Layer::Cores), &[Kind::Replaced]);
}

/// An agent saw a fork that the coordinator could not see and took a new incarnation; no word of an
/// operator could get it out of quarantine.
#[test]
fn an_operator_can_free_a_node_that_took_a_new_incarnation_by_itself() {
    passes(27, Layer::Cores);
}

/// A run that was submitted at a gateway stayed `running` for ever when the gateway was destroyed
/// and forgotten.
#[test]
fn a_local_run_is_lost_with_its_forgotten_gateway() {
    meets(
        Plan::small(127, Layer::Cores),
        &[Kind::Forgotten, Kind::LocalSubmit],
    );
}

/// The coordinator's store went back behind a run. One gateway's inventory made it known again; the
/// facts of the others came just before their own inventories, were not applied, and the run waited
/// for tasks that had ended long ago.
#[test]
fn facts_that_overtake_their_inventory_are_applied_after_it() {
    meets(Plan::small(156, Layer::Cores), &[Kind::CoordinatorWentBack]);
}

/// A gateway gave a slice up while an output that only its own tasks were to read lay nowhere else:
/// the tasks that were placed elsewhere waited for that file for ever, for the task that made it
/// must not be done again.
#[test]
fn a_slice_that_is_given_up_leaves_its_outputs_with_the_coordinator() {
    passes(1028, Layer::Disk);
}

/// The inventory of a gateway named only the tasks that had a history; when the coordinator's store
/// went back, all others were placed a second time, and the first slice waited for ever.
#[test]
fn after_the_coordinators_store_went_back_no_task_is_placed_twice() {
    meets(Plan::small(798, Layer::Cores), &[Kind::CoordinatorWentBack]);
}

/// A gateway that was re-imaged held the only copy of what a task had made that must not be done
/// again: who waited for it waited for ever.
#[test]
fn what_lay_only_on_a_disk_that_is_gone_keeps_nobody_waiting() {
    meets(Plan::small(739, Layer::Cores), &[Kind::Reimaged]);
}

/// The coordinator's store went back while one gateway's facts about a run and another's inventory
/// were on their way, in an order that left the facts unread.
#[test]
fn a_run_is_rebuilt_in_whatever_order_its_gateways_speak() {
    meets(
        Plan::small(6158, Layer::Cores),
        &[Kind::CoordinatorWentBack],
    );
}

/// A retry waited for two nodes; what the first one gave up was placed at once, and then taken from
/// that new slice without a word, so that a task stayed blocked there for ever.
#[test]
fn nothing_is_placed_while_a_retry_waits() {
    meets(Plan::small(29, Layer::Cores), &[Kind::Retried]);
}

/// A slice was asked back for a retry, and its node told that it was done before it gave it up:
/// that it was asked back was forgotten, and the retry waited for ever.
#[test]
fn a_slice_that_is_done_is_still_asked_back() {
    meets(Plan::small(234, Layer::Cores), &[Kind::Retried]);
}

/// Two commits of the coordinator in a row had an unknown end; a local run went on at a disk that
/// was put back; acknowledgements came for a disk that had been taken out; a slice waited for a
/// full coordinator before it could be given up. Each was taken for a broken promise.
#[test]
fn the_checkers_know_what_may_happen() {
    for seed in [915, 459, 835, 9530] {
        passes(seed, Layer::Cores);
    }
}

/// A task of a local run asked a person; its gateway was silent for so long that the task counted
/// as lost, and came back with an empty disk. The question was gone with the old disk, and the
/// checker still looked for it in the list of waits.
#[test]
fn a_question_is_gone_with_the_disk_that_it_was_asked_on() {
    meets(
        Plan::small(20, Layer::Cores),
        &[Kind::Reimaged, Kind::LocalSubmit],
    );
}

#[test]
fn the_same_seed_gives_the_same_trace_in_another_process() {
    for (seed, layer) in [(1, "1"), (0, "2")] {
        let hash = || {
            let out = Command::new(env!("CARGO_BIN_EXE_sim"))
                .args(["replay", &seed.to_string(), "--layer", layer, "--hash"])
                .output()
                .expect("the simulator runs");
            String::from_utf8(out.stdout).expect("a hash is text")
        };
        let first = hash();
        assert_eq!(first.trim().len(), 16, "{first}");
        assert_eq!(first, hash());
    }
}

fn is_named(found: &str) -> bool {
    sim::check::ALL.iter().any(|(name, _)| found == *name)
}

/// The first invariant that notices a mistake built into the world, within some seeds. That a core
/// ends itself over what the mistake made of its state is no notice: it has no name.
fn noticed(layer: Layer, plant: impl Fn(&mut Plan)) -> Option<&'static str> {
    (0..12).find_map(|seed| {
        let mut plan = early(seed, layer);
        plant(&mut plan);
        let verdict = run_plan(plan, None);
        let found = verdict.violations.iter().map(|one| one.invariant);
        found.into_iter().find(|found| is_named(found))
    })
}

#[test]
fn mistakes_that_are_planted_are_noticed_by_a_named_invariant() {
    for planted in Planted::ALL {
        let found = noticed(Layer::Cores, |plan| plan.planted = Some(*planted));
        assert!(found.is_some(), "nothing notices {planted:?}");
    }
}

#[test]
fn disks_that_lie_about_syncs_are_noticed() {
    let found = noticed(Layer::Disk, |plan| plan.lying_disk = 950);
    assert_eq!(found, Some("acknowledged_is_durable"));
}

/// A person wanted past slots to run of which one had fired more than 128 firings before: its
/// firing was forgotten, its run was still there. The agent asked for it for ever in one step.
#[test]
fn a_backfill_over_slots_that_fired_long_ago_comes_to_its_end() {
    meets(Plan::small(421, Layer::Cores), &[Kind::SlotFilled]);
}

/// A clock jumped by weeks: of the slots that were missed only the newest thousand were told, as if
/// none had been before them.
#[test]
fn missed_slots_are_told_from_the_first_one_on() {
    meets(
        Plan::small(71, Layer::Disk),
        &[Kind::ClockForward, Kind::SlotMissed],
    );
}

/// Links were paused: a gateway ran a task that must not run twice and kept the fact. The
/// coordinator gave the task up meanwhile, a person let the run run again, and it began elsewhere.
#[test]
fn what_must_not_run_twice_is_not_run_again_before_its_silent_owner_gave_it_up() {
    meets(Plan::small(489, Layer::Cores), &[Kind::SyncPaused]);
}

/// A mistake of the simulator: a person answered while both sides were compared, so that tasks
/// began again and the two sides differed by what was under way.
#[test]
fn nobody_does_anything_while_both_sides_are_compared() {
    passes(627, Layer::Cores);
}

/// The coordinator's disk was put back behind a setting of a gateway. Nothing was set any more, as
/// far as it knew nothing had ever been, and the gateway followed the forgotten setting for ever.
#[test]
fn a_gateway_that_was_told_a_forgotten_setting_is_told_that_nothing_is_set() {
    meets(Plan::small(962, Layer::Cores), &[Kind::CoordinatorWentBack]);
}

/// A mistake of the checker: people paused and resumed a schedule while the coordinator was off.
/// Both wishes, and later one for a run beside an open one, shared a commit whose state showed
/// neither.
#[test]
fn wishes_that_begin_and_end_in_one_commit_are_known_from_the_record() {
    passes(827, Layer::Cores);
}

/// A task had no attempt left and waited for a person. The coordinator started anew, and as long as
/// nothing touched the run, the wait was in no list: the world never came to rest, and the run
/// ended uncompared.
#[test]
fn what_waits_for_a_person_is_listed_after_a_start_too() {
    passes(1177, Layer::Cores);
}

/// An older backup was restored. The gateway had pruned facts that a newer backup held, and still
/// had some behind the hole, before the fact that declared it: the coordinator wanted the first
/// missing one, the gateway sent the same again, for ever.
#[test]
fn facts_that_are_left_behind_a_hole_are_taken_in_before_it_is_declared() {
    meets(
        Plan::small(29, Layer::Cores),
        &[Kind::RestoredOlder, Kind::HoleDeclared],
    );
}

/// A slice had been given up, and both its start and its end stood in a hole behind an older
/// backup: what must not run twice ran again.
#[test]
fn what_must_not_run_twice_is_in_doubt_when_its_history_is_in_a_hole() {
    meets(
        Plan::small(15, Layer::Cores),
        &[Kind::RestoredOlder, Kind::HoleDeclared],
    );
}

/// A run had been over and forgotten everywhere when an older backup was restored. Its gateway
/// refused it, and was given it again every minute, each time with a fact.
#[test]
fn a_run_that_was_forgotten_before_a_restore_is_not_placed_for_ever() {
    meets(
        Plan::small(493, Layer::Cores),
        &[Kind::RestoredOlder, Kind::RunForgotten],
    );
}

/// A schedule that a gateway had made lay in a hole of the facts: what it fired from then on was a
/// name without a workflow at the coordinator. Nobody asked the gateway for it, and its facts were
/// dropped when its retention was over.
#[test]
fn what_a_schedule_fires_that_the_store_forgot_is_asked_for() {
    meets(
        Plan::small(102, Layer::Disk),
        &[Kind::HoleDeclared, Kind::SlotFired],
    );
}

/// The store was restored; before a gateway called, a person let a run go on that was over there.
/// The gateway's log of directives began anew with its call, and the word to give the slice up was
/// gone with the old one: nobody asked again, since what is over was no work of the gateway.
#[test]
fn a_retry_between_a_restore_and_the_call_of_its_node_goes_on() {
    meets(
        Plan::small(563, Layer::Cores),
        &[Kind::Restored, Kind::Retried],
    );
}

/// That a gateway sends again lay in a hole of its facts: a restored coordinator showed it as
/// paused for ever.
#[test]
fn a_pause_of_sending_that_ended_in_a_hole_is_over() {
    meets(
        Plan::small(29, Layer::Disk),
        &[Kind::HoleDeclared, Kind::SyncPaused],
    );
}

/// A Byzantine gateway told of an attempt at a task that the workflow does not have: the
/// coordinator marked rows that are not there as changed, and panicked at each start again.
#[test]
fn a_fact_about_a_task_that_is_not_there_ends_nothing() {
    meets(Plan::small(91, Layer::Cores), &[Kind::ByzantineLie]);
}

/// A Byzantine gateway set a pause mark on a run of which it had nothing, and the run was paused.
#[test]
fn a_run_is_not_paused_by_who_has_nothing_of_it() {
    meets(Plan::small(14, Layer::Cores), &[Kind::ByzantineLie]);
}

/// A Byzantine gateway declared a hole in its facts, was asked for its inventory, and claimed the
/// slices of others at newer epochs: they were its own then.
#[test]
fn an_inventory_takes_no_slices_of_others() {
    meets(Plan::small(28, Layer::Cores), &[Kind::ByzantineInventory]);
}

/// A Byzantine gateway said that a slice was over in which a task ran. When it was declared gone
/// the task was not lost, and a task at another gateway waited for it for ever.
#[test]
fn a_slice_with_an_open_task_is_lost_with_its_gateway() {
    meets(Plan::small(154, Layer::Cores), &[Kind::ByzantineLie]);
}

/// A task of a run that was submitted at a gateway was let run again from the coordinator, and
/// another gateway did it: the checker still compared its outputs with those of the first one.
#[test]
fn what_runs_again_elsewhere_has_the_outputs_of_who_did_it() {
    meets(Plan::small(791, Layer::Cores), &[Kind::LocalSubmit]);
}

/// The coordinator's disk went back without a word, behind a copy that had been started and had
/// given work away; a gateway that was away all the while called first and was given tasks that
/// another one had. The other's slice was taken over from its inventory with what was left of it,
/// and nobody asked the rest back: those tasks stood open there for ever.
#[test]
fn a_slice_that_lost_tasks_to_who_called_first_is_asked_back() {
    meets(early(2030, Layer::Cores), &[Kind::CoordinatorWentBack]);
}

/// The same way back, behind a slice that had been asked back for what another gateway had got of
/// it. That one named its slice, nobody asked for the rest of the first any more, and what the
/// tasks elsewhere were to read was brought nowhere.
#[test]
fn a_slice_that_lost_tasks_to_one_that_was_forgotten_is_asked_back() {
    meets(Plan::small(798, Layer::Cores), &[Kind::CoordinatorWentBack]);
}

/// A Byzantine gateway said that its slice was over, and not what it held of a limit. When it was
/// declared gone nobody had its share, and the members at another gateway waited for it for ever.
#[test]
fn what_a_gone_gateway_held_of_a_limit_is_free() {
    meets(
        Plan::small(95, Layer::Disk),
        &[Kind::LimitReached, Kind::ByzantineLie],
    );
}

/// A gateway was silent for so long that the run of its schedule was placed elsewhere. When it gave
/// that run up, it did not look at the slot that had waited for the run's end.
#[test]
fn a_slot_that_waits_fires_when_its_run_is_taken_away() {
    meets(early(2303, Layer::Cores), &[Kind::SlotFired]);
}

/// A retry waited when the backup was made, and was done behind it. Behind the restore it was done
/// again, over the slices that it had led to, and what must not run twice ran twice.
#[test]
fn a_retry_that_waited_in_the_backup_is_done_once() {
    meets(early(3778, Layer::Cores), &[Kind::Retried]);
}

/// Behind the backup a run was made, and its slice given up for a retry. No inventory names such a
/// slice, so what its facts said did not count, and what must not run twice was placed again.
#[test]
fn what_was_done_in_a_slice_given_up_behind_the_backup_is_done_once() {
    meets(early(3280, Layer::Cores), &[Kind::Retried, Kind::Restored]);
}

/// A gateway had forgotten a run at the coordinator's wish, and called behind the restore before
/// the one that still had a part of it. What it had done once was placed again.
#[test]
fn what_was_done_by_who_forgot_the_run_is_done_once() {
    meets(
        early(9291, Layer::Disk),
        &[Kind::RunForgotten, Kind::Restored],
    );
}

/// A gateway got an empty disk behind the backup, and was given work. Behind the restore nobody
/// waited for its new life, since nobody could tell what the old one had; so what the new one had
/// done once was placed again.
#[test]
fn what_a_new_life_did_behind_the_backup_is_done_once() {
    meets(early(28164, Layer::Disk), &[Kind::Restored, Kind::Reimaged]);
}

/// Behind a restore only an inventory told of a gateway's own run: before its facts came, another
/// machine with its disk made it begin a new life. The run was placed as if it were the
/// coordinator's.
#[test]
fn a_gateways_own_run_is_not_placed_anew_behind_a_restore() {
    meets(early(1417, Layer::Cores), &[Kind::Restored]);
}

/// Who asked a gateway for a run heard no answer, and asked again when it had an empty disk. Nobody
/// else knew of the run, so what must not run twice ran twice: no promise says otherwise.
#[test]
fn who_heard_no_answer_may_ask_for_a_run_again_at_an_empty_gateway() {
    meets(
        early(31868, Layer::Cores),
        &[Kind::Reimaged, Kind::LocalSubmit],
    );
}

/// A gateway was silent for long, so that the run that its schedule had fired was lost and
/// forgotten. It came back, and stopped it without a word: the next slot fires beside nothing.
#[test]
fn a_slot_fires_when_the_run_before_it_was_forgotten_as_lost() {
    meets(
        early(36914, Layer::Cores),
        &[Kind::RunForgotten, Kind::SlotFired],
    );
}

/// A store went back behind slots that had fired, and a person had them filled. When the hold
/// ended, they passed as missed, and were skipped once more as what had fired before.
#[test]
fn what_is_filled_behind_a_restore_goes_by_slots_that_had_fired() {
    meets(
        early(39592, Layer::Cores),
        &[Kind::RestoredOlder, Kind::CoordinatorFired],
    );
}

/// A slot's run was at a gateway when the coordinator's disk went back before it, without a word.
/// The slot fired once more, elsewhere, and that run was forgotten before the gateway called.
#[test]
fn a_run_is_forgotten_although_who_had_it_first_did_not_call_since_the_disk_went_back() {
    meets(
        early(46878, Layer::Disk),
        &[Kind::CoordinatorWentBack, Kind::RunForgotten],
    );
}

/// What forgotten runs had made was brought all the same, over a narrow link for 17 hours.
#[test]
fn what_a_forgotten_run_made_takes_no_line() {
    meets(
        early(4105, Layer::Cores),
        &[Kind::RunForgotten, Kind::NarrowLink],
    );
}

/// Of a run that was over, and so not held behind a restore, a drained gateway was asked for what
/// was left.
#[test]
fn a_drained_gateway_is_not_asked_for_what_is_over() {
    meets(early(13063, Layer::Cores), &[Kind::Drained, Kind::Restored]);
}

/// What a task needs was lost with its output while the task waited for its next attempt, which
/// began all the same.
#[test]
fn a_next_attempt_waits_for_what_came_undone() {
    meets(early(14229, Layer::Disk), &[Kind::Reimaged]);
}

/// On a full disk the coordinator tried again at once when a commit failed, for an hour.
#[test]
fn a_coordinator_without_room_waits_before_it_tries_again() {
    meets(early(14094, Layer::Disk), &[Kind::CoordinatorDiskFull]);
}

/// What must not run twice was lost with the only disk that had its file, and its reader was to run
/// all the same: the gateway asked for that file for ever.
#[test]
fn who_reads_a_file_that_is_lost_does_not_wait_for_it() {
    meets(early(1616, Layer::Cores), &[Kind::Reimaged]);
}

/// The narrow link of a gateway stood full for days: it asked again and again for a file that
/// nobody had any more, and in the world each refusal took as long as the file.
#[test]
fn a_file_that_is_refused_takes_no_time_of_a_line() {
    meets(early(741, Layer::Disk), &[Kind::NarrowLink]);
}

/// The coordinator had no room, and took no telemetry. Pieces with samples were sent again after
/// five minutes, a gap among them not before the next session.
#[test]
fn a_gap_of_telemetry_that_was_not_taken_is_told_again() {
    meets(early(242, Layer::Disk), &[Kind::CoordinatorDiskFull]);
}

/// A mistake of the simulator: an agent that started on a full disk heard of its room behind its
/// boot, and had started a task by then.
#[test]
fn an_agent_that_starts_on_a_full_disk_starts_no_task() {
    let plan = early(283, Layer::Cores);
    meets(plan, &[Kind::AgentDiskFull, Kind::DeathInCommit]);
}

/// The power failed on a full disk that copies on write: the store could only be opened in the room
/// of its reserve, and took that again.
#[test]
fn a_store_opens_in_the_room_of_its_reserve() {
    let plan = early(60, Layer::Disk);
    meets(plan, &[Kind::ReserveGivenBack, Kind::AgentPowerCut]);
}

/// A mistake of the check: runs of a schedule were forgotten, and the store went back to before
/// they fired. Facts named them again, and nothing else was left of them anywhere; when the names
/// had been forgotten too, they were missed.
#[test]
fn a_run_that_is_only_a_name_is_not_missed_when_it_is_forgotten() {
    meets(
        early(21533, Layer::Cores),
        &[Kind::RestoredOlder, Kind::RunForgotten],
    );
}

/// A mistake of the check: past slots were asked for while others were left, of which its gateway
/// knew more than the coordinator; they were refused, and the check went by them.
#[test]
fn past_slots_that_are_refused_change_nothing() {
    meets(early(27907, Layer::Cores), &[Kind::SlotFilled]);
}

/// A mistake of the check: a person at a gateway let a run go on, and its disk was gone before the
/// coordinator heard of that. What was recorded stands.
#[test]
fn what_is_gone_with_a_disk_is_not_missed() {
    meets(early(26897, Layer::Cores), &[Kind::Reimaged]);
}

/// A run was over when the only disk that had what a task had made for the next one was gone, and
/// that task must not run twice. The next one was let run again, and waited for the file for ever.
#[test]
fn who_needs_what_is_gone_and_must_not_run_twice_is_not_let_run_again() {
    meets(early(27616, Layer::Cores), &[Kind::DiskWentBack]);
}

/// Behind the backup files were brought and the slices given up that had made them. With the
/// restore those files were gone everywhere, and who read them waited for ever.
#[test]
fn what_was_brought_behind_the_backup_from_a_slice_given_up_keeps_nobody_waiting() {
    meets(early(26571, Layer::Disk), &[Kind::Restored]);
}

/// A mistake of the simulator: a disk was copied while a certificate was asked for. With that disk
/// put back its gateway waited for the answer for ever, and asked no more.
#[test]
fn a_disk_that_is_put_back_waits_for_no_certificate() {
    meets(early(28970, Layer::Cores), &[Kind::CertificateExpired]);
}

/// A mistake of the check: a gateway's own run was lost by its silence, and given up; the store
/// went back behind that, to an older backup than the one that let the facts of it go. Nobody was
/// left who could tell of the run, and it was missed.
#[test]
fn a_run_that_was_given_up_is_not_missed_behind_an_older_backup() {
    meets(early(28870, Layer::Cores), &[Kind::RestoredOlder]);
}

/// A gateway was asked to give a schedule up, and was named again before it heard of that. It was
/// told the next revision behind that, and fired beside the gateway that had been named before.
#[test]
fn an_owner_that_is_named_again_while_it_gives_a_schedule_up_is_the_only_one() {
    meets(early(31832, Layer::Cores), &[Kind::ScheduleMoved]);
}

/// That a task asks a person was told in a hole of the facts, and what it needs was known to be
/// over only behind that. The coordinator showed no question, and the run stood for ever.
#[test]
fn a_question_that_a_hole_hides_is_shown_once_all_that_its_task_needs_is_over() {
    meets(early(31860, Layer::Disk), &[Kind::RestoredOlder]);
}

/// Whoever called first behind a restore told that its slice was over, and that counted. Then
/// another gateway showed that it had a part of it since, and that the store had gone back: what
/// that part was to read was brought nowhere.
#[test]
fn a_slice_that_was_over_before_the_restore_was_known_is_asked_back() {
    meets(early(36162, Layer::Disk), &[Kind::CoordinatorWentBack]);
}

/// A mistake of the check: the Byzantine gateway hung up behind facts that cannot be unpacked, and
/// was refused when its connection was over. It was taken for an honest one.
#[test]
fn a_liar_that_is_refused_once_it_hung_up_is_no_honest_agent() {
    meets(early(46797, Layer::Disk), &[Kind::ByzantineLie]);
}

/// A mistake of the check: somebody asked for the end of a drain, and asked again at the moment
/// when the coordinator was back. Its first turn ended the drain, drained the node for somebody
/// else, and ended that for the second time; the drain was taken for what held.
#[test]
fn an_end_of_a_drain_that_is_asked_for_again_ends_the_next_drain_of_the_turn() {
    meets(early(46783, Layer::Cores), &[Kind::KillAfterCommit]);
}
