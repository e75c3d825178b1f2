//! `controller.agents.*`: how many nodes one controller holds, what each costs it, and how long all of
//! them take to be back after its restart.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::fleet::NodeState;

use super::bed::Bed;
use super::flock::Flock;
use crate::bench::figure::Figure;

pub(super) const IDS: [&str; 3] = [BACK, MEMORY, IDLE];
const BACK: &str = "controller.agents.back";
const MEMORY: &str = "controller.agents.memory";
const IDLE: &str = "controller.agents.idle";

/// `STILLMETAL_AGENTS` is another number, for trying it out.
const AGENTS: usize = 10_000;
/// Join before memory is looked at for the first time: what a controller has once is not an agent's.
const FIRST: usize = 20;
/// Agents of one process: they have three open files each, and a process may have 20,000 at least here.
const FLOCK: usize = 3_000;
/// Between two looks at all nodes, each of which is work for the controller.
const LOOK: Duration = Duration::from_secs(2);
/// From the last that joined to the first look, for what only happens once to be over; and how long it
/// is looked at.
const SETTLE: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) async fn figures(busy: f64) -> anyhow::Result<Vec<Figure>> {
    let agents = std::env::var("STILLMETAL_AGENTS").ok();
    let agents = agents.map_or(Ok(AGENTS), |number| number.parse())?;
    let mut bed = Bed::start().await?;
    let began = Instant::now();
    let mut flocks = Vec::new();
    let mut from = 0;
    let mut first = 0.0;
    while from < agents {
        let count = if from == 0 {
            FIRST
        } else {
            FLOCK.min(agents - from)
        };
        let mut flock = Flock::start(&bed.controller, bed.memory.path(), from, count)?;
        flock.joined().await?;
        flocks.push(flock);
        if from == 0 {
            first = resident_kib(bed.controller.pid())?;
        }
        from += count;
    }
    let joined = began.elapsed();
    eprintln!("bench: controller.agents: {agents} joined in {joined:.0?}");
    tokio::time::sleep(SETTLE).await;
    let all = resident_kib(bed.controller.pid())?;
    let each = (all - first) / float(agents - FIRST);
    let before = cpu_seconds(bed.controller.pid())?;
    let watched = Instant::now();
    tokio::time::sleep(WATCH).await;
    let idle = cpu_seconds(bed.controller.pid())? - before;
    let idle = idle / watched.elapsed().as_secs_f64() * 100.0;
    eprintln!("bench: controller.agents: {each:.1} KiB each, idle {idle:.2} % of a core");
    let back = restart(&mut bed, agents).await?;
    eprintln!("bench: controller.agents: all back after {back:.1?}");
    let after = resident_kib(bed.controller.pid())?;
    let what = |what: &str| {
        format!(
            "{what}; {agents} agents, each with its own certificate, mutual TLS 1.3 and control stream"
        )
    };
    let note = format!(
        "all enrolled by tokens of their own in {:.0} s, the agents in the same machine; controller {:.0} MiB with \
         {FIRST}, {:.0} MiB with all, {:.0} MiB after its restart",
        joined.as_secs_f64(),
        first / 1024.0,
        all / 1024.0,
        after / 1024.0
    );
    let enough = agents >= AGENTS;
    let back = back.as_secs_f64();
    Ok(vec![
        Figure::new(
            BACK,
            &what("from the controller's next start after kill -9 until all are ready again"),
            "s",
            "≤ 60, 10,000 agents",
            busy,
        )
        .values(back, None)
        .met(enough && back <= 60.0)
        .note(note.clone()),
        Figure::new(
            MEMORY,
            &what("resident memory of the controller for each"),
            "KiB",
            "≤ 64, 10,000 agents",
            busy,
        )
        .values(each, None)
        .met(enough && each <= 64.0)
        .note(note.clone()),
        Figure::new(
            IDLE,
            &what("CPU time of the controller, nothing to do but heartbeats, of one core"),
            "%",
            "≤ 5, 10,000 agents",
            busy,
        )
        .values(idle, None)
        .met(enough && idle <= 5.0)
        .note(format!("over {} s; {note}", WATCH.as_secs())),
    ])
}

/// From the start of the next controller until it says that all are ready.
async fn restart(bed: &mut Bed, agents: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    bed.controller.kill_and_time().await;
    loop {
        let nodes = bed.controller.client.all_nodes().await?;
        let ready = nodes.iter().filter(|node| node.state == NodeState::Ready);
        let ready = ready.count();
        if ready == agents {
            return Ok(began.elapsed());
        }
        let left = agents.saturating_sub(ready);
        ensure!(
            began.elapsed() < PATIENCE,
            "{left} are not back after {PATIENCE:?}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    let kib = word.with_context(|| format!("no Rss in {path}"))?;
    Ok(kib.parse()?)
}

/// User and system time so far.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let rest = text.rsplit_once(')').context("no name in it")?.1;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let ticks = words.get(11).zip(words.get(12)).context("it is short")?;
    // ticks of 10 ms
    Ok((ticks.0.parse::<f64>()? + ticks.1.parse::<f64>()?) / 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}
