//! Power: the agent asks PID 1, which stops everything in order.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use policy::Denial;
use serde::{Deserialize, Serialize};

/// `POST /stillmetal/v1/power`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    pub action: PowerAction,
}

/// What PID 1 shall do after it stopped containers and engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerAction {
    Poweroff,
    Reboot,
}

/// Signals PID 1, if that is ours.
///
/// # Errors
/// 409 on a host whose PID 1 is not Stillmetal's: its power is not ours to switch.
pub fn ask_init(action: PowerAction) -> Result<(), Denial> {
    if nix::unistd::getppid() != Pid::from_raw(1) || !init_is_ours() {
        return Err(Denial {
            status: 409,
            message: "this agent does not run under Stillmetal's init: power is the host's".into(),
        });
    }
    let signal = match action {
        PowerAction::Poweroff => Signal::SIGUSR2,
        PowerAction::Reboot => Signal::SIGHUP,
    };
    kill(Pid::from_raw(1), signal).map_err(|errno| Denial {
        status: 500,
        message: format!("signal PID 1: {errno}"),
    })
}

fn init_is_ours() -> bool {
    match (std::fs::read_link("/proc/1/exe"), std::env::current_exe()) {
        (Ok(init), Ok(agent)) => init == agent,
        _ => false,
    }
}
