//! A host on which nothing can be proven: none of its CPUs is isolated, or no CPU can be set apart.
//!
//! Such a node takes jobs all the same, if they say that they accept it. Each runs as one ordinary
//! container on CPUs that no other job of this agent has, pinned if the engine can do that; nothing is
//! measured, and the certificate says `unproven` with the reason. Whatever a job asks for that would
//! need more is refused by name ([`Unproven::refuse`]).

use std::sync::{PoisonError, RwLock};

use api::run::RunRequest;
use cpulist::CpuSet;

use crate::engine::client::Abilities;

/// What such a node has instead of isolated CPUs.
#[derive(Debug)]
pub struct Unproven {
    why: String,
    cpus: CpuSet,
    engine: RwLock<Option<Abilities>>,
}

impl Unproven {
    /// `why`: what keeps runs here from being proven; `cpus`: those that jobs are given.
    #[must_use]
    pub fn new(why: String, cpus: CpuSet) -> Self {
        Self {
            why,
            cpus,
            engine: RwLock::default(),
        }
    }

    /// What keeps runs here from being proven.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What jobs are given.
    #[must_use]
    pub fn cpus(&self) -> &CpuSet {
        &self.cpus
    }

    /// What the engine can do, each time it came up.
    pub fn set_engine(&self, abilities: Abilities) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Some(abilities);
    }

    /// Why containers cannot be kept on their CPUs; `None`: they can.
    #[must_use]
    pub fn unpinned(&self) -> Option<String> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let engine = engine.as_ref()?;
        (!engine.cpusets).then(|| {
            format!(
                "the engine cannot keep a container on its CPUs (cgroup driver {}, no cpusets)",
                engine.cgroup_driver
            )
        })
    }

    /// All that keeps a run from being proven, the most important first.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let first = std::iter::once(self.why.clone());
        first.chain(self.unpinned()).collect()
    }

    /// Why a series cannot be run here: what it asks for and cannot have is named, never left out.
    /// `None`: it can.
    #[must_use]
    pub fn refuse(&self, request: &RunRequest) -> Option<String> {
        let asked = [
            ("tick_mode", request.tick_mode.is_some()),
            ("fixed_addresses", request.fixed_addresses),
            ("nice", request.nice.is_some()),
            ("fifo", request.fifo.is_some()),
            ("trace", request.trace),
        ];
        let asked: Vec<&str> = asked
            .iter()
            .filter(|(_, asked)| *asked)
            .map(|(name, _)| *name)
            .collect();
        (!asked.is_empty()).then(|| {
            format!(
                "this host cannot do {}: {}; leave it out, or use a node with isolated CPUs",
                asked.join(", "),
                self.why
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn unproven() -> Unproven {
        Unproven::new(
            "the host has no isolated CPU".into(),
            "1-2".parse().unwrap(),
        )
    }

    fn request(more: &Value) -> RunRequest {
        let mut request = json!({"image": "b", "cpus": 1});
        for (key, value) in more.as_object().unwrap() {
            request[key] = value.clone();
        }
        serde_json::from_value(request).unwrap()
    }

    #[test]
    fn what_needs_a_gate_is_refused_by_name_and_the_rest_is_not() {
        let host = unproven();
        assert_eq!(host.refuse(&request(&json!({"class": "io"}))), None);
        for (name, value) in [
            ("tick_mode", json!("tick")),
            ("fixed_addresses", json!(true)),
            ("nice", json!(-5)),
            ("fifo", json!(1)),
            ("trace", json!(true)),
        ] {
            let why = host.refuse(&request(&json!({name: value}))).unwrap();
            assert!(
                why.contains(name) && why.contains("no isolated CPU"),
                "{why}"
            );
        }
    }

    #[test]
    fn an_engine_without_cpusets_is_one_more_reason() {
        let host = unproven();
        let engine = |cpusets| Abilities {
            cpusets,
            cgroup_driver: "none".into(),
            runtimes: Vec::new(),
        };
        assert_eq!(host.reasons().len(), 1, "not known yet");
        host.set_engine(engine(true));
        assert_eq!(host.reasons(), ["the host has no isolated CPU"]);
        host.set_engine(engine(false));
        let reasons = host.reasons();
        assert_eq!(reasons.len(), 2);
        assert!(reasons[1].contains("cgroup driver none"), "{reasons:?}");
    }
}
