//! Adds the shared libraries that the programs of a tree need, by their ELF headers.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::file::FileError;
use crate::tree::{Content, Node, Tree, TreeError};
use crate::unpack::UnpackError;

/// Where Debian packages keep public libraries (and Ceph its private one), relative to `/`.
pub const LIBRARY_DIRS: [&str; 3] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu/ceph",
];

/// All libraries go here: the dynamic loader looks there without a cache file.
pub const TARGET_DIR: &str = "usr/lib/x86_64-linux-gnu";

/// The loader's fixed name in every dynamic program, and where it leads.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Finds the file of a shared library by the name that programs are linked with.
pub trait Libraries {
    /// # Errors
    /// When the supplying package cannot be read; `Ok(None)` when nobody supplies the name.
    fn library(&mut self, soname: &str) -> Result<Option<PathBuf>, UnpackError>;
}

/// The tree's programs cannot be completed.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    #[error(
        "{binary} needs {soname}, which no locked package supplies; \
         add the package to packages.txt and run `make relock`"
    )]
    Unresolved { binary: String, soname: String },
    #[error("{0} is not a well-formed ELF file")]
    Elf(String, #[source] goblin::error::Error),
    #[error("{0} is not for x86-64")]
    Machine(String),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// What an ELF file says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elf {
    pub needed: Vec<String>,
    pub interpreter: Option<String>,
    pub soname: Option<String>,
}

/// `None` for anything that is not ELF.
///
/// # Errors
/// When the file is damaged or for another machine; `name` is for the message.
pub fn inspect(name: &str, bytes: &[u8]) -> Result<Option<Elf>, ClosureError> {
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let elf = goblin::elf::Elf::parse(bytes)
        .map_err(|source| ClosureError::Elf(name.to_owned(), source))?;
    if elf.header.e_machine != goblin::elf::header::EM_X86_64 {
        return Err(ClosureError::Machine(name.to_owned()));
    }
    Ok(Some(Elf {
        needed: elf.libraries.iter().map(|s| (*s).to_owned()).collect(),
        interpreter: elf.interpreter.map(str::to_owned),
        soname: elf.soname.map(str::to_owned),
    }))
}

/// Adds every library that an ELF file of `tree` needs, and what those need in turn.
///
/// # Errors
/// When a library has no supplier; the message names it and who needs it.
pub fn close(tree: &mut Tree, libraries: &mut dyn Libraries) -> Result<(), ClosureError> {
    let mut queue: VecDeque<(String, Content)> = tree
        .iter()
        .filter_map(|(path, node)| match node {
            // Kernel modules are relocatable objects: they need the kernel, not libraries.
            Node::File { content, .. } if !path.ends_with(".ko") => {
                Some((path.to_owned(), content.clone()))
            }
            _ => None,
        })
        .collect();
    while let Some((binary, content)) = queue.pop_front() {
        let Some(elf) = inspect(&binary, &content.read()?)? else {
            continue;
        };
        let loader = elf
            .interpreter
            .as_deref()
            .and_then(|path| path.rsplit('/').next());
        for soname in elf.needed.iter().map(String::as_str).chain(loader) {
            let path = format!("{TARGET_DIR}/{soname}");
            if tree.contains(&path) {
                continue;
            }
            let unresolved = || ClosureError::Unresolved {
                binary: binary.clone(),
                soname: soname.to_owned(),
            };
            let source = libraries.library(soname)?.ok_or_else(unresolved)?;
            add(tree, &path, soname, &source)?;
            queue.push_back((path, Content::Path(source)));
        }
    }
    Ok(())
}

fn add(tree: &mut Tree, path: &str, soname: &str, source: &Path) -> Result<(), TreeError> {
    if soname != LOADER {
        return tree.file(path, 0o644, source);
    }
    // The kernel executes the loader, and by this path.
    tree.file(path, 0o755, source)?;
    tree.symlink(
        &format!("usr/lib64/{LOADER}"),
        "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Libraries for Nobody {
        fn library(&mut self, _: &str) -> Result<Option<PathBuf>, UnpackError> {
            Ok(None)
        }
    }

    /// The machine's own libraries.
    struct Host;

    impl Libraries for Host {
        fn library(&mut self, soname: &str) -> Result<Option<PathBuf>, UnpackError> {
            Ok(crate::unpack::find_library(Path::new("/"), soname))
        }
    }

    fn with_own_binary() -> Tree {
        let mut tree = Tree::default();
        let own = std::env::current_exe().unwrap();
        tree.file("usr/bin/tests", 0o755, &own).unwrap();
        tree
    }

    #[test]
    fn an_unresolved_library_is_named_with_its_binary() {
        let error = close(&mut with_own_binary(), &mut Nobody)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("usr/bin/tests") && error.contains(".so."),
            "{error}"
        );
    }

    #[test]
    fn libraries_and_loader_arrive_once() {
        let mut tree = with_own_binary();
        close(&mut tree, &mut Host).unwrap();
        assert!(tree.contains("usr/lib/x86_64-linux-gnu/libc.so.6"));
        assert!(tree.contains("usr/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(tree.executables().count(), 2, "the program and the loader");
        let size = tree.iter().count();
        close(&mut tree, &mut Host).unwrap();
        assert_eq!(tree.iter().count(), size);
    }

    #[test]
    fn damaged_and_foreign_files_are_told_apart() {
        assert_eq!(inspect("text", b"#!/bin/sh").unwrap(), None);
        assert!(matches!(
            inspect("bad", b"\x7fELF\x02\x01"),
            Err(ClosureError::Elf(..))
        ));
    }
}
