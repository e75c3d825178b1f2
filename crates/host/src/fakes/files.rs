//! Paths and texts of a fake tree.

use std::collections::{BTreeMap, BTreeSet};

/// The files, as rules see them.
#[derive(Clone, Debug, Default)]
pub struct Files {
    pub(super) texts: BTreeMap<String, String>,
    pub(super) directories: BTreeSet<String>,
}

impl Files {
    /// Trimmed text.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(|text| text.trim())
    }

    /// Stores `text` with a line end; makes the directories above it.
    pub fn set(&mut self, path: &str, text: &str) {
        let mut text = text.trim_end_matches('\n').to_owned();
        text.push('\n');
        self.texts.insert(path.to_owned(), text);
        self.add_directory(parent(path));
    }

    /// Like [`Files::set`], only if the file exists.
    pub fn update(&mut self, path: &str, text: &str) {
        if self.texts.contains_key(path) {
            self.set(path, text);
        }
    }

    pub fn add_directory(&mut self, path: &str) {
        let mut path = path;
        while !path.is_empty() && self.directories.insert(path.to_owned()) {
            path = parent(path);
        }
    }

    /// Takes out a file, or a directory with everything below.
    pub fn remove(&mut self, path: &str) -> BTreeMap<String, String> {
        let below = format!("{path}/");
        let gone = |name: &str| name == path || name.starts_with(&below);
        self.directories.retain(|name| !gone(name));
        let taken: Vec<String> = self
            .texts
            .keys()
            .filter(|name| gone(name))
            .cloned()
            .collect();
        taken
            .into_iter()
            .filter_map(|name| self.texts.remove(&name).map(|text| (name, text)))
            .collect()
    }

    /// Paths and texts that start with `prefix`.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts
            .range(prefix.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(prefix))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub(super) fn children(&self, directory: &str) -> Vec<String> {
        let below = if directory == "/" {
            "/".to_owned()
        } else {
            format!("{directory}/")
        };
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for path in self.texts.keys().chain(&self.directories) {
            if let Some(rest) = path.strip_prefix(&below)
                && let Some(name) = rest.split('/').next()
                && !name.is_empty()
            {
                names.insert(name);
            }
        }
        names.into_iter().map(str::to_owned).collect()
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
