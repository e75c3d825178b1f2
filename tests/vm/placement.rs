//! Where containers run, seen from inside them and in the kernel's own files.

use testkit::{Client, Docker, Output};

use crate::look::{self, allowed};

fn refused(output: &Output) -> String {
    assert_ne!(output.code, Some(0), "{}", output.command);
    output.error_text()
}

#[test]
#[ignore = "boots the image: VM lane"]
fn without_a_pin_a_container_stays_on_the_housekeeping_cpus() {
    let node = look::shared();
    assert_eq!(allowed(&node.docker, &[]), "0");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_pin_is_an_exclusive_partition_that_ends_with_its_container() {
    let node = look::shared();
    assert_eq!(allowed(&node.docker, &["--cpuset-cpus", "1"]), "1");
    let docker = &node.docker;
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "holder",
            "--cpuset-cpus",
            "1",
            "busybox",
            "sleep",
            "1000",
        ])
        .unwrap();
    let claims = look::claims(node);
    let claim = &claims[0];
    assert_eq!(claim["cpus"], "1");
    let cgroup = claim["cgroup"].as_str().unwrap();
    let kind = look::host_file(
        node,
        &format!("/sys/fs/cgroup{cgroup}/cpuset.cpus.partition"),
    );
    assert_eq!(kind.trim(), "isolated");
    let shown = docker
        .run_ok([
            "inspect",
            "-f",
            "{{.HostConfig.CpusetCpus}}|{{.HostConfig.CgroupParent}}",
            "holder",
        ])
        .unwrap()
        .text();
    assert_eq!(shown.trim(), "1|", "inspect shows what the user asked for");

    let second = docker
        .run(["run", "--rm", "--cpuset-cpus", "1,2", "busybox", "true"])
        .unwrap();
    let message = refused(&second);
    assert!(message.contains("container holder"), "{message}");
    docker.run_ok(["rm", "-f", "holder"]).unwrap();
    look::eventually("the partition goes away", || look::claims(node).is_empty());
    assert!(!look::host_exists(node, &format!("/sys/fs/cgroup{cgroup}")));
    docker
        .run_ok(["run", "--rm", "--cpuset-cpus", "1,2", "busybox", "true"])
        .unwrap();
}

