//! Does it boot, say so, and open nothing but the API?

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::{ConfigOptions, Credentials, DiskBus, Ending, Node, node, uptime_s};

use crate::shared;

const WITHIN: Duration = Duration::from_secs(180);

/// The marks of a good boot, in the order in which they come.
const MARKS: [&str; 3] = [
    node::INIT_STARTED,
    "stillmetal: network 10.0.2.15/24 dev ",
    "stillmetal: api listening on ",
];

#[test]
#[ignore = "needs the built image: VM lane"]
fn marks_come_in_order_with_their_uptime() -> Result<()> {
    let node = shared::ready()?;
    let mut last = 0.0;
    for mark in MARKS {
        let line = node.vm.wait_line(mark, WITHIN)?;
        let uptime =
            uptime_s(&line.text).with_context(|| format!("no uptime in {:?}", line.text))?;
        ensure!(
            uptime >= last,
            "{mark:?} came at {uptime} s, after {last} s"
        );
        last = uptime;
    }
    node.vm.wait_line("stillmetal: engine ready", WITHIN)?;
    node.vm
        .wait_line("stillmetal: node fit isolated=1-2 housekeeping=0", WITHIN)?;
    Ok(())
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn boots_with_three_cpus() -> Result<()> {
    boots_with(3, "1-2")
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn boots_with_four_cpus() -> Result<()> {
    boots_with(4, "1-3")
}

fn boots_with(cpus: u32, isolated: &str) -> Result<()> {
    let credentials = Arc::new(Credentials::generate()?);
    let name = format!("boot-{cpus}-cpus");
    let description = node::describe(&name, &credentials, &ConfigOptions::default())?.cpus(cpus);
    let node = Node::boot(&description, &credentials)?;
    let fit = format!("stillmetal: node fit isolated={isolated} housekeeping=0");
    node.vm.wait_line(&fit, WITHIN)?;
    let report = node.wait_api()?.json();
    ensure!(
        report["state"] == "fit",
        "the report says {}",
        report["state"]
    );
    let sets = &report["tuning"]["cpus"];
    ensure!(sets["isolated"] == isolated, "the report's CPUs are {sets}");
    Ok(())
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn no_disk_is_read_or_written_and_the_power_button_works() -> Result<()> {
    let credentials = Arc::new(Credentials::generate()?);
    let description = node::describe("boot-disk", &credentials, &ConfigOptions::default())?
        .empty_disk(DiskBus::Virtio, 64 << 20)
        .empty_disk(DiskBus::Nvme, 64 << 20);
    let node = Node::boot_ready(&description, &credentials)?;
    let used = node.vm.disk_use()?;
    ensure!(used.len() == 2, "{used:?}");
    ensure!(
        used.iter().all(|disk| disk.writes == 0),
        "a disk was written: {used:?}"
    );
    ensure!(
        used.iter().all(|disk| disk.reads == 0),
        "a disk was read: {used:?}"
    );
    node.vm.power_button()?;
    node.vm
        .wait_line("stillmetal: going down: poweroff", WITHIN)?;
    ensure!(node.vm.wait_exit(WITHIN)? == Ending::PoweredOff);
    Ok(())
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn nothing_answers_on_other_ports() -> Result<()> {
    let node = shared::ready()?;
    for port in [2375, 22] {
        let address = node.vm.address(port).context("the port is not forwarded")?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // QEMU accepts for the guest and hangs up when the guest refuses; a server would answer
        // this, or at least keep the connection.
        let mut byte = [0];
        let sent = stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n");
        let gone = sent.is_err()
            || match stream.read(&mut byte) {
                Ok(count) => count == 0,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            };
        ensure!(gone, "somebody listens on port {port} of the guest");
    }
    Ok(())
}
