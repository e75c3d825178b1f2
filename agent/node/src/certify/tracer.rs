//! Records what strikes a job's CPUs one by one, for runs that ask for it
//! (label `stillmetal.trace=true`).
//!
//! The kernel's osnoise tracer, its own workload off, in a tracefs instance of the run
//! (Documentation/trace/osnoise-tracer.rst). Recording puts nothing on the CPUs observed, as long as
//! nobody waits for the buffer (*measured*: a spin stays all zeros). But arming and disarming patch
//! kernel code, for which all CPUs are interrupted some hundred times: so it is armed before the first
//! canary, disarmed after the last, and neither while another certified run is under way.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use cpulist::CpuSet;
use host::Tree;
use quiet::{Interruptions, Tape, Window};

const TRACING: &str = "/sys/kernel/tracing";
const INSTANCES: &str = "/sys/kernel/tracing/instances";
/// Before the names of our instances.
const PREFIX: &str = "stillmetal-";
/// Buffers of all CPUs together, KiB: some 10,000 events of about 50 bytes.
const BUFFER_KIB: usize = 512;
/// Of one CPU.
const MOST_KIB: usize = 256;
const LEAST_KIB: usize = 32;
/// Text of a CPU's buffer: 20 times its bytes at most.
const TRACE_BYTES: u64 = 8 << 20;
/// What is written of a run's events: osnoise's own, and who made which thread, or a forking job's
/// children would be taken for strangers.
const EVENTS: [&str; 2] = ["osnoise/enable", "sched/sched_process_fork/enable"];

/// Why a run is not traced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untraced {
    #[error("another certified run was under way, which arming the tracer would have disturbed")]
    Occupied,
    #[error("this kernel has no osnoise tracer, or no tracefs at {TRACING}")]
    NoTracer,
    #[error("the run was not measured to its end")]
    Unfinished,
    #[error("make {path}")]
    Make { path: String, source: io::Error },
    #[error("write {value} to {path}")]
    Write {
        path: String,
        value: String,
        source: io::Error,
    },
    #[error("read {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} is {found} and not {wanted}")]
    Refused {
        path: String,
        wanted: String,
        found: String,
    },
}

/// An armed tracer; dropping it leaves its instance to [`sweep`].
pub(crate) struct Tracer {
    tree: Arc<dyn Tree>,
    cpus: CpuSet,
    /// Path of the instance.
    instance: String,
}

impl Tracer {
    /// Arms it for the container `id`, whose first process is `first`.
    ///
    /// # Errors
    /// [`Untraced`]; nothing is left behind then.
    pub(crate) fn arm(
        tree: &Arc<dyn Tree>,
        id: &str,
        cpus: &CpuSet,
        first: u32,
    ) -> Result<Self, Untraced> {
        let tracers = tree.read(&format!("{TRACING}/available_tracers"));
        if !tracers.is_ok_and(|all| all.split_ascii_whitespace().any(|one| one == "osnoise")) {
            return Err(Untraced::NoTracer);
        }
        sweep(&**tree);
        let tracer = Self {
            tree: Arc::clone(tree),
            cpus: cpus.clone(),
            instance: format!("{INSTANCES}/{PREFIX}{}", super::run::short(id)),
        };
        let path = &tracer.instance;
        tree.create_dir(path).map_err(|source| Untraced::Make {
            path: path.clone(),
            source,
        })?;
        match tracer.set_up(first) {
            Ok(()) => Ok(tracer),
            Err(why) => {
                sweep(&**tree);
                Err(why)
            }
        }
    }

    fn set_up(&self, first: u32) -> Result<(), Untraced> {
        // the option and the CPUs are the same for all instances
        let options = format!("{TRACING}/osnoise/options");
        self.write(&options, "NO_OSNOISE_WORKLOAD")?;
        self.expect(&options, "NO_OSNOISE_WORKLOAD", |text| {
            text.split_ascii_whitespace()
                .any(|option| option == "NO_OSNOISE_WORKLOAD")
        })?;
        self.expect(
            &format!("{TRACING}/osnoise/cpus"),
            &format!("a list with {}", self.cpus),
            |text| {
                text.parse()
                    .is_ok_and(|all: CpuSet| self.cpus.is_subset(&all))
            },
        )?;
        // instants compare with everything else in a certificate
        self.set("trace_clock", "mono_raw", |text| {
            text.contains("[mono_raw]")
        })?;
        self.set("tracing_cpumask", &self.cpus.to_mask(), |text| {
            CpuSet::from_mask(text).is_ok_and(|cpus| cpus == self.cpus)
        })?;
        let kib = (BUFFER_KIB / self.cpus.len().max(1)).clamp(LEAST_KIB, MOST_KIB);
        // the kernel rounds up to whole pages
        self.set("buffer_size_kb", &kib.to_string(), |text| {
            text.parse::<usize>()
                .is_ok_and(|found| (kib..2 * kib).contains(&found))
        })?;
        // what is there stays: a full buffer loses the end of a run and not its beginning
        self.set("options/overwrite", "0", |text| text == "0")?;
        // a job that sleeps would fill it with the idle thread's turns and its own
        let others = format!("pid != 0 && pid != {first}");
        self.set("events/osnoise/thread_noise/filter", &others, |text| {
            text == others
        })?;
        self.set("current_tracer", "osnoise", |text| text == "osnoise")?;
        for event in EVENTS {
            self.set(&format!("events/{event}"), "1", |text| text == "1")?;
        }
        self.expect(&self.path("tracing_on"), "1", |text| text == "1")
    }

