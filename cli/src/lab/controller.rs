//! The lab's controller, as the supervisor's child.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use client::{Client, Context, controller_address};
use nix::sys::signal::Signal;

use super::folder::{LOOK, LabFolder, tail};
use super::identity::ProcessIdentity;

const PROGRAM: &str = "stillmetal-controller";
/// Instead of the program that is found.
const VARIABLE: &str = "STILLMETAL_CONTROLLER";
/// By which guests of QEMU's user network call this machine.
pub(super) const SEEN_FROM_GUESTS: &str = "10.0.2.2";
/// It makes its certificates and its store.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// To write down what it must.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Of its log, in an error.
const TAIL: usize = 12;

/// A controller that was started.
#[derive(Debug)]
pub(super) struct Controller {
    child: Child,
    pub(super) port: u16,
    folder: LabFolder,
}

impl Drop for Controller {
    fn drop(&mut self) {
        // one that is gone already is no news
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the program is: named by the variable, beside this one, or in `PATH`.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("find this program")?;
    let beside = own.with_file_name(PROGRAM);
    if beside.is_file() {
        return Ok(beside);
    }
    testkit::find_in_path(PROGRAM).with_context(|| {
        format!(
            "find {PROGRAM}: it is neither beside {} nor in PATH",
            own.display()
        )
    })
}

/// A port of the loopback address: the one asked for, 7443 if it is free, or any.
pub(super) fn choose_port(asked: Option<u16>) -> anyhow::Result<u16> {
    if let Some(port) = asked {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        free.with_context(|| format!("listen on port {port}"))?;
        return Ok(port);
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, client::DEFAULT_PORT)) {
        Ok(_) => Ok(client::DEFAULT_PORT),
        Err(_) => {
            let ports = testkit::free_ports(1).context("find a free port")?;
            ports.first().copied().context("find a free port")
        }
    }
}

impl Controller {
    /// Starts it. Call it from a thread that lives as long as this process: its end is the controller's.
    pub(super) fn start(folder: &LabFolder, port: u16) -> anyhow::Result<Self> {
        let program = program()?;
        let log = folder.controller_log();
        let open = || File::options().create(true).append(true).open(&log);
        let logs = open().and_then(|out| Ok((out, open()?)));
        let (out, err) = logs.with_context(|| format!("open {}", log.display()))?;
        let mut command = testkit::guarded(&program);
        command
            .arg("serve")
            .arg("--state")
            .arg(folder.controller())
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"))
            .args(["--name", SEEN_FROM_GUESTS])
            .args(["--name", "127.0.0.1", "--name", "localhost"])
            .arg("--admin-bundle")
            .arg(folder.admin())
            .args(["--reenrol", "auto"])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self {
            child,
            port,
            folder: folder.clone(),
        })
    }

    pub(super) fn identity(&self) -> Option<ProcessIdentity> {
        ProcessIdentity::of(self.child.id())
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("wait for the controller")
    }

    /// Its own last words.
    pub(super) fn last_words(&self) -> String {
        tail(&self.folder.controller_log(), TAIL)
    }

    /// Waits until it answers; `None` when `stop` says so before.
    pub(super) fn wait_ready(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        stop: impl Fn() -> bool,
    ) -> anyhow::Result<Option<Client>> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut last = None;
        while Instant::now() < deadline {
            if stop() {
                return Ok(None);
            }
            if let Some(status) = self.ended()? {
                bail!("the controller ended ({status}):\n{}", self.last_words());
            }
            // half-written certificates are not there yet
            if let Ok(context) = self.context()
                && let Ok(client) = Client::new(&context)
            {
                match runtime.block_on(client.healthy_now()) {
                    Ok(()) => return Ok(Some(client)),
                    Err(error) => last = Some(error),
                }
            }
            std::thread::sleep(LOOK);
        }
        let last = match last {
            Some(error) => format!("{:#}", anyhow::Error::from(error)),
            None => format!("no certificates in {}", self.folder.admin().display()),
        };
        bail!(
            "the controller does not answer after {} s: {last}\n{}",
            READY_WITHIN.as_secs(),
            self.last_words()
        );
    }

    /// How to reach it as its admin.
    pub(super) fn context(&self) -> anyhow::Result<Context> {
        context(&self.folder, &format!("127.0.0.1:{}", self.port))
    }

    /// Asks it to end, and makes it.
    pub(super) fn stop(mut self) {
        if let Some(Err(error)) = self.identity().map(|it| it.signal(Signal::SIGTERM)) {
            eprintln!("the controller cannot be told to end: {error}");
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        eprintln!("the controller does not end by itself: killed");
    }
}

/// How to reach a lab's controller as its admin.
pub(super) fn context(folder: &LabFolder, address: &str) -> anyhow::Result<Context> {
    let controller = controller_address(address)?;
    Ok(Context::read(controller, &folder.admin())?)
}
