//! Which CPUs a new container asks for.
//!
//! A set inside the isolated CPUs, or label `stillmetal.cpus=N`, becomes a claim that the agent
//! turns into an exclusive partition; the engine must then not see the set (it refuses CPUs that
//! lie in a partition), so it is taken out of the body and kept in the [`Pin`]. Label
//! `stillmetal.certify=true` asks for a noise certificate of the run on those CPUs.

use cpulist::CpuSet;
use quiet::JobClass;
use serde_json::{Map, Value};

use crate::denial::{Denial, shown};
use crate::schema::Read;
use crate::{Certify, CpuChoice, NodeFacts, Pin, PlacementRequest, Trace};

const CPUS_LABEL: &str = "stillmetal.cpus";
const CERTIFY_LABEL: &str = "stillmetal.certify";
const CLASS_LABEL: &str = "stillmetal.class";
const CANARY_LABEL: &str = "stillmetal.canary";
const TRACE_LABEL: &str = "stillmetal.trace";
const PREFIX: &str = "stillmetal.";
/// Seconds that each canary runs when the request does not say (quiet.md §8).
const CANARY_SECONDS: u32 = 5;
const LONGEST_CANARY_SECONDS: u32 = 600;

/// Reads the request and takes the set of a pinned container out of `body`.
pub(crate) fn place(body: &mut Value, node: &NodeFacts) -> Result<PlacementRequest, Denial> {
    let (count, certify) = match body.get("Labels").and_then(Value::as_object) {
        Some(labels) => (check_labels(labels)?, check_certify(labels)?),
        None => (None, None),
    };
    let mut none = Map::new();
    let config = body
        .get_mut("HostConfig")
        .and_then(Value::as_object_mut)
        .unwrap_or(&mut none);
    let asked_cpuset_cpus = config.text("CpusetCpus").to_owned();
    let asked_cpuset_mems = config.text("CpusetMems").to_owned();
    let cpus = parse_list("CpusetCpus", &asked_cpuset_cpus)?;
    let mems = parse_list("CpusetMems", &asked_cpuset_mems)?;
    let choice = match (cpus, count) {
        (Some(_), Some(_)) => {
            return Err(Denial::malformed(format!(
                "--cpuset-cpus and label {CPUS_LABEL} both say which CPUs: give one of them"
            )));
        }
        (Some(cpus), None) => exact(cpus, node)?,
        (None, Some(count)) => Some(counted(count, node)?),
        (None, None) => None,
    };
    let Some(cpus) = choice else {
        if certify.is_some() {
            return Err(Denial::malformed(format!(
                "label {CERTIFY_LABEL} is for containers on isolated CPUs: add --cpuset-cpus or label {CPUS_LABEL}; {}",
                offer(node)
            )));
        }
        return Ok(PlacementRequest::Housekeeping);
    };
    if certify.is_some() {
        certifiable(config)?;
    }
    config.retain(|key, _| key != "CpusetCpus" && key != "CpusetMems");
    Ok(PlacementRequest::Pinned(Pin {
        cpus,
        mems,
        asked_cpuset_cpus,
        asked_cpuset_mems,
        certify,
    }))
}

/// What a measured run excludes: each start is one run, begun by the node.
fn certifiable(config: &Map<String, Value>) -> Result<(), Denial> {
    let restart = config
        .get("RestartPolicy")
        .and_then(Value::as_object)
        .map_or("", |policy| policy.text("Name"));
    if !matches!(restart, "" | "no") {
        return Err(Denial::malformed(format!(
            "label {CERTIFY_LABEL} and --restart {} exclude each other: a restart by the engine would run unmeasured; leave --restart out",
            shown(restart)
        )));
    }
    Ok(())
}

/// Some only for a set inside the isolated CPUs; a housekeeping set stays the engine's business.
fn exact(cpus: CpuSet, node: &NodeFacts) -> Result<Option<CpuChoice>, Denial> {
    let absent = cpus.difference(&node.isolated.union(&node.housekeeping));
    if !absent.is_empty() {
        return Err(Denial::malformed(format!(
            "--cpuset-cpus {cpus} names CPUs that are not online: {absent}; {}",
            offer(node)
        )));
    }
    if cpus.is_subset(&node.housekeeping) {
        return Ok(None);
    }
    fit(node)?;
    if !cpus.is_subset(&node.isolated) {
        return Err(Denial::malformed(format!(
            "--cpuset-cpus {cpus} mixes isolated and housekeeping CPUs: choose from one side; {}",
            offer(node)
        )));
    }
    Ok(Some(CpuChoice::Exact(cpus)))
}

