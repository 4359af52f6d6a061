//! What becomes of a task on no node when the tasks it needs are final: the trigger rules.

use shared::explain::Reason;
use shared::state::TaskState;
use shared::workflow::TriggerRule;

/// The end of a task that can no longer start, or none while it may.
#[must_use]
pub fn settled(rule: TriggerRule, needs: &[TaskState]) -> Option<(TaskState, Reason)> {
    use TaskState::{Aborted, Cancelled, Failed, Lost, Skipped};
    let bad = |s: &TaskState| matches!(s, Failed | Aborted | Cancelled | Lost);
    let all_final = needs.iter().all(|s| s.is_final());
    match rule {
        TriggerRule::AllDone => None,
        TriggerRule::AllSuccess if needs.iter().any(bad) => Some((Aborted, Reason::NeedFailed)),
        TriggerRule::AllSuccess if needs.contains(&Skipped) => Some((Skipped, Reason::NeedSkipped)),
        TriggerRule::AllSuccess => None,
        TriggerRule::NoneFailed if needs.iter().any(bad) => Some((Aborted, Reason::NeedFailed)),
        TriggerRule::NoneFailed => None,
        TriggerRule::OneFailed => {
            let hit = needs.iter().any(|s| matches!(s, Failed | Lost));
            (all_final && !hit).then_some((Skipped, Reason::TriggerNotMet))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TaskState::{Aborted, Blocked, Failed, Skipped, Succeeded};

    #[test]
    fn each_rule_settles_what_can_no_longer_start() {
        let cases = [
            (TriggerRule::AllSuccess, vec![Succeeded, Blocked], None),
            (
                TriggerRule::AllSuccess,
                vec![Failed, Blocked],
                Some(Aborted),
            ),
            (
                TriggerRule::AllSuccess,
                vec![Skipped, Blocked],
                Some(Skipped),
            ),
            (TriggerRule::AllDone, vec![Failed, Succeeded], None),
            (TriggerRule::OneFailed, vec![Succeeded, Blocked], None),
            (TriggerRule::OneFailed, vec![Succeeded], Some(Skipped)),
            (TriggerRule::OneFailed, vec![Failed, Succeeded], None),
            (TriggerRule::NoneFailed, vec![Skipped, Succeeded], None),
            (TriggerRule::NoneFailed, vec![Aborted], Some(Aborted)),
        ];
        for (rule, needs, want) in cases {
            let got = settled(rule, &needs).map(|(state, _)| state);
            assert_eq!(got, want, "{rule:?} {needs:?}");
        }
    }
}
