use std::io;
use std::sync::{Arc, RwLock};

use api::report::Report;
use cpulist::CpuSet;
use host::fakes::{FakePerf, FakeTree, OnWrite};
use host::perf::{Count, EventCode};
use host::{Hold, Kept};
use nix::errno::Errno;
use serde_json::{Value, json};
use stillmetal_work::folder::Folder;

use super::*;
use crate::engine::client::EngineClient;
use crate::since_boot;

const AMD: &str = include_str!("../../tests/fixtures/hardware/amd.txt");
const INTEL: &str = include_str!("../../tests/fixtures/hardware/intel.txt");
const VIRTUAL: &str = include_str!("../../tests/fixtures/hardware/vm.txt");
const CGROUP: &str = "stillmetal-t1/c1";

/// What every machine has, beside its hardware.
fn system(tree: &FakeTree) {
    for (path, text) in [
        (
            "/proc/interrupts",
            "  CPU0 CPU1\nLOC: 5 7 Local timer interrupts\n",
        ),
        ("/proc/softirqs", "  CPU0 CPU1\nTIMER: 3 0\n"),
        ("/proc/meminfo", "MemFree: 2 kB\n"),
        ("/proc/vmstat", "pswpin 0\n"),
        ("/proc/net/dev", " lo: 1 2 3 4 0 0 0 0 9 10 11 12 0 0 0 0\n"),
        ("/proc/diskstats", " 254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n"),
        ("/proc/sys/kernel/perf_event_paranoid", "2\n"),
    ] {
        tree.set(path, text);
    }
}

struct Rig {
    _folder: tempfile::TempDir,
    tree: FakeTree,
    perf: FakePerf,
    placer: Arc<Placer>,
    toolbox: Toolbox,
}

fn report(housekeeping: &str, hypervisor: bool) -> Report {
    let report = json!({
        "state": "fit",
        "cpus": {
            "online": "0-3", "present": "0-3", "isolated": "1", "housekeeping": housekeeping,
            "nohz_full": "1", "boot_isolated": "", "offlined_siblings": "", "numa_nodes": {},
        },
        "cpufreq_drivers": {}, "hypervisor": hypervisor, "clocksource": null, "warnings": [], "knobs": [],
        "irqs_unmovable": [], "kthreads_unmovable": [],
    });
    serde_json::from_value(report).unwrap()
}

/// A node on this hardware, whose thread may be placed: every thread of this process is known.
fn rig(fixture: &str, housekeeping: &str) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let tree = FakeTree::from_fixture(fixture);
    system(&tree);
    let shared: Arc<dyn Tree> = Arc::new(AnyThread(tree.clone()));
    let engine = Arc::new(EngineClient::new(&folder.path().join("none.sock")));
    let placer = Placer::open(
        &folder.path().join("claims"),
        Arc::clone(&shared),
        engine,
        since_boot,
        Token::random,
    );
    let placer = Arc::new(placer.unwrap());
    let hypervisor = fixture == VIRTUAL;
    let perf = FakePerf::new();
    let toolbox = Toolbox::new(Parts {
        tree: shared,
        perf: Arc::new(perf.clone()),
        placer: Arc::clone(&placer),
        report: Arc::new(RwLock::new(Some(report(housekeeping, hypervisor)))),
    });
    Rig {
        _folder: folder,
        tree,
        perf,
        placer,
        toolbox,
    }
}

/// A tree in which every thread is found that somebody wants to move.
struct AnyThread(FakeTree);

