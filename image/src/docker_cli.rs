//! The stock `docker` client on the build machine, without installing anything there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::closure::{self, ClosureError, TARGET_DIR};
use crate::fetch::Archive;
use crate::file::{self, FileError};
use crate::lock::LockError;
use crate::tree::{Node, Tree, TreeError};
use crate::unpack::{Packages, UnpackError, load_lock};

/// The client cannot be extracted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Closure(#[from] ClosureError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{program} of trixie runs on this machine neither directly nor with its own libraries")]
    DoesNotRun { program: &'static str },
}

/// A program of the client: its package, where it is there, and where it goes.
struct Program {
    package: &'static str,
    source: &'static str,
    target: &'static str,
    /// Makes it say something and succeed, without an engine.
    trial: &'static str,
}

const PROGRAMS: [Program; 2] = [
    Program {
        package: "docker-cli",
        source: "usr/bin/docker",
        target: "docker",
        trial: "--version",
    },
    // Debian's client has no BuildKit of its own: this plugin brings it.
    Program {
        package: "docker-buildx",
        source: "usr/libexec/docker/cli-plugins/docker-buildx",
        target: "cli-plugins/docker-buildx",
        trial: "docker-cli-plugin-metadata",
    },
];

/// Puts a runnable `docker` and its plugin `cli-plugins/docker-buildx` into `out`; returns the
/// path of `docker`.
///
/// # Errors
/// When a package cannot be had or a program does not run here.
pub fn extract(data: &Path, cache: &Path, out: &Path) -> Result<PathBuf, ClientError> {
    let mut packages = Packages::new(load_lock(data)?, Archive::new(data), cache);
    for program in &PROGRAMS {
        program.extract(&mut packages, out)?;
    }
    Ok(out.join(PROGRAMS[0].target))
}

impl Program {
    fn extract(&self, packages: &mut Packages, out: &Path) -> Result<(), ClientError> {
        let source = packages.open(self.package)?.root.join(self.source);
        let target = out.join(self.target);
        let folder = target.parent().unwrap_or(out);
        file::create_dir(folder)?;
        let same = std::fs::metadata(&target).is_ok_and(|m| m.len() == file_len(&source));
        if same && self.runs(&target) {
            return Ok(());
        }
        install(&source, &target)?;
        if self.runs(&target) {
            return Ok(());
        }
        // This machine's libraries are older than trixie's: bring those along.
        let mut tree = Tree::default();
        tree.file(self.target, 0o755, &source)?;
        closure::close(&mut tree, packages)?;
        let libraries = target.with_extension("lib");
        file::create_dir(&libraries)?;
        for (path, node) in tree.iter() {
            if let (Some(name), Node::File { content, .. }) = (
                path.strip_prefix(TARGET_DIR)
                    .and_then(|p| p.strip_prefix('/')),
                node,
            ) {
                file::replace(&libraries.join(name), &content.read()?)?;
                set_executable(&libraries.join(name))?;
            }
        }
        install(&source, &libraries.join("program"))?;
        let script = "#!/bin/sh\nd=$(readlink -f \"$0\").lib\n\
                      exec \"$d/ld-linux-x86-64.so.2\" --library-path \"$d\" \"$d/program\" \"$@\"\n";
        file::replace(&target, script.as_bytes())?;
        set_executable(&target)?;
        if self.runs(&target) {
            Ok(())
        } else {
            Err(ClientError::DoesNotRun {
                program: self.target,
            })
        }
    }

    fn runs(&self, program: &Path) -> bool {
        Command::new(program)
            .arg(self.trial)
            .output()
            .is_ok_and(|output| output.status.success())
    }
}

fn install(source: &Path, target: &Path) -> Result<(), FileError> {
    file::copy(source, target)?;
    set_executable(target)
}

fn set_executable(path: &Path) -> Result<(), FileError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(FileError::at("set the mode of", path))
}

fn file_len(path: &Path) -> u64 {
    std::fs::metadata(path).map(|m| m.len()).unwrap_or_default()
}
