//! `make run`: the main job, as a person does it. `still` brings up a controller and a node, runs a
//! benchmark pinned to an isolated CPU, and its result comes back with the verdict on how quiet that CPU
//! was. Then the stock docker client runs the same through the controller, pinned and unpinned, and the
//! node's own counters say what disturbed it.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use stillmetal_tests::observe::{Observer, Seen};
use tempfile::TempDir;
use testkit::{ApiClient, Docker, images, places};

const BENCHMARK: [&str; 6] = ["stress-ng", "--cpu", "1", "--cpu-ops", "1000", "--metrics"];
const NODE: &str = "node1";

fn main() -> anyhow::Result<()> {
    let lab = Lab {
        home: testkit::scratch_folder("demo")?,
    };
    lab.still(&["up", "--nodes", "1", "--cpus", "2"])?;
    let archive = images::stress_ng()?;
    let archive = archive.to_str().context("the build's path is text")?;
    lab.still(&["image", "push", archive])?;
    let words = ["run", "--cpus", "1", "--repeat", "3", "--class", "forking"];
    lab.still(&[&words[..], &BENCHMARK].concat())?;
    println!();
    through_docker(&lab)?;
    println!();
    println!("Counts are exact in a virtual machine; its timings mean nothing.");
    lab.still(&["down"])?;
    println!("The same by hand: build/still up; build/still --help. A single node: make node");
    Ok(())
}

/// A lab in a home of its own, so that one that runs already stays as it is. Dropped, it is taken down.
struct Lab {
    home: TempDir,
}

impl Lab {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(places::build_dir().join("still"));
        command
            .args(words)
            .env("XDG_CONFIG_HOME", self.config())
            .env("XDG_STATE_HOME", self.home.path().join("state"));
        command
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    /// Shows the command and what it says.
    fn still(&self, words: &[&str]) -> anyhow::Result<()> {
        println!("$ still {}", words.join(" "));
        let status = self.command(words).status().context("run build/still")?;
        ensure!(status.success(), "still {} failed: {status}", words[0]);
        Ok(())
    }

    fn json(&self, words: &[&str]) -> anyhow::Result<Value> {
        let output = self.command(words).arg("--json").output();
        let output = output.context("run build/still")?;
        ensure!(
            output.status.success(),
            "still {} failed: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("read what still says")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // of a demo that failed; else it is gone already
        drop(self.command(&["down"]).output());
    }
}

fn through_docker(lab: &Lab) -> anyhow::Result<()> {
    let said = lab.json(&["node", "docker-context", NODE, "--print"])?;
    let host = said["host"].as_str().context("no docker host was named")?;
    let keys = lab.config().join("stillmetal/contexts/lab");
    let docker = Docker::connect_to(host, &keys)?;
    let address = host.strip_prefix("tcp://").unwrap_or(host);
    let (address, path) = address.split_once('/').context("a host without a path")?;
    let read = |name: &str| std::fs::read_to_string(keys.join(name));
    let tls = pki::client_config(&read("ca.pem")?, &read("cert.pem")?, &read("key.pem")?)?;
    let api = ApiClient::new(address.parse()?, tls).below(&format!("/{path}"));

    println!("The same with the stock docker client ({host}), on isolated CPU 1 and on CPU 0:");
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
    one(&api, &docker, "pinned", Some("1"))?;
    one(&api, &docker, "unpinned", None)?;
    println!();
    println!(
        "`whole run` counts from the container's start to its end, stress-ng's own set-up included;"
    );
    println!(
        "the columns after it count while the benchmark was at work (its threads did not change)."
    );
    Ok(())
}

/// One run of the benchmark, and a line of the table.
fn one(api: &ApiClient, docker: &Docker, name: &str, cpu: Option<&str>) -> anyhow::Result<()> {
    let observer = Observer::start(api.clone(), cpu.unwrap_or("0"), name);
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
