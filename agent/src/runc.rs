//! As `runc`: looks at what is to be started, then becomes the real runc.
//!
//! It stands in two places. BuildKit finds it on dockerd's PATH: its clients name a step's cgroup
//! inside gRPC, which the proxy forwards unread, so here is where every step, of every frontend,
//! comes by. And it is the engine's runtime `stillmetal` (daemon.json), in which the containers that
//! are to be certified get the gate. All other containers are started by runc itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use stillmetal_node::certify::{self, Inserted};
use stillmetal_node::cgroups;

/// In the image, and on a Debian host.
const REAL: [&str; 2] = ["/usr/bin/runc", "/usr/sbin/runc"];
const RUN_DIR: &str = "/run/stillmetal";
/// The configuration holds the environment and the mounts; the kernel limits a process's
/// environment to megabytes as well.
const CONFIG_LIMIT_BYTES: u64 = 16 << 20;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(bundle) = starts(&arguments) {
        admit(&bundle)?;
    }
    let real = REAL.into_iter().find(|path| Path::new(path).exists());
    let real = real.unwrap_or(REAL[0]);
    let error = Command::new(real).args(&arguments).exec();
    Err(error).with_context(|| format!("become {real}"))
}

/// The bundle that this command line starts a container from, if it starts one.
fn starts(arguments: &[OsString]) -> Option<PathBuf> {
    let mut words = arguments.iter();
    words.find(|word| matches!(word.to_str(), Some("run" | "create" | "restore")))?;
    let mut bundle = PathBuf::from(".");
    while let Some(word) = words.next() {
        let Some(word) = word.to_str() else { continue };
        if matches!(word, "--bundle" | "-b") {
            bundle = words.next()?.into();
        } else if let Some(path) = word
            .strip_prefix("--bundle=")
            .or_else(|| word.strip_prefix("-b="))
        {
            bundle = path.into();
        }
    }
    Some(bundle)
}

fn admit(bundle: &Path) -> anyhow::Result<()> {
    let path = bundle.join("config.json");
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(CONFIG_LIMIT_BYTES + 1).read_to_end(&mut text))
        .with_context(|| format!("read {}", path.display()))?;
    if u64::try_from(text.len())? > CONFIG_LIMIT_BYTES {
        bail!(
            "{} is larger than {CONFIG_LIMIT_BYTES} bytes",
            path.display()
        );
    }
    let mut config: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    match certify::insert_gate(&mut config, Path::new(RUN_DIR))? {
        Inserted::Gate { fixed_addresses } => {
            std::fs::write(&path, config.to_string())
                .with_context(|| format!("write {}", path.display()))?;
            if fixed_addresses {
                certify::inherit_fixed_addresses().context("ask for fixed addresses")?;
            }
        }
        Inserted::Nothing => policy::check_build_step(&config, cgroups::HOUSEKEEPING)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_starts_a_container_is_found_with_its_bundle() {
        let bundle = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            starts(&words)
        };
        for line in [
            "--log /x/log.json --log-format json run --bundle /b --keep id",
            "run --bundle=/b id",
            "create -b /b id",
            "create -b=/b --no-pivot id",
        ] {
            assert_eq!(bundle(line), Some("/b".into()), "{line}");
        }
        assert_eq!(bundle("run id"), Some(".".into()));
        for line in [
            "--version",
            "kill id KILL",
            "exec id true",
            "delete --force id",
        ] {
            assert_eq!(bundle(line), None, "{line}");
        }
    }
}
