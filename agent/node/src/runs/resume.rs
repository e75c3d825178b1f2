//! A run that an earlier agent had begun: its container went on without us. It is waited for, and what
//! is known of it is told; what nobody watched is not proven.

use std::time::Duration;

use api::run::{Attempt, RunRequest};
use quiet::{Certificate, Outcome, Verdict};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Made, Measured, SLACK};
use super::series::Next;
use super::{Parts, unproven};
use crate::certify::{self, Left, NEVER};
use crate::engine::output::Written;
use crate::placement::containers::{Containers, ContainersError};
use crate::tools;

/// What became of its container.
pub(super) enum Found {
    /// It was not started.
    Fresh,
    /// It was started, and its program never let go.
    NeverBegan,
    Over(Box<Measured>),
}

const UNSEEN: &str = "the node's agent was restarted during the run: what it had seen is lost";

/// Waits for the end of a container that may be running.
pub(super) async fn find(
    parts: &Parts,
    made: &Made,
    number: u32,
    request: &RunRequest,
    cancel: &CancellationToken,
) -> Result<Found, String> {
    let id = made.container.as_str();
    let about = parts.client.about(id).await;
    let about = about.map_err(|error| match error {
        ContainersError::NoSuch { .. } => {
            "the container of a run is gone since the node's agent was restarted".to_owned()
        }
        other => crate::chain(&other),
    })?;
    if about.started_at == NEVER {
        return Ok(Found::Fresh);
    }
    // its CPUs stay the series' when it ends
    parts.placer.keep(&made.token);
    let left = parts.certifier.left(id);
    if let Some(host) = parts.certifier.unproven() {
        let ended = wait(parts, id, unproven::latest(request), cancel).await?;
        let told = Measured {
            tools: tools::lost(&attempt::asked(made.next, request)),
            ..unproven::tell(parts, host, made, number, request, &ended).await?
        };
        return Ok(Found::Over(Box::new(told)));
    }
    let ended = wait(parts, id, limit(left, request), cancel).await?;
    if left.is_some_and(|left| !left.begun) {
        return Ok(Found::NeverBegan);
    }
    let text = match parts.certifier.certificate(id, Duration::ZERO).await {
        certify::Found::Certificate(text) => Some(text),
        certify::Found::Measuring | certify::Found::Nothing => None,
    };
    let certificate = text.as_deref().map(serde_json::from_str::<Certificate>);
    let certificate = certificate
        .transpose()
        .map_err(|error| format!("the certificate of {id} cannot be read: {error}"))?;
    let (written, tails) = attempt::written(parts, id, request).await;
    let mut run = match certificate {
        // it had been measured to its end
        Some(certificate) if certificate.outcome != Outcome::Unknown => {
            attempt::attempt(made, number, &certificate, written)
        }
        certificate => unseen(made, number, certificate.as_ref(), &ended, written),
    };
    if !ended.cut {
        attempt::add_metrics(parts, request, &mut run, tails).await;
    }
    Ok(Found::Over(Box::new(Measured {
        run,
        certificate: text,
        cut: ended.cut,
        tools: tools::lost(&attempt::asked(made.next, request)),
    })))
}

/// How it ended, as far as the engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) exit_code: Option<i32>,
    pub(crate) timed_out: bool,
    /// It was ended because its series was cancelled.
    pub(crate) cut: bool,
}

/// When it is too late. The exact limit is known to whoever saw the program begin.
fn limit(left: Option<Left>, request: &RunRequest) -> Instant {
    let whole = 2 * u64::from(request.canary_seconds) + u64::from(request.timeout_seconds);
    let latest = Instant::now() + Duration::from_secs(whole) + SLACK;
    left.and_then(|left| left.limit).unwrap_or(latest)
}

