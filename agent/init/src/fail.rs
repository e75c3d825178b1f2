//! When booting cannot go on, or init panics: say so on the console and in the kernel log, sync, then do what the command
//! line asks (`stillmetal.onfail`), after a delay in which the message can be read.

use std::error::Error;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cmdline::{BootConfig, OnFail};
use crate::log;
use crate::shutdown::{self, PowerAction};
use crate::signals;

/// Set once the command line is read; before that the defaults hold.
static POLICY: OnceLock<Policy> = OnceLock::new();

#[derive(Debug, Clone, Copy)]
struct Policy {
    onfail: OnFail,
    delay: Duration,
}

impl From<&BootConfig> for Policy {
    fn from(config: &BootConfig) -> Self {
        Self {
            onfail: config.onfail,
            delay: config.onfail_delay,
        }
    }
}

/// Makes the command line's policy the one in force.
pub(crate) fn set_policy(config: &BootConfig) {
    // A second boot stage in the same process does not exist, so the first value stays right.
    let _already_set = POLICY.set(config.into());
}

/// From here on a panic anywhere in init follows the policy. The release profile aborts on panic, but the hook runs
/// first and does not return.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| finish(&panic_text(info))));
}

/// A boot step failed that nothing can do without.
pub(crate) fn stop(error: &(dyn Error + 'static)) -> ! {
    finish(&format!("boot failed: {}", log::chain(error)))
}

fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown reason");
    match info.location() {
        Some(place) => format!(
            "init panicked at {}:{}: {message}",
            place.file(),
            place.line()
        ),
        None => format!("init panicked: {message}"),
    }
}

fn finish(what: &str) -> ! {
    let policy = POLICY
        .get()
        .copied()
        .unwrap_or_else(|| Policy::from(&BootConfig::default()));
    log::error(what);
    log::marker(&format!("{what}; {}", consequence(policy)));
    shutdown::sync_bounded(Duration::from_secs(5));
    match policy.onfail {
        OnFail::Reboot => wait(Some(policy.delay), PowerAction::Reboot),
        OnFail::Poweroff => wait(Some(policy.delay), PowerAction::Poweroff),
        OnFail::Hold => wait(None, PowerAction::Reboot),
    }
}

fn consequence(policy: Policy) -> String {
    let seconds = policy.delay.as_secs();
    match policy.onfail {
        OnFail::Reboot => format!("rebooting in {seconds} s"),
        OnFail::Poweroff => format!("powering off in {seconds} s"),
        OnFail::Hold => "holding: ctrl-alt-del reboots".to_owned(),
    }
}

/// Keeps PID 1 alive until the time is up, or somebody asks for power. Children that die meanwhile are reaped.
fn wait(delay: Option<Duration>, then: PowerAction) -> ! {
    let deadline = delay.map(|delay| Instant::now() + delay);
    signals::block_all_handled();
    // Without this the kernel resets the machine itself, which is also what is wanted here if it fails.
    let _cad = nix::sys::reboot::set_cad_enabled(false);
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            shutdown::power(then);
        }
        for signal in signals::wait(left.unwrap_or(Duration::from_secs(3600))) {
            match (signal, shutdown::action_of(signal)) {
                (_, Some(action)) => shutdown::power(action),
                (Signal::SIGCHLD, None) => signals::reap_all(|_, _| {}),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_what_happens_next() {
        let delay = Duration::from_secs(7);
        let text = |onfail| consequence(Policy { onfail, delay });
        assert_eq!(text(OnFail::Reboot), "rebooting in 7 s");
        assert_eq!(text(OnFail::Poweroff), "powering off in 7 s");
        assert_eq!(text(OnFail::Hold), "holding: ctrl-alt-del reboots");
    }
}
