//! The built gate, in a mount namespace with its fixed paths. `scripts/test-root` runs it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod node;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use gate::page::{self, Orders, State};
use node::{Node, command, finish, gated, hold, later, now, told};

/// What a process can see of itself and what does not change from one run to the next.
const LOOKS: [&[&str]; 8] = [
    &["cat", "/proc/self/cmdline", "--", "/proc/self/environ"],
    &[
        "../bin/cat",
        "/proc/self/limits",
        "/proc/self/personality",
        "/proc/self/cgroup",
    ],
    &[
        "/bin/grep",
        "-E",
        "^(Umask|[UG]id|Groups|S[hi][gd](Pnd|Blk|Ign|Cgt)|Cap|No|Sec|Cpus|THP)",
        "/proc/self/status",
    ],
    &["ls", "/proc/self/fd"],
    &[
        "readlink",
        "/proc/self/cwd",
        "/proc/self/root",
        "/proc/self/exe",
        "/proc/self/fd/7",
    ],
    &[
        "cat",
        "/proc/self/timerslack_ns",
        "/proc/self/oom_score_adj",
        "/proc/self/coredump_filter",
    ],
    &[
        "printf",
        "[%s]\\n",
        "--canary",
        "",
        "stillmetal-canary",
        "a b\n",
        "*",
    ],
    &["nice"],
];

/// Runs a program with an open file, a blocked and an ignored signal, as some user.
fn surrounded(argv: &[&str], user: u32) -> Command {
    let prepare = "exec 7</etc/passwd; exec \"$@\"";
    let signals = ["env", "--block-signal=USR1", "--ignore-signal=HUP"];
    let argv = [&["-c", prepare, "sh"], signals.as_slice(), argv].concat();
    let mut command = command("/bin/sh", &argv);
    command
        .env("EMPTY", "")
        .env("PATH_", "x=y=z")
        .current_dir("/usr/lib");
    command.uid(user).gid(user);
    command
}

#[test]
#[ignore = "needs root: root lane"]
fn the_program_sees_no_difference() {
    for user in [0, 1234] {
        for look in LOOKS {
            let node = Node::new(&hold());
            let plain = finish(surrounded(look, user).spawn().unwrap());
            let argv = [&[gate::GATE_PATH], look].concat();
            let held = surrounded(&argv, user).spawn().unwrap();
            node.reach(State::Waiting);
            node.release();
            assert_eq!(told(&finish(held)), told(&plain), "{look:?} as {user}");
            assert_eq!(plain.status.code(), Some(0), "{look:?}");
            assert_eq!(node.state(), State::Executing);
        }
    }
}

#[test]
#[ignore = "needs root: root lane"]
fn nothing_runs_before_the_instant() {
    let node = Node::new(&hold());
    let held = gated(&["sh", "-c", "exit 42"]).spawn().unwrap();
    node.reach(State::Waiting);
    node.order(page::Command::Spin);
    // spinning needs no instant yet
    node.reach(State::Spinning);
    assert_eq!(node.report().exec_ns.into_inner(), 0);
    let release = later(Duration::from_millis(50));
    node.release_at(release);
    assert_eq!(finish(held).status.code(), Some(42));
    let let_go = node.report().exec_ns.into_inner();
    assert!(let_go >= release, "{let_go} is before {release}");
}

#[test]
#[ignore = "needs root: root lane"]
fn what_cannot_run_is_told_at_once() {
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["foo"],
            127,
            "exec: \"foo\": executable file not found in $PATH",
        ),
        (
            &["./foo", "x"],
            127,
            "exec: \"./foo\": no such file or directory",
        ),
        (
            &["/etc/passwd"],
            126,
            "exec: \"/etc/passwd\": permission denied",
        ),
        (&["/etc"], 126, "exec: \"/etc\": is a directory"),
        (
            &["/etc/passwd/x"],
            126,
            "exec: \"/etc/passwd/x\": not a directory",
        ),
        (&[], 127, "no program was given"),
    ];
    for (argv, code, message) in cases {
        let node = Node::new(&hold());
        let output = finish(gated(argv).spawn().unwrap());
        let message = format!("stillmetal-gate: {message}\n");
        assert_eq!(told(&output), (Some(code), String::new(), message));
        assert_eq!(node.state(), State::Failed);
    }
}

