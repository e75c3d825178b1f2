//! What comes next in a series of runs, and what it came to. Pure.

use api::run::{Attempt, RunRequest, RunState};
use quiet::{Outcome, Verdict};
use serde::{Deserialize, Serialize};
use stats::Dispersion;

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Next {
    Warmup,
    /// Its number, from 1.
    Repetition(u32),
    End(RunState),
}

/// A failed benchmark ends the series: its next run would fail as well, and its times mean nothing.
pub(super) fn next(request: &RunRequest, done: &[Attempt]) -> Next {
    if done.iter().any(|run| run.outcome != Outcome::Succeeded) {
        return Next::End(RunState::Failed);
    }
    let warmups = done.iter().filter(|run| run.repetition.is_none()).count();
    if warmups < request.warmups as usize {
        return Next::Warmup;
    }
    let unfinished = (1..=request.repetitions).find(|repetition| {
        let tried = verdicts(done, *repetition);
        !tried.contains(&Verdict::Quiet) && tried.len() < tries(request, &tried)
    });
    unfinished.map_or_else(|| Next::End(end(request, done)), Next::Repetition)
}

/// Durations of the quiet runs, and the numbers of those that are left out.
#[must_use]
pub fn figures(done: &[Attempt]) -> (Option<Dispersion>, Vec<u32>) {
    let measured = || done.iter().filter(|run| run.repetition.is_some());
    let counts = |run: &&Attempt| {
        run.verdict == Some(Verdict::Quiet)
            && run.outcome == Outcome::Succeeded
            && run.duration_ns.is_some()
    };
    #[allow(clippy::cast_precision_loss, reason = "exact up to 104 days in ns")]
    let durations: Vec<f64> = measured()
        .filter(counts)
        .filter_map(|run| Some(run.duration_ns? as f64))
        .collect();
    let left_out = measured().filter(|run| !counts(run));
    (
        Dispersion::of(&durations),
        left_out.map(|run| run.number).collect(),
    )
}

/// Nothing is proven without a canary, however often it is tried.
fn tries(request: &RunRequest, tried: &[Verdict]) -> usize {
    if request.canary_seconds == 0 && tried.contains(&Verdict::Unproven) {
        return tried.len();
    }
    request.attempts as usize
}

fn verdicts(done: &[Attempt], repetition: u32) -> Vec<Verdict> {
    done.iter()
        .filter(|run| run.repetition == Some(repetition))
        .filter_map(|run| run.verdict)
        .collect()
}

