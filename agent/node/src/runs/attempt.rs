//! One run of a series: a container from its claim to its certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::metric::Readings;
use api::process::CpuRequest;
use api::run::{Attempt, RunRequest};
use cpulist::CpuSet;
use policy::{
    Certify, CpuChoice, Denial, Endpoint, PlacementRequest, Role, Scheduling, Trace, check_body,
    set_cgroup_parent, set_runtime,
};
use quiet::{Certificate, Digest, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stillmetal_proxy::Placement;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::series::Next;
use super::watcher::Watcher;
use super::{Parts, Seat, metrics, resume, unproven};
use crate::certify::Found;
use crate::cgroups;
use crate::engine::output::{CLOSE_DEADLINE, Tails, Written};
use crate::placement::containers::ContainersError;
use crate::placement::ledger::Token;
use crate::tools::{Collecting, Outcomes, Window};

/// Marks the containers of series; no user's may carry it.
pub(super) const LABEL: &str = "stillmetal.run";
/// Marks those among them that a controller's job has run; its value names the attempt.
pub(super) const JOB: &str = "stillmetal.job";
/// Those of one agent, where there may be several.
pub(super) const OWNER: &str = "stillmetal.agent";
/// What a run takes beside its canaries and its program, with everything that has a deadline of its
/// own at that deadline.
pub(super) const SLACK: Duration = Duration::from_secs(400);
/// From the end of a cancelled run's program to its certificate.
const HURRY: Duration = Duration::from_secs(180);
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// A container that was made for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) container: String,
    pub(crate) token: Token,
    pub(crate) cpus: CpuSet,
    pub(crate) next: Next,
}

/// A run that is over.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) run: Attempt,
    /// The text of its certificate.
    pub(super) certificate: Option<String>,
    /// It was ended because the series was cancelled.
    pub(super) cut: bool,
    /// What looked at it.
    pub(super) tools: Outcomes,
}

