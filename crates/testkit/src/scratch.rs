//! Temporary folders that are gone when the process is, however it ended.
//!
//! A machine shared by several tests lives in a `static`, which is never dropped, and a killed
//! test drops nothing. So every temporary folder of the harness lies in one folder of the
//! process, and a small guardian process that waits for the end of a pipe from us removes that.

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::error::{Error, Result};

struct Scratch {
    top: PathBuf,
    /// Holds the pipe's end for as long as we live.
    _guardian: Child,
}

static SCRATCH: LazyLock<std::io::Result<Scratch>> = LazyLock::new(|| {
    let top = std::env::temp_dir().join(format!("stillmetal-{}", std::process::id()));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&top)?;
    // A group of its own, so that control-C on the terminal does not kill it before its work.
    let guardian = Command::new("/bin/sh")
        .args(["-c", "cat; rm -rf -- \"$0\""])
        .arg(&top)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(Scratch {
        top,
        _guardian: guardian,
    })
});

/// A new temporary folder, removed when dropped or when the process ends.
///
/// # Errors
/// [`Error::File`].
pub fn folder(prefix: &str) -> Result<TempDir> {
    let failed = |source| {
        let path = std::env::temp_dir();
        Error::File {
            action: "make a folder in",
            path,
            source,
        }
    };
    let scratch = SCRATCH
        .as_ref()
        .map_err(|error| failed(std::io::Error::new(error.kind(), error.to_string())))?;
    tempfile::Builder::new()
        .prefix(&format!("{prefix}-"))
        .tempdir_in(&scratch.top)
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{Deadline, POLL, poll};
    use std::time::Duration;

    /// Set in the process that dies without dropping anything.
    const DIE: &str = "STILLMETAL_TEST_DIE";

    #[test]
    fn a_dead_process_leaves_nothing() {
        if std::env::var_os(DIE).is_some() {
            println!("left in {}", folder("left").unwrap().keep().display());
            std::process::abort();
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "scratch::tests::a_dead_process_leaves_nothing",
                "--nocapture",
            ])
            .env(DIE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let (_, path) = text
            .lines()
            .find_map(|line| line.split_once("left in "))
            .unwrap();
        let gone = || (!PathBuf::from(path).parent().unwrap().exists()).then_some(());
        assert!(
            poll(Deadline::after(Duration::from_secs(10)), POLL, gone).is_some(),
            "{path}"
        );
    }
}
