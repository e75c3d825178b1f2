//! The root of the cgroup tree: `/agent` for init and the agent, and the controllers that everything below may use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::log;

pub(crate) const ROOT: &str = "/sys/fs/cgroup";
/// Init, the agent and SSH. Killing every other cgroup leaves these.
pub(crate) const AGENT: &str = "agent";

const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    #[error("create cgroup {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("move init into {path}")]
    Enter { path: PathBuf, source: io::Error },
}

/// Creates `/agent`, moves this process into it, and enables the controllers in the root. A controller that the kernel
/// lacks is a warning: the agent reports what cannot be limited.
pub(crate) fn set_up(root: &Path) -> Result<(), CgroupError> {
    let agent = root.join(AGENT);
    if !agent.is_dir() {
        fs::create_dir(&agent).map_err(|source| CgroupError::Create {
            path: agent.clone(),
            source,
        })?;
    }
    // "0" is whoever writes, in whatever PID namespace.
    fs::write(agent.join("cgroup.procs"), "0").map_err(|source| CgroupError::Enter {
        path: agent.clone(),
        source,
    })?;
    for controller in CONTROLLERS {
        let written = fs::write(
            root.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
        if let Err(error) = written {
            log::warn(&format!(
                "cgroup controller {controller} is not available: {error}"
            ));
        }
    }
    Ok(())
}

/// Kills everything in every cgroup except `/agent`, and says how many cgroups it told to.
pub(crate) fn kill_all_but_agent(root: &Path) -> usize {
    let Ok(entries) = fs::read_dir(root) else {
        return 0;
    };
    let mut killed = 0;
    for entry in entries.flatten() {
        let is_group = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_group && entry.file_name() != AGENT {
            match fs::write(entry.path().join("cgroup.kill"), "1") {
                Ok(()) => killed += 1,
                Err(error) => {
                    log::warn(&format!("kill cgroup {}: {error}", entry.path().display()))
                }
            }
        }
    }
    killed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_up_and_kills_in_a_tree_of_files() {
        let root = tempfile::tempdir().unwrap();
        set_up(root.path()).unwrap();
        assert_eq!(
            fs::read_to_string(root.path().join("agent/cgroup.procs")).unwrap(),
            "0"
        );
        assert_eq!(
            fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(),
            "+pids"
        );
        for group in ["engine", "housekeeping"] {
            fs::create_dir(root.path().join(group)).unwrap();
        }
        assert_eq!(kill_all_but_agent(root.path()), 2);
        assert!(root.path().join("engine/cgroup.kill").exists());
        assert!(!root.path().join("agent/cgroup.kill").exists());
    }
}