    /// What was recorded within the windows. `own` are the first processes of the job and of the
    /// canaries.
    pub(crate) fn read(&self, own: &BTreeSet<u32>, windows: &[Window]) -> Interruptions {
        let whole = self.running().and_then(|()| {
            let tapes = self.cpus.iter().map(|cpu| self.tape(cpu));
            tapes.collect::<Result<Vec<_>, _>>()
        });
        let tapes = match whole {
            Ok(tapes) => tapes,
            Err(why) => return unobservable(&why),
        };
        let tapes: Vec<Tape<'_>> = tapes
            .iter()
            .map(|(cpu, trace, stats)| Tape {
                cpu: *cpu,
                trace,
                stats,
            })
            .collect();
        let start = windows.iter().map(|window| window.start_ns).min();
        let end = windows.iter().map(|window| window.end_ns).max();
        // without a window there is nothing to explain
        let span = start.zip(end).unwrap_or((u64::MAX, 0));
        Interruptions::recorded(&tapes, own, span)
    }

    /// Whether nobody stopped it meanwhile: then events are missing, and nothing says so.
    fn running(&self) -> Result<(), Untraced> {
        self.expect(&self.path("tracing_on"), "1", |text| text == "1")?;
        self.expect(&self.path("current_tracer"), "osnoise", |text| {
            text == "osnoise"
        })
    }

    fn tape(&self, cpu: u32) -> Result<(u32, String, String), Untraced> {
        let read = |file: &str| {
            let path = self.path(&format!("per_cpu/cpu{cpu}/{file}"));
            let text = self.tree.read_up_to(&path, TRACE_BYTES);
            text.map_err(|source| Untraced::Read { path, source })
        };
        Ok((cpu, read("trace")?, read("stats")?))
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.instance)
    }

    fn set(&self, file: &str, value: &str, holds: impl Fn(&str) -> bool) -> Result<(), Untraced> {
        let path = self.path(file);
        self.write(&path, value)?;
        self.expect(&path, value, holds)
    }

    fn write(&self, path: &str, value: &str) -> Result<(), Untraced> {
        let written = self.tree.write(path, value);
        written.map_err(|source| Untraced::Write {
            path: path.to_owned(),
            value: value.to_owned(),
            source,
        })
    }

    fn expect(
        &self,
        path: &str,
        wanted: &str,
        holds: impl Fn(&str) -> bool,
    ) -> Result<(), Untraced> {
        let found = self.tree.read(path).map_err(|source| Untraced::Read {
            path: path.to_owned(),
            source,
        })?;
        if holds(found.trim()) {
            return Ok(());
        }
        Err(Untraced::Refused {
            path: path.to_owned(),
            wanted: wanted.to_owned(),
            found: found.trim().to_owned(),
        })
    }
}

/// For the certificate. The run's verdict does not hang on it: counters judge, the tracer explains.
pub(crate) fn unobservable(why: &Untraced) -> Interruptions {
    Interruptions::Unobservable {
        why: crate::chain(why),
    }
}

