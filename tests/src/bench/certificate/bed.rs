//! A node that certified runs are tried on: starting them as a user does, reading what comes out,
//! and a hand on the node's own files for what is done behind its back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quiet::{Certificate, CpuWindow, Value, Window, WindowName};
use serde_json::json;
use testkit::{
    Accel, ApiClient, Artifacts, Client, Deadline, Docker, Node, VmBuilder, images, poll,
};

use crate::bench::sides::Sides;

/// The CPU of jobs that need one.
pub(super) const CPU: u32 = 1;
/// An emulated node on a busy host: boot to engine took 15 to 60 s.
const SLOW: Duration = Duration::from_secs(240);

/// A booted node, the stock docker client as user and as administrator.
pub(super) struct Bed {
    /// Kept: the machine ends with it.
    _node: Node,
    pub(super) user: Docker,
    admin: Docker,
    api: ApiClient,
}

/// A container to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) name: &'a str,
    pub(super) cpus: &'a str,
    /// `None`: pinned, but not certified.
    pub(super) canary_seconds: Option<u32>,
    pub(super) script: &'a str,
}

/// Counts up for so many seconds of the guest's clock, in one process and without a system call
/// (the clock is read in the vDSO).
pub(super) fn spin(seconds: u32) -> String {
    format!(
        "e=$((EPOCHSECONDS+{seconds})); i=0; while [ $EPOCHSECONDS -lt $e ]; do i=$((i+1)); done"
    )
}

impl Bed {
    /// Boots an emulated node that is told the frequency of its TSC, which is the host's. On an
    /// overloaded host the kernel finds a wrong one by itself (*measured*: its clock said 1,735 s some
    /// 190 s after power-on), and no window has the length that it says.
    pub(super) fn boot(sides: &Sides, description: &VmBuilder) -> anyhow::Result<Self> {
        let accel = testkit::accel::probe(&Artifacts::find()?.kernel)?;
        let told = format!("tsc_early_khz={}", tsc_khz());
        match accel {
            Accel::Tcg => Self::boot_as_is(sides, &description.clone().param(&told)),
            Accel::Kvm => Self::boot_as_is(sides, description),
        }
    }

    pub(super) fn boot_as_is(sides: &Sides, description: &VmBuilder) -> anyhow::Result<Self> {
        let node = Node::boot_ready(description, &sides.credentials)?;
        eprintln!(
            "bench: certificate: a node is up after {:.0} s",
            node.vm.age().as_secs_f64()
        );
        node.vm.wait_line("stillmetal: node fit", SLOW)?;
        let admin = node.docker(Client::Admin)?;
        admin.load(&images::busybox()?)?;
        let user = node.docker(Client::User)?;
        let api = node.api(Client::Admin)?.within(Duration::from_secs(90));
        Ok(Self {
            _node: node,
            user,
            admin,
            api,
        })
    }

    /// Starts it in the background; its id.
    pub(super) fn start(&self, job: &Job<'_>) -> anyhow::Result<String> {
        let output = self
            .user
            .command(words(&["-d"], job))
            .within(SLOW)
            .run_ok()?;
        Ok(output.text().trim().to_owned())
    }

    /// Runs it to its end: its id, what it printed, and the client's time from start to end.
    pub(super) fn run(&self, job: &Job<'_>) -> anyhow::Result<(String, String, Duration)> {
        let within = Duration::from_secs(600);
        let command = words(&[], job);
        let output = self.user.command(command).within(within).run_ok()?;
        let inspect = self.user.run_ok(["inspect", "-f", "{{.Id}}", job.name])?;
        Ok((
            inspect.text().trim().to_owned(),
            output.text(),
            output.duration,
        ))
    }

    /// Runs it, and its certificate.
    pub(super) fn certified(&self, job: &Job<'_>) -> anyhow::Result<Certificate> {
        let id = self.start(job)?;
        let certificate = self.certificate(&id)?;
        self.remove(&id)?;
        Ok(certificate)
    }

    /// Waits until the program itself runs: no longer the canary, nor the gate before it. False: it
    /// has ended already.
    pub(super) fn working(&self, id: &str) -> anyhow::Result<bool> {
        let path = format!("/containers/{id}/top");
        // not `wait_for`: its patience with one answer is too short for a busy host
        let found = poll(Deadline::after(SLOW), Duration::from_millis(200), || {
            let answer = self.api.get(&path).ok()?;
            let works = answer.status == 200;
            (!works || !answer.text().contains(".stillmetal/gate")).then_some(works)
        });
        found.with_context(|| format!("the gate of {id} has not opened in {SLOW:?}"))
    }

    /// Waits for the certificate of a run.
    pub(super) fn certificate(&self, id: &str) -> anyhow::Result<Certificate> {
        let path = format!("/stillmetal/v1/certificates/{id}?wait=20");
        let mut last = String::new();
        let found = poll(Deadline::after(SLOW), Duration::from_millis(200), || {
            let answer = self.api.get(&path);
            match answer {
                Ok(answer) if answer.status == 200 => Some(answer.text()),
                Ok(answer) => {
                    last = answer.text();
                    None
                }
                Err(error) => {
                    last = testkit::chain(&error);
                    None
                }
            }
        });
        let text = found.with_context(|| format!("no certificate of {id}: {last}"))?;
        serde_json::from_str(&text).with_context(|| format!("the certificate of {id}: {text}"))
    }

    pub(super) fn remove(&self, id: &str) -> anyhow::Result<()> {
        self.user.run_ok(["rm", "-f", id])?;
        Ok(())
    }

