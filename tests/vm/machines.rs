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

/// What its certificates say is what a node trusts: made and used as the README tells.
#[test]
#[ignore = "boots the image: VM lane"]
fn make_config_gives_a_node_and_its_users_their_certificates() {
    let folder = testkit::scratch_folder("config").unwrap();
    let dir = folder.path().join("creds");
    let make = || {
        testkit::Invocation::new("make")
            .args(["-s", "-C"])
            .args([testkit::places::workspace_dir().unwrap()])
            .args([
                &format!("DIR={}", dir.display()),
                "NAMES=127.0.0.1,bench7.lab",
                "config",
            ])
            .within(Duration::from_secs(600))
            .run()
            .unwrap()
    };
    let made = make();
    assert!(made.success(), "{}", made.error_text());
    let again = make();
    assert!(
        again.error_text().contains("ca.key exists"),
        "{}",
        again.error_text()
    );
    let image = testkit::Artifacts::find().unwrap();
    let vm = VmBuilder::new("config")
        .cmdline(testkit::Cmdline::read(&image.cmdline).unwrap())
        .kernel(image.kernel)
        .initrd(image.initrd)
        .initrd(dir.join("config.img"))
        .init_marker(node::INIT_STARTED)
        .nic(Nic::user().forward(node::API_PORT))
        .boot(Duration::from_secs(180))
        .unwrap();
    vm.wait_line("stillmetal: engine ready", Duration::from_secs(180))
        .unwrap();
    let address = vm.address(node::API_PORT).unwrap();
    for role in ["admin", "user"] {
        let docker = testkit::Docker::connect(address, &dir.join(role)).unwrap();
        docker.run_ok(["info"]).unwrap();
    }
    // Another authority's certificates, valid for another node.
    let (_, others) = describe("others", &ConfigOptions::default());
    let stranger = testkit::Docker::connect(address, &others.client_folder(Client::Admin)).unwrap();
    assert!(!stranger.run(["info"]).unwrap().success());
}

#[test]
#[ignore = "boots the image: VM lane"]
fn an_image_larger_than_the_memory_is_refused_in_bytes_and_the_node_survives() {
    let (description, credentials) = describe("full", &ConfigOptions::default());
    let node = Node::boot_ready(&description.memory_mib(512), &credentials).unwrap();
    let docker = node.docker(Client::User).unwrap();
    docker.load(&images::busybox().unwrap()).unwrap();
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "bystander",
            "busybox",
            "sleep",
            "1000",
        ])
        .unwrap();
    // most of the store is filled from within: an emulated network is slow
    let fill =
        "dd if=/dev/zero of=/fill bs=1M count=$(($(df -m / | tail -n1 | awk '{print $4}') - 12))";
    docker
        .run_ok(["run", "--name", "filler", "busybox", "sh", "-c", fill])
        .unwrap();
    let folder = testkit::scratch_folder("large").unwrap();
    let archive = folder.path().join("large.tar");
    testkit::Invocation::new("sh")
        .args([
            "-c",
            "cd \"$1\" && truncate -s 24M zeros && tar cf large.tar zeros",
            "sh",
        ])
        .args([folder.path()])
        .run_ok()
        .unwrap();
    let output = docker
        .command(["import", &archive.display().to_string(), "large:1"])
        .within(Duration::from_secs(300))
        .run()
        .unwrap();
    assert!(!output.success(), "{}", output.text());
    let said = output.error_text();
    assert!(said.contains("no space left on device"), "{said}");
    assert!(said.contains("bytes in all"), "{said}");
    assert_eq!(
        docker
            .run_ok(["inspect", "-f", "{{.State.Running}}", "bystander"])
            .unwrap()
            .text()
            .trim(),
        "true"
    );
    docker.run_ok(["rm", "filler"]).unwrap();
    docker.run_ok(["run", "--rm", "busybox", "true"]).unwrap();
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