/// Removes our instances, also those of an agent that was killed, which disarms them. To be called
/// while no certified run is under way.
pub(crate) fn sweep(tree: &dyn Tree) {
    // no tracefs: nothing to remove
    for name in tree.list(INSTANCES).unwrap_or_default() {
        if !name.starts_with(PREFIX) {
            continue; // somebody else's
        }
        if let Err(error) = tree.remove_dir(&format!("{INSTANCES}/{name}")) {
            tracing::warn!(instance = %name, %error, "trace instance stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use host::fakes::{FakeTree, OnWrite, TracefsRules};
    use nix::errno::Errno;
    use quiet::{Value, WindowName};

    use super::*;

    const LEFTOVER: &str = "/sys/kernel/tracing/instances/stillmetal-0123456789ab";
    const ID: &str = "1f6647ca13e8bddbcdfa73c18ee2cc031e09c4ebb9238ef678dc6f5abd1d9261";
    const INSTANCE: &str = "/sys/kernel/tracing/instances/stillmetal-1f6647ca13e8";

    fn arm(tree: &FakeTree) -> Result<Tracer, Untraced> {
        let tree: Arc<dyn Tree> = Arc::new(tree.clone());
        Tracer::arm(&tree, ID, &"1,33".parse().unwrap(), 324)
    }

    fn fake() -> FakeTree {
        TracefsRules::new("0-63".parse().unwrap()).tree()
    }

    #[test]
    fn armed_it_records_the_jobs_cpus_only_and_sweeping_disarms_it() {
        let tree = fake();
        tree.create_dir(LEFTOVER).unwrap();
        tree.create_dir("/sys/kernel/tracing/instances/mine")
            .unwrap();
        let tracer = arm(&tree).unwrap();
        assert!(!tree.exists(LEFTOVER), "a killed agent's");
        let get = |file: &str| tree.get(&format!("{INSTANCE}/{file}")).unwrap();
        assert_eq!(get("tracing_cpumask"), "2,00000002");
        assert_eq!(get("events/osnoise/enable"), "1");
        assert_eq!(get("current_tracer"), "osnoise");
        drop(tracer);
        assert!(tree.exists(INSTANCE), "another run may be under way");
        sweep(&tree);
        assert_eq!(
            tree.list(INSTANCES).unwrap(),
            ["mine"],
            "what is not ours is left alone"
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_told_and_nothing_stays() {
        let said = |error: Untraced| crate::chain(&error);
        assert!(matches!(arm(&FakeTree::new()), Err(Untraced::NoTracer)));
        let tree = fake();
        tree.on_write(
            &format!("{INSTANCE}/current_tracer"),
            OnWrite::Fail(Errno::EBUSY),
        );
        let error = said(arm(&tree).err().unwrap());
        assert!(error.contains("current_tracer"), "{error}");
        assert!(!tree.exists(INSTANCE));
        // taken, and not done
        for file in [
            "trace_clock",
            "tracing_cpumask",
            "buffer_size_kb",
            "options/overwrite",
        ] {
            let tree = fake();
            tree.on_write(&format!("{INSTANCE}/{file}"), OnWrite::Sticky);
            let error = said(arm(&tree).err().unwrap());
            assert!(
                error.contains(file) && error.contains(" and not "),
                "{error}"
            );
            assert!(!tree.exists(INSTANCE));
        }
        let tree = TracefsRules::new("0-1".parse().unwrap()).tree();
        let error = said(arm(&tree).err().unwrap());
        assert!(error.contains("osnoise/cpus is 0-1"), "{error}");
    }

    fn window() -> Window {
        let snapshot =
            |taken_ns| quiet::Snapshot::parse(taken_ns, &CpuSet::new(), &quiet::Texts::default());
        let mut watch = quiet::Watch::new(snapshot(1_000_000_000));
        watch.push(snapshot(2_000_000_000));
        watch.finish().named(WindowName::Job)
    }

    #[test]
    fn what_was_recorded_is_read_by_cpu() {
        let tree = fake();
        let tracer = arm(&tree).unwrap();
        let line = "  sh-9 [033] d..3. 1.500000: thread_noise: sh:9 start 1.0 duration 70 ns\n\
                    make-324 [033] ..... 1.200000: sched_process_fork: comm=a pid=324 child_comm=a child_pid=325\n\
                    cc-325 [033] d..3. 1.600000: thread_noise: cc:325 start 1.0 duration 70 ns\n\
                    late-9 [033] d..3. 2.500000: thread_noise: late:9 start 1.0 duration 70 ns\n";
        tree.set(&format!("{INSTANCE}/per_cpu/cpu33/trace"), line);
        tree.set(
            &format!("{INSTANCE}/per_cpu/cpu33/stats"),
            "overrun: 0\ncommit overrun: 0\ndropped events: 6",
        );
        let own = BTreeSet::from([324]);
        let Interruptions::Recorded { dropped, events } = tracer.read(&own, &[window()]) else {
            panic!("nothing was recorded");
        };
        let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["sh:9"]);
        let dropped: Vec<_> = dropped
            .into_iter()
            .map(|one| (one.cpu, one.count))
            .collect();
        assert_eq!(dropped, [(1, Value::Measured(0)), (33, Value::Measured(6))]);
        let Interruptions::Recorded { events, .. } = tracer.read(&own, &[]) else {
            panic!("nothing was recorded");
        };
        assert_eq!(events, []);
    }

    #[test]
    fn a_tracer_that_somebody_stopped_has_not_seen_everything() {
        let tree = fake();
        let tracer = arm(&tree).unwrap();
        tree.set(&format!("{INSTANCE}/tracing_on"), "0");
        let Interruptions::Unobservable { why } = tracer.read(&BTreeSet::new(), &[window()]) else {
            panic!("it was off");
        };
        assert!(why.contains("tracing_on is 0 and not 1"), "{why}");
    }
}