    pub(super) fn api(&self) -> &ApiClient {
        &self.api
    }

    /// The cgroup of the only claim, such as `/stillmetal-TOKEN`.
    pub(super) fn claim(&self) -> anyhow::Result<String> {
        let status = self.api.get("/stillmetal/v1/node")?.json();
        let claims = status["claims"].as_array().context("no claims")?;
        let mut running = claims.iter().filter(|claim| claim["state"] != "stopped");
        let cgroup = running.next().and_then(|claim| claim["cgroup"].as_str());
        Ok(cgroup.context("no claim holds CPUs")?.to_owned())
    }

    /// Starts the container that may read and write every file of the node's kernel, as
    /// administrator and behind the agent's back: `/hp` is its proc, `/node` its sys.
    pub(super) fn give_hand(&self) -> anyhow::Result<()> {
        let words = "run -d --name hand --privileged --pid host --cgroupns host --network host \
                     -v /proc:/hp -v /sys:/node busybox sleep 100000";
        self.admin.run_ok(words.split_ascii_whitespace())?;
        Ok(())
    }

    /// A shell command with that hand.
    pub(super) fn hand(&self, script: &str) -> anyhow::Result<String> {
        let output = self.admin.run_ok(["exec", "hand", "sh", "-c", script])?;
        Ok(output.text())
    }

    /// Leaves a shell command of that hand running.
    pub(super) fn hand_in_background(&self, script: &str) -> anyhow::Result<()> {
        self.admin
            .run_ok(["exec", "-d", "hand", "sh", "-c", script])?;
        Ok(())
    }

    /// Runs the agent's own program on the node's housekeeping CPUs to its end.
    pub(super) fn process(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut argv = vec!["/sbin/stillmetal-agent"];
        argv.extend(words);
        let answer = self
            .api
            .post("/stillmetal/v1/processes", &json!({ "argv": argv }))?;
        ensure!(answer.status == 201, "POST processes: {}", answer.text());
        let path = format!("/stillmetal/v1/processes/{}?wait=60", answer.json()["id"]);
        let status = self.api.get(&path)?.json();
        ensure!(status["exit_code"] == 0, "{argv:?}: {status}");
        Ok(status["stdout"].as_str().unwrap_or_default().to_owned())
    }
}

/// How fast this machine's time stamp counter goes.
fn tsc_khz() -> u64 {
    const SAMPLE: Duration = Duration::from_millis(200);
    let (began, first) = (Instant::now(), ticks());
    // the length of the sample
    std::thread::sleep(SAMPLE);
    let (elapsed, last) = (began.elapsed(), ticks());
    let microseconds = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    last.wrapping_sub(first).saturating_mul(1000) / microseconds.max(1)
}

#[expect(unsafe_code, reason = "there is no other way to read the counter")]
fn ticks() -> u64 {
    // SAFETY: RDTSC has no requirements; every x86-64 has it, and Linux leaves it to users.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn words(how: &[&str], job: &Job<'_>) -> Vec<String> {
    let pinned = ["--name", job.name, "--cpuset-cpus", job.cpus];
    let all = ["run"].iter().chain(how).chain(&pinned);
    let mut words: Vec<String> = all.map(|word| (*word).to_owned()).collect();
    if let Some(seconds) = job.canary_seconds {
        words.extend(["--label".into(), "stillmetal.certify=true".into()]);
        words.extend(["--label".into(), format!("stillmetal.canary={seconds}")]);
    }
    words.extend(["busybox", "sh", "-c", job.script].map(str::to_owned));
    words
}

/// A window of a certificate.
pub(super) fn window(certificate: &Certificate, name: WindowName) -> anyhow::Result<&Window> {
    let windows = &certificate.evidence.windows;
    let found = windows.iter().find(|window| window.name == name);
    found.with_context(|| {
        format!(
            "the certificate has no {name} window: {:?}",
            certificate.unproven
        )
    })
}

pub(super) fn cpu(window: &Window, cpu: u32) -> anyhow::Result<&CpuWindow> {
    let found = window.cpus.get(&cpu);
    found.with_context(|| format!("{}: CPU {cpu} is not in it", window.name))
}

/// The number, if it was measured.
pub(super) fn count(what: &str, value: &Value) -> anyhow::Result<u64> {
    value
        .measured()
        .with_context(|| format!("{what} was not measured: {value:?}"))
}

/// One line of `/proc/interrupts`.
pub(super) fn interrupts(counts: &CpuWindow, name: &str) -> anyhow::Result<u64> {
    let value = counts.interrupts.get(name);
    count(
        name,
        value.with_context(|| format!("no line {name} in /proc/interrupts"))?,
    )
}

/// Every interrupt but the timer's.
pub(super) fn other_interrupts(counts: &CpuWindow) -> anyhow::Result<u64> {
    let named = counts.interrupts.iter().filter(|(name, _)| *name != "LOC");
    let named = named.map(|(name, value)| count(name, value));
    let device = counts.device.values();
    let device = device.map(|device| count(&device.text, &device.count));
    named.chain(device).sum()
}

pub(super) fn softirqs(counts: &CpuWindow) -> anyhow::Result<u64> {
    let all = counts.softirqs.iter();
    all.map(|(name, value)| count(name, value)).sum()
}

/// Codes and texts of what speaks against a run.
pub(super) fn said(certificate: &Certificate) -> String {
    let all = certificate.reasons.iter().chain(&certificate.unproven);
    all.map(|reason| format!("{}: {}", reason.code, reason.text))
        .collect::<Vec<_>>()
        .join("; ")
}
