//! Starting a described machine: temporary files, ports, QEMU, its sockets; and the one retry that
//! is allowed, for a known fault of the emulator.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::accel::{self, Accel};
use crate::arguments::{Resources, join};
use crate::builder::{DiskContents, VmBuilder};
use crate::error::{Error, Result};
use crate::lines::{LineLog, Mark};
use crate::net::{free_ports, loopback};
use crate::places;
use crate::process::{Process, describe, guarded};
use crate::qmp::Qmp;
use crate::vm::Vm;
use crate::wait::{Deadline, POLL, poll};

/// How long QEMU may take to open its sockets.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// A chosen port can be taken by somebody else before QEMU binds it.
const PORT_ATTEMPTS: u32 = 5;
/// Multi-threaded emulation can trip over a guest kernel that patches its own text: an "int3" Oops
/// within the first second, in about one of sixty boots, none of it the guest's fault.
const EMULATOR_FAULT: &str = "Oops: int3";
const EMULATOR_FAULT_RETRIES: u32 = 2;
const DEAD: &str = "Kernel panic - not syncing";

impl VmBuilder {
    /// Starts the machine and returns as soon as its CPUs run.
    ///
    /// # Errors
    /// [`Error::Launch`] with QEMU's words; [`Error::Describe`], [`Error::Missing`] or
    /// [`Error::File`] when it does not get that far.
    pub fn start(&self) -> Result<Vm> {
        let kernel = self
            .kernel
            .as_deref()
            .ok_or_else(|| self.invalid("it has no kernel"))?;
        for file in std::iter::once(kernel).chain(self.initrds.iter().map(PathBuf::as_path)) {
            if !file.is_file() {
                let hint = "build it first";
                return Err(Error::Missing {
                    what: "a boot file",
                    path: file.into(),
                    hint,
                });
            }
        }
        let accel = match self.accel {
            Some(accel) => accel,
            None => accel::probe(kernel)?,
        };
        let mut attempt = 1;
        loop {
            match self.start_once(kernel, accel) {
                Err(Error::Launch { stderr, .. })
                    if attempt < PORT_ATTEMPTS && is_port_conflict(&stderr) =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Starts the machine and waits for its first user process ([`VmBuilder::init_marker`]).
    /// An emulator fault before that starts it again, at most twice, and is counted on standard
    /// error and in `infra-retries.log`.
    ///
    /// # Errors
    /// As [`VmBuilder::start`], and [`Error::DiedEarly`], [`Error::TimedOut`] or
    /// [`Error::EndedFirst`].
    pub fn boot(&self, within: Duration) -> Result<Vm> {
        let marker = self.init_marker.as_deref();
        let marker = marker.ok_or_else(|| self.invalid("it has no init marker"))?;
        let what = format!("{marker:?}");
        let mut retries = 0;
        loop {
            let mut vm = self.start()?;
            vm.infra_retries = retries;
            let line = vm
                .console
                .wait_where(&what, Mark::default(), within, |line| {
                    [marker, EMULATOR_FAULT, DEAD]
                        .iter()
                        .any(|part| line.contains(part))
                })?;
            if line.text.contains(marker) {
                return Ok(vm);
            }
            // A fault's Oops comes before the panic it causes; look at all of it.
            let faulted = vm
                .console
                .lines()
                .iter()
                .any(|line| line.text.contains(EMULATOR_FAULT));
            if faulted && vm.accel == Accel::Tcg && retries < EMULATOR_FAULT_RETRIES {
                retries += 1;
                self.note_retry(&line.text, retries)?;
                continue;
            }
            let (vm, tail) = (self.name.clone(), vm.console.tail());
            return Err(Error::DiedEarly {
                vm,
                line: line.text,
                tail,
            });
        }
    }

    fn note_retry(&self, line: &str, retry: u32) -> Result<()> {
        let note = format!("{}: emulator fault, retry {retry}: {line}\n", self.name);
        eprint!("testkit: {note}");
        let path = self.log_folder()?.join("infra-retries.log");
        let file = fs::File::options().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(note.as_bytes()))
            .map_err(Error::file("append to", path))
    }

    fn log_folder(&self) -> Result<PathBuf> {
        let folder = self.logs_dir.clone().unwrap_or_else(places::logs_dir);
        fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
        Ok(folder)
    }

    fn start_once(&self, kernel: &Path, accel: Accel) -> Result<Vm> {
        let temporary = crate::scratch::folder("vm")?;
        let initrd = self.prepare_initrd(&temporary)?;
        let disks = self.prepare_disks(&temporary)?;
        let ports = self.choose_ports()?;
        let listen = |name: &str| -> Result<(PathBuf, UnixListener)> {
            let path = temporary.path().join(name);
            let listener = UnixListener::bind(&path)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(Error::file("listen on", &path))?;
            Ok((path, listener))
        };
        let (console_path, console_listener) = listen("console")?;
        let (qmp_path, qmp_listener) = listen("qmp")?;
        let arguments = self.arguments(&Resources {
            accel,
            kernel,
            initrd: initrd.as_deref(),
            console: &console_path,
            qmp: &qmp_path,
            disks: &disks,
            ports: &ports,
        })?;
        let log_file = self
            .log_folder()?
            .join(format!("{}.log", file_name(&self.name)));
        let mut log = fs::File::create(&log_file).map_err(Error::file("create", &log_file))?;
        writeln!(log, "# qemu {}", arguments.join(" ")).map_err(Error::file("write", &log_file))?;

        let qemu = accel::qemu()?;
        let mut command = guarded(&qemu);
        command
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut process = Process::start(command).map_err(|source| Error::Spawn {
            program: qemu.display().to_string(),
            source,
        })?;
        let stderr = LineLog::new(&format!("qemu of {}", self.name), started);
        if let Some(source) = process.child().stderr.take() {
            self.follow(&stderr, "stderr", source, None)?;
        }
        let deadline = Deadline::after(CONNECT_WITHIN);
        let mut accept =
            |listener, what| self.accept(listener, &mut process, &stderr, deadline, what);
        let console_stream = accept(&console_listener, "the console")?;
        let qmp_stream = accept(&qmp_listener, "QMP")?;
        let console = LineLog::new(&format!("the console of {}", self.name), started);
        self.follow(&console, "console", console_stream, Some(log))?;
        let qmp = match Qmp::open(&self.name, qmp_stream) {
            Ok(qmp) => qmp,
            Err(error) => {
                // It hangs up first and ends a little later.
                let why = self.explain(&mut process, &stderr, Duration::from_secs(5));
                return Err(why.unwrap_or(error));
            }
        };
        // The main loop has answered: kernel and initramfs are loaded or mapped, disks are open,
        // sockets connected. Removing the files now leaves nothing behind even after `kill -9`.
        let folder = temporary.path().to_path_buf();
        temporary.close().map_err(Error::file("remove", folder))?;
        let guest_ports = self.nics.iter().flat_map(|nic| nic.forwards());
        let host_ports = ports.iter().flatten().map(|port| loopback(*port));
        Ok(Vm {
            name: self.name.clone(),
            accel,
            pid: process.id(),
            process: process.into(),
            console,
            stderr,
            qmp,
            started,
            log_file,
            forwards: guest_ports
                .map(|forward| forward.guest_port)
                .zip(host_ports)
                .collect(),
            infra_retries: 0,
        })
    }

    fn prepare_initrd(&self, temporary: &TempDir) -> Result<Option<PathBuf>> {
        match self.initrds.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            several => {
                let path = temporary.path().join("initrd");
                join(several, &path)?;
                Ok(Some(path))
            }
        }
    }

    fn prepare_disks(&self, temporary: &TempDir) -> Result<Vec<PathBuf>> {
        let prepare = |(index, contents): (usize, &DiskContents)| match contents {
            DiskContents::File(path) => Ok(path.clone()),
            DiskContents::Empty(bytes) => {
                let path = temporary.path().join(format!("disk{index}"));
                fs::File::create(&path)
                    .and_then(|file| file.set_len(*bytes))
                    .map_err(Error::file("create", &path))?;
                Ok(path)
            }
        };
        self.disks
            .iter()
            .map(|disk| &disk.contents)
            .enumerate()
            .map(prepare)
            .collect()
    }

    fn choose_ports(&self) -> Result<Vec<Vec<u16>>> {
        let count = self.nics.iter().map(|nic| nic.forwards().len()).sum();
        let mut free = free_ports(count)
            .map_err(Error::file("bind a loopback port for", &self.name))?
            .into_iter();
        Ok(self
            .nics
            .iter()
            .map(|nic| free.by_ref().take(nic.forwards().len()).collect())
            .collect())
    }

    fn follow(
        &self,
        log: &LineLog,
        what: &str,
        source: impl io::Read + Send + 'static,
        file: Option<fs::File>,
    ) -> Result<()> {
        let log = log.clone();
        let mut file = file;
        let read = move || {
            log.fill(source, |line| {
                let text = format!("[{:9.3}] {}\n", line.at.as_secs_f64(), line.text);
                if file
                    .as_mut()
                    .is_some_and(|file| file.write_all(text.as_bytes()).is_err())
                {
                    // A full disk must not stop the test: the lines are still in memory.
                    file = None;
                }
            });
        };
        std::thread::Builder::new()
            .name(format!("{what} {}", self.name))
            .spawn(read)
            .map(drop)
            .map_err(|source| Error::Spawn {
                program: format!("reader of {what}"),
                source,
            })
    }

    fn accept(
        &self,
        listener: &UnixListener,
        process: &mut Process,
        stderr: &LineLog,
        deadline: Deadline,
        what: &'static str,
    ) -> Result<UnixStream> {
        let failed = |source| Error::Qmp {
            vm: self.name.clone(),
            action: "accept",
            source,
        };
        let accepted = poll(deadline, POLL, || match listener.accept() {
            Ok((stream, _)) => Some(
                stream
                    .set_nonblocking(false)
                    .map(|()| stream)
                    .map_err(failed),
            ),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.explain(process, stderr, Duration::ZERO).map(Err)
            }
            Err(error) => Some(Err(failed(error))),
        });
        accepted.unwrap_or_else(|| {
            let (what, whom, within) = (what.into(), self.name.clone(), deadline.within());
            Err(Error::TimedOut {
                what,
                whom,
                within,
                tail: stderr.tail(),
            })
        })
    }