#[test]
#[ignore = "boots the image: VM lane"]
fn two_threads_on_two_isolated_cpus_use_both() {
    let node = look::shared();
    let script = "time sh -c '(timeout 5 sh -c \"while :; do :; done\") & \
                  (timeout 5 sh -c \"while :; do :; done\") & wait'";
    let output = node
        .docker
        .run_ok([
            "run",
            "--rm",
            "--label",
            "stillmetal.cpus=2",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .unwrap();
    let text = output.error_text();
    let seconds = |name: &str| -> f64 {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{text}"));
        let rest = line.trim_start_matches(name).trim();
        let (minutes, seconds) = rest.split_once('m').unwrap();
        minutes.trim().parse::<f64>().unwrap() * 60.0
            + seconds.trim().trim_end_matches('s').parse::<f64>().unwrap()
    };
    let rate = (seconds("user") + seconds("sys")) / seconds("real");
    assert!(rate >= 1.9, "{rate} CPU seconds a second: {text}");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn what_would_break_the_quiet_is_refused_with_the_reason() {
    let node = look::shared();
    let try_run = |args: &[&str]| -> String {
        let mut command = vec!["run", "--rm"];
        command.extend(args);
        command.extend(["busybox", "true"]);
        refused(&node.docker.run(command).unwrap())
    };
    let quota = try_run(&["--cpus", "0.5"]);
    assert!(quota.contains("tick"), "{quota}");
    let mixed = try_run(&["--cpuset-cpus", "0,1"]);
    assert!(mixed.contains("isolated"), "{mixed}");
    let offline = try_run(&["--cpuset-cpus", "99"]);
    assert!(offline.contains("99"), "{offline}");
    let parent = try_run(&["--cgroup-parent", "/elsewhere"]);
    assert!(parent.to_lowercase().contains("cgroup"), "{parent}");
    let many = try_run(&["--label", "stillmetal.cpus=7"]);
    assert!(many.contains('7'), "{many}");
    let nonsense = try_run(&["--label", "stillmetal.cpus=all"]);
    assert!(nonsense.contains("stillmetal.cpus"), "{nonsense}");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_refused_rm_container_leaves_nothing_and_the_client_does_not_hang() {
    let node = look::shared();
    let docker = &node.docker;
    docker
        .run_ok([
            "create",
            "--name",
            "first",
            "--cpuset-cpus",
            "2",
            "busybox",
            "sleep",
            "1000",
        ])
        .unwrap();
    docker.run_ok(["start", "first"]).unwrap();
    docker.run_ok(["stop", "-t", "0", "first"]).unwrap();
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "second",
            "--cpuset-cpus",
            "2",
            "busybox",
            "sleep",
            "1000",
        ])
        .unwrap();
    let message = refused(&docker.run(["start", "first"]).unwrap());
    assert!(message.contains("container second"), "{message}");
    docker.run_ok(["rm", "-f", "second", "first"]).unwrap();
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_restart_keeps_its_cpu() {
    let node = look::shared();
    let docker = &node.docker;
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "again",
            "--cpuset-cpus",
            "2",
            "busybox",
            "sleep",
            "1000",
        ])
        .unwrap();
    docker.run_ok(["restart", "-t", "0", "again"]).unwrap();
    let list = docker
        .run_ok([
            "exec",
            "again",
            "grep",
            "Cpus_allowed_list",
            "/proc/self/status",
        ])
        .unwrap()
        .text();
    assert!(list.trim().ends_with("\t2"), "{list}");
    let cgroup = look::claims(node)[0]["cgroup"].as_str().unwrap().to_owned();
    let kind = look::host_file(
        node,
        &format!("/sys/fs/cgroup{cgroup}/cpuset.cpus.partition"),
    );
    assert_eq!(kind.trim(), "isolated");
    docker.run_ok(["rm", "-f", "again"]).unwrap();
}

#[test]
#[ignore = "boots the image: VM lane"]
fn host_processes_are_placed_and_accounted_like_containers() {
    let node = look::shared();
    let request = serde_json::json!({
        "argv": ["/sbin/stillmetal-agent", "burn", "--seconds", "3", "--threads", "2"],
        "cpus": 2,
    });
    let answer = node
        .node
        .post(Client::Admin, "/stillmetal/v1/processes", &request)
        .unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json()["id"].as_u64().unwrap();
    let status = node
        .node
        .get(
            Client::Admin,
            &format!("/stillmetal/v1/processes/{id}?wait=60"),
        )
        .unwrap()
        .json();
    assert_eq!(status["state"], "exited", "{status}");
    assert_eq!(status["exit_code"], 0, "{status}");
    assert_eq!(status["cpus_allowed"], "1-2", "{status}");
    let used = status["cpu_usec"].as_u64().unwrap();
    assert!(used >= 5_700_000, "2 threads for 3 s used {used} µs");
    assert!(look::claims(node).is_empty());

    let denied = node
        .node
        .post(Client::User, "/stillmetal/v1/processes", &request)
        .unwrap();
    assert_eq!(denied.status, 403, "{}", denied.text());
    let endless = serde_json::json!({
        "argv": ["/sbin/stillmetal-agent", "burn", "--seconds", "600"], "cpus": "1", "timeout_seconds": 1,
    });
    let answer = node
        .node
        .post(Client::Admin, "/stillmetal/v1/processes", &endless)
        .unwrap();
    let id = answer.json()["id"].as_u64().unwrap();
    let status = node
        .node
        .get(
            Client::Admin,
            &format!("/stillmetal/v1/processes/{id}?wait=60"),
        )
        .unwrap()
        .json();
    assert_eq!(status["timed_out"], true, "{status}");
    assert_eq!(status["signal"], 9, "{status}");
}

/// A spin in a container on an isolated CPU, counted by a container that reads the kernel's files.
#[test]
#[ignore = "boots the image: VM lane"]
fn an_isolated_cpu_is_silent_under_a_spinning_container() {
    let node = look::shared();
    let docker: &Docker = &node.docker;
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "spin",
            "--cpuset-cpus",
            "1",
            "busybox",
            "sh",
            "-c",
            "while :; do :; done",
        ])
        .unwrap();
    let before = look::interrupts_on(node, 1);
    // the length of the measured window
    std::thread::sleep(std::time::Duration::from_secs(20));
    let after = look::interrupts_on(node, 1);
    docker.run_ok(["rm", "-f", "spin"]).unwrap();
    let delta: Vec<(String, u64)> = after
        .iter()
        .map(|(name, count)| (name.clone(), count - before.get(name).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let timer: u64 = delta
        .iter()
        .filter(|(name, _)| name == "LOC")
        .map(|(_, count)| count)
        .sum();
    let other: Vec<_> = delta.iter().filter(|(name, _)| name != "LOC").collect();
    assert!(timer <= 1, "timer interrupts in 20 s: {timer}");
    assert!(other.is_empty(), "other interrupts in 20 s: {other:?}");
}
