//! What the snapshots of a certificate cost whoever takes them, without a run: for any process of
//! any Linux, so that the figure is not one of an emulator.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpulist::CpuSet;
use host::Tree;
use host::cgroup::{self, Cgroups};
use host::threads::cpu_time;

use super::rhythm::Rhythm;
use super::sampler::Sampler;

/// What was spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    pub snapshots: u32,
    /// By the clock.
    pub elapsed: Duration,
    /// CPU time of the calling thread.
    pub cpu_time: Duration,
}

impl Effort {
    /// Takes snapshots of the process `pid` on `cpus` for `length`, as often as during a run.
    ///
    /// # Errors
    /// When there is no such process, its cgroup cannot be read (no cgroup v2 at
    /// `/sys/fs/cgroup`), or a table of the kernel.
    pub fn spend(
        tree: Arc<dyn Tree>,
        pid: u32,
        cpus: CpuSet,
        length: Duration,
    ) -> io::Result<Self> {
        let cgroup = cgroup::of_process(&*tree, pid)?;
        Cgroups::new(&*tree)
            .procs(&cgroup)
            .map_err(io::Error::other)?;
        let sampler = Sampler::new(tree, cpus, cgroup, Some(pid));
        let (began, spent) = (Instant::now(), cpu_time());
        let mut snapshots = 0;
        let mut rhythm = Rhythm::begin();
        while began.elapsed() < length {
            std::thread::sleep(rhythm.rest());
            sampler.take()?;
            snapshots += 1;
        }
        Ok(Self {
            snapshots,
            elapsed: began.elapsed(),
            cpu_time: cpu_time().saturating_sub(spent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let tree: Arc<dyn Tree> = Arc::new(host::RealTree::live());
        let length = Duration::from_secs(1);
        let error = Effort::spend(tree, u32::MAX, CpuSet::from_iter([0]), length).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(&u32::MAX.to_string()), "{error}");
    }
}
