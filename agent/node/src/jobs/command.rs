//! A command job: a program of the node on exact CPUs, in a cgroup of its own.
//!
//! Its output goes into files of the attempt and not through the agent, so that it neither stops nor is
//! lost when the agent is killed. The next agent finds the program by what was noted of it
//! (`process.json`): as long as it lives its end is watched, by the same means as a container's; what
//! ended while nobody looked has ended nobody knows how, and is never called a success.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use api::metric::Source;
use api::process::{ProcessRequest, ProcessState, ProcessStatus};
use api::work::{Document, Ending, PartOutcome};
use host::Tree;
use metric::{LOOKED_AT, Tail};
use serde::{Deserialize, Serialize};
use stillmetal_work::executor::{Output, Refused, Task};
use stillmetal_work::folder::FolderError;
use tokio::process::Child;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outcome::{self, Stop};
use super::{log, now_ms, provenance};
use crate::certify::ended::Ended;
use crate::certify::exit::{ExitWatch, Status};
use crate::certify::raw_ns;
use crate::placement::ledger::Token;
use crate::process::run::{self, Ground, Prepared};
use crate::runs::metrics::{Found, Lack, NoText, Reader, end};
use crate::tools::{self, Collecting, Outcomes, Window};
use crate::{Node, cgroups, since_boot};

const PROCESS: &str = "process.json";
const STREAMS: [&str; 2] = ["stdout", "stderr"];
/// Between two looks at what it wrote.
const LOOK: Duration = Duration::from_millis(100);
/// File systems take their times from the last tick of the kernel's clock.
const CLOCK: Duration = Duration::from_millis(20);
/// Between two notices that it wrote something.
const NOTICE: Duration = Duration::from_secs(1);
/// From the signal that ends everything in a cgroup to its end.
const KILL_DEADLINE: Duration = Duration::from_secs(60);

/// What is known of a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Noted {
    request: ProcessRequest,
    token: Option<Token>,
    cgroup: String,
    started_ms: u64,
    /// `None`: it was not started, or nobody could say so any more.
    running: Option<Running>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Running {
    pid: u32,
    /// In ticks since boot: another process of that id has another.
    start_ticks: u64,
    /// Time since boot.
    since: Duration,
}

/// Its claim's holder, for people and for [`crate::Processes::clear`].
pub(super) fn holder(attempt: &str) -> String {
    format!("job-{attempt}")
}

/// Does all of it.
pub(super) async fn run(
    node: &Arc<Node>,
    task: &Task,
    request: ProcessRequest,
) -> Result<Ending, Refused> {
    let refused = super::refused;
    run::check(&request).map_err(refused)?;
    let tools = Arc::clone(node.runs().tools());
    let wanted = asked(task);
    let checked = tokio::task::spawn_blocking(move || tools.check(&wanted)).await;
    match checked {
        Ok(Ok(())) => {}
        Ok(Err(unable)) if unable.for_now => return Err(Refused::here(unable.why)),
        Ok(Err(unable)) => return Err(Refused::anywhere(unable.why)),
        Err(_) => return Err(Refused::here("looking for its tools died")),
    }
    let ground = node.processes().ground();
    let name = holder(&stillmetal_work::attempt::name(task.key()));
    let tree = Arc::clone(&ground.tree);
    let prepared = run::prepare(&name, request.clone(), &ground.placer, tree).await;
    let prepared = prepared.map_err(refused)?;
    let noted = Noted {
        request,
        token: prepared.token.clone(),
        cgroup: prepared.cgroup.clone(),
        started_ms: now_ms(),
        running: None,
    };
    let result = held(node, task, &ground, &prepared, noted).await;
    Ok(result.unwrap_or_else(|why| Task::ending(PartOutcome::Error, Some(why))))
}

