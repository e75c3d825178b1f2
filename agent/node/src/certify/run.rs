//! One certified run, from its start to its certificate.
//!
//! The container has started, its gate sleeps. A thread of its own (nothing of the async runtime's)
//! does the rest, with a deadline on every wait but the job's own. Whatever fails on the way makes
//! the run unproven and is told; the user's program runs all the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpulist::CpuSet;
use gate::page::{Command as Order, State};
use host::Tree;
use host::cgroup::ROOT;
use policy::{Certify, Trace};
use quiet::{
    Certificate, Conditions, Evidence, Hardware, Interruptions, JobOutcome, Output, Platform,
    Release, Settings, TickMode, Watch, Window, WindowName, parse,
};
use tokio_util::sync::CancellationToken;

use super::canary::{Canaries, Perch};
use super::conditions::Place;
use super::desk::Desk;
use super::ended::Ended;
use super::exit::{End, ExitWatch, Status};
use super::guard::Guard;
use super::page::Page;
use super::rhythm::{PERIOD, Rhythm};
use super::sampler::{Sampler, exiting};
use super::tracer::{self, Tracer, Untraced};
use super::witness::Witness;
use super::{Parts, prompt, raw_ns, settings};
use crate::cgroups;
use crate::engine::client::About;
use crate::engine::output::{CLOSE_DEADLINE, Written};
use crate::placement::ledger::Token;
use crate::tools::Meter;

/// From the engine's answer to the gate's own first word.
const GATE_DEADLINE: Duration = Duration::from_secs(60);
/// A gate that is told to spin does so within a scheduling latency.
const SPIN_DEADLINE: Duration = Duration::from_secs(10);
/// From the last snapshot before the job to its first instruction.
const LEAD: Duration = Duration::from_millis(10);
/// How long nothing must have struck the job's CPUs before it is let go, and when that is given up.
const SILENCE: Duration = Duration::from_millis(500);
const SETTLE_DEADLINE: Duration = Duration::from_secs(10);
/// Snapshots between two looks at the knobs.
const LOOK_EVERY: u32 = 10;
const TOO_EARLY: &str = "the container ended before its program began";
const POLL: Duration = Duration::from_millis(2);
/// From the signal that ends everything in a cgroup to its end: the kernel only has to give memory
/// back.
const KILL_DEADLINE: Duration = Duration::from_secs(60);
/// The engine reports an exit at once.
const EXIT_DEADLINE: Duration = Duration::from_secs(30);

/// A run that is under way.
pub(crate) struct Run {
    parts: Parts,
    token: Token,
    container: String,
    certify: Certify,
    about: About,
    cpus: CpuSet,
    /// Its log holds what earlier runs wrote.
    ran_before: bool,
    /// No canary is worth waiting for.
    hurry: CancellationToken,
    /// Counts what its program does.
    meter: Option<Arc<Meter>>,
}

/// What the thread found.
#[derive(Default)]
struct Measured {
    windows: Vec<Window>,
    before: Conditions,
    after: Conditions,
    release: Release,
    settings: Settings,
    end: Option<End>,
    timed_out: bool,
    oom_killed: Option<bool>,
    hardware: Option<Hardware>,
    /// First processes of the job and of its canaries.
    own: BTreeSet<u32>,
    interruptions: Option<Interruptions>,
    /// Why it is not all there.
    troubles: Vec<String>,
}

impl Run {
    /// `None`: the engine or the placement do not know the container.
    pub(crate) async fn of(parts: &Parts, token: Token, container: String) -> Option<Self> {
        let about = match parts.client.about(&container).await {
            Ok(about) => about,
            Err(error) => {
                tracing::warn!(container, error = %crate::chain(&error), "run not known");
                return None;
            }
        };
        let certify = parts.placer.certify(&token)?;
        let claims = parts.placer.claims();
        let own = claims.into_iter().find(|(other, _)| *other == token);
        let cpus = own.map(|(_, claim)| claim.cpus).unwrap_or_default();
        Some(Self {
            parts: parts.clone(),
            token,
            container,
            certify,
            about,
            cpus,
            ran_before: false,
            hurry: parts.stop.clone(),
            meter: None,
        })
    }

    /// What the engine said of its container when it had started.
    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// When its container started, as the engine writes it.
    pub(crate) fn started_at(&self) -> &str {
        &self.about.started_at
    }

    /// That its container had started before.
    pub(crate) fn again(self) -> Self {
        Self {
            ran_before: true,
            ..self
        }
    }