pub(super) async fn wait(
    parts: &Parts,
    id: &str,
    limit: Instant,
    cancel: &CancellationToken,
) -> Result<Ended, String> {
    let (mut timed_out, mut cut) = (false, false);
    let exit_code = tokio::select! {
        code = parts.client.exit_code(id) => return Ok(Ended { exit_code: code, timed_out, cut }),
        () = tokio::time::sleep_until(limit) => { timed_out = true; None }
        () = cancel.cancelled() => { cut = true; None }
    };
    end(parts, id).await?;
    let code = tokio::time::timeout(SLACK, parts.client.exit_code(id)).await;
    Ok(Ended {
        exit_code: code.unwrap_or(exit_code),
        timed_out,
        cut,
    })
}

/// Kills everything in a container; that it has ended is as good.
pub(super) async fn end(parts: &Parts, id: &str) -> Result<(), String> {
    match parts.client.kill(id).await {
        Ok(()) => Ok(()),
        Err(error) => match parts.client.pid(id).await {
            Ok(0) | Err(ContainersError::NoSuch { .. }) => Ok(()),
            Ok(_) | Err(_) => Err(crate::chain(&error)),
        },
    }
}

/// A run whose end nobody watched. An exit code above 128 may stand for a signal: nobody knows.
fn unseen(
    made: &Made,
    number: u32,
    certificate: Option<&Certificate>,
    ended: &Ended,
    written: Written,
) -> Attempt {
    let (outcome, failure) = match ended {
        Ended {
            timed_out: true, ..
        } => (
            Outcome::TimedOut,
            Some("the job ran out of time and was killed".to_owned()),
        ),
        Ended { cut: true, .. } => (Outcome::Signalled, Some("it was killed".to_owned())),
        Ended {
            exit_code: Some(0), ..
        } => (Outcome::Succeeded, None),
        Ended {
            exit_code: Some(code),
            ..
        } => (Outcome::Failed, Some(format!("the job exited with {code}"))),
        Ended {
            exit_code: None, ..
        } => (
            Outcome::Unknown,
            Some("the engine does not know how it ended".to_owned()),
        ),
    };
    let mut reasons = certificate.map(attempt::reasons).unwrap_or_default();
    if reasons.is_empty() {
        reasons.push(UNSEEN.to_owned());
    }
    let counts = matches!(made.next, Next::Repetition(_));
    Attempt {
        verdict: counts.then_some(Verdict::Unproven),
        reasons: if counts { reasons } else { Vec::new() },
        outcome,
        failure,
        exit_code: ended.exit_code,
        signal: None,
        duration_ns: None,
        ..attempt::blank(made, number, written)
    }
}

#[cfg(test)]
mod tests {
    use cpulist::CpuSet;

    use super::*;
    use crate::placement::ledger::Token;

    fn made(next: Next) -> Made {
        Made {
            container: "c".into(),
            token: Token("7f".into()),
            cpus: CpuSet::new(),
            next,
        }
    }

    fn attempt(next: Next, exit_code: Option<i32>, timed_out: bool, cut: bool) -> Attempt {
        let ended = Ended {
            exit_code,
            timed_out,
            cut,
        };
        unseen(&made(next), 3, None, &ended, Written::default())
    }

    #[test]
    fn what_nobody_watched_is_unproven_and_its_exit_code_counts() {
        for (exit_code, timed_out, cut, outcome) in [
            (Some(0), false, false, Outcome::Succeeded),
            (Some(3), false, false, Outcome::Failed),
            (Some(137), false, false, Outcome::Failed),
            (Some(137), true, false, Outcome::TimedOut),
            (Some(137), false, true, Outcome::Signalled),
            (None, false, false, Outcome::Unknown),
        ] {
            let run = attempt(Next::Repetition(2), exit_code, timed_out, cut);
            assert_eq!(run.outcome, outcome);
            assert_eq!((run.number, run.repetition), (3, Some(2)));
            assert_eq!(run.verdict, Some(Verdict::Unproven));
            assert_eq!(run.reasons, [UNSEEN]);
            assert_eq!(run.duration_ns, None, "nobody measured it");
            assert_eq!(run.failure.is_some(), outcome != Outcome::Succeeded);
        }
        let warmup = attempt(Next::Warmup, Some(0), false, false);
        assert_eq!((warmup.verdict, warmup.repetition), (None, None));
    }
}