/// With the CPUs taken: whatever happens, they are given back, unless the node goes down.
async fn held(
    node: &Arc<Node>,
    task: &Task,
    ground: &Ground,
    prepared: &Prepared,
    mut noted: Noted,
) -> Result<Ending, String> {
    let begun = async {
        note(task, &noted).await?;
        if task.ready().await.is_err() || task.measuring().await.is_err() {
            return Ok(None);
        }
        let collecting = collect(node, task, &noted).await;
        noted.started_ms = now_ms();
        let begun_ns = raw_ns();
        let child = start(ground, task, prepared)?;
        noted.running = child.id().and_then(|pid| running(&*ground.tree, pid));
        // it runs already: what cannot be noted is only missed if the agent is killed now
        if let Err(why) = note(task, &noted).await {
            tracing::warn!(%why, "a job that runs is not noted");
        }
        Ok::<_, String>(Some((child, collecting, begun_ns)))
    };
    let ended = match begun.await {
        Ok(Some((child, collecting, begun_ns))) => {
            let look = Look::Collecting(Box::new(collecting), begun_ns);
            follow(node, task, ground, &noted, Subject::Child(child), look).await
        }
        Ok(None) => {
            clean_up(ground, &noted).await;
            Ok(Task::ending(PartOutcome::Cancelled, None))
        }
        Err(why) => {
            clean_up(ground, &noted).await;
            Err(why)
        }
    };
    node.runs().tools().settle().await;
    ended
}

/// What is to look at it.
fn asked(task: &Task) -> Vec<collect::Asked> {
    // checked by the controller, and again in `request`
    collect::asked(&task.assignment().request.tools).unwrap_or_default()
}

/// Begins to look at it, with its cgroup there and nothing in it.
async fn collect(node: &Arc<Node>, task: &Task, noted: &Noted) -> Option<Collecting> {
    let asked = asked(task);
    if asked.is_empty() {
        return None;
    }
    let tools = Arc::clone(node.runs().tools());
    let (cgroup, cpus) = (noted.cgroup.clone(), task.assignment().cpus.clone());
    let begin = move || {
        let collecting = tools.begin(&asked, cgroup.clone(), None);
        if let Some(meter) = collecting.meter() {
            meter.attach_cgroup(&cgroup, &cpus);
        }
        collecting
    };
    let begun = tokio::task::spawn_blocking(begin).await;
    begun
        .map_err(|error| tracing::error!(%error, "the tools of a job died"))
        .ok()
}

/// What looks at a program.
enum Look {
    /// From when it was started, `CLOCK_MONOTONIC_RAW`.
    Collecting(Box<Option<Collecting>>, u64),
    /// An earlier agent did.
    Lost,
}

impl Look {
    async fn end(self, task: &Task) -> Outcomes {
        match self {
            Self::Lost => tools::lost(&asked(task)),
            Self::Collecting(collecting, begin_ns) => {
                let end_ns = raw_ns();
                match *collecting {
                    Some(collecting) => collecting.end(1, Some(Window { begin_ns, end_ns })).await,
                    None => Outcomes::new(),
                }
            }
        }
    }
}

/// Goes on where an earlier agent was.
pub(super) async fn adopt(node: &Arc<Node>, task: &Task) -> Ending {
    let lost = |why: String| Task::ending(PartOutcome::Error, Some(why));
    let mut noted = match recall(task).await {
        Ok(noted) => noted,
        Err(why) => return lost(why),
    };
    let ground = node.processes().ground();
    let tree = &*ground.tree;
    // killed between its start and the note of it
    noted.running = noted.running.or_else(|| first_of(tree, &noted.cgroup));
    let subject = Subject::Stranger(noted.running.and_then(|running| {
        let same = || ticks(tree, running.pid) == Some(running.start_ticks);
        let watch = same().then(|| ExitWatch::start(running.pid));
        // between the two looks another may have taken its place
        watch.and_then(Result::ok).filter(|_| same())
    }));
    let followed = follow(node, task, &ground, &noted, subject, Look::Lost).await;
    followed.unwrap_or_else(lost)
}

/// The process of a cgroup that is there for longest.
fn first_of(tree: &dyn Tree, cgroup: &str) -> Option<Running> {
    let cgroup = cgroup.trim_start_matches('/');
    let pids = host::cgroup::Cgroups::new(tree).procs(cgroup).ok()?;
    let running = pids.into_iter().filter_map(|pid| running(tree, pid));
    running.min_by_key(|running| running.start_ticks)
}

async fn note(task: &Task, noted: &Noted) -> Result<(), String> {
    let text = serde_json::to_vec(noted).map_err(|error| error.to_string())?;
    let kept = task.folder().note(PROCESS, text).await;
    kept.map_err(|error| format!("the node cannot keep the job: {}", crate::chain(&error)))
}

