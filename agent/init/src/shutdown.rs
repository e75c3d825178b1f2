//! The way down: who may ask for it, in which order things end, and the last act.
//!
//! The agent gets SIGTERM first: it stops containers with their own time-outs, then the engine, then itself. What is
//! left after that is killed by cgroup, then by signal. [`Shutdown`] decides, purely; the [supervisor](crate::supervise)
//! acts.

use std::convert::Infallible;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::Signal;

use crate::log;

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    Poweroff,
    Reboot,
}

/// The agent may take this long to stop containers and the engine.
const AGENT_PATIENCE: Duration = Duration::from_secs(40);
/// Processes may take this long after SIGTERM when the agent was there to stop what matters …
const GRACE: Duration = Duration::from_secs(2);
/// … and this long when it was not: then containers get their SIGTERM only now.
const GRACE_WITHOUT_AGENT: Duration = Duration::from_secs(10);
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// Whoever asks twice is in a hurry.
const HURRIED: Duration = Duration::from_secs(2);
pub(crate) const SYNC_PATIENCE: Duration = Duration::from_secs(10);

/// What a signal to PID 1 asks for. Ctrl-alt-del arrives as SIGINT.
#[must_use]
pub fn action_of(signal: Signal) -> Option<PowerAction> {
    match signal {
        Signal::SIGTERM | Signal::SIGUSR2 | Signal::SIGPWR => Some(PowerAction::Poweroff),
        Signal::SIGINT | Signal::SIGHUP => Some(PowerAction::Reboot),
        _ => None,
    }
}

/// What is still running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    pub agent: bool,
    /// Any process at all besides init.
    pub others: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    TermAgent,
    /// Kill every cgroup but the agent's.
    KillCgroups,
    TermAll,
    KillAll,
    /// Sync, then the last act.
    Finish(PowerAction),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    StopAgent,
    TermAll,
    KillAll,
    Finished,
}

/// The shutdown in progress.
#[derive(Debug)]
pub struct Shutdown {
    action: PowerAction,
    phase: Phase,
    deadline: Instant,
}

impl Shutdown {
    /// Begins; the first steps come back.
    #[must_use]
    pub fn begin(action: PowerAction, now: Instant, alive: Alive) -> (Self, Vec<Step>) {
        if alive.agent {
            let deadline = now + AGENT_PATIENCE;
            (
                Self {
                    action,
                    phase: Phase::StopAgent,
                    deadline,
                },
                vec![Step::TermAgent],
            )
        } else {
            let deadline = now + GRACE_WITHOUT_AGENT;
            (
                Self {
                    action,
                    phase: Phase::TermAll,
                    deadline,
                },
                vec![Step::TermAll],
            )
        }
    }

    /// A second request changes nothing but the patience.
    pub fn hurry(&mut self, now: Instant) {
        self.deadline = self.deadline.min(now + HURRIED);
    }

    /// When to call [`Self::step`] again if nothing ends before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Looks at what is left and decides.
    pub fn step(&mut self, now: Instant, alive: Alive) -> Vec<Step> {
        let late = now >= self.deadline;
        match self.phase {
            Phase::StopAgent if late || !alive.agent => {
                self.enter(Phase::TermAll, now + GRACE);
                vec![Step::KillCgroups, Step::TermAll]
            }
            Phase::TermAll | Phase::KillAll if !alive.others => self.finish(),
            Phase::TermAll if late => {
                self.enter(Phase::KillAll, now + KILL_PATIENCE);
                vec![Step::KillCgroups, Step::KillAll]
            }
            // A process that SIGKILL does not end is stuck in the kernel: power ends it.
            Phase::KillAll if late => self.finish(),
            _ => Vec::new(),
        }
    }

    fn enter(&mut self, phase: Phase, deadline: Instant) {
        self.phase = phase;
        self.deadline = deadline;
    }

    fn finish(&mut self) -> Vec<Step> {
        self.phase = Phase::Finished;
        vec![Step::Finish(self.action)]
    }
}

