//! `make node`: boots a node and keeps it running, for a docker context of one's own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use testkit::{Client, ConfigOptions, Credentials, Node, images, node};

const CPUS: u32 = 2;

fn main() -> anyhow::Result<()> {
    let credentials = Arc::new(Credentials::generate()?);
    let node = boot(&credentials)?;
    keep(&node, &credentials)
}

fn boot(credentials: &Arc<Credentials>) -> anyhow::Result<Node> {
    say("booting a node in QEMU");
    let description = node::describe("node", credentials, &ConfigOptions::default())?.cpus(CPUS);
    let node = Node::boot(&description, credentials)?;
    say(&format!("{}; waiting for its API", node.vm.accel().name()));
    node.wait_api()?;
    say("the API answers; waiting for the container engine");
    node.wait_engine()?;
    node.vm
        .wait_line("stillmetal: node fit", Duration::from_secs(60))
        .context("the node did not become fit for benchmarks")?;
    Ok(node)
}

fn keep(node: &Node, credentials: &Credentials) -> anyhow::Result<()> {
    let address = node.api(Client::Admin)?.address();
    let docker = testkit::docker::program()?;
    let folder = |client| credentials.client_folder(client);
    println!();
    println!("The node runs. In another terminal:");
    println!();
    println!(
        "  {}",
        context(&docker, "stillmetal", address, &folder(Client::Admin))
    );
    println!("  {} --context stillmetal info", docker.display());
    println!(
        "  {} --context stillmetal load -i {}",
        docker.display(),
        images::busybox()?.display()
    );
    println!(
        "  {} --context stillmetal run --rm --cpuset-cpus 1 busybox grep Cpus_allowed_list /proc/self/status",
        docker.display()
    );
    println!("  {}", curl(address, &folder(Client::Admin)));
    println!();
    println!(
        "A client without administrator's rights: {}",
        folder(Client::User).display()
    );
    println!("Console: {}", node.vm.log_file().display());
    println!("Ctrl-C powers the node off; its certificates end with it.");
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    while !stop.load(Ordering::Relaxed) {
        // a blocking wait for the machine's end, in slices so that ctrl-C is seen
        if node.vm.wait_exit(Duration::from_millis(500)).is_ok() {
            println!("the node powered off");
            return Ok(());
        }
    }
    say("powering the node off");
    node.vm.power_button()?;
    node.vm.wait_exit(Duration::from_secs(90))?;
    Ok(())
}

fn context(docker: &Path, name: &str, address: std::net::SocketAddr, keys: &Path) -> String {
    format!(
        "{} context create {name} --docker \"host=tcp://{address},ca={}/ca.pem,cert={}/cert.pem,key={}/key.pem\"",
        docker.display(),
        keys.display(),
        keys.display(),
        keys.display()
    )
}

fn curl(address: std::net::SocketAddr, keys: &Path) -> String {
    format!(
        "curl --cacert {0}/ca.pem --cert {0}/cert.pem --key {0}/key.pem 'https://{address}/stillmetal/v1/node?format=text'",
        keys.display()
    )
}

fn say(text: &str) {
    eprintln!("node: {text}");
}
