//! A file tree in memory, to be written as squashfs, cpio or tar.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::file::{self, FileError};

/// Where a file's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Path(PathBuf),
    Bytes(Vec<u8>),
}

impl Content {
    /// # Errors
    /// When the source file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, FileError> {
        match self {
            Self::Path(path) => file::read(path),
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

/// One entry. Every entry belongs to root; no other mode bits than permissions and the sticky bit exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Dir { mode: u32 },
    File { mode: u32, content: Content },
    Symlink { target: String },
    CharDevice { mode: u32, major: u32, minor: u32 },
}

/// Entries by path: relative, `/`-separated, parents before children when iterated.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    entries: BTreeMap<String, Node>,
}

/// An entry does not fit into the tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    #[error("{0:?} is not a relative path of plain components")]
    Path(String),
    #[error("{0} is already in the tree as something else")]
    Conflict(String),
    #[error("{path} lies below {parent}, which is not a directory")]
    NotADirectory { path: String, parent: String },
    #[error("{path} has mode {mode:o}; setuid, setgid and unknown bits are never allowed")]
    Mode { path: String, mode: u32 },
}

impl Tree {
    /// Adds an entry and, where missing, its parents (mode 0755). The same entry twice is fine.
    ///
    /// # Errors
    /// When the path or mode is not acceptable or contradicts the tree.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(TreeError::Path(path.to_owned()));
        }
        match &node {
            Node::Dir { mode } if mode & !0o1777 != 0 => return Err(bad_mode(path, *mode)),
            Node::File { mode, .. } | Node::CharDevice { mode, .. } if mode & !0o777 != 0 => {
                return Err(bad_mode(path, *mode));
            }
            _ => {}
        }
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            let dir = Node::Dir { mode: 0o755 };
            if !matches!(
                self.entries.entry(parent.to_owned()).or_insert(dir),
                Node::Dir { .. }
            ) {
                let (path, parent) = (path.to_owned(), parent.to_owned());
                return Err(TreeError::NotADirectory { path, parent });
            }
        }
        match (self.entries.get(path), &node) {
            (None, _) => {}
            (Some(Node::Dir { .. }), Node::Dir { .. }) => {}
            (Some(present), new) if present == new => return Ok(()),
            _ => return Err(TreeError::Conflict(path.to_owned())),
        }
        self.entries.insert(path.to_owned(), node);
        Ok(())
    }

    /// # Errors
    /// Like [`Tree::insert`].
    pub fn dir(&mut self, path: &str, mode: u32) -> Result<(), TreeError> {
        self.insert(path, Node::Dir { mode })
    }

    /// # Errors
    /// Like [`Tree::insert`].
    pub fn bytes(&mut self, path: &str, mode: u32, content: Vec<u8>) -> Result<(), TreeError> {
        self.insert(
            path,
            Node::File {
                mode,
                content: Content::Bytes(content),
            },
        )
    }

    /// # Errors
    /// Like [`Tree::insert`].
    pub fn file(&mut self, path: &str, mode: u32, source: &Path) -> Result<(), TreeError> {
        let content = Content::Path(source.to_path_buf());
        self.insert(path, Node::File { mode, content })
    }

    /// # Errors
    /// Like [`Tree::insert`].
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), TreeError> {
        self.insert(
            path,
            Node::Symlink {
                target: target.to_owned(),
            },
        )
    }

    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// In byte order of the paths, so every writer emits the same sequence.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.entries
            .iter()
            .map(|(path, node)| (path.as_str(), node))
    }

    /// Paths of regular files that somebody may execute.
    pub fn executables(&self) -> impl Iterator<Item = &str> {
        self.iter().filter_map(|(path, node)| match node {
            Node::File { mode, .. } if mode & 0o111 != 0 => Some(path),
            _ => None,
        })
    }
}

fn bad_mode(path: &str, mode: u32) -> TreeError {
    TreeError::Mode {
        path: path.to_owned(),
        mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_appear_and_explicit_modes_win() {
        let mut tree = Tree::default();
        tree.bytes("root/.ssh/keys", 0o400, vec![1]).unwrap();
        tree.dir("root", 0o700).unwrap();
        let paths: Vec<_> = tree.iter().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(paths, ["root", "root/.ssh", "root/.ssh/keys"]);
        assert_eq!(tree.iter().next().unwrap().1, &Node::Dir { mode: 0o700 });
    }

    #[test]
    fn refuses_what_does_not_belong() {
        let mut tree = Tree::default();
        tree.symlink("lib", "usr/lib").unwrap();
        assert!(matches!(
            tree.dir("lib/x", 0o755),
            Err(TreeError::NotADirectory { .. })
        ));
        assert!(matches!(
            tree.bytes("su", 0o4755, vec![]),
            Err(TreeError::Mode { .. })
        ));
        for path in ["", "/etc", "a//b", "../x", "a/./b", "a/"] {
            assert!(
                matches!(tree.dir(path, 0o755), Err(TreeError::Path(_))),
                "{path}"
            );
        }
        tree.bytes("a", 0o644, vec![1]).unwrap();
        tree.bytes("a", 0o644, vec![1]).unwrap();
        assert_eq!(
            tree.bytes("a", 0o644, vec![2]),
            Err(TreeError::Conflict("a".into()))
        );
    }
}