    /// QEMU's own explanation, if it ends.
    fn explain(&self, process: &mut Process, stderr: &LineLog, within: Duration) -> Option<Error> {
        let status = process.wait(Deadline::after(within)).ok()??;
        // Its last words; if they do not come, what is there has to do.
        drop(stderr.wait_closed(Duration::from_secs(5)));
        let text: Vec<String> = stderr.lines().into_iter().map(|line| line.text).collect();
        let (vm, status) = (self.name.clone(), describe(status));
        Some(Error::Launch {
            vm,
            status,
            stderr: text.join("; "),
        })
    }
}

fn is_port_conflict(stderr: &str) -> bool {
    stderr.contains("Could not set up host forwarding rule")
}

fn file_name(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    name.chars()
        .map(|letter| if plain(letter) { letter } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_names_are_plain() {
        assert_eq!(file_name("boot/2 CPUs.x"), "boot-2-CPUs.x");
    }

    #[test]
    fn a_missing_kernel_is_named() {
        let error = VmBuilder::new("x")
            .kernel("/nonexistent/kernel")
            .start()
            .unwrap_err();
        assert!(error.to_string().contains("/nonexistent/kernel"), "{error}");
        assert!(matches!(
            VmBuilder::new("x").start(),
            Err(Error::Describe { .. })
        ));
    }

    #[test]
    fn port_conflicts_are_recognised() {
        let said = "qemu-system-x86_64: -netdev user,id=net0,hostfwd=tcp:127.0.0.1:1-:22: \
                    Could not set up host forwarding rule 'tcp:127.0.0.1:1-:22'";
        assert!(is_port_conflict(said));
        assert!(!is_port_conflict("qemu: could not load kernel"));
    }
}
