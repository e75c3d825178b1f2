//! Is KVM usable? A `/dev/kvm` that opens proves nothing: on some (nested) hosts stock kernels
//! hang or die on it. So the probe boots our own kernel, with nothing to mount, and expects its
//! first line and then its well-known panic; the answer is kept for this host boot, kernel and
//! QEMU.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::builder::VmBuilder;
use crate::cmdline::Cmdline;
use crate::error::{Error, Result, chain};
use crate::{places, process};

const KVM: &str = "/dev/kvm";
/// A working KVM needs well under two seconds for this.
const PROBE_WITHIN: Duration = Duration::from_secs(10);
/// What every kernel without root file system ends with.
const NO_ROOT: &str = "VFS: Unable to mount root fs";

/// How QEMU executes the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By hardware.
    Kvm,
    /// By translation: works everywhere, some ten times slower.
    Tcg,
}

impl Accel {
    /// The name of the accelerator.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    pub(crate) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Kvm, Self::Tcg]
            .into_iter()
            .find(|accel| accel.name() == name)
    }
}

/// The accelerator to use: `STILLMETAL_ACCEL` if set, else what the probe with `kernel` says.
///
/// # Errors
/// When a file of the probe cannot be read, or the variable holds something else. A KVM that does
/// not work is not an error.
pub fn probe(kernel: &Path) -> Result<Accel> {
    if let Ok(name) = std::env::var("STILLMETAL_ACCEL") {
        return Accel::parse(&name).ok_or_else(|| Error::Describe {
            vm: "any".into(),
            why: format!("STILLMETAL_ACCEL is {name:?}, neither kvm nor tcg"),
        });
    }
    let Some(host) = host_identity() else {
        return Ok(Accel::Tcg);
    };
    let key = key(kernel, &host)?;
    let file = places::cache_dir().join("kvm-probe");
    if let Some(accel) = remembered(&fs::read_to_string(&file).unwrap_or_default(), &key) {
        return Ok(accel);
    }
    let accel = match try_kvm(kernel) {
        Ok(()) => Accel::Kvm,
        Err(error) => {
            eprintln!(
                "testkit: KVM is not usable here, emulating: {}",
                chain(&error)
            );
            Accel::Tcg
        }
    };
    remember(&file, &key, accel)?;
    Ok(accel)
}

/// What the answer depends on besides kernel and QEMU; `None` when there is no KVM at all.
fn host_identity() -> Option<String> {
    let device = fs::File::options().read(true).write(true).open(KVM).ok()?;
    let changed = device.metadata().ok()?.mtime();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{changed} {}", boot.trim()))
}

fn key(kernel: &Path, host: &str) -> Result<String> {
    let bytes = fs::read(kernel).map_err(Error::file("read kernel", kernel))?;
    let qemu = qemu()?;
    let output = Command::new(&qemu)
        .arg("--version")
        .output()
        .map_err(|source| Error::Spawn {
            program: qemu.display().to_string(),
            source,
        })?;
    let mut hash = Sha256::new();
    for part in [bytes.as_slice(), &output.stdout, host.as_bytes()] {
        hash.update(Sha256::digest(part));
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// One line an answer: `KEY ACCEL`.
fn remembered(text: &str, key: &str) -> Option<Accel> {
    let answer = text.lines().rev().find_map(|line| line.strip_prefix(key))?;
    Accel::parse(answer.trim())
}

fn remember(file: &Path, key: &str, accel: Accel) -> Result<()> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder).map_err(Error::file("make folder", folder))?;
    let mut out = fs::File::options()
        .append(true)
        .create(true)
        .open(file)
        .map_err(Error::file("open", file))?;
    out.write_all(format!("{key} {}\n", accel.name()).as_bytes())
        .map_err(Error::file("append to", file))
}

fn try_kvm(kernel: &Path) -> Result<()> {
    let vm = VmBuilder::new("kvm-probe")
        .accel(Accel::Kvm)
        .kernel(kernel)
        .cmdline(Cmdline::parse("console=ttyS0 panic=-1"))
        .cpus(1)
        .memory_mib(256)
        .start()?;
    vm.wait_line("Linux version", PROBE_WITHIN)?;
    vm.wait_line(NO_ROOT, PROBE_WITHIN)?;
    Ok(())
}

/// The QEMU to run: `STILLMETAL_QEMU`, else the one in `PATH`.
///
/// # Errors
/// [`Error::Missing`].
pub fn qemu() -> Result<std::path::PathBuf> {
    if let Some(path) = std::env::var_os("STILLMETAL_QEMU") {
        return Ok(path.into());
    }
    process::find_in_path("qemu-system-x86_64").ok_or_else(|| Error::Missing {
        what: "QEMU",
        path: "qemu-system-x86_64".into(),
        hint: "install Debian's qemu-system-x86",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_for_a_key_counts() {
        let text = "aa kvm\nbb tcg\naa tcg\n";
        assert_eq!(remembered(text, "aa"), Some(Accel::Tcg));
        assert_eq!(remembered(text, "bb"), Some(Accel::Tcg));
        assert_eq!(remembered(text, "cc"), None);
        assert_eq!(remembered("aa maybe\n", "aa"), None);
    }

    #[test]
    fn answers_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/kvm-probe");
        remember(&file, "k", Accel::Kvm).unwrap();
        remember(&file, "l", Accel::Tcg).unwrap();
        assert_eq!(
            remembered(&fs::read_to_string(&file).unwrap(), "k"),
            Some(Accel::Kvm)
        );
    }

    #[test]
    #[ignore = "needs the built kernel: VM lane"]
    fn the_probe_agrees_with_itself() {
        let kernel = places::build_dir().join("stillmetal-kernel");
        let first = probe(&kernel).unwrap();
        assert_eq!(probe(&kernel).unwrap(), first);
    }
}