#[test]
#[ignore = "needs root: root lane"]
fn without_path_nothing_is_searched() {
    let _node = Node::new(&hold());
    let output = finish(gated(&["true"]).env_remove("PATH").spawn().unwrap());
    assert_eq!(output.status.code(), Some(127));
}

#[test]
#[ignore = "needs root: root lane"]
fn a_script_without_interpreter_is_not_executable() {
    let cases = [
        ("true\n", 126, "exec format error"),
        ("#!/no/such\n", 127, "no such file or directory"),
    ];
    for (text, code, reason) in cases {
        let node = Node::new(&hold());
        std::fs::write("/dev/script", text).unwrap();
        finish(command("chmod", &["755", "/dev/script"]).spawn().unwrap());
        let held = gated(&["/dev/script"]).spawn().unwrap();
        node.reach(State::Waiting);
        node.release();
        let message = format!("stillmetal-gate: exec: \"/dev/script\": {reason}\n");
        assert_eq!(told(&finish(held)), (Some(code), String::new(), message));
        assert_eq!(node.state(), State::Failed);
    }
}

#[test]
#[ignore = "needs root: root lane"]
fn the_gate_never_waits_for_ever() {
    let forgotten = "stillmetal-gate: the node did not release this benchmark within 0 s (its agent may have been restarted): not run\n";
    for command in [page::Command::Hold, page::Command::Spin] {
        let node = Node::new(&Orders::new(later(Duration::from_millis(200))));
        node.order(command);
        let output = finish(gated(&["true"]).spawn().unwrap());
        assert_eq!(
            told(&output),
            (Some(125), String::new(), forgotten.to_owned())
        );
        assert_eq!(node.state(), State::Failed);
    }
    let _node = Node::new(&Orders::new(0));
    let output = finish(gated(&["true"]).spawn().unwrap());
    assert_eq!(output.status.code(), Some(125));
}

#[test]
#[ignore = "needs root: root lane"]
fn the_agent_can_withdraw_the_benchmark() {
    let withdrawn = "stillmetal-gate: the node withdrew this benchmark after 0 s: not run\n";
    for spin in [false, true] {
        let node = Node::new(&hold());
        let held = gated(&["true"]).spawn().unwrap();
        node.reach(State::Waiting);
        if spin {
            node.order(page::Command::Spin);
            node.reach(State::Spinning);
        }
        node.order(page::Command::GiveUp);
        let (code, _, message) = told(&finish(held));
        assert_eq!(code, Some(125));
        // the seconds are those of a machine that may be busy
        assert_eq!(message[..51], withdrawn[..51]);
        assert_eq!(node.state(), State::Failed);
    }
}

#[test]
#[ignore = "needs root: root lane"]
fn a_page_of_somebody_else_is_refused() {
    let strange =
        "stillmetal-gate: /dev/.stillmetal/control is no control page of this gate's version\n";
    let version = Orders {
        version: (page::VERSION + 1).into(),
        ..hold()
    };
    for orders in [Orders::default(), version] {
        let _node = Node::new(&orders);
        let output = finish(gated(&["true"]).spawn().unwrap());
        assert_eq!(
            told(&output),
            (Some(125), String::new(), strange.to_owned())
        );
    }
    let node = Node::new(&hold());
    node.control().set_len(100).unwrap();
    assert_eq!(
        finish(gated(&["true"]).spawn().unwrap()).status.code(),
        Some(125)
    );
    std::fs::remove_file(gate::CONTROL_PATH).unwrap();
    assert_eq!(
        finish(gated(&["true"]).spawn().unwrap()).status.code(),
        Some(125)
    );
}