async fn recall(task: &Task) -> Result<Noted, String> {
    let lost = "the node's agent was killed, and what it had noted of the job is lost";
    let text = task.folder().noted(PROCESS).await;
    let text = text.map_err(|error| crate::chain(&error))?.ok_or(lost)?;
    serde_json::from_slice(&text).map_err(|error| format!("{lost}: {error}"))
}

fn start(ground: &Ground, task: &Task, prepared: &Prepared) -> Result<Child, String> {
    let [stdout, stderr] = STREAMS;
    let mut command = prepared.command(&ground.agent);
    command
        .stdout(Stdio::from(stream(task, stdout)?))
        .stderr(Stdio::from(stream(task, stderr)?));
    let started = command.spawn();
    started.map_err(|error| format!("it could not be started: {error}"))
}

fn stream(task: &Task, name: &str) -> Result<File, String> {
    let path = path(task, name)?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path);
    file.map_err(|error| format!("{}: {error}", path.display()))
}

fn path(task: &Task, name: &str) -> Result<PathBuf, String> {
    let path = task.folder().file(name);
    let path = path.map_err(|error| crate::chain(&error))?;
    path.ok_or_else(|| "this agent's journal is in memory: programs have nowhere to write".into())
}

fn running(tree: &dyn Tree, pid: u32) -> Option<Running> {
    Some(Running {
        pid,
        start_ticks: ticks(tree, pid)?,
        since: since_boot(),
    })
}

fn ticks(tree: &dyn Tree, pid: u32) -> Option<u64> {
    let stat = tree.read(&format!("/proc/{pid}/stat")).ok()?;
    host::threads::stat_field(&stat, 22)
}

/// A program whose end is awaited.
enum Subject {
    /// Of this agent.
    Child(Child),
    /// Of an earlier one; `None`: it is not there any more.
    Stranger(Option<ExitWatch>),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Status(Status),
    Unseen,
}

impl Subject {
    /// Waits for its end, or for that of the agent.
    async fn end(self, stop: CancellationToken) -> Exit {
        match self {
            Self::Child(mut child) => match child.wait().await {
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Status(Status::Exited(code)),
                    (None, Some(signal)) => Exit::Status(Status::Signalled(signal)),
                    (None, None) => Exit::Unseen,
                },
                Err(_) => Exit::Unseen,
            },
            Self::Stranger(None) => Exit::Unseen,
            Self::Stranger(Some(watch)) => {
                // not for ever: the agent waits for its threads
                let end = tokio::task::spawn_blocking(move || {
                    while !stop.is_cancelled() {
                        if let Some(end) = watch.within(Duration::from_secs(1)) {
                            return end.status;
                        }
                    }
                    None
                });
                match end.await {
                    Ok(Some(status)) => Exit::Status(status),
                    Ok(None) | Err(_) => Exit::Unseen,
                }
            }
        }
    }
}

/// Waits for its end, or brings it about, and tells what came of it.
async fn follow(
    node: &Arc<Node>,
    task: &Task,
    ground: &Ground,
    noted: &Noted,
    subject: Subject,
    look: Look,
) -> Result<Ending, String> {
    let seconds = noted.request.timeout_seconds.unwrap_or(u32::MAX);
    let past = noted
        .running
        .map(|running| since_boot().saturating_sub(running.since));
    let left = Duration::from_secs(seconds.into()).saturating_sub(past.unwrap_or_default());
    let files = STREAMS.map(|name| path(task, name).unwrap_or_default());
    let end = subject.end(node.runs().stop().clone());
    tokio::pin!(end);
    let mut stop = None;
    let seen = tokio::select! {
        biased;
        exit = &mut end => Some(exit),
        () = task.cancelled().cancelled() => { stop = Some(Stop::Cancelled); None }
        () = sleep(left) => { stop = Some(Stop::Late(seconds)); None }
        () = watch_output(task, &files) => { stop = Some(Stop::Floods(log::KEPT)); None }
        // it goes on, and the next agent adopts it
        () = node.runs().stop().cancelled() => return Ok(Task::ending(PartOutcome::Cancelled, None)),
    };
    task.output(Output::Over).await;
    // what it left running ends with it
    let usage = clean_up(ground, noted);
    let (exit, usage) = match seen {
        Some(exit) => (exit, usage.await),
        None => tokio::join!(end, usage),
    };
    let outcomes = look.end(task).await;
    task.packing().await;
    let (tools, documents) = tools::keep(task.folder(), 1, outcomes).await;
    let mut status = ProcessStatus {
        tools,
        state: ProcessState::Exited,
        timed_out: matches!(stop, Some(Stop::Late(_))),
        killed: stop.is_some(),
        oom_killed: usage.oom_kills.map(|kills| kills > 0),
        cpu_usec: usage.cpu_usec,
        memory_peak_bytes: usage.memory_peak_bytes,
        cpus_allowed: usage.cpus,
        ..ProcessStatus::starting(task.key().job.0, &noted.request)
    };
    match exit {
        Exit::Status(Status::Exited(code)) => status.exit_code = Some(code),
        Exit::Status(Status::Signalled(signal)) => status.signal = Some(signal),
        Exit::Unseen => {
            status.error = Some(
                "it ended while the node's agent was away: nobody saw how, what it wrote is kept"
                    .into(),
            );
        }
    }
    let found = match stop {
        None => metrics(task, noted, &files).await,
        Some(_) => Found::default(),
    };
    status.metrics = found.readings;
    pack(node, task, noted, &status, (stop, found.lack), documents).await
}

