//! What init says, and where.
//!
//! - [`info`], [`warn`], [`error`]: to `/dev/kmsg` only. The kernel prints them on the console as its log level says, and
//!   they are in `dmesg`.
//! - [`marker`]: the few lines that people and tests wait for. They go to `/dev/console` directly, so that `quiet` does
//!   not hide them, and to `/dev/kmsg` at level debug, which the console does not repeat. Only when the console cannot be
//!   written do they go to kmsg at a level that the kernel prints.
//!
//! Never blocks for long: a console with stopped flow control loses the line instead of stopping PID 1.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use std::os::fd::AsFd;

const DEBUG: u8 = 7;
const INFO: u8 = 6;
const WARN: u8 = 4;
const ERROR: u8 = 3;

/// The kernel cuts records near 1 KiB.
const MAX_LINE: usize = 900;
const CONSOLE_PATIENCE: Duration = Duration::from_millis(500);

/// A state change that an operator wants in a timeline.
pub fn info(text: &str) {
    record(INFO, text);
}

/// Degraded, goes on.
pub fn warn(text: &str) {
    record(WARN, text);
}

/// Somebody must act.
pub fn error(text: &str) {
    record(ERROR, text);
}

/// Prints `stillmetal: TEXT uptime=SECONDS` on the console.
pub fn marker(text: &str) {
    let line = format!(
        "stillmetal: {} uptime={:.2}",
        clean(text),
        uptime().as_secs_f64()
    );
    match console(&line) {
        Ok(()) => kmsg(DEBUG, &line),
        Err(_) => kmsg(WARN, &line),
    }
}

/// Puts a text of several lines on the console, as far as it takes them.
pub fn screen(text: &str) {
    for line in text.lines() {
        if console(&clean(line)).is_err() {
            return;
        }
    }
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Time since power-on, suspend included.
#[must_use]
pub fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

fn record(level: u8, text: &str) {
    kmsg(
        level,
        &format!("stillmetal[{}]: {}", std::process::id(), clean(text)),
    );
}

fn kmsg(level: u8, line: &str) {
    // Nowhere is left to report a failure of the log itself.
    let _ignored = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut file| file.write_all(format!("<{level}>{line}\n").as_bytes()));
}

fn console(line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open("/dev/console")?;
    let text = format!("{line}\n");
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let timeout = PollTimeout::try_from(CONSOLE_PATIENCE).unwrap_or(PollTimeout::ZERO);
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, timeout)? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn clean(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > MAX_LINE {
        let mut end = MAX_LINE;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_single_and_short() {
        assert_eq!(clean("a\nb\x1b[31mc"), "a b [31mc");
        assert!(clean(&"ä".repeat(MAX_LINE)).len() <= MAX_LINE);
    }

    #[test]
    fn chain_names_every_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("mount {path}")]
        struct Mount {
            path: &'static str,
            source: io::Error,
        }
        let error = Mount {
            path: "/run",
            source: io::Error::other("no memory"),
        };
        assert_eq!(chain(&error), "mount /run: no memory");
    }
}