#[test]
#[ignore = "needs root: root lane"]
fn an_image_of_one_file_and_a_read_only_root_will_do() {
    use nix::mount::{MsFlags, mount};

    let node = Node::new(&hold());
    let none = None::<&str>;
    for directory in ["/dev/root", "/dev/root/dev"] {
        std::fs::create_dir(directory).unwrap();
    }
    // the gate itself is a static program that says something
    std::fs::copy(gate::GATE_PATH, "/dev/root/program").unwrap();
    mount(Some("/dev/root"), "/dev/root", none, MsFlags::MS_BIND, none).unwrap();
    std::fs::create_dir("/dev/root/dev/.stillmetal").unwrap();
    mount(
        Some("/dev/.stillmetal"),
        "/dev/root/dev/.stillmetal",
        none,
        MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, "/dev/root", none, read_only, none).unwrap();
    let argv = ["/dev/root", gate::GATE_PATH, "/program"];
    let held = command("/usr/sbin/chroot", &argv).spawn().unwrap();
    node.reach(State::Waiting);
    node.release();
    let (code, _, message) = told(&finish(held));
    assert_eq!(
        (code, message.as_str()),
        (Some(127), "stillmetal-gate: no program was given\n")
    );
    assert!(node.report().exec_ns.into_inner() > 0);
}

/// A canary on the CPU.
fn canary(cpu: usize) -> Command {
    let mut canary = command(gate::GATE_PATH, &[gate::CONTROL_PATH, &cpu.to_string()]);
    canary.arg0(gate::CANARY_NAME);
    canary
}

#[test]
#[ignore = "needs root: root lane"]
fn a_canary_counts_on_its_cpu() {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let cpu = (0..nix::sched::CpuSet::count())
        .rfind(|cpu| allowed.is_set(*cpu).unwrap())
        .unwrap();
    // every turn takes longer than nothing
    let node = Node::new(&Orders {
        gap_threshold_ns: 0.into(),
        ..hold()
    });
    let watching = canary(cpu).spawn().unwrap();
    node.reach(State::Spinning);
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.report().loops.into_inner() < 1000 {
        assert!(Instant::now() < deadline, "the canary does not count");
        std::thread::yield_now();
    }
    let process = format!("/proc/{}", watching.id());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    assert!(
        status.contains(&format!("Cpus_allowed_list:\t{cpu}\n")),
        "{status}"
    );
    assert!(!status.contains("VmLck:\t       0 kB"), "{status}");
    // what else is open was inherited
    for entry in std::fs::read_dir(format!("{process}/fd")).unwrap() {
        let open = std::fs::read_link(entry.unwrap().path()).unwrap();
        assert!(!open.starts_with("/dev/.stillmetal"), "{open:?} is open");
    }
    node.order(page::Command::GiveUp);
    assert_eq!(finish(watching).status.code(), Some(0));
    let report = node.report();
    let (gaps, longest) = (report.gaps.into_inner(), report.gap_max_ns.into_inner());
    assert!(gaps > 0 && gaps <= report.loops.into_inner(), "{gaps} gaps");
    assert!(
        longest > 0 && longest <= report.gap_sum_ns.into_inner(),
        "{longest} ns"
    );
}

#[test]
#[ignore = "needs root: root lane"]
fn a_canary_ends_at_its_deadline() {
    let until = later(Duration::from_millis(100));
    let _node = Node::new(&Orders {
        gap_threshold_ns: u64::MAX.into(),
        ..Orders::new(until)
    });
    let output = finish(canary(0).spawn().unwrap());
    assert_eq!(told(&output), (Some(0), String::new(), String::new()));
    // calibration is good to parts per million
    assert!(now() + 1_000_000 > until);
}
