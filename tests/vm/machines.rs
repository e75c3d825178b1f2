//! The same image on other machines and command lines.

use std::sync::Arc;
use std::time::Duration;

use testkit::{Client, ConfigOptions, Credentials, Nic, Node, VmBuilder, images, node};

use crate::look::allowed;

fn describe(name: &str, options: &ConfigOptions) -> (VmBuilder, Arc<Credentials>) {
    let credentials = Arc::new(Credentials::generate().unwrap());
    let description = node::describe(name, &credentials, options).unwrap();
    (description, credentials)
}

fn fit(node: &Node) -> String {
    node.vm
        .wait_line("stillmetal: node ", Duration::from_secs(60))
        .unwrap()
        .text
}

#[test]
#[ignore = "boots the image: VM lane"]
fn without_isolation_a_node_is_unfit_and_says_so_but_serves() {
    let (description, credentials) = describe("unfit", &ConfigOptions::default());
    let description = description
        .without_param("nohz_full")
        .without_param("isolcpus");
    let node = Node::boot_ready(&description, &credentials).unwrap();
    assert!(fit(&node).contains("unfit"), "{}", fit(&node));
    let status = node
        .get(Client::User, "/stillmetal/v1/node")
        .unwrap()
        .json();
    assert_eq!(status["state"], "unfit", "{status}");
    let docker = node.docker(Client::User).unwrap();
    docker.load(&images::busybox().unwrap()).unwrap();
    let pinned = docker
        .run([
            "run",
            "--rm",
            "--label",
            "stillmetal.cpus=1",
            "busybox",
            "true",
        ])
        .unwrap();
    assert!(
        pinned.error_text().contains("unfit"),
        "{}",
        pinned.error_text()
    );
    docker.run_ok(["run", "--rm", "busybox", "true"]).unwrap();
}

#[test]
#[ignore = "boots the image: VM lane"]
fn pinned_memory_is_local_and_siblings_are_offline() {
    let (description, credentials) = describe("numa", &ConfigOptions::default());
    // four cores of two threads on two nodes; the second thread of each isolated core goes offline
    let description = description
        .cpus(4)
        .threads_per_core(2)
        .numa_nodes(2)
        .memory_mib(1536);
    let node = Node::boot_ready(&description, &credentials).unwrap();
    let line = fit(&node);
    let status = node
        .get(Client::User, "/stillmetal/v1/node")
        .unwrap()
        .json();
    let sets = &status["tuning"]["cpus"];
    assert_ne!(sets["offlined_siblings"], "", "{line} {sets}");
    let isolated: Vec<u32> = expand(sets["isolated"].as_str().unwrap());
    let docker = node.docker(Client::User).unwrap();
    docker.load(&images::busybox().unwrap()).unwrap();
    let mut nodes_seen = std::collections::BTreeSet::new();
    for cpu in isolated {
        let cpu = cpu.to_string();
        assert_eq!(allowed(&docker, &["--cpuset-cpus", &cpu]), cpu);
        let output = docker
            .run_ok([
                "run",
                "--rm",
                "--cpuset-cpus",
                &cpu,
                "busybox",
                "grep",
                "Mems_allowed_list",
                "/proc/self/status",
            ])
            .unwrap()
            .text();
        let mems = output.split_whitespace().nth(1).unwrap().to_owned();
        let owner = sets["numa_nodes"]
            .as_object()
            .unwrap()
            .iter()
            .find(|(_, cpus)| expand(cpus.as_str().unwrap()).contains(&cpu.parse().unwrap()))
            .map(|(node, _)| node.clone());
        assert_eq!(Some(mems.clone()), owner, "CPU {cpu}");
        nodes_seen.insert(mems);
    }
    assert!(!nodes_seen.is_empty());
}

fn expand(list: &str) -> Vec<u32> {
    list.split(',')
        .filter(|part| !part.is_empty())
        .flat_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            first.parse().unwrap()..=last.parse::<u32>().unwrap()
        })
        .collect()
}

#[test]
#[ignore = "boots the image: VM lane"]
fn the_address_may_be_static() {
    let (description, credentials) = describe("static", &ConfigOptions::default());
    let description = description
        .without_nics()
        .nic(
            Nic::user()
                .subnet("10.0.2.0/24")
                .forward_to([10, 0, 2, 77].into(), node::API_PORT),
        )
        .param("ip=10.0.2.77::10.0.2.2:255.255.255.0:fixed::none");
    let node = Node::boot_ready(&description, &credentials).unwrap();
    let line = node
        .vm
        .wait_line("stillmetal: network ", Duration::from_secs(10))
        .unwrap()
        .text;
    assert!(
        line.contains("10.0.2.77/24") && line.contains("static"),
        "{line}"
    );
    let status = node
        .get(Client::User, "/stillmetal/v1/node")
        .unwrap()
        .json();
    assert_eq!(status["hostname"], "fixed");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn too_little_memory_is_said_on_console_and_api() {
    let (description, credentials) = describe("small", &ConfigOptions::default());
    let node = Node::boot(&description.memory_mib(256), &credentials).unwrap();
    let line = node
        .vm
        .wait_line("stillmetal: too little memory", Duration::from_secs(60))
        .unwrap()
        .text;
    assert!(line.contains("MiB"), "{line}");
    let status = node.wait_api().unwrap().json();
    assert!(
        status["memory"]["too_little"]
            .as_str()
            .unwrap()
            .contains("MiB"),
        "{status}"
    );
    let ping = node.get(Client::User, "/_ping").unwrap();
    assert_eq!(ping.status, 503);
    assert!(ping.text().contains("memory"), "{}", ping.text());
}
