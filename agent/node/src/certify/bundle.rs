//! The gate goes into a container where it is invisible to Docker: in the OCI configuration, between
//! the engine and runc. `docker inspect` shows the user's own entrypoint, and an image of any kind
//! (no shell, read-only, other user) will do.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::desk::Desk;
use crate::cgroups;

/// Where the image keeps the gate.
pub const GATE: &str = "/usr/lib/stillmetal/gate";
/// The engine's name for the runtime that puts the gate before a container's program
/// (`daemon.json`).
pub const RUNTIME: &str = "stillmetal";

/// A container must not start.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    #[error(
        "container in cgroup {cgroup} is to be certified, and no run of it was begun: start it through the node's API (docker start)"
    )]
    NoRun { cgroup: String },
    #[error("the OCI configuration names no program to run")]
    NoProgram,
}

/// What became of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is none of ours and was left alone.
    Nothing,
    Gate {
        /// The runtime is to ask for the same addresses each time.
        fixed_addresses: bool,
    },
}

/// Puts the gate before the program of a container whose cgroup is a partition's.
///
/// # Errors
/// [`Unready`]: then it must not be started.
pub fn insert_gate(config: &mut Value, run_dir: &Path) -> Result<Inserted, Unready> {
    let cgroup = config
        .pointer("/linux/cgroupsPath")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let Some((parent, container)) = cgroup.rsplit_once('/') else {
        return Ok(Inserted::Nothing);
    };
    let Some(token) = cgroups::token_of(parent) else {
        return Ok(Inserted::Nothing);
    };
    let desk = Desk::at(run_dir, &token);
    if desk.container().as_deref() != Some(container) {
        return Err(Unready::NoRun { cgroup });
    }
    let arguments = config
        .pointer_mut("/process/args")
        .and_then(Value::as_array_mut)
        .filter(|arguments| !arguments.is_empty())
        .ok_or(Unready::NoProgram)?;
    arguments.insert(0, gate::GATE_PATH.into());
    let mounts = config
        .as_object_mut()
        .map(|config| config.entry("mounts").or_insert_with(|| json!([])))
        .and_then(Value::as_array_mut)
        .ok_or(Unready::NoProgram)?;
    // a container's /dev is a tmpfs of its own, so nothing of this stays in its layers
    mounts.push(bind(GATE.into(), gate::GATE_PATH, &["ro"]));
    mounts.push(bind(desk.control(), gate::CONTROL_PATH, &["rw", "noexec"]));
    Ok(Inserted::Gate {
        fixed_addresses: desk.fixed_addresses(),
    })
}

fn bind(source: PathBuf, destination: &str, options: &[&str]) -> Value {
    let mut all = vec!["bind", "nosuid", "nodev"];
    all.extend(options);
    json!({"destination": destination, "type": "bind", "source": source, "options": all})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::ledger::Token;
    use policy::Certify;
    use quiet::JobClass;

    fn config(cgroup: &str) -> Value {
        json!({
            "process": {"args": ["stress-ng", "--cpu", "1"], "user": {"uid": 7}},
            "mounts": [{"destination": "/proc"}],
            "linux": {"cgroupsPath": cgroup}
        })
    }

    #[test]
    fn the_gate_stands_before_the_program_of_a_run_that_was_begun() {
        let run_dir = tempfile::tempdir().unwrap();
        let desk = Desk::at(run_dir.path(), &Token("7f".into()));
        for fixed_addresses in [true, false] {
            let mut certify = Certify::of(JobClass::Compute);
            certify.fixed_addresses = fixed_addresses;
            desk.open("abc", &certify).unwrap();
            assert_eq!(
                insert_gate(&mut config("/stillmetal-7f/abc"), run_dir.path()).unwrap(),
                Inserted::Gate { fixed_addresses }
            );
        }
        let mut changed = config("/stillmetal-7f/abc");
        insert_gate(&mut changed, run_dir.path()).unwrap();
        assert_eq!(
            changed["process"]["args"],
            json!(["/dev/.stillmetal/gate", "stress-ng", "--cpu", "1"])
        );
        assert_eq!(changed["mounts"].as_array().unwrap().len(), 3);
        assert_eq!(changed["process"]["user"], json!({"uid": 7}));
        desk.close();
        let refused = insert_gate(&mut config("/stillmetal-7f/abc"), run_dir.path());
        assert!(matches!(refused, Err(Unready::NoRun { .. })));
    }

    #[test]
    fn nobody_else_passes_the_gate_and_others_are_left_alone() {
        let run_dir = tempfile::tempdir().unwrap();
        Desk::at(run_dir.path(), &Token("7f".into()))
            .open("abc", &Certify::of(JobClass::Compute))
            .unwrap();
        for refused in ["/stillmetal-7f/other", "/stillmetal-80/abc"] {
            assert!(
                insert_gate(&mut config(refused), run_dir.path()).is_err(),
                "{refused}"
            );
        }
        for other in ["/housekeeping/abc", "/stillmetal-7f/buildkit/abc", ""] {
            let mut same = config(other);
            let done = insert_gate(&mut same, run_dir.path()).unwrap();
            assert_eq!(done, Inserted::Nothing, "{other}");
            assert_eq!(same, config(other));
        }
    }
}
