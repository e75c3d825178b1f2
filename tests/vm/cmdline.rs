//! One image, many command lines: which CPUs are isolated, drivers, the clock, a second card.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testkit::{
    Client, ConfigOptions, Credentials, DiskBus, Docker, Nic, Node, VmBuilder, images, node,
};

use crate::look::{self, allowed};

fn describe(name: &str) -> (VmBuilder, Arc<Credentials>) {
    let credentials = Arc::new(Credentials::generate().unwrap());
    let description = node::describe(name, &credentials, &ConfigOptions::default()).unwrap();
    (description.memory_mib(768), credentials)
}

/// Of four CPUs the command line isolates `isolated`: each can be used alone, the rest is for others.
fn isolates(node: &Node, isolated: &[&str], rest: &str) -> Docker {
    let status = node
        .get(Client::User, "/stillmetal/v1/node")
        .unwrap()
        .json();
    assert_eq!(status["state"], "fit", "{status}");
    assert_eq!(status["tuning"]["cpus"]["housekeeping"], rest, "{status}");
    let docker = node.docker(Client::User).unwrap();
    docker.load(&images::busybox().unwrap()).unwrap();
    assert_eq!(allowed(&docker, &[]), rest);
    for cpu in isolated {
        assert_eq!(allowed(&docker, &["--cpuset-cpus", cpu]), **cpu);
    }
    docker
}

#[test]
#[ignore = "boots the image: VM lane"]
fn nohz_full_alone_isolates_the_chosen_cpus() {
    let (description, credentials) = describe("nohz-2-3");
    let description = description
        .cpus(4)
        .param("nohz_full=2-3 rcu_nocbs=2-3 irqaffinity=0-1")
        .without_param("isolcpus");
    let node = Node::boot_ready(&description, &credentials).unwrap();
    let docker = isolates(&node, &["2", "3"], "0-1");
    assert_eq!(allowed(&docker, &["--cpuset-cpus", "2,3"]), "2-3");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn isolcpus_alone_isolates_one_or_several_cpus() {
    for (list, isolated, rest) in [("1", &["1"][..], "0,2-3"), ("2-3", &["2", "3"][..], "0-1")] {
        let (description, credentials) = describe(&format!("isolcpus-{list}"));
        let description = description
            .cpus(4)
            .without_param("nohz_full")
            .without_param("rcu_nocbs")
            .without_param("irqaffinity")
            .param(&format!("isolcpus={list}"));
        let node = Node::boot_ready(&description, &credentials).unwrap();
        let docker = isolates(&node, isolated, rest);
        if isolated.len() > 1 {
            let several = docker
                .run(["run", "--rm", "--cpuset-cpus", list, "busybox", "true"])
                .unwrap();
            let said = several.error_text();
            assert!(said.contains("never spreads threads"), "{said}");
        }
    }
}

/// A time server on this machine's loopback, which QEMU's user network shows to its guest.
struct TimeServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl TimeServer {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:123").expect("port 123 needs root, and to be free");
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut answered = 0;
            while !stopped.load(Ordering::Relaxed) {
                let mut request = [0; 512];
                let Ok((48.., client)) = socket.recv_from(&mut request) else {
                    continue;
                };
                socket.send_to(&answer(&request), client).unwrap();
                answered += 1;
            }
            answered
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn answered(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// RFC 4330: server mode, stratum 1, the client's transmit time given back as originate time.
fn answer(request: &[u8]) -> [u8; 48] {
    /// From 1900 to 1970.
    const NTP_EPOCH_S: u64 = 2_208_988_800;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut seconds = u32::try_from(now.as_secs() + NTP_EPOCH_S)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    seconds.extend([0; 4]);
    let mut packet = [0; 48];
    packet[..4].copy_from_slice(&[0x24, 1, 4, 0xec]);
    packet[12..16].copy_from_slice(b"TEST");
    packet[24..32].copy_from_slice(&request[40..48]);
    for place in [16, 32, 40] {
        packet[place..place + 8].copy_from_slice(&seconds);
    }
    packet
}

#[test]
#[ignore = "boots the image, needs root: VM lane"]
fn drivers_clock_and_a_second_card() {
    let server = TimeServer::start();
    let (description, credentials) = describe("options");
    // Certificates made a minute ago are not valid yet for a machine that lives in 2010.
    let description = description
        .param("stillmetal.ntp=10.0.2.2 stillmetal.modules=nvme,nosuch")
        .empty_disk(DiskBus::Nvme, 64 << 20)
        .nic(Nic::user().subnet("10.0.3.0/24").model("e1000e"))
        .qemu_args(["-rtc", "base=2010-01-01"]);
    let node = Node::boot_ready(&description, &credentials).unwrap();
    let at = look::at(&node);
    assert_eq!(server.answered(), 1, "one question at boot, and none later");
    assert!(
        look::host_exists(&at, "/dev/nvme0n1"),
        "the driver that was asked for"
    );
    let told = node.vm.console_lines();
    assert!(
        told.iter()
            .any(|line| line.text.contains("nosuch is not in this image")),
        "{told:#?}"
    );
    // Only the card of the default route has an address; the other is left alone.
    let shell = |script: &str| {
        at.docker
            .run_ok(["exec", "observer", "sh", "-c", script])
            .unwrap()
            .text()
    };
    assert_eq!(shell("ip -4 route show default | wc -l").trim(), "1");
    assert!(shell("ip -4 address").contains("10.0.2.15/24"));
}

#[test]
#[ignore = "boots the image: VM lane"]
fn interrupts_that_appear_later_are_steered_too() {
    let (description, credentials) = describe("late-irq");
    let description = description.nic(Nic::user().subnet("10.0.3.0/24").model("e1000e"));
    let node = Node::boot_ready(&description, &credentials).unwrap();
    let at = look::at(&node);
    let as_root = |script: &str| {
        let container = [
            "run",
            "--rm",
            "--privileged",
            "--network",
            "host",
            "busybox",
            "sh",
            "-c",
        ];
        at.docker
            .run_ok(container.into_iter().chain([script]))
            .unwrap()
            .text()
    };
    // The card's interrupts go and come with its link; now they start on the isolated CPU 1.
    as_root("ip link set eth1 down");
    let before = look::host_file(&at, "/proc/interrupts");
    assert!(!before.contains("eth1"), "{before}");
    as_root("echo 2 > /proc/irq/default_smp_affinity; ip link set eth1 up");
    let numbers: Vec<String> = look::host_file(&at, "/proc/interrupts")
        .lines()
        .filter(|line| line.contains("eth1"))
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    assert!(!numbers.is_empty(), "the second card has no interrupt");
    let affinity =
        |irq: &String| look::host_file(&at, &format!("/proc/irq/{irq}/smp_affinity_list"));
    look::eventually("they are on the housekeeping CPU", || {
        numbers.iter().all(|irq| affinity(irq).trim() == "0")
    });
    assert!(
        as_root("dmesg").contains("interrupt steered"),
        "nobody said that they were moved"
    );
}