/// What it came to in the metrics of its job.
async fn metrics(task: &Task, noted: &Noted, files: &[PathBuf; 2]) -> Found {
    let [stdout, stderr] = files;
    let mut reader = Reader::new(&task.assignment().request.metrics);
    for source in reader.sources() {
        let (path, not_before) = match &source {
            Source::Stdout => (stdout.clone(), None),
            Source::Stderr => (stderr.clone(), None),
            Source::File(path) => (PathBuf::from(path), Some(noted.started_ms)),
        };
        let read = tokio::task::spawn_blocking(move || end_of(&path, not_before)).await;
        let text = read.unwrap_or_else(|_| Err(NoText::node("the thread that read it died")));
        reader.look(&source, text).await;
    }
    reader.found()
}

/// The end of a file of the node; `not_before`: what is older, in milliseconds since the epoch, is not
/// of this program.
fn end_of(path: &Path, not_before: Option<u64>) -> Result<Tail, NoText> {
    let name = path.display();
    let strange = |why: &str| NoText::benchmark(format!("file {name}: {why}"));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => strange("not on the node"),
        _ => NoText::node(format!("file {name}: {error}")),
    };
    // a pipe without a writer must not be waited for
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path);
    let mut file = file.map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(strange("is no regular file"));
    }
    if let Some(started) = not_before {
        let since = about.modified().map_err(failed)?;
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since + CLOCK < Duration::from_millis(started) {
            return Err(strange("is older than the run, which did not write it"));
        }
    }
    let skipped = about.len().saturating_sub(LOOKED_AT as u64);
    file.seek(SeekFrom::Start(skipped)).map_err(failed)?;
    // what is written while it is read does not count
    let mut tail = end(&mut file.take(about.len() - skipped)).map_err(failed)?;
    if skipped > 0 {
        tail.cut();
    }
    Ok(tail)
}

