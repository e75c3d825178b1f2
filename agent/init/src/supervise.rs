//! The loop that PID 1 spends its life in: one poll over the signals, the power button and the next time something is
//! due. It starts services, reaps whatever ends, and goes down in order when asked.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::input::{self, Reading};
use crate::service::{Service, Spec};
use crate::shutdown::{self, Alive, PowerAction, Shutdown, Step};
use crate::{cgroup, log, signals};

/// Every process that this one may signal: for PID 1, all but itself.
const EVERYBODY: Pid = Pid::from_raw(-1);

/// The services, and the state of the way down.
#[derive(Debug)]
pub struct Supervisor {
    /// The first is the agent: the shutdown waits for it.
    services: Vec<Service>,
    signals: SignalFd,
    buttons: Vec<File>,
    cgroup_root: PathBuf,
    shutdown: Option<Shutdown>,
    orphans: u64,
}

impl Supervisor {
    /// Blocks the signals and opens what the loop listens to. The first service is the agent.
    ///
    /// # Errors
    /// When no signalfd can be had.
    pub fn new(services: Vec<Spec>, cgroup_root: PathBuf) -> io::Result<Self> {
        signals::block_all_handled();
        let now = Instant::now();
        Ok(Self {
            services: services
                .into_iter()
                .map(|spec| Service::new(spec, now))
                .collect(),
            signals: signals::open()?,
            buttons: input::open_all(),
            cgroup_root,
            shutdown: None,
            orphans: 0,
        })
    }

    /// How many processes were reaped that were not services.
    #[must_use]
    pub fn orphans_reaped(&self) -> u64 {
        self.orphans
    }

    /// Runs until the way down is at its end, then calls `finish`. For a real PID 1 that does not return; a test's does.
    pub fn run(&mut self, finish: &mut dyn FnMut(PowerAction)) {
        loop {
            self.reap();
            if self.shutdown.is_none() {
                self.start_due();
            }
            if self.descend(finish) {
                return;
            }
            self.wait();
            for signal in signals::drain(&self.signals) {
                if let Some(action) = shutdown::action_of(signal) {
                    self.request(action, signal.as_str());
                }
            }
            if self.power_button() {
                self.request(PowerAction::Poweroff, "the power button");
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for service in &mut self.services {
            if service.due_at().is_some_and(|due| due <= now) {
                match service.start(now) {
                    Ok(pid) => log::info(&format!("{} started, pid {pid}", service.spec.name)),
                    Err(error) => {
                        log::error(&format!("start {}: {error}", service.spec.program));
                    }
                }
            }
        }
    }

    fn reap(&mut self) {
        let now = Instant::now();
        let Self {
            services,
            orphans,
            shutdown,
            ..
        } = self;
        signals::reap_all(|pid, status| {
            match services
                .iter_mut()
                .find(|service| service.pid() == Some(pid))
            {
                Some(service) => report_end(service, now, status, shutdown.is_some()),
                None => *orphans += 1,
            }
        });
    }

    /// Waits for a signal, a button, or the next thing that is due.
    fn wait(&mut self) {
        let starts = self.services.iter().filter_map(Service::due_at);
        let until = match &self.shutdown {
            Some(down) => Some(down.deadline()),
            None => starts.min(),
        };
        let timeout = until.map_or(PollTimeout::NONE, |at| {
            // Rounded up: waking just before the time would spin.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.buttons
                .iter()
                .map(|b| PollFd::new(b.as_fd(), PollFlags::POLLIN)),
        );
        // Whatever it says, the next round looks at everything.
        let _any = poll(&mut fds, timeout);
    }

    fn power_button(&mut self) -> bool {
        let mut pressed = false;
        self.buttons.retain_mut(|device| match input::read(device) {
            Reading::PowerKey => {
                pressed = true;
                true
            }
            Reading::Nothing => true,
            Reading::Gone => false,
        });
        pressed
    }

    fn request(&mut self, action: PowerAction, who: &str) {
        let now = Instant::now();
        if let Some(down) = &mut self.shutdown {
            log::info(&format!("{who} asks again: hurrying"));
            return down.hurry(now);
        }
        log::info(&format!("{who} asks for {}", shutdown::describe(action)));
        log::marker(&format!("going down: {}", shutdown::describe(action)));
        let (down, steps) = Shutdown::begin(action, now, self.alive());
        self.shutdown = Some(down);
        for step in steps {
            self.act(step);
        }
    }

    /// Goes down as far as it goes without waiting; true at the end.
    fn descend(&mut self, finish: &mut dyn FnMut(PowerAction)) -> bool {
        loop {
            let alive = self.alive();
            let Some(down) = &mut self.shutdown else {
                return false;
            };
            let steps = down.step(Instant::now(), alive);
            if steps.is_empty() {
                return false;
            }
            for step in steps {
                if let Step::Finish(action) = step {
                    shutdown::sync_bounded(shutdown::SYNC_PATIENCE);
                    finish(action);
                    return true;
                }
                self.act(step);
            }
            // Whoever is gone by now will not send another SIGCHLD: look again at once.
            self.reap();
        }
    }

    fn alive(&self) -> Alive {
        let agent = self
            .services
            .first()
            .is_some_and(|agent| agent.pid().is_some());
        Alive {
            agent,
            others: signals::has_children(),
        }
    }

    fn act(&self, step: Step) {
        let result = match step {
            Step::TermAgent => match self.services.first().and_then(Service::pid) {
                Some(pid) => kill(pid, Signal::SIGTERM),
                None => Ok(()),
            },
            Step::KillCgroups => {
                cgroup::kill_all_but_agent(&self.cgroup_root);
                Ok(())
            }
            Step::TermAll => kill(EVERYBODY, Signal::SIGTERM),
            Step::KillAll => kill(EVERYBODY, Signal::SIGKILL),
            Step::Finish(_) => Ok(()),
        };
        match result {
            // ESRCH: there is nobody left, which is what was wanted.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => log::warn(&format!("shutdown, {step:?}: {error}")),
        }
    }
}

fn report_end(service: &mut Service, now: Instant, status: WaitStatus, going_down: bool) {
    let delay = service.ended(now);
    let name = service.spec.name;
    let how = signals::describe(status);
    if going_down {
        log::info(&format!("{name} {how}"));
    } else {
        log::error(&format!(
            "{name} {how}; starting again in {:.1} s",
            delay.as_secs_f64()
        ));
    }
}
