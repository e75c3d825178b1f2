//! Turns an allow-list (`files.txt`, `ssh.txt`) into a file tree. Format: see the head of `files.txt`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::file::{self, FileError};
use crate::tree::{Tree, TreeError};
use crate::unpack::{Packages, UnpackError};

/// Replaced in the project's own files.
const VERSION_MARK: &str = "@VERSION@";

/// An allow-list and the directory of its `@rootfs` files.
#[derive(Debug)]
pub struct Recipe {
    path: PathBuf,
    own_files: PathBuf,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    number: usize,
    /// `@dir`, `@link`, `@rootfs` or a package's name.
    kind: String,
    from: String,
    to: String,
    mode: u32,
}

/// The allow-list cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}, line {line}: {what}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        what: String,
    },
    #[error("{}, line {line}", path.display())]
    Tree {
        path: PathBuf,
        line: usize,
        source: TreeError,
    },
    #[error("{}, line {line}", path.display())]
    Package {
        path: PathBuf,
        line: usize,
        source: UnpackError,
    },
}

impl Recipe {
    /// # Errors
    /// When the list is missing or malformed; the line is named.
    pub fn load(path: &Path, own_files: &Path) -> Result<Self, RecipeError> {
        let mut lines = Vec::new();
        for (index, text) in file::read_text(path)?.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let line = parse(number, text).map_err(|what| RecipeError::Line {
                path: path.to_path_buf(),
                line: number,
                what,
            })?;
            lines.push(line);
        }
        Ok(Self {
            path: path.to_path_buf(),
            own_files: own_files.to_path_buf(),
            lines,
        })
    }

    /// Builds the tree, without libraries.
    ///
    /// # Errors
    /// When an entry's source is missing or two entries contradict each other; the line is named.
    pub fn tree(&self, packages: &mut Packages) -> Result<Tree, RecipeError> {
        let mut tree = Tree::default();
        for line in &self.lines {
            self.add(line, packages, &mut tree)?;
        }
        Ok(tree)
    }

    fn add(&self, line: &Line, packages: &mut Packages, out: &mut Tree) -> Result<(), RecipeError> {
        let tree = |source| RecipeError::Tree {
            path: self.path.clone(),
            line: line.number,
            source,
        };
        match line.kind.as_str() {
            "@dir" => out.dir(&line.to, line.mode).map_err(tree),
            "@link" => out.symlink(&line.to, &line.from).map_err(tree),
            "@rootfs" => {
                let text = file::read_text(&self.own_files.join(&line.from))?;
                let text = text.replace(VERSION_MARK, env!("CARGO_PKG_VERSION"));
                out.bytes(&line.to, line.mode, text.into_bytes())
                    .map_err(tree)
            }
            package => {
                let opened = packages
                    .open(package)
                    .map_err(|source| RecipeError::Package {
                        path: self.path.clone(),
                        line: line.number,
                        source,
                    })?;
                let root = opened.root.clone();
                if let Some(to) = line.to.strip_suffix('/') {
                    self.add_dir(line, &root.join(&line.from), to, out)
                } else if let Some((dir, extension)) = line.from.split_once("/*.") {
                    let joined = self.join(line, &root.join(dir), extension)?;
                    out.bytes(&line.to, line.mode, joined).map_err(tree)
                } else {
                    let source = self.regular(line, &root.join(&line.from))?;
                    out.file(&line.to, line.mode, &source).map_err(tree)
                }
            }
        }
    }

    /// A whole directory with its symbolic links as they are.
    fn add_dir(
        &self,
        line: &Line,
        from: &Path,
        to: &str,
        out: &mut Tree,
    ) -> Result<(), RecipeError> {
        let tree = |source| RecipeError::Tree {
            path: self.path.clone(),
            line: line.number,
            source,
        };
        out.dir(to, 0o755).map_err(tree)?;
        for (name, path) in list(from)? {
            let kind = fs::symlink_metadata(&path).map_err(FileError::at("inspect", &path))?;
            let to = format!("{to}/{name}");
            if kind.is_dir() {
                self.add_dir(line, &path, &to, out)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(FileError::at("read link", &path))?;
                out.symlink(&to, &target.to_string_lossy()).map_err(tree)?;
            } else {
                out.file(&to, line.mode, &path).map_err(tree)?;
            }
        }
        Ok(())
    }

    fn join(&self, line: &Line, dir: &Path, extension: &str) -> Result<Vec<u8>, RecipeError> {
        let mut joined = Vec::new();
        for (_, path) in list(dir)? {
            if path.extension().is_some_and(|e| e == extension) {
                joined.extend(file::read(&path)?);
                if !joined.ends_with(b"\n") {
                    joined.push(b'\n');
                }
            }
        }
        if joined.is_empty() {
            return Err(self.error(line, format!("{} matches no file", line.from)));
        }
        Ok(joined)
    }

    fn regular(&self, line: &Line, path: &Path) -> Result<PathBuf, RecipeError> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => Ok(path.to_path_buf()),
            Ok(_) => Err(self.error(line, format!("{} is not a regular file", line.from))),
            Err(_) => Err(self.error(
                line,
                format!("package {} has no file {}", line.kind, line.from),
            )),
        }
    }

    fn error(&self, line: &Line, what: String) -> RecipeError {
        RecipeError::Line {
            path: self.path.clone(),
            line: line.number,
            what,
        }
    }
}

fn parse(number: usize, text: &str) -> Result<Line, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [kind, from, to, mode] = fields[..] else {
        return Err(format!("expected 4 columns, found {}", fields.len()));
    };
    if kind.starts_with('@') && !matches!(kind, "@dir" | "@link" | "@rootfs") {
        return Err(format!("unknown kind {kind}"));
    }
    if kind != "@link" && Path::new(from).components().any(|c| c.as_os_str() == "..") {
        return Err(format!("{from} leaves its package"));
    }
    if from.ends_with('/') != to.ends_with('/') {
        return Err("a directory needs a trailing slash in both columns".to_owned());
    }
    let mode = match (kind, mode) {
        ("@link", "-") => 0o777,
        ("@link", _) => return Err("a link's mode is `-`".to_owned()),
        _ => u32::from_str_radix(mode, 8).map_err(|_| format!("{mode:?} is not an octal mode"))?,
    };
    let (kind, from, to) = (kind.to_owned(), from.to_owned(), to.to_owned());
    Ok(Line {
        number,
        kind,
        from,
        to,
        mode,
    })
}

/// A directory's entries by name.
pub(crate) fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, FileError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(FileError::at("list", dir))? {
        let entry = entry.map_err(FileError::at("list", dir))?;
        entries.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_four_columns() {
        let line = parse(7, "runc  usr/sbin/runc   usr/bin/runc  0755").unwrap();
        assert_eq!((line.number, line.mode), (7, 0o755));
        assert_eq!(parse(1, "@link ../run var/run -").unwrap().from, "../run");
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        for (text, part) in [
            ("a b c", "4 columns"),
            ("@file a b 0644", "unknown kind"),
            ("p ../../etc/shadow x 0644", "leaves"),
            ("p a/ b 0644", "trailing slash"),
            ("p a b 99", "octal"),
            ("@link a b 0777", "link"),
        ] {
            let error = parse(1, text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
