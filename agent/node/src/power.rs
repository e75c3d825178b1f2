//! Power: on the appliance the agent asks PID 1, which stops everything in order; on a host it is the
//! host's, unless its configuration allows it to the agent.

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

/// Who switches the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Power {
    /// Our own PID 1.
    #[default]
    Init,
    /// Nobody on our behalf: other work than ours runs here.
    Host,
    /// The host's service manager: its configuration says that we may.
    Systemd,
}

impl Power {
    /// Has it switched.
    ///
    /// # Errors
    /// 409 where it is not ours to switch, 500 when it cannot be.
    pub(crate) async fn ask(self, action: PowerAction) -> Result<(), Denial> {
        match self {
            Self::Init => ask_init(action),
            Self::Host => Err(Denial {
                status: 409,
                message:
                    "this node is an ordinary host: its power is not the agent's to switch; do it \
                          there, or start the agent with --allow-power"
                        .into(),
            }),
            Self::Systemd => ask_systemd(action).await,
        }
    }
}

async fn ask_systemd(action: PowerAction) -> Result<(), Denial> {
    let verb = match action {
        PowerAction::Poweroff => "poweroff",
        PowerAction::Reboot => "reboot",
    };
    let failed = |why: String| Denial {
        status: 500,
        message: format!("systemctl {verb}: {why}"),
    };
    let asked = tokio::process::Command::new("systemctl")
        .args(["--no-block", "--no-ask-password", verb])
        .output();
    let output = asked.await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, said.trim())))
}

/// Signals PID 1, if that is ours.
///
/// # Errors
/// 409 on a host whose PID 1 is not Stillmetal's: its power is not ours to switch.
fn ask_init(action: PowerAction) -> Result<(), Denial> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_power_of_a_host_is_refused_with_the_way_to_allow_it() {
        let denial = Power::Host.ask(PowerAction::Reboot).await.unwrap_err();
        assert_eq!(denial.status, 409);
        assert!(
            denial.message.contains("--allow-power"),
            "{}",
            denial.message
        );
        // nor is that of whoever runs this test, which is no appliance
        assert_eq!(
            Power::Init
                .ask(PowerAction::Reboot)
                .await
                .unwrap_err()
                .status,
            409
        );
    }
}