fn end(request: &RunRequest, done: &[Attempt]) -> RunState {
    let mut state = RunState::Done;
    for repetition in 1..=request.repetitions {
        let tried = verdicts(done, repetition);
        if tried.contains(&Verdict::Quiet) {
            continue;
        }
        if tried.contains(&Verdict::Noisy) {
            return RunState::Noisy;
        }
        state = RunState::Unproven;
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(warmups: u32, repetitions: u32, attempts: u32) -> RunRequest {
        let text = serde_json::json!({
            "image": "b", "cpus": 1,
            "warmups": warmups, "repetitions": repetitions, "attempts": attempts,
        });
        serde_json::from_value(text).unwrap()
    }

    fn run(repetition: Option<u32>, verdict: Option<Verdict>, duration_ns: u64) -> Attempt {
        Attempt {
            number: 0,
            repetition,
            container: String::new(),
            verdict,
            reasons: Vec::new(),
            outcome: Outcome::Succeeded,
            failure: None,
            exit_code: Some(0),
            signal: None,
            duration_ns: Some(duration_ns),
            metrics: api::metric::Readings::new(),
            artifacts: std::collections::BTreeMap::new(),
            tools: api::tool::ToolResults::new(),
            stdout: String::new(),
            stderr: String::new(),
            truncated: false,
        }
    }

    /// Plays a series with the given verdicts, one after the other.
    fn play(
        request: &RunRequest,
        verdicts: &mut dyn Iterator<Item = Verdict>,
    ) -> (Vec<Attempt>, RunState) {
        let mut done = Vec::new();
        loop {
            let mut attempt = match next(request, &done) {
                Next::Warmup => run(None, None, 1),
                Next::Repetition(repetition) => run(Some(repetition), verdicts.next(), 10),
                Next::End(state) => return (done, state),
            };
            attempt.number = u32::try_from(done.len()).unwrap() + 1;
            done.push(attempt);
        }
    }

    #[test]
    fn warmups_first_then_each_repetition_until_it_is_quiet() {
        use Verdict::{Noisy, Quiet};
        let verdicts = [Noisy, Quiet, Quiet, Noisy, Noisy, Quiet];
        let (done, state) = play(&request(2, 3, 3), &mut verdicts.into_iter());
        let order: Vec<_> = done.iter().map(|run| run.repetition).collect();
        let expected = [
            None,
            None,
            Some(1),
            Some(1),
            Some(2),
            Some(3),
            Some(3),
            Some(3),
        ];
        assert_eq!(order, expected);
        assert_eq!(state, RunState::Done);
        let (durations, left_out) = figures(&done);
        assert_eq!(durations.unwrap().samples, 3);
        assert_eq!(left_out, [3, 6, 7]);
    }

    #[test]
    fn what_stays_noisy_or_unproven_is_the_verdict_of_the_series() {
        use Verdict::{Noisy, Quiet, Unproven};
        for (verdicts, runs, state) in [
            (vec![Quiet, Noisy, Noisy], 3, RunState::Noisy),
            (vec![Unproven, Unproven, Quiet], 3, RunState::Unproven),
            (vec![Unproven, Unproven, Noisy, Noisy], 4, RunState::Noisy),
        ] {
            let found = play(&request(0, 2, 2), &mut verdicts.into_iter());
            assert_eq!((found.0.len(), found.1), (runs, state));
        }
        let without = RunRequest {
            canary_seconds: 0,
            ..request(0, 2, 9)
        };
        let (done, state) = play(&without, &mut std::iter::repeat(Unproven));
        assert_eq!((done.len(), state), (2, RunState::Unproven));
        assert_eq!(figures(&done), (None, vec![1, 2]));
    }

    #[test]
    fn a_failed_run_ends_the_series_whatever_its_verdict() {
        for outcome in [Outcome::Failed, Outcome::TimedOut, Outcome::Unknown] {
            let failed = Attempt {
                outcome,
                ..run(Some(1), Some(Verdict::Quiet), 5)
            };
            let done = [failed];
            assert_eq!(next(&request(0, 2, 2), &done), Next::End(RunState::Failed));
            assert_eq!(figures(&done).0, None);
        }
        let warmup = Attempt {
            outcome: Outcome::Signalled,
            ..run(None, None, 5)
        };
        assert_eq!(
            next(&request(1, 1, 1), &[warmup]),
            Next::End(RunState::Failed)
        );
    }

    proptest! {
        #[test]
        fn it_always_ends_and_never_tries_more_than_it_may(
            warmups in 0..4_u32,
            repetitions in 1..5_u32,
            attempts in 1..4_u32,
            script in prop::collection::vec(0..3_usize, 64),
        ) {
            let all = [Verdict::Quiet, Verdict::Noisy, Verdict::Unproven];
            let request = request(warmups, repetitions, attempts);
            let (done, state) = play(&request, &mut script.into_iter().map(|index| all[index]));
            for repetition in 1..=repetitions {
                let tried = verdicts(&done, repetition);
                prop_assert!(!tried.is_empty() && tried.len() <= attempts as usize);
                // nothing is run after the quiet one
                let quiet = tried.iter().position(|verdict| *verdict == Verdict::Quiet);
                prop_assert!(quiet.is_none_or(|at| at + 1 == tried.len()));
            }
            let quiet = figures(&done).0.map_or(0, |durations| durations.samples);
            prop_assert_eq!(state == RunState::Done, quiet == repetitions as usize);
        }
    }
}
