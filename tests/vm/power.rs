//! Going down in order, whoever asks; and what is left when parts are killed.

use std::sync::Arc;
use std::time::Duration;

use testkit::{Client, ConfigOptions, Credentials, Ending, Node, OnReset, VmBuilder, images, node};

use crate::look::{self, eventually};

const DOWN: Duration = Duration::from_secs(90);

fn describe(name: &str) -> (VmBuilder, Arc<Credentials>) {
    let credentials = Arc::new(Credentials::generate().unwrap());
    let description = node::describe(name, &credentials, &ConfigOptions::default()).unwrap();
    (description, credentials)
}

#[test]
#[ignore = "boots the image: VM lane"]
fn the_api_powers_off_after_the_containers_had_their_say() {
    let (description, credentials) = describe("poweroff");
    let node = Node::boot_ready(&description, &credentials).unwrap();
    let docker = node.docker(Client::Admin).unwrap();
    docker.load(&images::busybox().unwrap()).unwrap();
    // on SIGTERM the container writes to the console of the machine
    let script =
        "trap 'echo container said goodbye > /con; exit 0' TERM; while :; do sleep 0.2; done";
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "polite",
            "-v",
            "/dev/console:/con",
            "--privileged",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .unwrap();
    let user = node.post(
        Client::User,
        "/stillmetal/v1/power",
        &serde_json::json!({"action": "poweroff"}),
    );
    assert_eq!(user.unwrap().status, 403);
    let answer = node
        .post(
            Client::Admin,
            "/stillmetal/v1/power",
            &serde_json::json!({"action": "poweroff"}),
        )
        .unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(node.vm.wait_exit(DOWN).unwrap(), Ending::PoweredOff);
    let console = node.vm.console_lines();
    let at = |text: &str| console.iter().position(|line| line.text.contains(text));
    assert!(
        at("container said goodbye").is_some(),
        "the container got no SIGTERM"
    );
    assert!(at("stillmetal: going down: poweroff").is_some());
}

