//! As `runc`: looks at a BuildKit step's cgroup, then becomes the real runc.
//!
//! BuildKit's clients name a step's cgroup inside gRPC, which the proxy forwards unread; here is
//! where every step, of every frontend, comes by. dockerd finds this program as `runc` on its PATH
//! and gives it to BuildKit; containers are not affected, containerd starts their runc.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use stillmetal_node::cgroups;

const REAL: &str = "/usr/bin/runc";
/// The configuration holds a step's environment and mounts; the kernel limits a process's
/// environment to megabytes as well.
const CONFIG_LIMIT_BYTES: u64 = 16 << 20;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(bundle) = starts(&arguments) {
        check(&bundle)?;
    }
    let error = Command::new(REAL).args(&arguments).exec();
    Err(error).with_context(|| format!("become {REAL}"))
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

fn check(bundle: &Path) -> anyhow::Result<()> {
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
    let config: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    policy::check_build_step(&config, cgroups::HOUSEKEEPING)?;
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