    /// That it is to be over soon once this is cancelled.
    pub(crate) fn hurried_by(self, hurry: CancellationToken) -> Self {
        Self { hurry, ..self }
    }

    /// That events of its program are counted.
    pub(crate) fn counted_by(self, meter: Option<Arc<Meter>>) -> Self {
        Self { meter, ..self }
    }

    /// Puts everything back; to be called when the container did not start.
    pub(crate) async fn give_up(&self) {
        Desk::at(&self.parts.run_dir, &self.token).close();
        self.parts.placer.let_go(&self.token).await;
    }

    /// What is left until its time limit; `None`: it has none, or its program never began.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let limit = Duration::from_secs(self.certify.timeout_seconds?.into());
        let past = Duration::from_nanos(raw_ns().saturating_sub(self.begun_ns()?));
        Some(limit.saturating_sub(past))
    }

    /// Whether its program was let go.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun_ns().is_some()
    }

    fn begun_ns(&self) -> Option<u64> {
        begun_ns(&Desk::at(&self.parts.run_dir, &self.token))
    }

    /// Ends it after `left`, unless it has ended by then.
    pub(crate) async fn end_after(self, left: Duration) {
        tokio::select! {
            () = self.parts.stop.cancelled() => return,
            () = tokio::time::sleep(left) => {}
        }
        let now = self.parts.client.about(&self.container).await;
        if now.is_ok_and(|now| now.pid == self.about.pid) {
            tracing::info!(container = self.container, "killed at its time limit");
            self.kill(&mut Measured::default());
        }
    }

    /// A run of which the agent that began it was killed: whatever it had seen is lost.
    pub(crate) fn interrupted(&self) -> Certificate {
        let desk = Desk::at(&self.parts.run_dir, &self.token);
        if let Ok(page) = Page::open(&desk.control()) {
            page.command(Order::GiveUp); // to a gate that still waits; a program never sees it
        }
        desk.close();
        let measured = Measured {
            troubles: vec![
                "the node's agent was restarted during the run: what it had seen is lost".into(),
            ],
            ..Measured::default()
        };
        let output = Written::unknown("the node's agent was restarted during the run").output;
        Certificate::new(self.evidence(measured, None, output))
    }

    /// Measures it to its end, and puts everything back.
    pub(crate) async fn drive(self) -> (String, Option<Certificate>) {
        let run = Arc::new(self);
        let exit = {
            let (client, id) = (run.parts.client.clone(), run.container.clone());
            tokio::spawn(async move { client.exit_code(&id).await })
        };
        let written = {
            let (client, id) = (run.parts.client.clone(), run.container.clone());
            let ran_before = run.ran_before;
            tokio::spawn(async move {
                if ran_before {
                    return Written::unknown("its log holds what earlier runs wrote as well");
                }
                client.follow_output(&id).await
            })
        };
        let measured = {
            let run = Arc::clone(&run);
            prompt::on_thread("measure", move || run.measure()).await
        };
        let exit_code = match tokio::time::timeout(EXIT_DEADLINE, exit).await {
            Ok(Ok(code)) => code,
            // killed by whoever, or the engine is gone: not known
            Ok(Err(_)) | Err(_) => None,
        };
        let output = match tokio::time::timeout(CLOSE_DEADLINE, written).await {
            Ok(Ok(written)) => written.output,
            Ok(Err(_)) | Err(_) => {
                Written::unknown("the engine did not close the log in time").output
            }
        };
        Desk::at(&run.parts.run_dir, &run.token).close();
        run.parts.placer.let_go(&run.token).await;
        // the last one out disarms what others had armed before it
        if run.parts.placer.measures_only(Some(&run.token)) {
            tracer::sweep(&*run.parts.tree);
        }
        let certificate = match measured {
            Ok(measured) => Some(Certificate::new(run.evidence(measured, exit_code, output))),
            Err(error) => {
                tracing::error!(%error, "measuring a run died");
                None
            }
        };
        (run.container.clone(), certificate)
    }

    fn cgroup(&self) -> String {
        format!("{}/{}", self.partition(), self.container)
    }

    fn partition(&self) -> String {
        cgroups::partition_name(&self.token)
    }

    fn measure(&self) -> Measured {
        let mut measured = Measured::default();
        let desk = Desk::at(&self.parts.run_dir, &self.token);
        let tree = &*self.parts.tree;
        let (partition, cgroup) = (self.partition(), self.cgroup());
        let place = Place {
            tree,
            cpus: &self.cpus,
            partition: &partition,
            cgroup: &cgroup,
        };
        let (page, ended) = match (Page::open(&desk.control()), Ended::watch(&cgroup)) {
            (Ok(page), Ok(ended)) => (page, ended),
            (_, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                measured.troubles.push(TOO_EARLY.into());
                return measured;
            }
            (Err(error), _) | (_, Err(error)) => {
                // the gate gives up at its deadline, with a message of its own
                measured
                    .troubles
                    .push(format!("the gate cannot be reached: {error}"));
                return measured;
            }
        };
        if let Err(why) = wait_for(&page, State::Waiting, &ended, GATE_DEADLINE) {
            measured.troubles.push(why);
            page.command(Order::GiveUp);
            return measured;
        }
        let (settings, troubles) = settings::apply(tree, self.about.pid, &self.certify);
        measured.settings = settings;
        measured.troubles.extend(troubles);
        // interrupts the CPU where the gate sleeps, so before any window
        if let Some(meter) = &self.meter {
            meter.attach(self.about.pid);
        }
        let exit = ExitWatch::start(self.about.pid);
        let oom_before = self.oom_kills();
        measured.before = place.conditions(self.parts.report().as_ref());
        let plan = self.parts.plan.get();
        let mut guard = Guard::new(&place, plan);
        let tracer = self.tracer(&mut measured);
        let perch = self.perch(&mut measured);
        let mut witness = self.witness();
        let (pre, post) = (WindowName::CanaryPre, WindowName::CanaryPost);
        self.canary(&desk, perch.as_ref(), pre, &mut witness, &mut measured);
        witness.before(WindowName::Job);
        if let Err(why) = self.job(&page, &ended, &mut guard, &mut measured) {
            measured.troubles.push(why);
        }
        witness.after(WindowName::Job);
        measured.release.exec_ns = page
            .report()
            .map(|report| report.exec_ns.into_inner())
            .filter(|instant| *instant > 0);
        // nothing of the container may run beside the canary
        if self.outlast(&ended, &mut measured) {
            self.canary(&desk, perch.as_ref(), post, &mut witness, &mut measured);
        }
        measured.end = match exit {
            // `populated 0` comes a little before the process is a zombie
            Ok(exit) => exit.within(EXIT_DEADLINE),
            Err(error) => {
                let why = format!("the end of the job could not be watched: {error}");
                measured.troubles.push(why);
                None
            }
        };
        measured.hardware = Some(witness.finish());
        measured.oom_killed = oom_before
            .zip(self.oom_kills())
            .map(|(before, after)| after > before);
        let drift = guard.finish();
        measured.after = Conditions {
            drift,
            ..place.conditions(self.parts.report().as_ref())
        };
        if let Some(tracer) = tracer {
            measured.own.insert(self.about.pid);
            measured.interruptions = Some(tracer.read(&measured.own, &measured.windows));
        }
        measured
    }

    /// `None`: not asked for, or not possible.
    fn tracer(&self, measured: &mut Measured) -> Option<Tracer> {
        if self.certify.trace == Trace::Off {
            return None;
        }
        let armed = if self.parts.placer.measures_only(Some(&self.token)) {
            Tracer::arm(
                &self.parts.tree,
                &self.container,
                &self.cpus,
                self.about.pid,
            )
        } else {
            Err(Untraced::Occupied)
        };
        armed
            .map_err(|why| measured.interruptions = Some(tracer::unobservable(&why)))
            .ok()
    }

    /// `None`: no canaries.
    fn perch(&self, measured: &mut Measured) -> Option<Perch> {
        if self.certify.canary_seconds == 0 {
            return None;
        }
        Perch::make(&self.parts.tree, &format!("/{}", self.partition()))
            .map_err(|why| measured.troubles.push(why))
            .ok()
    }

    /// A spinning thread on each CPU for the time asked for.
    fn canary(
        &self,
        desk: &Desk,
        perch: Option<&Perch>,
        name: WindowName,
        witness: &mut Witness<'_>,
        measured: &mut Measured,
    ) {
        let Some(perch) = perch else { return };
        witness.before(name);
        let length = Duration::from_secs(self.certify.canary_seconds.into());
        let life = length * 2 + Duration::from_secs(60);
        let started = Canaries::start(&self.parts.agent, desk, perch, &self.cpus, life);
        let spun = started.and_then(|canaries| {
            measured.own.extend(canaries.pids());
            let mut sampler = self.sampler(perch.cgroup(), None);
            let first = take(&sampler)?;
            let end_ns = first.taken_ns.saturating_add(nanos(length));
            let mut watch = Watch::new(first);
            let mut rhythm = Rhythm::begin();
            // no shorter between its first and last snapshot than was asked for, however long the
            // node takes for one
            loop {
                if self.hurry.is_cancelled() {
                    return Err("the run was cancelled, or the node is going down".into());
                }
                std::thread::sleep(rhythm.rest());
                let last = raw_ns() >= end_ns;
                watch.push(take(&sampler)?);
                if last {
                    // dear, so in a step of its own
                    sampler.look_for_residents();
                    watch.push(take(&sampler)?);
                    break;
                }
            }
            witness.after(name);
            Ok(watch.finish().named(name))
        });
        match spun {
            Ok(window) => measured.windows.push(window),
            Err(why) => measured.troubles.push(format!("{name}: {why}")),
        }
    }

    /// Lets the job go and watches it to its end, or to its time limit and kills it.
    fn job(
        &self,
        page: &Page,
        ended: &Ended,
        guard: &mut Guard<'_>,
        measured: &mut Measured,
    ) -> Result<(), String> {
        page.command(Order::Spin);
        let spinning = wait_for(page, State::Spinning, ended, SPIN_DEADLINE);
        let mut sampler = self.sampler(&self.cgroup(), Some(self.about.pid));
        let first = spinning.and_then(|()| settled(&sampler));
        let released_ns = raw_ns().saturating_add(nanos(LEAD));
        // also when something went wrong: the program is the user's and is to run
        page.release_at(released_ns)
            .map_err(|error| format!("the gate could not be opened: {error}"))?;
        measured.release.released_ns = Some(released_ns);
        let mut last = first?;
        let mut watch = Watch::new(last.clone());
        let mut count: u32 = 0;
        let mut rhythm = Rhythm::begin();
        while !ended.within(rhythm.rest()) {
            let next = take(&sampler)?;
            if exiting(&*self.parts.tree, self.about.pid) {
                break; // perhaps it was while we read: the exit window begins before
            }
            watch.push(next.clone());
            last = next;
            count = count.wrapping_add(1);
            if count.is_multiple_of(LOOK_EVERY) {
                guard.look();
            }
            if self.overdue(measured) {
                self.kill(measured);
                ended.within(KILL_DEADLINE);
                break;
            }
        }
        let mut exit = Watch::new(last);
        exit.push(take(&sampler)?);
        sampler.look_for_residents();
        measured.windows.push(watch.finish());
        measured.windows.push(exit.finish().named(WindowName::Exit));
        Ok(())
    }

    /// Waits until nothing of the job runs any more, and ends it at its time limit; false: it could
    /// not be ended. A job without a limit may take as long as it likes.
    fn outlast(&self, ended: &Ended, measured: &mut Measured) -> bool {
        while !ended.within(PERIOD) {
            if measured.timed_out || self.overdue(measured) {
                if !measured.timed_out {
                    self.kill(measured);
                }
                if !ended.within(KILL_DEADLINE) {
                    let why = format!("the job still ran {KILL_DEADLINE:?} after it was killed");
                    measured.troubles.push(why);
                    return false;
                }
            }
        }
        true
    }

    fn overdue(&self, measured: &Measured) -> bool {
        let limit = self.certify.timeout_seconds.map(u64::from);
        limit
            .zip(measured.release.released_ns)
            .is_some_and(|(seconds, released_ns)| {
                raw_ns() >= released_ns.saturating_add(seconds.saturating_mul(1_000_000_000))
            })
    }

    /// Ends everything in the job's cgroup at once.
    fn kill(&self, measured: &mut Measured) {
        measured.timed_out = true;
        let path = format!("{ROOT}/{}/cgroup.kill", self.cgroup());
        if let Err(error) = self.parts.tree.write(&path, "1") {
            let why = format!("the job could not be killed at its time limit: {path}: {error}");
            measured.troubles.push(why);
        }
    }

    fn witness(&self) -> Witness<'_> {
        let housekeeping = self.parts.report().map(|report| report.cpus.housekeeping);
        let (tree, msrs) = (&*self.parts.tree, &*self.parts.msrs);
        Witness::new(
            tree,
            msrs,
            &self.cpus,
            housekeeping.unwrap_or_default(),
            raw_ns,
        )
    }

    fn sampler(&self, cgroup: &str, first: Option<u32>) -> Sampler {
        Sampler::new(
            Arc::clone(&self.parts.tree),
            self.cpus.clone(),
            cgroup.to_owned(),
            first,
        )
    }

    /// Of everything below the claim's cgroup: its own file outlives the container's.
    fn oom_kills(&self) -> Option<u64> {
        let path = format!("{ROOT}/{}/memory.events", self.partition());
        parse::parse_oom_kill(&self.parts.tree.read(&path).ok()?)
    }

    fn evidence(&self, measured: Measured, exit_code: Option<i32>, output: Output) -> Evidence {
        let tree = &*self.parts.tree;
        let job_cpus = self.cpus.clone();
        let tickless = measured
            .before
            .nohz_full
            .as_ref()
            .is_some_and(|set| job_cpus.is_subset(set));
        let report = self.parts.report();
        let hypervisor = report.as_ref().map(|report| report.hypervisor);
        let status = measured.end.and_then(|end| end.status);
        Evidence {
            run_id: format!("{}-{}", short(&self.container), raw_ns()),
            container_id: self.container.clone(),
            image: self.about.image.clone(),
            argv: self.about.argv.clone(),
            class: self.certify.class,
            tick_mode: if tickless {
                TickMode::NohzFull
            } else {
                TickMode::Tick
            },
            platform: platform(tree, hypervisor),
            job_cpus,
            housekeeping_cpus: report
                .map(|report| report.cpus.housekeeping)
                .unwrap_or_default(),
            before: measured.before,
            after: measured.after,
            windows: measured.windows,
            hardware: measured
                .hardware
                .unwrap_or_else(|| Hardware::unobservable("the run was not watched to its end")),
            interruptions: match self.certify.trace {
                Trace::Off => None,
                Trace::On => measured
                    .interruptions
                    .or_else(|| Some(tracer::unobservable(&Untraced::Unfinished))),
            },
            actions_in_window: self.parts.placer.notes(&self.token),
            troubles: measured.troubles,
            job: JobOutcome {
                exit_code: exit_code.or(match status {
                    Some(Status::Exited(code)) => Some(code),
                    Some(Status::Signalled(_)) | None => None,
                }),
                signal: match status {
                    Some(Status::Signalled(signal)) => Some(signal),
                    Some(Status::Exited(_)) | None => None,
                },
                oom_killed: measured.oom_killed,
                timed_out: measured.timed_out,
                gate: measured.release,
                ended_ns: measured.end.map(|end| end.at_ns),
                settings: measured.settings,
                output,
            },
        }
    }
}

