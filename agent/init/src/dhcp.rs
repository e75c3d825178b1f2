//! DHCP: [`obtain`] at boot, [`keep_lease`] for as long as the agent runs.
//!
//! Every device with hardware behind it and a carrier takes part; the first to be answered gets the default route and
//! the resolver, the others only their addresses. What to do is decided by [`Machine`]; here are the sockets and the
//! clock. A socket is open only while an answer is awaited: a node with a lease has nothing bound to port 68.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cmdline::{BootConfig, IpConfig};
use crate::log;

mod filter;
mod keeper;
mod lease;
mod machine;
mod port;

pub use lease::Lease;
pub use machine::{Action, Destination, Input, Machine};

use keeper::Keeper;

/// Without any device in this time the machine has none, and waiting longer helps nobody.
const DEVICE_DEADLINE: Duration = Duration::from_secs(3);
/// How often the keeper looks whether it should end.
const STOP_LATENCY: Duration = Duration::from_secs(1);

/// Asks on every device, or on the named one, until the first lease is in use or the time is up.
pub(crate) fn obtain(
    device: Option<&str>,
    hostname: Option<&str>,
    deadline: Duration,
) -> Option<Lease> {
    let mut keeper = match Keeper::open(device, hostname) {
        Ok(keeper) => keeper,
        Err(error) => {
            log::warn(&format!("dhcp: {error}"));
            return None;
        }
    };
    let start = log::uptime();
    loop {
        let waited = log::uptime().saturating_sub(start);
        if waited >= deadline || (waited >= DEVICE_DEADLINE && !keeper.has_candidates()) {
            return None;
        }
        keeper.turn(deadline.saturating_sub(waited));
        if let Some(lease) = keeper.primary() {
            return Some(lease);
        }
    }
}

/// Renews what the boot obtained and goes on trying where it obtained nothing, until `stop` is set (which is noticed
/// within a second). Blocking: the agent gives it a thread of its own, pinned to housekeeping CPUs. Returns at once when
/// the command line asks for a static address or none.
pub fn keep_lease(stop: &AtomicBool) {
    let config = match BootConfig::read() {
        Ok(config) => config,
        Err(error) => return log::warn(&format!("dhcp: read /proc/cmdline: {error}")),
    };
    let IpConfig::Dhcp { device } = &config.ip else {
        return;
    };
    keep(device.as_deref(), config.hostname.as_deref(), stop);
}

/// [`keep_lease`] on a given device, whatever the command line says.
pub fn keep(device: Option<&str>, hostname: Option<&str>, stop: &AtomicBool) {
    let mut keeper = match Keeper::open(device, hostname) {
        Ok(keeper) => keeper,
        Err(error) => return log::warn(&format!("dhcp: leases are not kept: {error}")),
    };
    while !stop.load(Ordering::Relaxed) {
        keeper.turn(STOP_LATENCY);
    }
}