impl Tree for AnyThread {
    fn read_up_to(&self, path: &str, limit: u64) -> io::Result<String> {
        self.0.read_up_to(path, limit)
    }
    fn keep_open(&self, path: &str) -> io::Result<Box<dyn Kept>> {
        self.0.keep_open(path)
    }
    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        self.0.write(path, text)
    }
    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn exists(&self, path: &str) -> bool {
        self.0.exists(path)
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.0.remove_dir(path)
    }
    fn hold(&self, path: &str, bytes: &[u8]) -> io::Result<Hold> {
        self.0.hold(path, bytes)
    }
    fn set_affinity(&self, tid: u32, cpus: &CpuSet) -> io::Result<()> {
        let status = format!("/proc/{tid}/status");
        if !self.0.exists(&status) {
            self.0.set(&status, "Cpus_allowed_list:\t0-3");
            if self.0.exists("/test/threads-are-fixed") {
                self.0.on_write(&status, OnWrite::Fail(Errno::EINVAL));
            }
        }
        self.0.set_affinity(tid, cpus)
    }
}

fn asked(words: &[&str]) -> Vec<Asked> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    collect::asked(&words).unwrap()
}

fn event(name: &str) -> EventCode {
    let event = collect::Event::parse(name).unwrap();
    EventCode {
        kind: event.family().number(),
        config: event.config(),
    }
}

impl Rig {
    fn counts(&self, name: &str, value: u64, running_ns: u64) {
        let count = Count {
            value,
            enabled_ns: 100,
            running_ns,
        };
        self.perf.set(event(name), count);
    }

    /// All of a run of the program 42 in its cgroup.
    async fn run(&self, words: &[&str]) -> Vec<(Tool, Outcome)> {
        let toolbox = &self.toolbox;
        let collecting = toolbox.begin(&asked(words), CGROUP.into(), None);
        let begin_ns = raw_ns();
        if let Some(meter) = collecting.meter() {
            meter.attach(42);
        }
        let end_ns = raw_ns();
        collecting.end(7, Some(Window { begin_ns, end_ns })).await
    }

    async fn missing(&self, words: &[&str]) -> String {
        match &self.run(words).await[..] {
            [(_, Outcome::Missing(why))] => why.clone(),
            other => panic!("{other:?}"),
        }
    }
}

/// A series' first line and its rows.
fn read(outcome: &Outcome) -> (Value, Vec<Vec<Option<i64>>>) {
    let Outcome::Collected { text, .. } = outcome else {
        panic!("{outcome:?}");
    };
    let mut lines = text.lines();
    let head = serde_json::from_str(lines.next().unwrap()).unwrap();
    let rows = lines.map(|line| serde_json::from_str(line).unwrap());
    (head, rows.collect())
}

fn find(outcomes: &[(Tool, Outcome)], wanted: Tool) -> &Outcome {
    let found = outcomes.iter().find(|(tool, _)| *tool == wanted);
    &found
        .unwrap_or_else(|| panic!("{wanted} is not in {outcomes:?}"))
        .1
}

