//! One host process from its cgroup to its accounting.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use api::process::{CpuRequest, ProcessRequest, ProcessState, ProcessStatus};
use host::Tree;
use policy::Denial;
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::capture::{Captured, drain};
use crate::cgroups;
use crate::placement::Placer;
use crate::placement::ledger::{Token, Wish};

/// The longest a process may run when the request does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// After the cgroup was killed its pipes close at once; more than this means a kernel problem.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Checks what does not depend on the node's state.
pub(crate) fn check(request: &ProcessRequest) -> Result<(), Denial> {
    let bad = |message: &str| {
        Err(Denial {
            status: 400,
            message: message.to_owned(),
        })
    };
    match request.argv.first() {
        None => return bad("`argv` is empty: name the program and its arguments"),
        Some(program) if !program.starts_with('/') => {
            return bad("`argv[0]` must be an absolute path: the node has no shell and no PATH");
        }
        Some(_) => {}
    }
    if request.argv.iter().any(|part| part.contains('\0')) {
        return bad("`argv` holds a NUL byte");
    }
    if request
        .env
        .iter()
        .any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        return bad("`env` holds an empty name, `=` in a name, or a NUL byte");
    }
    if request.timeout_seconds == Some(0) {
        return bad("`timeout_seconds` must be at least 1");
    }
    Ok(())
}

/// What starting a process takes.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) placer: Arc<Placer>,
    pub(crate) tree: Arc<dyn Tree>,
    /// This program, which enters the cgroup and then becomes the command.
    pub(crate) agent: PathBuf,
}

/// A process that has its place and waits to be started.
pub(crate) struct Prepared {
    name: String,
    request: ProcessRequest,
    tree: Arc<dyn Tree>,
    pub(crate) token: Option<Token>,
    pub(crate) cgroup: String,
}

/// Takes the CPUs and makes the cgroup. The name is its holder's, and part of the cgroup's.
pub(crate) async fn prepare(
    name: &str,
    request: ProcessRequest,
    placer: &Placer,
    tree: Arc<dyn Tree>,
) -> Result<Prepared, Denial> {
    let wish = match &request.cpus {
        None => None,
        Some(CpuRequest::Exact(cpus)) => Some(Wish::Exact(cpus.clone())),
        Some(CpuRequest::Count(count)) => Some(Wish::Count(*count)),
    };
    let (token, parent) = match wish {
        None => (None, cgroups::HOUSEKEEPING.to_owned()),
        Some(wish) => {
            let (token, _cpus) = placer.claim_process(wish, name).await?;
            let parent = format!("/{}", cgroups::partition_name(&token));
            (Some(token), parent)
        }
    };
    let cgroup = format!("{parent}/process-{name}");
    if let Err(error) = cgroups::make_leaf(&*tree, &cgroup, request.memory_bytes) {
        if let Some(token) = &token {
            placer.release(token);
        }
        let message = format!("cgroup {cgroup}: {}", crate::chain(&error));
        return Err(Denial {
            status: 500,
            message,
        });
    }
    Ok(Prepared {
        name: name.to_owned(),
        request,
        tree,
        token,
        cgroup,
    })
}

/// Ends everything below a claim, and the claim. What the kernel takes a while to give back is
/// given back when placement looks the next time.
pub(crate) fn end_left(tree: &dyn Tree, placer: &Placer, token: &Token) {
    let partition = cgroups::partition_name(token);
    let partition = partition.as_str();
    if let Err(error) = host::cgroup::Cgroups::new(tree).kill(partition) {
        tracing::warn!(partition, error = %crate::chain(&error), "not all of it could be killed");
    }
    placer.release(token);
}

impl Prepared {
    /// The command that becomes the program, in its place and with nothing inherited; its output goes
    /// wherever the caller says.
    pub(crate) fn command(&self, agent: &std::path::Path) -> Command {
        let mut command = Command::new(agent);
        command
            .args(["enter", "--cgroup", &self.cgroup, "--oom-score-adj=0", "--"])
            .args(&self.request.argv)
            .env_clear()
            .envs(&self.request.env)
            .current_dir(self.request.directory.as_deref().unwrap_or("/"))
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end, whatever that is, and leaves nothing behind.
    pub(super) async fn drive(
        self,
        agent: PathBuf,
        placer: Arc<Placer>,
        status: watch::Sender<ProcessStatus>,
        kill: CancellationToken,
    ) {
        let ended = self.run(&agent, &status, &kill).await;
        if let Err(error) = cgroups::remove_leaf(&*self.tree, &self.cgroup) {
            tracing::warn!(cgroup = %self.cgroup, error = %crate::chain(&error), "cgroup stays");
        }
        if let Some(token) = &self.token {
            placer.release(token);
        }
        status.send_modify(|status| match ended {
            Ok(ended) => *status = ended,
            Err(why) => {
                status.state = ProcessState::Failed;
                status.error = Some(why);
            }
        });
    }

    async fn run(
        &self,
        agent: &std::path::Path,
        status: &watch::Sender<ProcessStatus>,
        kill: &CancellationToken,
    ) -> Result<ProcessStatus, String> {
        let mut child = self
            .command(agent)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("start {}: {error}", self.request.argv[0]))?;
        let stdout = tokio::spawn(drain(child.stdout.take()));
        let stderr = tokio::spawn(drain(child.stderr.take()));
        let limit = self
            .request
            .timeout_seconds
            .map_or(DEFAULT_TIMEOUT, |s| Duration::from_secs(s.into()));
        let (mut timed_out, mut killed) = (false, false);
        let exit = tokio::select! {
            exit = child.wait() => Some(exit),
            () = tokio::time::sleep(limit) => { timed_out = true; None }
            () = kill.cancelled() => { killed = true; None }
        };
        // What it left running ends with it: a benchmark that outlives its wrapper is a lie.
        if let Err(error) = cgroups::kill(&*self.tree, &self.cgroup) {
            tracing::warn!(cgroup = %self.cgroup, error = %crate::chain(&error), "cgroup.kill");
        }
        let exit = match exit {
            Some(exit) => exit,
            None => child.wait().await,
        }
        .map_err(|error| format!("wait for its end: {error}"))?;
        let (stdout, stderr) = (collect(stdout).await, collect(stderr).await);
        let usage = cgroups::usage(&*self.tree, &self.cgroup);
        let mut ended = status.borrow().clone();
        ended.state = ProcessState::Exited;
        ended.exit_code = exit.code();
        ended.signal = exit.signal();
        ended.timed_out = timed_out;
        ended.killed = killed;
        ended.oom_killed = usage.oom_kills.map(|kills| kills > 0);
        ended.cpu_usec = usage.cpu_usec;
        ended.memory_peak_bytes = usage.memory_peak_bytes;
        ended.cpus_allowed = usage.cpus;
        ended.truncated = stdout.truncated || stderr.truncated;
        ended.stdout = String::from_utf8_lossy(&stdout.bytes).into_owned();
        ended.stderr = String::from_utf8_lossy(&stderr.bytes).into_owned();
        tracing::info!(id = self.name, exit = ?ended.exit_code, "host process ended");
        Ok(ended)
    }
}

async fn collect(reader: tokio::task::JoinHandle<Captured>) -> Captured {
    match tokio::time::timeout(DRAIN_DEADLINE, reader).await {
        Ok(Ok(captured)) => captured,
        Ok(Err(_)) | Err(_) => Captured {
            truncated: true,
            ..Captured::default()
        },
    }
}
