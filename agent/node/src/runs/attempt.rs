//! One run of a series: a container from its claim to its certificate.

use std::time::Duration;

use api::process::CpuRequest;
use api::run::{Attempt, RunRequest};
use cpulist::CpuSet;
use policy::{
    Certify, CpuChoice, Denial, Endpoint, PlacementRequest, Role, Scheduling, Trace, check_body,
    set_cgroup_parent, set_runtime,
};
use quiet::Certificate;
use serde_json::{Value, json};
use stillmetal_proxy::Placement;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::series::Next;
use crate::certify::Found;
use crate::engine::output::{CLOSE_DEADLINE, Written};
use crate::placement::containers::ContainersError;
use crate::placement::ledger::Token;

/// Marks the containers of series; no user's may carry it.
pub(super) const LABEL: &str = "stillmetal.run";
/// What a run takes beside its canaries and its program, with everything that has a deadline of its
/// own at that deadline.
const SLACK: Duration = Duration::from_secs(400);
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// A container that was made and not started.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) container: String,
    pub(super) token: Token,
    pub(super) cpus: CpuSet,
    next: Next,
}

/// Claims the CPUs, in place of the series' earlier claim, and makes the container.
pub(super) async fn make(
    parts: &Parts,
    role: Role,
    (series, number): (&str, u32),
    request: &RunRequest,
    image: &str,
    next: Next,
    earlier: Option<&Made>,
) -> Result<Made, Denial> {
    let body = body(request, image, next).to_string();
    let facts = parts.certifier.facts();
    let checked = check_body(role, &Endpoint::ContainerCreate, &facts, body.as_bytes())?;
    let (Some(PlacementRequest::Pinned(mut pin)), mut body) = (checked.placement, checked.body)
    else {
        return Err(bad("`cpus` are not isolated CPUs of this node".into()));
    };
    if let Some(earlier) = earlier {
        // the same ones in all of the series
        pin.cpus = CpuChoice::Exact(earlier.cpus.clone());
    }
    let name = format!("stillmetal-run-{series}-{number}");
    let earlier = earlier.map(|earlier| &earlier.token);
    let claimed = parts.certifier.claim_container(&pin, Some(&name), earlier);
    let claimed = claimed.await?;
    set_cgroup_parent(&mut body, &claimed.cgroup_parent);
    if let Some(runtime) = claimed.runtime {
        set_runtime(&mut body, runtime);
    }
    body["Labels"][LABEL] = series.into();
    let made = match serde_json::from_value(body) {
        Ok(body) => parts.client.create(&name, body).await,
        Err(error) => Err(ContainersError::Engine {
            action: "create a container",
            source: Box::new(error),
        }),
    };
    let container = match made {
        Ok(container) => container,
        Err(error) => {
            parts.certifier.abandoned(&claimed.token).await;
            return Err(engine_denial(&error));
        }
    };
    parts.certifier.created(&claimed.token, &container).await;
    let token = Token(claimed.token);
    let claims = parts.placer.claims();
    let own = claims.into_iter().find(|(other, _)| *other == token);
    Ok(Made {
        container,
        cpus: own.map(|(_, claim)| claim.cpus).unwrap_or_default(),
        token,
        next,
    })
}

/// Starts the container and waits for its certificate. The claim is kept afterwards, until
/// [`finish`] or the next [`make`].
pub(super) async fn measure(
    parts: &Parts,
    made: &Made,
    number: u32,
    request: &RunRequest,
    cancel: &CancellationToken,
) -> Result<Attempt, String> {
    let id = made.container.as_str();
    let certifier = &parts.certifier;
    certifier
        .starting(id)
        .await
        .map_err(|denial| denial.message)?;
    // beside the certifier's own hold, which ends with the certificate
    parts.placer.keep(&made.token);
    let started = parts.client.start(id).await;
    certifier.started(id).await;
    started.map_err(|error| crate::chain(&error))?;

    let whole = 2 * request.canary_seconds + request.timeout_seconds;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(whole.into()) + SLACK;
    let text = tokio::select! {
        text = certificate(parts, id, deadline) => text?,
        () = cancel.cancelled() => {
            // its certificate comes when it has ended, and is kept
            parts.client.remove(id).await.map_err(|error| crate::chain(&error))?;
            return Err("cancelled".into());
        }
    };
    let certificate: Certificate = serde_json::from_str(&text)
        .map_err(|error| format!("the certificate of {id} cannot be read: {error}"))?;
    let written = tokio::time::timeout(CLOSE_DEADLINE, parts.client.follow_output(id)).await;
    let written = written.unwrap_or_else(|_elapsed| Written::unknown("the log did not end"));
    Ok(attempt(made, number, &certificate, written))
}

