//! Runs the external programs that the builder needs, and says which Debian package has a missing one.

use std::io;
use std::process::{Command, Output};

/// An external program failed or is missing.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("{program} is not installed; install the Debian package {package}")]
    Missing {
        program: String,
        package: &'static str,
    },
    #[error("start {program}")]
    Start { program: String, source: io::Error },
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        program: String,
        status: std::process::ExitStatus,
        stderr: String,
    },
}

/// Runs to completion and returns what it printed.
///
/// # Errors
/// When the program is missing, cannot be started or exits with a failure.
pub fn run(command: &mut Command, package: &'static str) -> Result<Output, ProgramError> {
    let output = output(command, package)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(ProgramError::Failed {
        program: name(command),
        status: output.status,
        stderr: tail(&output.stderr),
    })
}

/// Like [`run`], but the exit status is the caller's to judge.
///
/// # Errors
/// When the program is missing or cannot be started.
pub fn output(command: &mut Command, package: &'static str) -> Result<Output, ProgramError> {
    command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ProgramError::Missing {
            program: name(command),
            package,
        },
        _ => ProgramError::Start {
            program: name(command),
            source,
        },
    })
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The last lines are where programs say what went wrong.
pub(crate) fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(8)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = run(&mut Command::new("no-such-program-here"), "squashfs-tools").unwrap_err();
        assert!(error.to_string().contains("squashfs-tools"), "{error}");
    }

    #[test]
    fn a_failure_carries_what_it_printed() {
        let error = run(Command::new("ls").arg("/no/such/path"), "coreutils").unwrap_err();
        assert!(error.to_string().contains("/no/such/path"), "{error}");
    }
}