/// Claims the CPUs, in place of the series' earlier claim, and makes the container.
#[expect(clippy::too_many_arguments, reason = "all that a container is made of")]
pub(super) async fn make(
    parts: &Parts,
    role: Role,
    (series, number): (&str, u32),
    request: &RunRequest,
    image: &str,
    next: Next,
    seat: &Seat,
    earlier: Option<&Made>,
) -> Result<Made, Denial> {
    if let Some(host) = parts.certifier.unproven() {
        let names = (series, number);
        let made = unproven::make(
            parts, host, role, names, request, image, next, seat, earlier,
        );
        return made.await;
    }
    let body = body(request, image, next, seat).to_string();
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
    mark(&mut body, parts, series, seat);
    let container = match create(parts, &name, body).await {
        Ok(container) => container,
        Err(denial) => {
            parts.certifier.abandoned(&claimed.token).await;
            return Err(denial);
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

/// Labels that no user's container may carry.
pub(super) fn mark(body: &mut Value, parts: &Parts, series: &str, seat: &Seat) {
    let labels = &mut body["Labels"];
    labels[LABEL] = series.into();
    if let Some(job) = &seat.job {
        labels[JOB] = job.as_str().into();
    }
    if let Some(owner) = &parts.owner {
        labels[OWNER] = owner.as_str().into();
    }
}

/// Makes a container of a body that policy has checked.
pub(super) async fn create(parts: &Parts, name: &str, body: Value) -> Result<String, Denial> {
    let made = match serde_json::from_value(body) {
        Ok(body) => parts.client.create(name, body).await,
        Err(error) => Err(ContainersError::Engine {
            action: "create a container",
            source: Box::new(error),
        }),
    };
    made.map_err(|error| engine_denial(&error))
}

/// Starts the container and waits for its certificate. The claim is kept afterwards, until it is let
/// go or the next [`make`]. When it is cancelled, its program is killed and what it did until then
/// told.
pub(super) async fn measure(
    parts: &Parts,
    made: &Made,
    number: u32,
    request: &RunRequest,
    cancel: &CancellationToken,
    watcher: &dyn Watcher,
) -> Result<Measured, String> {
    if cancel.is_cancelled() {
        return Err("cancelled".into());
    }
    let id = made.container.as_str();
    let certifier = &parts.certifier;
    let collecting = collecting(parts, made, request).await;
    certifier
        .starting(id)
        .await
        .map_err(|denial| denial.message)?;
    // beside the certifier's own hold, which ends with the certificate
    parts.placer.keep(&made.token);
    if let Some(meter) = collecting.as_ref().and_then(Collecting::meter) {
        certifier.count(id, meter);
    }
    let started = parts.client.start(id).await;
    certifier.started(id).await;
    started.map_err(|error| crate::chain(&error))?;
    if let Some(host) = certifier.unproven() {
        let run = unproven::follow(parts, host, made, number, request, cancel, watcher);
        let run = run.await?;
        // nobody saw when it began: times count from the order to start it
        let tools = outcomes(collecting, number, None).await;
        return Ok(Measured { tools, ..run });
    }

    let whole = 2 * u64::from(request.canary_seconds) + u64::from(request.timeout_seconds);
    let deadline = Instant::now() + Duration::from_secs(whole) + SLACK;
    let mut cut = false;
    let text = tokio::select! {
        text = certificate(parts, id, deadline) => text?,
        () = cancel.cancelled() => {
            cut = true;
            certifier.hurry(id);
            resume::end(parts, id).await?;
            certificate(parts, id, Instant::now() + HURRY).await?
        }
        () = async { watcher.attend(made).await; std::future::pending().await } => {
            unreachable!("pending never is done")
        }
    };
    let certificate: Certificate = serde_json::from_str(&text)
        .map_err(|error| format!("the certificate of {id} cannot be read: {error}"))?;
    let tools = outcomes(collecting, number, window(&certificate)).await;
    let (written, tails) = written(parts, id, request).await;
    let mut run = attempt(made, number, &certificate, written);
    if !cut {
        add_metrics(parts, request, &mut run, tails).await;
    }
    Ok(Measured {
        run,
        certificate: Some(text),
        cut,
        tools,
    })
}

async fn outcomes(collecting: Option<Collecting>, number: u32, window: Option<Window>) -> Outcomes {
    match collecting {
        Some(collecting) => collecting.end(number, window).await,
        None => Outcomes::new(),
    }
}

/// Begins to look at a run that counts; `None`: nothing is to look at it.
async fn collecting(parts: &Parts, made: &Made, request: &RunRequest) -> Option<Collecting> {
    let asked = asked(made.next, request);
    if asked.is_empty() {
        return None;
    }
    let tools = Arc::clone(&parts.tools);
    let cgroup = format!(
        "{}/{}",
        cgroups::partition_name(&made.token),
        made.container
    );
    let token = made.token.clone();
    let begin = move || tools.begin(&asked, cgroup, Some(&token));
    let begun = tokio::task::spawn_blocking(begin).await;
    match begun {
        Ok(collecting) => Some(collecting),
        Err(error) => {
            tracing::error!(%error, "the tools of a run died");
            None
        }
    }
}

/// The tools of a run: warm-ups have none.
pub(super) fn asked(next: Next, request: &RunRequest) -> Vec<collect::Asked> {
    match next {
        // checked before the series began
        Next::Repetition(_) => collect::asked(&request.tools).unwrap_or_default(),
        Next::Warmup | Next::End(_) => Vec::new(),
    }
}

/// From the program's first instruction to the end of its first process.
fn window(certificate: &Certificate) -> Option<Window> {
    let job = &certificate.evidence.job;
    Some(Window {
        begin_ns: job.gate.exec_ns?,
        end_ns: job.ended_ns?,
    })
}

/// What a container that has ended wrote, and the ends of the streams that metrics are read from.
pub(super) async fn written(
    parts: &Parts,
    id: &str,
    request: &RunRequest,
) -> (Written, Result<Tails, String>) {
    let mut tails = metrics::streams(&request.metrics);
    let written = parts.client.follow_tails(id, &mut tails);
    let written = tokio::time::timeout(CLOSE_DEADLINE, written).await;
    let written = written.unwrap_or_else(|_elapsed| Written::unknown("the log did not end"));
    let tails = match &written.output.stdout {
        Digest::Measured { .. } => Ok(tails),
        Digest::Unobservable { why } => Err(format!("what it wrote is not known: {why}")),
    };
    (written, tails)
}

/// Reads the metrics of a run that is over.
pub(super) async fn add_metrics(
    parts: &Parts,
    request: &RunRequest,
    run: &mut Attempt,
    tails: Result<Tails, String>,
) {
    let found = metrics::of_container(&parts.client, &run.container, &request.metrics, tails);
    let found = found.await;
    run.metrics = found.readings;
    metrics::judge(run, found.lack);
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

async fn certificate(parts: &Parts, id: &str, deadline: Instant) -> Result<String, String> {
    loop {
        match parts.certifier.certificate(id, ASK_AGAIN).await {
            Found::Certificate(text) => return Ok(text),
            Found::Nothing => return Err("the run was not measured: see the node's log".into()),
            Found::Measuring if Instant::now() >= deadline => {
                return Err("the run was not over long after its time limit".into());
            }
            Found::Measuring => {}
        }
    }
}

/// What a certificate says of a run.
pub(super) fn attempt(
    made: &Made,
    number: u32,
    certificate: &Certificate,
    written: Written,
) -> Attempt {
    let job = &certificate.evidence.job;
    let counts = matches!(made.next, Next::Repetition(_));
    Attempt {
        verdict: counts.then_some(certificate.verdict),
        reasons: if counts {
            reasons(certificate)
        } else {
            Vec::new()
        },
        outcome: certificate.outcome,
        failure: job.failure(),
        exit_code: job.exit_code,
        signal: job.signal,
        duration_ns: job.duration_ns(),
        ..blank(made, number, written)
    }
}

/// Why it is not more than it is.
pub(super) fn reasons(certificate: &Certificate) -> Vec<String> {
    let all = certificate.reasons.iter().chain(
        // what only says why a quiet run is not more than that is no reason
        certificate
            .unproven
            .iter()
            .filter(|reason| !reason.code.starts_with("hw_")),
    );
    all.map(|reason| reason.text.clone()).collect()
}

/// A run of which nothing is known but what it wrote.
pub(super) fn blank(made: &Made, number: u32, written: Written) -> Attempt {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Attempt {
        number,
        repetition: match made.next {
            Next::Repetition(number) => Some(number),
            Next::Warmup | Next::End(_) => None,
        },
        container: made.container.clone(),
        verdict: None,
        reasons: Vec::new(),
        outcome: Outcome::Unknown,
        failure: None,
        exit_code: None,
        signal: None,
        duration_ns: None,
        metrics: Readings::new(),
        artifacts: BTreeMap::new(),
        tools: api::tool::ToolResults::new(),
        stdout: text(&written.stdout.bytes),
        stderr: text(&written.stderr.bytes),
        truncated: written.stdout.truncated || written.stderr.truncated,
    }
}

/// As a client of the container API would ask for it: the same rules hold.
pub(super) fn body(request: &RunRequest, image: &str, next: Next, seat: &Seat) -> Value {
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
    if !seat.devices.is_empty() {
        let device = |path: &String| json!({"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"});
        host["Devices"] = seat.devices.iter().map(device).collect();
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
