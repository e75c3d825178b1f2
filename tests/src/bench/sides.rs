//! The two sides: how each is booted, and reading `/proc` on either.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::{
    ApiClient, Client, Cmdline, ConfigOptions, Credentials, Docker, Invocation, Nic, Node, Vm,
    VmBuilder, images, node, places,
};

/// Baseline boots took 20 to 40 s on an idle machine of this kind.
const BASELINE_READY: Duration = Duration::from_secs(300);

/// Everything needed to boot either side.
#[derive(Debug)]
pub struct Sides {
    pub credentials: Arc<Credentials>,
    pub busybox: PathBuf,
    baseline: (PathBuf, PathBuf),
}

/// One booted machine of either side, ready for containers.
#[derive(Debug)]
pub struct Side {
    pub docker: Docker,
    pub booted: Booted,
}

#[derive(Debug)]
pub enum Booted {
    Ours(Node),
    Theirs(Vm),
}

impl Sides {
    /// Builds what is missing: the baseline, the test image.
    ///
    /// # Errors
    /// When a build step fails.
    pub fn prepare(credentials: &Arc<Credentials>) -> anyhow::Result<Self> {
        let out = places::build_dir();
        let script = places::workspace_dir()
            .context("not inside the workspace")?
            .join("tests/baseline/build.sh");
        Invocation::new(script)
            .arg_path("--out", &out)
            .arg_path("--engine-tls", &credentials.folder().join("engine"))
            .within(Duration::from_secs(1200))
            .run_ok()?;
        Ok(Self {
            credentials: Arc::clone(credentials),
            busybox: images::busybox()?,
            baseline: (out.join("baseline-kernel"), out.join("baseline-initrd.img")),
        })
    }

    /// Their kernel and initramfs.
    #[must_use]
    pub fn baseline_files(&self) -> (&Path, &Path) {
        (&self.baseline.0, &self.baseline.1)
    }

    /// Our node, not started.
    ///
    /// # Errors
    /// When the image is missing.
    pub fn ours(&self, cpus: u32, options: &ConfigOptions) -> anyhow::Result<VmBuilder> {
        Ok(node::describe("ours", &self.credentials, options)?
            .cpus(cpus)
            .memory_mib(2048))
    }

    /// The opponent, not started, with these kernel parameters.
    #[must_use]
    pub fn theirs(&self, cpus: u32, parameters: &str) -> VmBuilder {
        let (kernel, initrd) = &self.baseline;
        VmBuilder::new("theirs")
            .kernel(kernel)
            .initrd(initrd)
            .cmdline(Cmdline::parse(&format!(
                "console=ttyS0 panic=-1 rdinit=/init {parameters}"
            )))
            .cpus(cpus)
            .memory_mib(2048)
            .init_marker("systemd[1]:")
            .nic(Nic::user().forward(node::API_PORT))
    }

    /// Ours, up to a ready engine, with the test image loaded.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot_ours(&self, cpus: u32, options: &ConfigOptions) -> anyhow::Result<Side> {
        let node = Node::boot_ready(&self.ours(cpus, options)?, &self.credentials)?;
        node.vm
            .wait_line("stillmetal: node fit", Duration::from_secs(60))?;
        let docker = node.docker(Client::Admin)?;
        docker.load(&self.busybox)?;
        Ok(Side {
            docker,
            booted: Booted::Ours(node),
        })
    }

    /// Theirs, likewise.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot_theirs(&self, cpus: u32) -> anyhow::Result<Side> {
        self.boot_theirs_with(cpus, "")
    }

    /// Theirs, with kernel parameters of its own.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot_theirs_with(&self, cpus: u32, parameters: &str) -> anyhow::Result<Side> {
        let vm = self.theirs(cpus, parameters).boot(BASELINE_READY)?;
        self.their_api(&vm)?
            .wait_for("the engine", "/_ping", BASELINE_READY, |answer| {
                answer.status == 200
            })?;
        let address = vm
            .address(node::API_PORT)
            .context("the API's port is not forwarded")?;
        let docker = Docker::connect(address, &self.credentials.client_folder(Client::Admin))?;
        docker.load(&self.busybox)?;
        Ok(Side {
            docker,
            booted: Booted::Theirs(vm),
        })
    }

    /// An API client of a running baseline.
    ///
    /// # Errors
    /// When its port is not forwarded.
    pub fn their_api(&self, vm: &Vm) -> anyhow::Result<ApiClient> {
        let address = vm
            .address(node::API_PORT)
            .context("the API's port is not forwarded")?;
        Ok(
            ApiClient::new(address, self.credentials.tls(Client::Admin)?)
                .with_console(vm.console().clone()),
        )
    }
}

impl Side {
    /// Starts the container through which this side's kernel is read: it sees the host's `/proc` and
    /// network, runs on CPU 0, and sleeps.
    ///
    /// # Errors
    /// When docker refuses.
    pub fn observe(&self) -> anyhow::Result<()> {
        self.docker.run_ok([
            "run",
            "-d",
            "--name",
            "observer",
            "--cpuset-cpus",
            "0",
            "--network",
            "host",
            "--pid",
            "host",
            "-v",
            "/proc:/hp:ro",
            "busybox",
            "sleep",
            "100000",
        ])?;
        Ok(())
    }

    /// A command in that container.
    ///
    /// # Errors
    /// When it fails.
    pub fn look(&self, shell: &str) -> anyhow::Result<String> {
        Ok(self
            .docker
            .run_ok(["exec", "observer", "sh", "-c", shell])?
            .text())
    }
}

/// How busy this machine's CPUs are with other work: over one second, 0 to 1.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub fn background_busy() -> anyhow::Result<f64> {
    let (busy, total) = cpu_ticks()?;
    let end = Instant::now() + Duration::from_secs(1);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        // the length of the sample
        std::thread::sleep(left);
    }
    let (busy_after, total_after) = cpu_ticks()?;
    ensure!(total_after > total, "the clock of /proc/stat stands still");
    #[expect(clippy::cast_precision_loss, reason = "a share of about 200 ticks")]
    Ok((busy_after - busy) as f64 / (total_after - total) as f64)
}

fn cpu_ticks() -> anyhow::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(ticks.len() == 8, "/proc/stat begins with `{line}`");
    let total: u64 = ticks.iter().sum();
    Ok((total - ticks[3] - ticks[4], total))
}
