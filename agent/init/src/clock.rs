//! The clock, set once at boot: one SNTP question, bounded, and never a step later, when a measurement could see it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use rsntp::{Config, SntpClient};

use crate::log;

const PATIENCE: Duration = Duration::from_secs(2);
/// Within this the hardware clock is right enough; certificates and logs do not need better.
const TOLERANCE_SECONDS: f64 = 0.5;

/// Asks the first of the servers. A failure is logged: the hardware clock stays.
pub(crate) fn set_from(servers: &[IpAddr]) {
    let Some(&server) = servers.first() else {
        return;
    };
    let bind_any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let mut config = Config::default().timeout(PATIENCE);
    if let Ok(address) = bind_any.parse() {
        config = config.bind_address(address);
    }
    match SntpClient::with_config(config).synchronize(server) {
        Ok(answer) => step(server, answer.clock_offset().as_secs_f64()),
        Err(error) => log::warn(&format!("clock: no time from {server}: {error}")),
    }
}

fn step(server: IpAddr, offset_seconds: f64) {
    let Some(target) = target(SystemTime::now(), offset_seconds) else {
        return log::info(&format!(
            "clock: {offset_seconds:+.3} s from {server}, left alone"
        ));
    };
    match clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(target)) {
        Ok(()) => log::info(&format!(
            "clock: stepped by {offset_seconds:+.3} s, from {server}"
        )),
        Err(error) => log::warn(&format!("clock: cannot be set: {error}")),
    }
}

/// The time since 1970 to set, if the clock is off by more than the tolerance and the answer makes sense.
fn target(now: SystemTime, offset_seconds: f64) -> Option<Duration> {
    if offset_seconds.abs() <= TOLERANCE_SECONDS {
        return None;
    }
    let offset = Duration::try_from_secs_f64(offset_seconds.abs()).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    if offset_seconds > 0.0 {
        now.checked_add(offset)
    } else {
        now.checked_sub(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_only_when_off_and_only_to_real_times() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(target(now, 0.4), None);
        assert_eq!(target(now, -0.5), None);
        assert_eq!(target(now, 2.0), Some(Duration::from_secs(1002)));
        assert_eq!(target(now, -2.0), Some(Duration::from_secs(998)));
        assert_eq!(target(now, -2000.0), None);
        assert_eq!(target(now, f64::NAN), None);
        assert_eq!(target(now, f64::INFINITY), None);
    }
}
