//! A run on a host where nothing can be proven: an ordinary container, from its claim to its end.

use std::time::Duration;

use api::process::CpuRequest;
use api::run::RunRequest;
use policy::{Denial, Endpoint, PlacementRequest, Role, check_body};
use serde_json::Value;
use stillmetal_proxy::Placement;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Made, Measured, SLACK};
use super::resume::{self, Ended};
use super::series::Next;
use super::watcher::Watcher;
use super::{Parts, Seat};
use crate::placement::ledger::{Token, Wish};
use crate::tools::Outcomes;
use crate::unproven::Unproven;

/// The container's claim: there is no cgroup of that name by which it could be found.
pub(crate) const CLAIM: &str = "stillmetal.claim";

/// Takes the CPUs and makes the container, pinned to them if the engine can do that.
#[expect(clippy::too_many_arguments, reason = "all that a container is made of")]
pub(super) async fn make(
    parts: &Parts,
    unproven: &Unproven,
    role: Role,
    (series, number): (&str, u32),
    request: &RunRequest,
    image: &str,
    next: Next,
    seat: &Seat,
    earlier: Option<&Made>,
) -> Result<Made, Denial> {
    let wish = match (earlier, &request.cpus) {
        // the same ones in all of the series
        (Some(earlier), _) => Wish::Exact(earlier.cpus.clone()),
        (None, CpuRequest::Exact(cpus)) => Wish::Exact(cpus.clone()),
        (None, CpuRequest::Count(count)) => Wish::Count(*count),
    };
    let name = format!("stillmetal-run-{series}-{number}");
    let earlier = earlier.map(|earlier| &earlier.token);
    let claim = parts.placer.claim_unproven(wish, &name, earlier);
    let (token, cpus) = claim.await?;
    let pinned = RunRequest {
        cpus: CpuRequest::Exact(cpus.clone()),
        ..request.clone()
    };
    let body = body(unproven, &pinned, image, seat);
    let made = async {
        let facts = parts.certifier.facts();
        let text = body.to_string();
        let checked = check_body(role, &Endpoint::ContainerCreate, &facts, text.as_bytes())?;
        if !matches!(checked.placement, Some(PlacementRequest::Housekeeping)) {
            return Err(attempt::bad("`cpus` are not CPUs of this host".into()));
        }
        let mut body = checked.body;
        attempt::mark(&mut body, parts, series, seat);
        body["Labels"][CLAIM] = token.0.as_str().into();
        attempt::create(parts, &name, body).await
    };
    match made.await {
        Ok(container) => {
            parts.certifier.created(&token.0, &container).await;
            Ok(Made {
                container,
                token,
                cpus,
                next,
            })
        }
        Err(denial) => {
            parts.placer.release(&token);
            Err(denial)
        }
    }
}

/// What a client of the container API would send, without the labels by which a run is measured.
fn body(unproven: &Unproven, request: &RunRequest, image: &str, seat: &Seat) -> Value {
    let mut body = attempt::body(request, image, Next::Warmup, seat);
    body["Labels"] = Value::Object(serde_json::Map::new());
    if unproven.unpinned().is_some()
        && let Some(host) = body["HostConfig"].as_object_mut()
    {
        host.remove("CpusetCpus");
    }
    body
}

/// Waits for the end of a container that has been started.
pub(super) async fn follow(
    parts: &Parts,
    unproven: &Unproven,
    made: &Made,
    number: u32,
    request: &RunRequest,
    cancel: &CancellationToken,
    watcher: &dyn Watcher,
) -> Result<Measured, String> {
    let limit = Instant::now() + Duration::from_secs(request.timeout_seconds.into());
    let ended = tokio::select! {
        ended = resume::wait(parts, &made.container, limit, cancel) => ended?,
        () = async { watcher.attend(made).await; std::future::pending().await } => {
            unreachable!("pending never is done")
        }
    };
    tell(parts, unproven, made, number, request, &ended).await
}

/// The run of a container that has ended.
pub(super) async fn tell(
    parts: &Parts,
    unproven: &Unproven,
    made: &Made,
    number: u32,
    request: &RunRequest,
    ended: &Ended,
) -> Result<Measured, String> {
    let (written, tails) = attempt::written(parts, &made.container, request).await;
    let certified =
        parts
            .certifier
            .certify_unproven(unproven, made, request.class, ended, &written);
    let (certificate, text) = certified.await?;
    let mut run = attempt::attempt(made, number, &certificate, written);
    if run.verdict.is_some() {
        // what else is not known follows from these
        run.reasons = unproven.reasons();
    }
    if !ended.cut {
        attempt::add_metrics(parts, request, &mut run, tails).await;
    }
    Ok(Measured {
        run,
        certificate: text,
        cut: ended.cut,
        tools: Outcomes::new(),
    })
}

/// The latest end of a run of which nobody knows when it began.
pub(super) fn latest(request: &RunRequest) -> Instant {
    Instant::now() + Duration::from_secs(request.timeout_seconds.into()) + SLACK
}

/// The claim that a container's labels tell of.
pub(crate) fn token(label: &str) -> Option<Token> {
    let sound = !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric());
    sound.then(|| Token(label.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::client::Abilities;

    #[test]
    fn it_is_pinned_where_that_can_be_and_carries_no_label_that_would_measure_it() {
        let host = Unproven::new("no isolated CPU".into(), "0-1".parse().unwrap());
        let request = json!({"image": "b", "cpus": "1", "memory_bytes": 64, "argv": ["x"]});
        let request: RunRequest = serde_json::from_value(request).unwrap();
        let seat = Seat {
            devices: vec!["/dev/dri/card0".into()],
            job: None,
        };
        for (cpusets, pinned) in [(true, json!("1")), (false, Value::Null)] {
            host.set_engine(Abilities {
                cpusets,
                cgroup_driver: "systemd".into(),
                runtimes: Vec::new(),
            });
            let body = body(&host, &request, "sha256:1", &seat);
            assert_eq!(body["HostConfig"]["CpusetCpus"], pinned);
            assert_eq!(body["HostConfig"]["Memory"], 64);
            assert_eq!(
                body["HostConfig"]["Devices"][0]["PathOnHost"],
                "/dev/dri/card0"
            );
            assert_eq!(body["Labels"], json!({}));
            assert_eq!(body["Cmd"], json!(["x"]));
        }
    }

    #[test]
    fn only_a_sound_label_names_a_claim() {
        assert_eq!(token("7f"), Some(Token("7f".into())));
        for bad in ["", "a/b", "..", "a b"] {
            assert_eq!(token(bad), None, "{bad}");
        }
    }
}
