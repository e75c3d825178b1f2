use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stillmetal_init::service::Spec;
use stillmetal_init::shutdown::PowerAction;
use stillmetal_init::supervise::Supervisor;

use super::namespace::{as_pid_one, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

/// An agent that makes 1,000 orphans, waits until they are gone, and asks PID 1 for poweroff.
const ORPHANAGE: &[&str] = &[
    "sh",
    "-c",
    "i=0; while [ $i -lt 1000 ]; do (true & ) ; i=$((i+1)); done; touch /run/made; kill -USR2 1; sleep 1000",
];

fn shell(args: &'static [&'static str]) -> Spec {
    Spec {
        name: "agent",
        program: "/bin/sh",
        args,
        root: None,
        oom_score_adj: 0,
    }
}

fn supervise(services: Vec<Spec>) -> (Supervisor, Vec<PowerAction>) {
    let mut supervisor = Supervisor::new(services, "/run/no-cgroups".into()).unwrap();
    let mut finished = Vec::new();
    supervisor.run(&mut |action| finished.push(action));
    (supervisor, finished)
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect()
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn reaps_a_thousand_orphans_and_powers_off() {
    let body = || {
        let (supervisor, finished) = supervise(vec![shell(ORPHANAGE)]);
        assert_eq!(finished, [PowerAction::Poweroff]);
        assert!(fs::exists("/run/made").unwrap());
        assert!(
            supervisor.orphans_reaped() >= 1000,
            "{}",
            supervisor.orphans_reaped()
        );
        assert_eq!(processes(), [1], "zombies or survivors");
    };
    as_pid_one(DEADLINE, body, |_| {});
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn an_agent_that_dies_is_started_again_with_growing_delays() {
    let body = || {
        let start = Instant::now();
        // Killed twice from the outside, the third one asks for reboot.
        let script: &[&str] = &[
            "sh",
            "-c",
            "echo x >> /run/starts; [ $(wc -l < /run/starts) -lt 3 ] && kill -9 $$; kill -HUP 1; sleep 1000",
        ];
        let (_, finished) = supervise(vec![shell(script)]);
        assert_eq!(finished, [PowerAction::Reboot]);
        assert_eq!(
            fs::read_to_string("/run/starts").unwrap().lines().count(),
            3
        );
        assert!(
            start.elapsed() >= Duration::from_millis(600),
            "0.2 s, then 0.4 s"
        );
    };
    as_pid_one(DEADLINE, body, |_| {});
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn killing_everybody_else_leaves_a_node_that_comes_back() {
    let body = || {
        let killer: &[&str] = &[
            "sh",
            "-c",
            "echo x >> /run/starts; if [ $(wc -l < /run/starts) -lt 2 ]; then sleep 1000 & kill -9 -1; kill -9 $$; fi; kill -TERM 1; sleep 1000",
        ];
        let (_, finished) = supervise(vec![shell(killer)]);
        assert_eq!(finished, [PowerAction::Poweroff]);
        assert_eq!(processes(), [1]);
    };
    as_pid_one(DEADLINE, body, |_| {});
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn the_agent_ends_in_its_own_time_and_stragglers_do_not_stop_the_end() {
    let body = || {
        // The agent needs a second to stop what it runs; somebody else ignores SIGTERM.
        let script: &[&str] = &[
            "sh",
            "-c",
            "trap 'sleep 1; touch /run/orderly; exit 0' TERM; \
             sh -c 'trap \"\" TERM; while true; do sleep 1; done' & \
             kill -PWR 1; while true; do sleep 0.1; done",
        ];
        let start = Instant::now();
        let (_, finished) = supervise(vec![shell(script)]);
        assert_eq!(finished, [PowerAction::Poweroff]);
        assert!(fs::exists("/run/orderly").unwrap());
        assert_eq!(processes(), [1]);
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "{:?}",
            start.elapsed()
        );
    };
    as_pid_one(DEADLINE, body, |_| {});
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn nothing_left_means_no_waiting() {
    let body = || {
        let script: &[&str] = &[
            "sh",
            "-c",
            "trap 'exit 0' TERM; kill -USR2 1; while true; do sleep 0.1; done",
        ];
        let start = Instant::now();
        let (_, finished) = supervise(vec![shell(script)]);
        assert_eq!(finished, [PowerAction::Poweroff]);
        // The grace after SIGTERM is 2 s: with nobody left it is not waited for.
        assert!(
            start.elapsed() < Duration::from_millis(1900),
            "{:?}",
            start.elapsed()
        );
    };
    as_pid_one(DEADLINE, body, |_| {});
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn signals_from_outside_work_and_a_second_one_hurries() {
    // An agent that never ends by itself: without the hurry this would take 40 s.
    let body = || {
        let script: &[&str] = &["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"];
        let start = Instant::now();
        let (_, finished) = supervise(vec![shell(script)]);
        assert_eq!(finished, [PowerAction::Reboot]);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
    };
    let meanwhile = |pid: Pid| {
        // Its signalfd exists once it has a child.
        let children = format!("/proc/{pid}/task/{pid}/children");
        eventually("the agent runs", Duration::from_secs(10), || {
            fs::read_to_string(&children)
                .ok()
                .filter(|list| !list.trim().is_empty())
        });
        kill(pid, Signal::SIGINT).unwrap();
        eventually("SIGINT is taken", Duration::from_secs(10), || {
            no_signal_pending(pid)
        });
        kill(pid, Signal::SIGTERM).unwrap();
    };
    as_pid_one(DEADLINE, body, meanwhile);
}

fn no_signal_pending(pid: Pid) -> Option<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pending = status
        .lines()
        .find_map(|line| line.strip_prefix("ShdPnd:"))?;
    let interrupt = 1u64 << (Signal::SIGINT as u64 - 1);
    let bits = u64::from_str_radix(pending.trim(), 16).ok()?;
    (bits & interrupt == 0).then_some(())
}

#[test]
fn refuses_to_be_anything_but_process_one() {
    let example = std::env::current_exe().unwrap();
    let example = example
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/init");
    let output = Command::new(example).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("process 1"));
}