#[test]
#[ignore = "boots the image: VM lane"]
fn the_power_button_powers_off_and_ctrl_alt_del_reboots() {
    let (description, credentials) = describe("buttons");
    let node = Node::boot(&description.clone().on_reset(OnReset::End), &credentials).unwrap();
    node.wait_api().unwrap();
    node.vm.ctrl_alt_del().unwrap();
    assert_eq!(node.vm.wait_exit(DOWN).unwrap(), Ending::Reset);
    let node = Node::boot(&description, &credentials).unwrap();
    node.wait_api().unwrap();
    node.vm.power_button().unwrap();
    assert_eq!(node.vm.wait_exit(DOWN).unwrap(), Ending::PoweredOff);
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_panic_of_pid_1_is_told_and_follows_the_policy() {
    for (policy, ending) in [("poweroff", Ending::PoweredOff), ("reboot", Ending::Reset)] {
        let (description, _credentials) = describe("panic");
        let vm = description
            .param("stillmetal.panic_test=1")
            .param(&format!("stillmetal.onfail={policy}"))
            .param("stillmetal.onfail_delay=1")
            .on_reset(OnReset::End)
            .start()
            .unwrap();
        vm.wait_line("panic", Duration::from_secs(120)).unwrap();
        assert_eq!(vm.wait_exit(DOWN).unwrap(), ending, "{policy}");
    }
}

/// The agent, the engine and containers are killed in the middle of a pinned run.
#[test]
#[ignore = "boots the image: VM lane"]
fn killed_parts_come_back_and_find_what_runs() {
    let (description, credentials) = describe("killed");
    let description = description.cpus(3);
    let node = Node::boot_ready(&description, &credentials).unwrap();
    let shared = look::at(&node);
    let docker = &shared.docker;
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "pinned",
            "--cpuset-cpus",
            "1",
            "busybox",
            "sh",
            "-c",
            "while :; do :; done",
        ])
        .unwrap();
    let pid = |name: &str| {
        docker
            .run_ok(["inspect", "-f", "{{.State.Pid}}", name])
            .unwrap()
            .text()
            .trim()
            .to_owned()
    };
    let before = pid("pinned");
    // processes of the node are looked for and killed from a container that sees them; `program`
    // is a shell pattern of the command line, `?` for the zeros between its words
    let each = |program: &str, act: &str| {
        format!(
            "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline) in *{program}*) \
             [ ${{p#/proc/}} -ne $$ ] && {act} ${{p#/proc/}};; esac; done; true"
        )
    };
    // an exec whose engine dies under it is never answered: each has a short deadline, and an
    // unanswered look is a look that saw nothing
    let within = Duration::from_secs(20);
    let pids = |program: &str| {
        let looked = docker
            .command(["exec", "observer", "sh", "-c", &each(program, "echo")])
            .within(within)
            .run();
        looked.map_or_else(|_| String::new(), |output| output.text().trim().to_owned())
    };
    let killer = |program: &str| {
        let mut before = String::new();
        eventually("the program runs", || {
            before = pids(program);
            !before.is_empty()
        });
        // detached and a little later, so that the start of the exec is answered first; what
        // counts is that the process is gone, so the command's own end is not looked at
        let kill = format!("sleep 1; {}", each(program, "kill -9"));
        drop(
            docker
                .command(["exec", "-d", "observer", "sh", "-c", &kill])
                .within(within)
                .run(),
        );
        eventually("another process has taken its place", || {
            let now = pids(program);
            !now.is_empty() && now != before
        });
    };
    for program in [
        "stillmetal-agent?serve",
        "usr/bin/dockerd",
        "usr/bin/containerd?--config",
    ] {
        killer(program);
        eventually("the node answers again", || {
            docker
                .command(["ps"])
                .within(Duration::from_secs(20))
                .run()
                .is_ok_and(|output| output.success())
        });
        assert_eq!(
            pid("pinned"),
            before,
            "the container went on while {program} was killed"
        );
        let refused = docker
            .run(["run", "--rm", "--cpuset-cpus", "1", "busybox", "true"])
            .unwrap();
        assert!(
            refused.error_text().contains("container pinned"),
            "{program}: {}",
            refused.error_text()
        );
    }
    let claims = look::claims(&shared);
    assert_eq!(claims.len(), 1, "{claims:?}");
    // the container itself: its CPU is free again
    docker.run_ok(["kill", "pinned"]).unwrap();
    eventually("the CPU is free", || look::claims(&shared).is_empty());
    docker
        .run_ok(["run", "--rm", "--cpuset-cpus", "1", "busybox", "true"])
        .unwrap();

    // what was measured when the agent was killed is never called quiet
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "watched",
            "--cpuset-cpus",
            "1",
            "--label",
            "stillmetal.certify=true",
            "--label",
            "stillmetal.canary=1",
            "busybox",
            "sh",
            "-c",
            "sleep 20; exit 3",
        ])
        .unwrap();
    killer("stillmetal-agent?serve");
    let verdict = || {
        let format = "{{index .Config.Labels \"stillmetal.verdict\"}} {{.State.Running}}";
        let shown = docker.run(["inspect", "-f", format, "watched"]).unwrap();
        shown.text().trim().to_owned()
    };
    eventually("the interrupted run is unproven", || {
        verdict() == "unproven false"
    });
    eventually("its CPU is free", || look::claims(&shared).is_empty());

    // a thousand orphans, all of them reaped by PID 1
    let orphans = "i=0; while [ $i -lt 1000 ]; do (true &) ; i=$((i+1)); done";
    docker
        .run_ok([
            "run",
            "--rm",
            "--privileged",
            "--pid",
            "host",
            "busybox",
            "sh",
            "-c",
            orphans,
        ])
        .unwrap();
    eventually("no zombie is left", || {
        let script = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
        let output = docker
            .run(["exec", "observer", "sh", "-c", script])
            .unwrap();
        output.text().trim() == "0"
    });

    // everything but PID 1: the kernel does not panic and the API comes back
    let _connection_is_killed_too = docker.run([
        "run",
        "--rm",
        "--privileged",
        "--pid",
        "host",
        "busybox",
        "sh",
        "-c",
        "kill -9 -1",
    ]);
    eventually("the node answers again", || {
        docker
            .command(["ps"])
            .within(Duration::from_secs(20))
            .run()
            .is_ok_and(|output| output.success())
    });
}