/// The first snapshot of a job: when nothing has struck its CPUs for a while, since what setting up
/// the container left behind (work that the kernel puts off) is not the job's. After
/// [`SETTLE_DEADLINE`] whatever is there is taken as it is.
pub(crate) fn settled(sampler: &Sampler) -> Result<quiet::Snapshot, String> {
    let deadline = Instant::now() + SETTLE_DEADLINE;
    let mut last = take(sampler)?;
    loop {
        std::thread::sleep(SILENCE);
        let next = take(sampler)?;
        if Sampler::silent(&last, &next) || Instant::now() >= deadline {
            return Ok(next);
        }
        last = next;
    }
}

/// When a run's program was let go; `None`: it was not.
pub(crate) fn begun_ns(desk: &Desk) -> Option<u64> {
    let report = Page::open(&desk.control()).ok()?.report()?;
    Some(report.exec_ns.into_inner()).filter(|instant| *instant > 0)
}

pub(crate) fn take(sampler: &Sampler) -> Result<quiet::Snapshot, String> {
    sampler
        .take()
        .map_err(|error| format!("the kernel's counters could not be read: {error}"))
}

/// Waits for the gate to say so.
fn wait_for(page: &Page, wanted: State, ended: &Ended, patience: Duration) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match page.state() {
            Some(state) if state == wanted => return Ok(()),
            Some(State::Failed) => return Err("the program could not be run at all".into()),
            _ if ended.within(Duration::ZERO) => {
                return Err(TOO_EARLY.into());
            }
            state if Instant::now() >= deadline => {
                return Err(format!(
                    "the gate is {state:?} and not {wanted:?} after {patience:?}"
                ));
            }
            _ => std::thread::sleep(POLL),
        }
    }
}

pub(crate) fn platform(tree: &dyn Tree, hypervisor: Option<bool>) -> Platform {
    let line = |path: &str| tree.read(path).map(|text| text.trim().to_owned());
    let cpu_model = tree
        .read_up_to("/proc/cpuinfo", 16 << 20)
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
    Platform {
        kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
        cmdline: line("/proc/cmdline").unwrap_or_default(),
        cpu_model: cpu_model.unwrap_or_default(),
        hypervisor,
        agent_version: env!("CARGO_PKG_VERSION").into(),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