/// A time that may be longer than timers go.
async fn sleep(time: Duration) {
    match Instant::now().checked_add(time) {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Done when it has written too much.
async fn watch_output(task: &Task, files: &[PathBuf; 2]) {
    let watched = task.assignment().request.limits.output_seconds.is_some();
    if watched {
        task.output(Output::Expected).await;
    }
    let (mut last, mut noticed) = (None, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        // the kernel's own book-keeping: nothing is read
        let sizes = files
            .each_ref()
            .map(|file| std::fs::metadata(file).map_or(0, |about| about.len()));
        if sizes.iter().any(|bytes| *bytes > log::KEPT) {
            return;
        }
        if watched && last.is_some_and(|last| last != sizes) && noticed.elapsed() >= NOTICE {
            noticed = Instant::now();
            task.output(Output::Seen).await;
            last = Some(sizes);
        }
        last = last.or(Some(sizes));
    }
}

/// Ends everything in its cgroup, and gives its CPUs back. Returns what it used.
async fn clean_up(ground: &Ground, noted: &Noted) -> cgroups::Usage {
    let tree = &*ground.tree;
    let cgroup = noted.cgroup.as_str();
    if let Err(error) = cgroups::kill(tree, cgroup) {
        tracing::warn!(cgroup, error = %crate::chain(&error), "cgroup.kill");
    }
    let watched = cgroup.trim_start_matches('/').to_owned();
    let gone = tokio::task::spawn_blocking(move || {
        // a cgroup that is not there has nobody in it
        Ended::watch(&watched).map_or(true, |ended| ended.within(KILL_DEADLINE))
    });
    if !gone.await.unwrap_or(false) {
        tracing::error!(cgroup, "something still runs there after it was killed");
    }
    let usage = cgroups::usage(tree, cgroup);
    if let Err(error) = cgroups::remove_leaf(tree, cgroup) {
        tracing::warn!(cgroup, error = %crate::chain(&error), "cgroup stays");
    }
    if let Some(token) = &noted.token {
        ground.placer.release(token);
    }
    usage
}

async fn pack(
    node: &Arc<Node>,
    task: &Task,
    noted: &Noted,
    status: &ProcessStatus,
    (stop, lack): (Option<Stop>, Option<Lack>),
    kept: Vec<Document>,
) -> Result<Ending, String> {
    let mut ending = outcome::of_process(status, stop, lack);
    ending.started_ms = Some(noted.started_ms);
    ending.ended_ms = Some(now_ms());
    let result = serde_json::to_vec_pretty(status).map_err(|error| error.to_string())?;
    let provenance = provenance::of_command(node, task.assignment()).await;
    let folder = task.folder();
    let kept = async {
        let mut documents = kept;
        documents.push(folder.put("result.json", result).await?);
        documents.push(folder.put("provenance.json", provenance).await?);
        for name in STREAMS {
            match folder.put_file(name).await {
                Ok(document) => documents.push(document),
                // it was not started
                Err(FolderError::Write { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(documents)
    };
    ending.documents = kept.await.map_err(|error| {
        let error = crate::chain(&error);
        format!("its result could not be kept on the node: {error}")
    })?;
    Ok(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_child_and_of_a_stranger_are_told_alike() {
        for (script, expected) in [
            ("read line; exit 3", Status::Exited(3)),
            ("read line; kill -9 $$", Status::Signalled(9)),
        ] {
            for stranger in [false, true] {
                let mut child = tokio::process::Command::new("sh")
                    .args(["-c", script])
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                let stdin = child.stdin.take();
                let (subject, keeps) = if stranger {
                    let watch = ExitWatch::start(child.id().unwrap()).unwrap();
                    (Subject::Stranger(Some(watch)), Some(child))
                } else {
                    (Subject::Child(child), None)
                };
                drop(stdin);
                let exit = subject.end(CancellationToken::new()).await;
                assert_eq!(exit, Exit::Status(expected), "{script} {stranger}");
                if let Some(mut child) = keeps {
                    child.wait().await.unwrap();
                }
            }
        }
        let gone = Subject::Stranger(None).end(CancellationToken::new());
        assert_eq!(gone.await, Exit::Unseen);
    }

    #[test]
    fn of_a_file_of_the_node_the_end_is_read_if_this_run_wrote_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let why = |found: Result<Tail, NoText>| found.unwrap_err().why;
        assert!(why(end_of(&path, None)).ends_with("not on the node"));
        assert!(why(end_of(folder.path(), None)).ends_with("is no regular file"));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(why(end_of(&pipe, None)).ends_with("is no regular file"));
        std::fs::write(&path, "rate: 7\n").unwrap();
        let mut whole = Tail::default();
        whole.push(b"rate: 7\n");
        assert_eq!(end_of(&path, Some(now_ms())), Ok(whole));
        let later = now_ms() + 60_000;
        let old = why(end_of(&path, Some(later)));
        assert!(old.contains("older than the run"), "{old}");
        // a hole is read as zeros, and only its end is read
        let long = std::fs::File::options().write(true).open(&path).unwrap();
        long.set_len(LOOKED_AT as u64 + 8).unwrap();
        let mut end = Tail::default();
        end.push(&vec![0; LOOKED_AT]);
        end.cut();
        assert_eq!(end_of(&path, None), Ok(end));
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_id() {
        let tree = host::RealTree::live();
        let own = std::process::id();
        assert!(ticks(&tree, own).is_some());
        assert_eq!(ticks(&tree, own), ticks(&tree, own));
        assert_eq!(ticks(&tree, u32::MAX), None);
    }
}
