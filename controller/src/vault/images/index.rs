//! Which images there are, and what their names stand for. Pure.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use api::image::ImageView;
use serde::{Deserialize, Serialize};
use store::Digest;

/// Before the digits of an id.
const ID: &str = "sha256:";

/// An image that the vault has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `sha256:` and 64 hexadecimal digits, of its configuration.
    pub id: String,
    /// In full (`alpine:latest`), in alphabetical order. Perhaps none: only the id names it.
    pub names: Vec<String>,
    /// The SHA-256 of the archive that it is in, in hexadecimal.
    pub archive: String,
    /// Of the archive.
    pub bytes: u64,
    /// Milliseconds since the epoch.
    pub pushed_ms: u64,
    /// Who pushed it, by the certificate's name.
    pub user: String,
    /// From the lowest on; none: they cannot be left out one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
}

/// A layer, and which bytes of its archive are its file, header and padding included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its content's digest, as the image's configuration names it.
    pub diff: String,
    pub file: Range<u64>,
}

impl ImageRecord {
    /// The object that it is in.
    #[must_use]
    pub fn object(&self) -> Option<Digest> {
        self.archive.parse().ok()
    }

    /// As the API shows it, once for each name.
    #[must_use]
    pub fn views(&self) -> Vec<ImageView> {
        let view = |name: &str| ImageView {
            name: name.to_owned(),
            digest: self.id.clone(),
            bytes: self.bytes,
            pushed_ms: self.pushed_ms,
            user: self.user.clone(),
        };
        if self.names.is_empty() {
            return vec![view("")];
        }
        self.names.iter().map(|name| view(name)).collect()
    }
}

/// All images. A name stands for one of them at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageIndex {
    by_id: BTreeMap<String, ImageRecord>,
}

impl FromIterator<ImageRecord> for ImageIndex {
    fn from_iter<T: IntoIterator<Item = ImageRecord>>(records: T) -> Self {
        let by_id = records.into_iter().map(|it| (it.id.clone(), it)).collect();
        Self { by_id }
    }
}

impl ImageIndex {
    /// Adds an image, or another archive and more names of one that is there. Its names are taken
    /// away from others. Returns every record that is another one now.
    pub fn add(&mut self, mut record: ImageRecord) -> Vec<ImageRecord> {
        let mut changed = Vec::new();
        for other in self.by_id.values_mut().filter(|it| it.id != record.id) {
            let before = other.names.len();
            other.names.retain(|name| !record.names.contains(name));
            if other.names.len() != before {
                changed.push(other.clone());
            }
        }
        if let Some(known) = self.by_id.get(&record.id) {
            record.names.extend(known.names.iter().cloned());
        }
        record.names.sort();
        record.names.dedup();
        self.by_id.insert(record.id.clone(), record.clone());
        changed.push(record);
        changed
    }

    /// The image that a job names, by id or name.
    #[must_use]
    pub fn resolve(&self, text: &str) -> Option<&ImageRecord> {
        if let Some(image) = self.by_id.get(text) {
            return Some(image);
        }
        let name = full_name(text)?;
        self.by_id
            .values()
            .find(|image| image.names.contains(&name))
    }

    /// In the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &ImageRecord> {
        self.by_id.values()
    }

    /// The objects that they are in.
    #[must_use]
    pub fn objects(&self) -> HashSet<Digest> {
        self.iter().filter_map(ImageRecord::object).collect()
    }
}

/// A name as it is kept: with its tag, and without what Docker leaves out when it shows it. `None`: it
/// is not a name, or it is an id.
#[must_use]
pub fn full_name(text: &str) -> Option<String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b".-_/:".contains(&b);
    if text.is_empty() || text.len() > 255 || text.starts_with(ID) || !text.bytes().all(known) {
        return None;
    }
    let short = text.strip_prefix("docker.io/").unwrap_or(text);
    let short = match short.strip_prefix("library/") {
        Some(rest) if !rest.contains('/') => rest,
        _ => short,
    };
    let last = short.rsplit('/').next()?;
    if short.split('/').any(str::is_empty) || last.starts_with(':') || last.ends_with(':') {
        return None;
    }
    // A colon before the last slash belongs to a registry's port.
    Some(if last.contains(':') {
        short.to_owned()
    } else {
        format!("{short}:latest")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(id: &str, names: &[&str]) -> ImageRecord {
        ImageRecord {
            id: format!("sha256:{id}"),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            archive: "ab".repeat(32),
            bytes: 7,
            pushed_ms: 1,
            user: "somebody".into(),
            layers: Vec::new(),
        }
    }

    #[test]
    fn names_are_kept_in_full() {
        for (text, full) in [
            ("alpine", Some("alpine:latest")),
            ("alpine:3.20", Some("alpine:3.20")),
            ("docker.io/library/alpine", Some("alpine:latest")),
            ("library/alpine", Some("alpine:latest")),
            ("docker.io/a/b:c", Some("a/b:c")),
            ("host:5000/a", Some("host:5000/a:latest")),
            ("host:5000/library/a", Some("host:5000/library/a:latest")),
            ("sha256:ab", None),
            ("", None),
            ("a b", None),
            ("a//b", None),
            ("a:", None),
        ] {
            assert_eq!(full_name(text).as_deref(), full, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_full_name_is_full(text in "[a-z0-9:/.-]{0,40}") {
            if let Some(full) = full_name(&text) {
                prop_assert_eq!(full_name(&full), Some(full.clone()));
            }
        }
    }

    #[test]
    fn a_name_moves_to_the_image_that_was_pushed_last() {
        let mut index = ImageIndex::default();
        index.add(record("a", &["bench:latest", "bench:1"]));
        let changed = index.add(record("b", &["bench:latest"]));
        let shown: Vec<_> = changed
            .iter()
            .map(|it| (it.id.as_str(), it.names.join(" ")))
            .collect();
        assert_eq!(
            shown,
            [
                ("sha256:a", "bench:1".to_owned()),
                ("sha256:b", "bench:latest".to_owned())
            ]
        );
        assert_eq!(index.resolve("bench").unwrap().id, "sha256:b");
        assert_eq!(index.resolve("bench:1").unwrap().id, "sha256:a");
        assert_eq!(index.resolve("sha256:a").unwrap().id, "sha256:a");
        assert!(index.resolve("sha256:c").is_none());
        // Pushed again, it keeps the names that it has.
        let again = index.add(record("a", &[]));
        assert_eq!(again[0].names, ["bench:1"]);
        let restored: ImageIndex = index.iter().cloned().collect();
        assert_eq!(restored, index);
        assert_eq!(index.objects().len(), 1);
    }
}
