//! What is added to an allow-listed tree, and what a root image must never have.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{self, ProgramError};
use crate::tree::{Tree, TreeError};
use crate::unpack::{Packages, UnpackError};

/// More executables than this in the root image is a mistake in the allow-list.
const MAX_EXECUTABLES: usize = 20;

/// Programs whose presence would make the root image a place to work in.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"];

/// A tree cannot be completed, or must not be as it is.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("list the applets of busybox")]
    Applets(#[source] ProgramError),
    #[error("read modules archive {}", path.display())]
    Modules { path: PathBuf, source: io::Error },
    #[error("modules archive has {0:?}, which is not below lib/modules")]
    ModulePath(String),
    #[error("the root image would have a shell: {0}")]
    Shell(String),
    #[error("the root image would have {count} executables, more than {MAX_EXECUTABLES}: {names}")]
    TooManyExecutables { count: usize, names: String },
}

/// Every busybox applet as a link, as the binary itself lists them.
///
/// # Errors
/// When busybox is not locked or does not run.
pub fn add_applets(tree: &mut Tree, packages: &mut Packages) -> Result<(), ContentsError> {
    let busybox = packages
        .open("busybox-static")?
        .root
        .join("usr/bin/busybox");
    let output = program::run(Command::new(&busybox).arg("--list"), "busybox-static")
        .map_err(ContentsError::Applets)?;
    for applet in String::from_utf8_lossy(&output.stdout).lines() {
        let path = format!("usr/bin/{applet}");
        if !tree.contains(&path) && !tree.contains(&format!("usr/sbin/{applet}")) {
            tree.symlink(&path, "busybox")?;
        }
    }
    Ok(())
}

/// The kernel's modules from a tar archive with `lib/modules/VERSION/…`.
///
/// # Errors
/// When the archive cannot be read or holds anything else.
pub fn add_modules(root: &mut Tree, path: &Path) -> Result<(), ContentsError> {
    let unreadable = |source| ContentsError::Modules {
        path: path.to_path_buf(),
        source,
    };
    let mut archive = tar::Archive::new(File::open(path).map_err(unreadable)?);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        if !entry.header().entry_type().is_file() {
            continue; // directories follow from the files; build/source links lead nowhere here
        }
        let name = entry
            .path()
            .map_err(unreadable)?
            .to_string_lossy()
            .into_owned();
        let below = name.trim_start_matches("./").trim_start_matches("usr/");
        if !below.starts_with("lib/modules/") {
            return Err(ContentsError::ModulePath(name));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(unreadable)?;
        root.bytes(&format!("usr/{below}"), 0o644, bytes)?;
    }
    Ok(())
}

/// Refuses a root image with a shell or too many programs. Setuid bits cannot even be put into a [`Tree`].
///
/// # Errors
/// When the tree breaks a rule.
pub fn check(root: &Tree) -> Result<(), ContentsError> {
    for (path, _) in root.iter() {
        if path
            .rsplit('/')
            .next()
            .is_some_and(|name| SHELLS.contains(&name))
        {
            return Err(ContentsError::Shell(path.to_owned()));
        }
    }
    let names: Vec<&str> = root.executables().collect();
    if names.len() > MAX_EXECUTABLES {
        return Err(ContentsError::TooManyExecutables {
            count: names.len(),
            names: names.join(" "),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_or_too_many_programs_stop_the_build() {
        let mut tree = Tree::default();
        tree.symlink("usr/bin/sh", "x").unwrap();
        assert!(matches!(check(&tree), Err(ContentsError::Shell(_))));
        let mut tree = Tree::default();
        for n in 0..21 {
            tree.bytes(&format!("usr/bin/p{n}"), 0o755, vec![]).unwrap();
        }
        let error = check(&tree).unwrap_err();
        assert!(matches!(
            error,
            ContentsError::TooManyExecutables { count: 21, .. }
        ));
    }

    #[test]
    fn modules_arrive_below_usr_and_nothing_else_does() {
        let archive = |name: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut tar = tar::Builder::new(file.reopen().unwrap());
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            tar.append_data(&mut header, name, &b"elf"[..]).unwrap();
            tar.finish().unwrap();
            file
        };
        let mut tree = Tree::default();
        add_modules(&mut tree, archive("lib/modules/6.12/a.ko").path()).unwrap();
        assert!(tree.contains("usr/lib/modules/6.12/a.ko"));
        let error = add_modules(&mut tree, archive("etc/passwd").path()).unwrap_err();
        assert!(matches!(error, ContentsError::ModulePath(_)));
    }
}