/// Takes the container away.
pub(super) async fn remove(parts: &Parts, made: &Made) {
    match parts.client.remove(&made.container).await {
        Ok(()) | Err(ContainersError::NoSuch { .. }) => {}
        Err(error) => {
            let error = crate::chain(&error);
            tracing::warn!(
                container = made.container,
                error,
                "container of a run stays"
            );
        }
    }
}

async fn certificate(
    parts: &Parts,
    id: &str,
    deadline: tokio::time::Instant,
) -> Result<String, String> {
    loop {
        match parts.certifier.certificate(id, ASK_AGAIN).await {
            Found::Certificate(text) => return Ok(text),
            Found::Nothing => return Err("the run was not measured: see the node's log".into()),
            Found::Measuring if tokio::time::Instant::now() >= deadline => {
                return Err("the run was not over long after its time limit".into());
            }
            Found::Measuring => {}
        }
    }
}

fn attempt(made: &Made, number: u32, certificate: &Certificate, written: Written) -> Attempt {
    let job = &certificate.evidence.job;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let repetition = match made.next {
        Next::Repetition(number) => Some(number),
        Next::Warmup | Next::End(_) => None,
    };
    let reasons = certificate.reasons.iter().chain(
        // what only says why a quiet run is not more than that is no reason
        certificate
            .unproven
            .iter()
            .filter(|reason| !reason.code.starts_with("hw_")),
    );
    Attempt {
        number,
        repetition,
        container: made.container.clone(),
        verdict: repetition.map(|_| certificate.verdict),
        reasons: repetition.map_or_else(Vec::new, |_| {
            reasons.map(|reason| reason.text.clone()).collect()
        }),
        outcome: certificate.outcome,
        failure: job.failure(),
        exit_code: job.exit_code,
        signal: job.signal,
        duration_ns: job.duration_ns(),
        stdout: text(&written.stdout.bytes),
        stderr: text(&written.stderr.bytes),
        truncated: written.stdout.truncated || written.stderr.truncated,
    }
}

/// As a client of the container API would ask for it: the same rules hold.
fn body(request: &RunRequest, image: &str, next: Next) -> Value {
    let scheduling = match (request.fifo, request.nice) {
        (Some(priority), _) => Scheduling::Fifo { priority },
        (None, nice) => Scheduling::Normal {
            nice: nice.unwrap_or(0),
        },
    };
    let certify = Certify {
        canary_seconds: match next {
            Next::Warmup => 0,
            Next::Repetition(_) | Next::End(_) => request.canary_seconds,
        },
        timeout_seconds: Some(request.timeout_seconds),
        tick: request.tick_mode,
        fixed_addresses: request.fixed_addresses,
        scheduling,
        trace: match next {
            Next::Repetition(_) if request.trace => Trace::On,
            Next::Repetition(_) | Next::Warmup | Next::End(_) => Trace::Off,
        },
        ..Certify::of(request.class)
    };
    let mut labels: serde_json::Map<String, Value> = certify
        .labels()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    let mut host = json!({});
    match &request.cpus {
        CpuRequest::Count(count) => {
            labels.insert("stillmetal.cpus".into(), count.to_string().into());
        }
        CpuRequest::Exact(cpus) => host["CpusetCpus"] = cpus.to_string().into(),
    }
    if let Some(bytes) = request.memory_bytes {
        host["Memory"] = bytes.into();
        host["MemorySwap"] = bytes.into();
    }
    let env: Vec<String> = request
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut body = json!({"Image": image, "Env": env, "Labels": labels, "HostConfig": host});
    if !request.argv.is_empty() {
        body["Cmd"] = request.argv.clone().into();
    }
    body
}

pub(super) fn bad(message: String) -> Denial {
    Denial {
        status: 400,
        message,
    }
}

pub(super) fn engine_denial(error: &ContainersError) -> Denial {
    Denial {
        status: 503,
        message: crate::chain(error),
    }
}