/// Syncs, but does not wait for ever: a disk that does not answer must not keep the machine on. The thread is the only
/// one that init ever starts, because `sync(2)` cannot be interrupted.
pub(crate) fn sync_bounded(patience: Duration) {
    let (done, wait) = mpsc::channel();
    let syncing = thread::Builder::new().name("sync".into()).spawn(move || {
        nix::unistd::sync();
        // The receiver is gone only when the time was up.
        let _late = done.send(());
    });
    if syncing.is_err() || wait.recv_timeout(patience).is_err() {
        log::warn("sync did not finish; going on");
    }
}

/// The last act. Does not return, whatever the kernel says: PID 1 must not end.
pub(crate) fn power(action: PowerAction) -> ! {
    let mode = match action {
        PowerAction::Poweroff => RebootMode::RB_POWER_OFF,
        PowerAction::Reboot => RebootMode::RB_AUTOBOOT,
    };
    let Err(error): Result<Infallible, _> = reboot(mode);
    log::marker(&format!("cannot {}: {error}", describe(action)));
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

pub(crate) fn describe(action: PowerAction) -> &'static str {
    match action {
        PowerAction::Poweroff => "poweroff",
        PowerAction::Reboot => "reboot",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Alive = Alive {
        agent: true,
        others: true,
    };
    const NO_AGENT: Alive = Alive {
        agent: false,
        others: true,
    };
    const NOBODY: Alive = Alive {
        agent: false,
        others: false,
    };

    #[test]
    fn signals_mean_what_the_contract_says() {
        use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGPWR, SIGTERM, SIGUSR1, SIGUSR2};
        for signal in [SIGTERM, SIGUSR2, SIGPWR] {
            assert_eq!(action_of(signal), Some(PowerAction::Poweroff));
        }
        for signal in [SIGINT, SIGHUP] {
            assert_eq!(action_of(signal), Some(PowerAction::Reboot));
        }
        for signal in [SIGCHLD, SIGUSR1] {
            assert_eq!(action_of(signal), None);
        }
    }

    #[test]
    fn an_orderly_end_waits_for_the_agent_and_kills_nothing_that_is_gone() {
        let now = Instant::now();
        let (mut down, first) = Shutdown::begin(PowerAction::Poweroff, now, ALL);
        assert_eq!(first, [Step::TermAgent]);
        assert_eq!(down.step(now + Duration::from_secs(39), ALL), []);
        let ended = now + Duration::from_secs(5);
        assert_eq!(
            down.step(ended, NO_AGENT),
            [Step::KillCgroups, Step::TermAll]
        );
        assert_eq!(down.step(ended, NO_AGENT), []);
        assert_eq!(
            down.step(ended, NOBODY),
            [Step::Finish(PowerAction::Poweroff)]
        );
        assert_eq!(down.step(ended, NOBODY), []);
    }

    #[test]
    fn whatever_hangs_the_end_comes_within_a_minute() {
        let mut now = Instant::now();
        let start = now;
        let (mut down, _) = Shutdown::begin(PowerAction::Reboot, now, ALL);
        let mut steps = Vec::new();
        while !steps.contains(&Step::Finish(PowerAction::Reboot)) {
            now = down.deadline();
            steps.extend(down.step(now, ALL));
        }
        assert!(now - start <= Duration::from_secs(60));
        assert!(steps.contains(&Step::KillAll));
    }

    #[test]
    fn without_an_agent_containers_still_get_their_sigterm_first() {
        let now = Instant::now();
        let (mut down, first) = Shutdown::begin(PowerAction::Poweroff, now, NO_AGENT);
        assert_eq!(first, [Step::TermAll]);
        assert_eq!(down.step(now + Duration::from_secs(9), NO_AGENT), []);
        let late = now + Duration::from_secs(10);
        assert_eq!(
            down.step(late, NO_AGENT),
            [Step::KillCgroups, Step::KillAll]
        );
    }

    #[test]
    fn asking_again_only_shortens_the_wait() {
        let now = Instant::now();
        let (mut down, _) = Shutdown::begin(PowerAction::Poweroff, now, ALL);
        down.hurry(now);
        assert_eq!(down.deadline(), now + HURRIED);
        down.hurry(now + Duration::from_secs(1));
        assert_eq!(down.deadline(), now + HURRIED);
        assert_eq!(
            down.step(now + HURRIED, ALL),
            [Step::KillCgroups, Step::TermAll]
        );
    }
}
