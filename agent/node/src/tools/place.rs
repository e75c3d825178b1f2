//! Where a run is, and which CPUs must not be interrupted.

use std::io::ErrorKind;
use std::sync::Arc;

use cpulist::CpuSet;
use host::Tree;
use host::cgroup::ROOT;

/// What tools know of a run and its machine.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) tree: Arc<dyn Tree>,
    /// Only these may be interrupted: any other may be within the window of some run.
    pub(crate) housekeeping: CpuSet,
    pub(crate) virtual_machine: bool,
    /// Below the root of all; empty: there is no run.
    pub(crate) cgroup: String,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("cgroup", &self.cgroup)
            .finish_non_exhaustive()
    }
}

impl Place {
    /// A file of the run's cgroup.
    pub(super) fn of_job(&self, file: &str) -> Option<String> {
        let some = !self.cgroup.is_empty();
        some.then(|| format!("{ROOT}/{}/{file}", self.cgroup.trim_start_matches('/')))
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        Some(self.tree.read(path).ok()?.trim().to_owned())
    }

    /// Whether a file can be read, and if not, why.
    pub(super) fn readable(&self, path: &str) -> Result<(), String> {
        match self.tree.read_up_to(path, super::source::LONGEST) {
            Ok(_) => Ok(()),
            Err(error) => Err(why(path, &error)),
        }
    }

    /// CPUs of a package, the first of which reads what is the package's.
    pub(super) fn may_ask_package(&self, package: u32) -> Result<(), String> {
        let folder = "/sys/devices/system/cpu";
        let names = self.tree.list(folder).unwrap_or_default();
        let cpus = names
            .iter()
            .filter_map(|name| name.strip_prefix("cpu")?.parse::<u32>().ok());
        let own = cpus.filter(|cpu| {
            let path = format!("{folder}/cpu{cpu}/topology/physical_package_id");
            self.text(&path).as_deref() == Some(package.to_string().as_str())
        });
        match own.min() {
            Some(first) if self.housekeeping.contains(first) => Ok(()),
            Some(first) => Err(format!(
                "reading it would interrupt CPU {first}, which may be a run's"
            )),
            None => Err("which CPU reading it would interrupt is not known".into()),
        }
    }
}

/// Why a file cannot be read.
pub(super) fn why(path: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("there is no {path}"),
        ErrorKind::PermissionDenied => {
            format!("{path} cannot be read without privileges: {error}")
        }
        _ => format!("{path} cannot be read: {error}"),
    }
}
