//! Looking at a node: its report through the API, its files and counters past our agent.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use testkit::{Client, Deadline, Docker, Node, images, poll};

/// A node as tests look at it.
pub(crate) struct Looked<'node> {
    pub(crate) node: &'node Node,
    /// As administrator.
    pub(crate) docker: Docker,
    /// As user.
    pub(crate) user: Docker,
}

/// The shared node, with a container on it that sees the host.
pub(crate) fn shared() -> &'static Looked<'static> {
    static LOOKED: LazyLock<Looked<'static>> =
        LazyLock::new(|| at(crate::shared::ready().unwrap()));
    &LOOKED
}

/// Loads the test image and starts the container through which the host is read.
pub(crate) fn at(node: &Node) -> Looked<'_> {
    let docker = node.docker(Client::Admin).unwrap();
    docker.load(&images::busybox().unwrap()).unwrap();
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "observer",
            "--network",
            "host",
            "--pid",
            "host",
            "-v",
            "/:/host:ro,rslave",
            "busybox",
            "sleep",
            "100000",
        ])
        .unwrap();
    let user = node.docker(Client::User).unwrap();
    Looked { node, docker, user }
}

/// A file of the node, read past our agent.
pub(crate) fn host_file(at: &Looked<'_>, path: &str) -> String {
    at.docker
        .run_ok(["exec", "observer", "cat", &format!("/host{path}")])
        .unwrap()
        .text()
}

/// Names in a directory of the node.
pub(crate) fn host_list(at: &Looked<'_>, path: &str) -> Vec<String> {
    let list = ["exec", "observer", "ls", &format!("/host{path}")];
    let text = at.docker.run_ok(list).unwrap().text();
    text.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn host_exists(at: &Looked<'_>, path: &str) -> bool {
    at.docker
        .run(["exec", "observer", "test", "-e", &format!("/host{path}")])
        .unwrap()
        .success()
}

/// As administrator, who is told the cgroups.
pub(crate) fn status(at: &Looked<'_>) -> Value {
    at.node
        .get(Client::Admin, "/stillmetal/v1/node")
        .unwrap()
        .json()
}

/// Claims that hold CPUs now.
pub(crate) fn claims(at: &Looked<'_>) -> Vec<Value> {
    let all = status(at)["claims"].as_array().cloned().unwrap();
    all.into_iter()
        .filter(|claim| claim["state"] != "stopped")
        .collect()
}

/// `Cpus_allowed_list` of a container started with these options.
pub(crate) fn allowed(docker: &Docker, options: &[&str]) -> String {
    let mut command = vec!["run", "--rm"];
    command.extend(options);
    command.extend(["busybox", "grep", "Cpus_allowed_list", "/proc/self/status"]);
    let text = docker.run_ok(command).unwrap().text();
    text.split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned()
}

/// Interrupt counts of one CPU by name, from `/proc/interrupts` itself.
pub(crate) fn interrupts_on(at: &Looked<'_>, cpu: usize) -> BTreeMap<String, u64> {
    let text = host_file(at, "/proc/interrupts");
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let count = rest.split_whitespace().nth(cpu)?.parse().ok()?;
            Some((name.trim().to_owned(), count))
        })
        .collect()
}

/// Waits, with a deadline, until something becomes true.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Deadline::after(Duration::from_secs(90));
    let found = poll(deadline, Duration::from_millis(200), || {
        holds().then_some(())
    });
    assert!(found.is_some(), "within 90 s: {what}");
}
