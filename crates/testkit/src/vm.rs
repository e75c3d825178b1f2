//! A running virtual machine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::accel::Accel;
use crate::error::{Error, Result};
use crate::lines::{Line, LineLog, Mark};
use crate::process::{Process, describe};
use crate::qmp::Qmp;
use crate::wait::{Deadline, POLL, poll};

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered off.
    PoweredOff,
    /// The guest reset the machine (only with [`crate::OnReset::End`]).
    Reset,
    /// QEMU was told to quit.
    Quit,
    /// Anything else: killed, or a QEMU error.
    Failed {
        /// How the process ended and what it said.
        why: String,
    },
}

/// How often the guest used a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUse {
    /// The disk, `diskN` in the order of the description.
    pub disk: String,
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
}

/// A running virtual machine. Dropping it kills it.
#[derive(Debug)]
pub struct Vm {
    pub(crate) name: String,
    pub(crate) accel: Accel,
    pub(crate) process: Mutex<Process>,
    pub(crate) pid: u32,
    pub(crate) console: LineLog,
    pub(crate) stderr: LineLog,
    pub(crate) qmp: Qmp,
    pub(crate) started: Instant,
    pub(crate) log_file: PathBuf,
    /// Guest port and the loopback address that leads to it.
    pub(crate) forwards: Vec<(u16, SocketAddr)>,
    pub(crate) infra_retries: u32,
}

impl Vm {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is executed.
    #[must_use]
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Host time since power-on.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many early deaths of the emulator (not of what is tested) came before this boot.
    #[must_use]
    pub fn infra_retries(&self) -> u32 {
        self.infra_retries
    }

    /// The console.
    #[must_use]
    pub fn console(&self) -> &LineLog {
        &self.console
    }

    /// Every console line so far.
    #[must_use]
    pub fn console_lines(&self) -> Vec<Line> {
        self.console.lines()
    }

    /// The file that the console is written to.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// Waits for the first console line that contains `text`; its `at` is the host time since
    /// power-on.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::EndedFirst`].
    pub fn wait_line(&self, text: &str, within: Duration) -> Result<Line> {
        self.console.wait(text, within)
    }

    /// Waits for such a line after `mark`.
    ///
    /// # Errors
    /// As [`Vm::wait_line`].
    pub fn wait_line_after(&self, mark: Mark, text: &str, within: Duration) -> Result<Line> {
        self.console.wait_after(mark, text, within)
    }

    /// The loopback address that leads to a guest port, if the description forwards it.
    #[must_use]
    pub fn address(&self, guest_port: u16) -> Option<SocketAddr> {
        self.forwards
            .iter()
            .find(|(port, _)| *port == guest_port)
            .map(|(_, address)| *address)
    }

    /// The QMP connection, for what has no method here.
    #[must_use]
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Presses the power button (ACPI).
    ///
    /// # Errors
    /// [`Error::Qmp`], [`Error::QmpRefused`].
    pub fn power_button(&self) -> Result<()> {
        self.qmp.execute("system_powerdown", json!({})).map(drop)
    }

    /// Presses ctrl-alt-del.
    ///
    /// # Errors
    /// As [`Vm::power_button`].
    pub fn ctrl_alt_del(&self) -> Result<()> {
        let keys: Vec<Value> = ["ctrl", "alt", "delete"]
            .map(|key| json!({ "type": "qcode", "data": key }))
            .into();
        self.qmp
            .execute("send-key", json!({ "keys": keys }))
            .map(drop)
    }

    /// Sends every CPU a non-maskable interrupt.
    ///
    /// # Errors
    /// As [`Vm::power_button`].
    pub fn inject_nmi(&self) -> Result<()> {
        self.qmp.execute("inject-nmi", json!({})).map(drop)
    }

    /// QEMU's run state (`running`, `shutdown`, `internal-error`…).
    ///
    /// # Errors
    /// As [`Vm::power_button`].
    pub fn status(&self) -> Result<String> {
        let answer = self.qmp.execute("query-status", json!({}))?;
        Ok(answer["status"].as_str().unwrap_or("unknown").to_owned())
    }

    /// How often the guest used each disk.
    ///
    /// # Errors
    /// As [`Vm::power_button`].
    pub fn disk_use(&self) -> Result<Vec<DiskUse>> {
        let answer = self.qmp.execute("query-blockstats", json!({}))?;
        let count = |entry: &Value, key: &str| entry["stats"][key].as_u64().unwrap_or_default();
        let entries = answer.as_array().cloned().unwrap_or_default();
        let uses = entries.iter().map(|entry| DiskUse {
            disk: entry["device"].as_str().unwrap_or_default().to_owned(),
            reads: count(entry, "rd_operations"),
            writes: count(entry, "wr_operations"),
        });
        Ok(uses.filter(|usage| !usage.disk.is_empty()).collect())
    }

    /// Tells QEMU to quit, which is like pulling the plug.
    ///
    /// # Errors
    /// As [`Vm::power_button`].
    pub fn quit(&self) -> Result<()> {
        self.qmp.execute("quit", json!({})).map(drop)
    }

    /// Waits for the machine to end by itself.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub fn wait_exit(&self, within: Duration) -> Result<Ending> {
        let deadline = Deadline::after(within);
        // Not one long wait under the lock: somebody else may want to kill it meanwhile.
        let ended = poll(deadline, POLL, || self.process().try_wait().transpose()).transpose();
        let status = ended.map_err(|source| self.process_failed(source))?;
        match status {
            Some(status) => Ok(self.ending(status)),
            None => Err(Error::TimedOut {
                what: "the end of the machine".into(),
                whom: self.name.clone(),
                within,
                tail: self.console.tail(),
            }),
        }
    }

    /// Kills QEMU now.
    ///
    /// # Errors
    /// [`Error::CommandStream`] if it cannot be killed.
    pub fn kill(&self) -> Result<()> {
        self.process()
            .kill()
            .map(drop)
            .map_err(|source| self.process_failed(source))
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // A panic while holding the lock leaves the process as it was.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process_failed(&self, source: std::io::Error) -> Error {
        Error::CommandStream {
            command: format!("qemu of {}", self.name),
            source,
        }
    }

    fn ending(&self, status: ExitStatus) -> Ending {
        // The process is gone, so its last event is on the way at most.
        let event = self.qmp.wait_event("SHUTDOWN", Duration::from_secs(5));
        let reason = event
            .as_ref()
            .and_then(|event| event["data"]["reason"].as_str());
        match reason {
            Some("guest-shutdown") => Ending::PoweredOff,
            Some("guest-reset") => Ending::Reset,
            Some("host-qmp-quit") => Ending::Quit,
            reason => {
                let reason = reason.unwrap_or("no reason given");
                let stderr = self.stderr.tail();
                Ending::Failed {
                    why: format!("{} ({reason}): {stderr}", describe(status)),
                }
            }
        }
    }

    /// Copies the console log to another file, for a result that should keep it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_console(&self, to: &Path) -> Result<()> {
        fs::copy(&self.log_file, to)
            .map(drop)
            .map_err(Error::file("copy the console to", to))
    }
}
