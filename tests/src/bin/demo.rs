//! `make run`: boots one node and shows the main job: a benchmark container, pinned to an isolated
//! CPU by the stock docker client, and what disturbed it; then the same without pinning. `--keep`
//! (`make node`) boots a node and keeps it running instead.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use stillmetal_tests::observe::{Observer, Seen};
use testkit::{Accel, Client, ConfigOptions, Credentials, Docker, Node, images, node};

const CPUS: u32 = 2;
const RUNS: usize = 3;
const BENCHMARK: [&str; 6] = ["stress-ng", "--cpu", "1", "--cpu-ops", "1000", "--metrics"];

#[derive(Debug, Parser)]
struct Arguments {
    /// Boot a node and keep it running until ctrl-C.
    #[arg(long)]
    keep: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let credentials = Arc::new(Credentials::generate()?);
    let node = boot(&credentials)?;
    if arguments.keep {
        return keep(&node, &credentials);
    }
    let docker = node.docker(Client::User)?;
    say("loading a benchmark image made from Debian's stress-ng package");
    docker.load(&images::stress_ng()?)?;
    println!();
    println!(
        "stress-ng --cpu 1 --cpu-ops 1000, three times on isolated CPU 1, once unpinned on CPU 0:"
    );
    println!();
    header([
        "run",
        "bogo ops",
        "ops/cpu-s",
        "whole run",
        "timer",
        "other",
        "soft",
        "foreign",
        "invol.",
        "at work",
    ]);
    header([
        "", "", "", "timer", "irqs", "irqs", "irqs", "slices", "switches", "seconds",
    ]);
    for number in 1..=RUNS {
        let name = format!("pinned-{number}");
        one(&node, &docker, &name, Some("1"))?;
    }
    one(&node, &docker, "unpinned", None)?;
    println!();
    println!(
        "`whole run` counts from the container's start to its end, stress-ng's own set-up included;"
    );
    println!(
        "the columns after it count while the benchmark was at work (its threads did not change)."
    );
    if node.vm.accel() == Accel::Tcg {
        println!("Counts are exact in a virtual machine; its timings mean nothing (emulated CPU).");
    } else {
        println!("Counts are exact in a virtual machine; its timings mean nothing.");
    }
    println!("Keep a node running and point a docker context at it: make node");
    node.vm.power_button()?;
    node.vm.wait_exit(Duration::from_secs(90))?;
    Ok(())
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

/// One run of the benchmark, and a line of the table.
fn one(node: &Node, docker: &Docker, name: &str, cpu: Option<&str>) -> anyhow::Result<()> {
    let observer = Observer::start(node.api(Client::User)?, cpu.unwrap_or("0"), name);
    let mut arguments = vec!["run", "--rm", "--name", name];
    if let Some(cpu) = cpu {
        arguments.extend(["--cpuset-cpus", cpu]);
    }
    arguments.extend(BENCHMARK);
    let output = docker
        .command(arguments)
        .within(Duration::from_secs(600))
        .run()?;
    let seen = observer.finish();
    ensure!(
        output.success(),
        "{name} failed: {} {}",
        output.text(),
        output.error_text()
    );
    let report = format!("{}\n{}", output.text(), output.error_text());
    let (ops, rate) = metrics(&report)
        .with_context(|| format!("{name}: no line `cpu` in stress-ng's metrics:\n{report}"))?;
    let Some(seen) = seen else {
        bail!("{name} ended before the node's counters were read twice: nothing is known of it");
    };
    let label = match cpu {
        Some(cpu) => format!("{name} (CPU {cpu})"),
        None => format!("{name} (CPU 0)"),
    };
    println!("{label:<20} {ops:>9} {rate:>10.1} | {}", columns(&seen));
    std::io::stdout().flush()?;
    Ok(())
}

fn header(cells: [&str; 10]) {
    let [
        run,
        ops,
        rate,
        life,
        timer,
        other,
        soft,
        foreign,
        involuntary,
        window,
    ] = cells;
    println!(
        "{run:<20} {ops:>9} {rate:>10} | {life:>9} | {timer:>6} {other:>6} {soft:>6} {foreign:>8} {involuntary:>8} {window:>8}"
    );
}

fn columns(seen: &Seen) -> String {
    let work = &seen.at_work;
    format!(
        "{:>9} | {:>6} {:>6} {:>6} {:>8} {:>8} {:>8.1}",
        seen.timer_in_life,
        work.timer,
        work.other_interrupts,
        work.softirqs,
        work.foreign_timeslices
            .map_or_else(|| "?".to_owned(), |count| count.to_string()),
        work.involuntary_switches,
        work.window.as_secs_f64(),
    )
}

/// Bogo operations and their number per second of CPU time, from the line
/// `stress-ng: metrc: [1] cpu OPS REAL USR SYS OPS/REAL OPS/CPU …`.
fn metrics(report: &str) -> Option<(u64, f64)> {
    report
        .lines()
        .filter(|line| line.contains("metrc:"))
        .find_map(|line| {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| *word != "cpu")
                .skip(1);
            let ops = words.next()?.parse().ok()?;
            let rate = words.nth(4)?.parse().ok()?;
            Some((ops, rate))
        })
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
    eprintln!("run: {text}");
}

#[cfg(test)]
mod tests {
    use super::metrics;

    #[test]
    fn stress_ngs_metrics_are_read() {
        let report = "\
stress-ng: metrc: [1] stressor       bogo ops real time  usr time  sys time   bogo ops/s     bogo ops/s
stress-ng: metrc: [1]                           (secs)    (secs)    (secs)   (real time) (usr+sys time)
stress-ng: metrc: [1] cpu                1000     12.32     12.30      0.01        81.17          81.23";
        assert_eq!(metrics(report), Some((1000, 81.23)));
        assert_eq!(metrics("nothing"), None);
    }
}