fn column_names(head: &Value) -> Vec<&str> {
    let columns = head["columns"].as_array().unwrap().iter();
    columns
        .map(|column| column["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn each_tool_leaves_a_series_that_covers_the_window() {
    let rig = rig(AMD, "0");
    for cpu in 0..4 {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq");
        rig.tree.set(&path, "2800000\n");
    }
    rig.counts("task-clock", 5_000, 100);
    let root = format!("/sys/fs/cgroup/{CGROUP}");
    rig.tree.set(&format!("{root}/cpu.stat"), "usage_usec 9\n");
    rig.tree.set(&format!("{root}/memory.current"), "4096\n");
    let wanted = ["medium", "perf:task-clock"];
    rig.toolbox.check(&asked(&wanted)).unwrap();
    let outcomes = rig.run(&wanted).await;
    assert_eq!(outcomes.len(), Tool::ALL.len());
    for (tool, outcome) in &outcomes {
        if *tool == Tool::Perf {
            continue;
        }
        let (head, rows) = read(outcome);
        assert_eq!(head["tool"], tool.as_str());
        assert_eq!(head["run"], 7);
        let end = head["window_ns"][1].as_i64().unwrap();
        assert!(rows[0][0].unwrap() <= 0, "{tool}: {rows:?}");
        assert!(rows.last().unwrap()[0].unwrap() >= end, "{tool}: {rows:?}");
    }
    let (memory, _) = read(find(&outcomes, Tool::Memory));
    assert!(column_names(&memory).contains(&"job/memory"), "{memory}");
    let (cpu, _) = read(find(&outcomes, Tool::Cpu));
    assert!(
        cpu["unmoved"]
            .as_array()
            .unwrap()
            .contains(&json!("job/usage"))
    );
    let (temperature, rows) = read(find(&outcomes, Tool::Temperature));
    assert_eq!(
        column_names(&temperature),
        ["k10temp/Tctl", "k10temp/Tccd1"]
    );
    assert_eq!(rows[0][1..], [Some(45_125), Some(42_500)]);
    let nvme = temperature["lost"][0].as_str().unwrap();
    assert!(nvme.contains("nvme/temp1: whether reading it"), "{nvme}");

    let folder = Folder::memory();
    let (results, documents) = keep(&folder, 7, outcomes).await;
    let names: Vec<&str> = documents.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names[0], "tools/7/cpu.jsonl");
    assert_eq!(names.last(), Some(&"tools/7/perf.json"));
    assert_eq!(results.len(), Tool::ALL.len());
    let ToolResult::Collected {
        document, samples, ..
    } = &results["cpu"]
    else {
        panic!("{results:?}");
    };
    assert_eq!((document.as_str(), *samples), ("tools/7/cpu.jsonl", 2));
}

#[tokio::test]
async fn what_cannot_run_is_named_before_the_start_unless_it_is_optional() {
    let rig = rig(VIRTUAL, "0");
    let why = rig
        .toolbox
        .check(&asked(&["light", "energy"]))
        .unwrap_err()
        .why;
    for part in ["tool energy cannot run", "virtual machine", "`energy?`"] {
        assert!(why.contains(part), "{why}");
    }
    rig.toolbox.check(&asked(&["light", "energy?"])).unwrap();
    let outcomes = rig.run(&["light", "energy?"]).await;
    assert_eq!(outcomes.len(), 4);
    assert!(matches!(
        find(&outcomes, Tool::Cpu),
        Outcome::Collected { .. }
    ));
    let folder = Folder::memory();
    let (results, documents) = keep(&folder, 1, outcomes).await;
    assert_eq!(documents.len(), 3);
    let ToolResult::Missing { missing } = &results["energy"] else {
        panic!("{results:?}");
    };
    assert!(missing.contains("virtual machine"), "{missing}");
    for (word, why) in [
        (
            "frequency",
            "no CPU has a cpufreq driver: a virtual machine",
        ),
        ("temperature", "there is no sensor: a virtual machine"),
    ] {
        let error = rig.toolbox.check(&asked(&[word])).unwrap_err().why;
        assert!(error.contains(why), "{error}");
    }
    rig.tree.remove("/proc/diskstats");
    let why = rig.missing(&["disk?"]).await;
    assert_eq!(why, "there is no /proc/diskstats");
}

#[tokio::test]
async fn its_thread_is_on_the_housekeeping_cpus_or_does_nothing() {
    let rig = rig(AMD, "0,2");
    drop(rig.tree.take_writes());
    rig.run(&["light"]).await;
    let writes = rig.tree.take_writes();
    let [(path, cpus)] = &writes[..] else {
        panic!("{writes:?}");
    };
    assert!(
        path.starts_with("/proc/") && path.ends_with("/status"),
        "{path}"
    );
    assert_eq!(cpus, "0,2");
    rig.tree.set("/test/threads-are-fixed", "1");
    let outcomes = rig.run(&["light"]).await;
    assert_eq!(outcomes.len(), 3);
    for (tool, outcome) in outcomes {
        let Outcome::Missing(why) = outcome else {
            panic!("{tool}: {outcome:?}");
        };
        assert!(why.contains("housekeeping CPUs 0,2: "), "{why}");
    }
}

#[tokio::test]
async fn no_cpu_of_a_run_is_interrupted_for_a_reading() {
    // package 1 is asked on CPU 2
    let first = rig(INTEL, "0-1");
    let outcomes = first.run(&["energy", "temperature"]).await;
    let (energy, _) = read(find(&outcomes, Tool::Energy));
    let lost = energy["lost"].to_string();
    assert_eq!(energy["unmoved"], json!(["package-0", "package-0/dram"]));
    assert!(
        lost.contains("package-1: reading it would interrupt CPU 2"),
        "{lost}"
    );
    let (temperature, _) = read(find(&outcomes, Tool::Temperature));
    let lost = temperature["lost"].to_string();
    assert_eq!(column_names(&temperature), ["coretemp/Package id 0"]);
    assert!(
        lost.contains("Package id 1: reading it would interrupt CPU 2"),
        "{lost}"
    );
    assert!(lost.contains("coretemp/Core 1: each core's own"), "{lost}");

    let none = rig(INTEL, "1,3");
    let why = none.missing(&["energy?"]).await;
    assert!(why.contains("would interrupt CPU 0"), "{why}");
}

#[tokio::test]
async fn without_privileges_it_says_what_it_lost() {
    let rig = rig(AMD, "0");
    let energy = "/sys/class/powercap/intel-rapl:0/energy_uj";
    rig.tree.on_read_fail(energy, Errno::EACCES);
    let outcomes = rig.run(&["energy"]).await;
    let (head, _) = read(&outcomes[0].1);
    let lost = head["lost"][0].as_str().unwrap();
    assert!(lost.contains("without privileges"), "{lost}");
    let core = "/sys/class/powercap/intel-rapl:0:0/energy_uj";
    rig.tree.on_read_fail(core, Errno::EACCES);
    let why = rig.toolbox.check(&asked(&["energy"])).unwrap_err().why;
    assert!(why.contains("without privileges"), "{why}");

    for (name, value) in [("task-clock", 5), ("context-switches", 0), ("cycles", 9)] {
        rig.counts(name, value, 100);
    }
    rig.perf.guard();
    let outcomes = rig.run(&["perf?"]).await;
    let Outcome::Collected {
        text,
        samples,
        lost,
        ..
    } = &outcomes[0].1
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!(*samples, 2);
    let counts: Value = serde_json::from_str(text).unwrap();
    let of = |name: &str| {
        let counts = counts["counts"].as_array().unwrap().iter();
        counts.clone().find(|count| count["event"] == name).unwrap()
    };
    assert_eq!(of("cycles")["scope"], "user");
    // a switch of threads is the kernel's: as user it would be none, and that is not true
    let why = of("context-switches")["missing"].as_str().unwrap();
    assert!(why.contains("perf_event_paranoid is 2"), "{why}");
    assert!(
        lost.contains(&"cycles: in user space only".to_owned()),
        "{lost:?}"
    );
}

#[tokio::test]
async fn events_are_counted_and_what_lacks_is_said() {
    let rig = rig(VIRTUAL, "0");
    let why = rig.toolbox.check(&asked(&["perf"])).unwrap_err().why;
    assert!(why.contains("event task-clock: "), "{why}");
    for name in ["task-clock", "context-switches", "page-faults"] {
        rig.counts(name, 11, 100);
    }
    let why = rig
        .toolbox
        .check(&asked(&["perf:task-clock,cycles"]))
        .unwrap_err()
        .why;
    for part in [
        "tool perf cannot run",
        "event cycles",
        "virtual machine",
        "`perf?`",
    ] {
        assert!(why.contains(part), "{why}");
    }
    rig.toolbox.check(&asked(&["perf"])).unwrap();
    assert_eq!(rig.perf.held(), 3);
    let outcomes = rig.run(&["perf"]).await;
    assert_eq!(rig.perf.opened(), ["program 42"; 3]);
    let Outcome::Collected {
        text,
        samples,
        lost,
        ..
    } = &outcomes[0].1
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!((*samples, lost.len()), (3, 5));
    let counts: Value = serde_json::from_str(text).unwrap();
    assert_eq!(counts["schema"], "stillmetal-counts/1");
    assert_eq!(
        counts["counts"][0],
        json!({
            "event": "task-clock", "count": 11, "unit": "ns", "scope": "user and kernel",
            "enabled_ns": 100, "running_ns": 100, "multiplexed": false,
        })
    );
    // what was counted a part of the time is told, and what was never
    rig.counts("page-faults", 5, 40);
    rig.perf.starve(event("task-clock"));
    let outcomes = rig.run(&["perf:page-faults,task-clock"]).await;
    let Outcome::Collected {
        text,
        samples,
        lost,
        ..
    } = &outcomes[0].1
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!(*samples, 1);
    assert!(text.contains("\"multiplexed\": true"), "{text}");
    assert!(
        lost.iter().any(|why| why.contains("40 of 100 ns")),
        "{lost:?}"
    );
    assert!(
        lost.iter().any(|why| why.contains("no counter free")),
        "{lost:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn counting_begins_and_ends_only_while_nothing_is_measured() {
    let rig = rig(AMD, "0");
    rig.counts("task-clock", 1, 100);
    rig.counts("page-faults", 1, 100);
    let (own, other) = (Token("1".into()), Token("2".into()));
    let wanted = asked(&["perf:task-clock"]);
    rig.placer.keep(&other);
    let unable = rig.toolbox.check(&wanted).unwrap_err();
    assert!(
        unable.why.contains("another certified run is under way"),
        "{unable:?}"
    );
    assert!(unable.for_now, "another time, or another node");
    rig.placer.let_go(&other).await;
    rig.toolbox.check(&wanted).unwrap();
    // what is ready stays so for whoever comes; one's own run is no other
    rig.placer.keep(&own);
    rig.toolbox.check(&wanted).unwrap();
    let more = asked(&["perf:page-faults"]);
    assert!(rig.toolbox.check(&more).is_err());
    let collecting = rig.toolbox.begin(&more, CGROUP.into(), Some(&own));
    assert!(collecting.meter().is_some());
    rig.toolbox.settle().await;
    assert_eq!(rig.perf.held(), 2);
    rig.placer.let_go(&own).await;
    rig.toolbox.settle().await;
    assert_eq!(
        rig.perf.held(),
        2,
        "somebody counts, and would close the last"
    );
    drop(collecting);
    rig.toolbox.settle().await;
    assert_eq!(rig.perf.held(), 0);
}

#[tokio::test]
async fn a_run_whose_program_never_began_says_so() {
    let rig = rig(AMD, "0");
    rig.counts("task-clock", 1, 100);
    let wanted = asked(&["cpu", "perf:task-clock"]);
    let collecting = rig.toolbox.begin(&wanted, CGROUP.into(), None);
    let outcomes = collecting.end(1, None).await;
    let (head, rows) = read(&outcomes[0].1);
    assert_eq!(head["window_ns"], Value::Null);
    assert_eq!(rows[0][0], Some(0));
    let Outcome::Missing(why) = &outcomes[1].1 else {
        panic!("{outcomes:?}");
    };
    assert!(why.contains("before its program began"), "{why}");
    // a node that does not know its CPUs yet
    let untuned = Toolbox::new(Parts {
        report: Arc::default(),
        ..rig.toolbox.parts.clone()
    });
    let why = untuned.check(&wanted).unwrap_err().why;
    assert!(why.contains("not finished tuning"), "{why}");
    let outcomes = untuned
        .begin(&wanted, CGROUP.into(), None)
        .end(1, None)
        .await;
    assert_eq!(outcomes.len(), 2);
    let lost = lost(&wanted);
    assert!(matches!(&lost[1], (Tool::Perf, Outcome::Missing(why)) if why.contains("restarted")));
}

#[tokio::test]
async fn a_cgroup_is_counted_on_each_of_its_cpus() {
    let rig = rig(AMD, "0");
    rig.counts("task-clock", 4, 100);
    let wanted = asked(&["perf:task-clock"]);
    let collecting = rig.toolbox.begin(&wanted, "/p/process-job-1".into(), None);
    let cpus: CpuSet = "1-2".parse().unwrap();
    collecting
        .meter()
        .unwrap()
        .attach_cgroup("/p/process-job-1", &cpus);
    let opened = rig.perf.opened();
    assert_eq!(opened[0], "/sys/fs/cgroup/p/process-job-1 on 1");
    let outcomes = collecting.end(1, None).await;
    let Outcome::Collected { text, .. } = &outcomes[0].1 else {
        panic!("{outcomes:?}");
    };
    assert!(text.contains("\"count\": 8"), "{text}");
    assert!(text.contains("whatever ran in the job's cgroup"), "{text}");
}

#[test]
fn moments_of_one_clock_are_found_on_the_other() {
    let at = |monotonic_ns, raw_ns| Clocks {
        monotonic_ns,
        raw_ns,
    };
    let (begun, ended) = (at(1000, 50), at(2010, 1050));
    assert_eq!(begun.monotonic_of(ended, 50), 1000);
    assert_eq!(begun.monotonic_of(ended, 1050), 2010);
    assert_eq!(begun.monotonic_of(ended, 550), 1505);
    assert_eq!(begun.monotonic_of(begun, 50), 1000);
}

/// The same with the kernel's own files and counters, of a program that takes a while.
#[tokio::test]
async fn the_running_kernel_is_seen_and_counted() {
    let fake = rig(AMD, "0");
    let live: Arc<dyn Tree> = Arc::new(host::RealTree::live());
    let online = live.read("/sys/devices/system/cpu/online").unwrap();
    let toolbox = Toolbox::new(Parts {
        tree: live,
        perf: Arc::new(host::perf::KernelPerf),
        placer: Arc::clone(&fake.placer),
        report: Arc::new(RwLock::new(Some(report(online.trim(), true)))),
    });
    let words = [
        "light:100ms",
        "network:100ms",
        "energy?",
        "perf:task-clock,page-faults",
    ];
    let wanted = asked(&words);
    toolbox.check(&wanted).unwrap();
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", "read line; exec sleep 0.5"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let collecting = toolbox.begin(&wanted, "nowhere".into(), None);
    collecting.meter().unwrap().attach(child.id().unwrap());
    let begin_ns = raw_ns();
    drop(child.stdin.take());
    child.wait().await.unwrap();
    let end_ns = raw_ns();
    let outcomes = collecting.end(1, Some(Window { begin_ns, end_ns })).await;
    for tool in [Tool::Cpu, Tool::Interrupts, Tool::Memory, Tool::Network] {
        let (head, rows) = read(find(&outcomes, tool));
        assert!(rows.len() >= 3, "{tool}: {rows:?}");
        let end = head["window_ns"][1].as_i64().unwrap();
        assert!(rows[0][0].unwrap() <= 0 && rows[rows.len() - 1][0].unwrap() >= end);
    }
    let (cpu, rows) = read(find(&outcomes, Tool::Cpu));
    let idle = column_names(&cpu)
        .iter()
        .position(|name| *name == "context_switches");
    let column = idle.unwrap() + 1;
    assert!(rows[rows.len() - 1][column] > rows[0][column], "{cpu}");
    assert!(matches!(find(&outcomes, Tool::Energy), Outcome::Missing(_)));
    let Outcome::Collected { text, samples, .. } = find(&outcomes, Tool::Perf) else {
        panic!("{outcomes:?}");
    };
    assert_eq!(*samples, 2, "{text}");
    let counts: Value = serde_json::from_str(text).unwrap();
    let clock = counts["counts"][0]["count"].as_u64().unwrap();
    // it slept for half a second
    assert!(clock > 0 && clock < 500_000_000, "{text}");
}