fn counted(count: u32, node: &NodeFacts) -> Result<CpuChoice, Denial> {
    fit(node)?;
    if usize::try_from(count).is_ok_and(|count| count > node.isolated.len()) {
        return Err(Denial::placement(format!(
            "label {CPUS_LABEL}={count} asks for more CPUs than the node isolates: {}; ask for fewer or use a larger node",
            offer(node)
        )));
    }
    Ok(CpuChoice::Count(count))
}

fn fit(node: &NodeFacts) -> Result<(), Denial> {
    let reason = match &node.unfit {
        Some(reason) => reason.as_str(),
        None if node.isolated.is_empty() => "no isolated CPU",
        None => return Ok(()),
    };
    Err(Denial::placement(format!(
        "node unfit: {reason}: pinned work is refused, unpinned containers run; repair the cause or use another node"
    )))
}

fn offer(node: &NodeFacts) -> String {
    let list = |cpus: &CpuSet| {
        if cpus.is_empty() {
            "none".to_owned()
        } else {
            cpus.to_string()
        }
    };
    format!(
        "isolated: {}, housekeeping: {}",
        list(&node.isolated),
        list(&node.housekeeping)
    )
}

/// The engine's own list form: numbers and ranges. Empty is none.
fn parse_list(key: &str, text: &str) -> Result<Option<CpuSet>, Denial> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |why: &str| {
        Denial::malformed(format!(
            "HostConfig.{key} {} is not a list like 0-2,5: {why}; correct it",
            shown(text)
        ))
    };
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-'))
    {
        return Err(bad("only digits, `,` and `-` are allowed"));
    }
    text.parse::<CpuSet>()
        .map(Some)
        .map_err(|error| bad(&error.to_string()))
}

/// Checks the labels of our namespace; the value of `stillmetal.cpus` if it is there.
fn check_labels(labels: &Map<String, Value>) -> Result<Option<u32>, Denial> {
    for key in labels.keys().filter(|key| key.starts_with(PREFIX)) {
        if ![
            CPUS_LABEL,
            CERTIFY_LABEL,
            CLASS_LABEL,
            CANARY_LABEL,
            TRACE_LABEL,
        ]
        .contains(&key.as_str())
        {
            return Err(Denial::malformed(format!(
                "label {} is not one of this node's: labels `{PREFIX}*` are {CPUS_LABEL}, {CERTIFY_LABEL}, {CLASS_LABEL}, {CANARY_LABEL} and {TRACE_LABEL}; use another prefix for yours",
                shown(key)
            )));
        }
    }
    if !labels.contains_key(CPUS_LABEL) {
        return Ok(None);
    }
    let text = labels.text(CPUS_LABEL);
    let digits = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(count) if digits && count > 0 => Ok(Some(count)),
        _ => Err(Denial::malformed(format!(
            "label {CPUS_LABEL}={} is not a positive number of CPUs: write {CPUS_LABEL}=2",
            shown(text)
        ))),
    }
}

/// A label that is a switch; off unless it is there.
fn is_true(labels: &Map<String, Value>, key: &str) -> Result<bool, Denial> {
    match labels.text(key) {
        "true" => Ok(true),
        "" | "false" => Ok(false),
        other => Err(Denial::malformed(format!(
            "label {key}={} is neither true nor false",
            shown(other)
        ))),
    }
}

/// `stillmetal.certify=true` with how it is to be done, if the labels ask for it.
fn check_certify(labels: &Map<String, Value>) -> Result<Option<Certify>, Denial> {
    if !is_true(labels, CERTIFY_LABEL)? {
        for key in [CLASS_LABEL, CANARY_LABEL, TRACE_LABEL] {
            if labels.contains_key(key) {
                return Err(Denial::malformed(format!(
                    "label {key} says how to certify, and {CERTIFY_LABEL}=true is missing: add it or leave {key} out"
                )));
            }
        }
        return Ok(None);
    }
    let class = match labels.text(CLASS_LABEL) {
        "" => JobClass::default(),
        text => text
            .parse()
            .map_err(|error| Denial::malformed(format!("label {CLASS_LABEL}={text}: {error}")))?,
    };
    let canary_seconds = match labels.text(CANARY_LABEL) {
        "" => CANARY_SECONDS,
        text => text
            .parse()
            .ok()
            .filter(|seconds| *seconds <= LONGEST_CANARY_SECONDS)
            .ok_or_else(|| {
                Denial::malformed(format!(
                    "label {CANARY_LABEL}={} is no number of seconds from 0 (no canary: nothing is proven) to {LONGEST_CANARY_SECONDS}",
                    shown(text)
                ))
            })?,
    };
    Ok(Some(Certify {
        class,
        canary_seconds,
        trace: if is_true(labels, TRACE_LABEL)? {
            Trace::On
        } else {
            Trace::Off
        },
    }))
}
