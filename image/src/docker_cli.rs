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
    #[error(
        "the docker client of trixie runs on this machine neither directly nor with its own libraries"
    )]
    DoesNotRun,
}

/// Puts a runnable `docker` into `out` and returns its path.
///
/// # Errors
/// When the package cannot be had or the client does not run here.
pub fn extract(data: &Path, cache: &Path, out: &Path) -> Result<PathBuf, ClientError> {
    let mut packages = Packages::new(load_lock(data)?, Archive::new(data), cache);
    let source = packages.open("docker-cli")?.root.join("usr/bin/docker");
    let docker = out.join("docker");
    file::create_dir(out)?;
    if std::fs::metadata(&docker).is_ok_and(|m| m.len() == file_len(&source)) && runs(&docker) {
        return Ok(docker);
    }
    install(&source, &docker)?;
    if runs(&docker) {
        return Ok(docker);
    }
    // This machine's libraries are older than trixie's: bring those along.
    let mut tree = Tree::default();
    tree.file("docker", 0o755, &source)?;
    closure::close(&mut tree, &mut packages)?;
    let libraries = out.join("docker-lib");
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
    install(&source, &libraries.join("docker"))?;
    let script = "#!/bin/sh\nd=$(dirname \"$(readlink -f \"$0\")\")/docker-lib\n\
                  exec \"$d/ld-linux-x86-64.so.2\" --library-path \"$d\" \"$d/docker\" \"$@\"\n";
    file::replace(&docker, script.as_bytes())?;
    set_executable(&docker)?;
    if runs(&docker) {
        Ok(docker)
    } else {
        Err(ClientError::DoesNotRun)
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

fn runs(docker: &Path) -> bool {
    Command::new(docker)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}
