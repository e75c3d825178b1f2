//! Certificates of ended runs, on tmpfs: one file a container, the newest run of each.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Files kept; the oldest goes first.
const KEPT: usize = 256;
const LIMIT_BYTES: u64 = 8 << 20;

/// The directory of certificates.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// # Errors
    /// The file system's.
    pub(crate) fn save(&self, container: &str, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        self.make_room();
        host::durable::replace(&self.path(container), text.as_bytes())
    }

    /// The text of a container's certificate.
    pub(crate) fn read(&self, container: &str) -> Option<String> {
        let known = container.len() == 64 && container.bytes().all(|byte| byte.is_ascii_hexdigit());
        known
            .then(|| {
                host::durable::read(&self.path(container), LIMIT_BYTES)
                    .ok()
                    .flatten()
            })
            .flatten()
    }

    /// Ids of the containers with a certificate that begin with `prefix`.
    pub(crate) fn find(&self, prefix: &str) -> Vec<String> {
        let names = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        names
            .filter_map(|entry| {
                Some(
                    entry
                        .file_name()
                        .to_str()?
                        .strip_suffix(".json")?
                        .to_owned(),
                )
            })
            .filter(|id| id.starts_with(prefix))
            .collect()
    }

    fn make_room(&self) {
        let mut all: Vec<_> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        all.sort();
        let surplus = (all.len() + 1).saturating_sub(KEPT);
        for (_, path) in all.into_iter().take(surplus) {
            // one that stays costs a little memory, nothing else
            drop(fs::remove_file(path));
        }
    }

    fn path(&self, container: &str) -> PathBuf {
        self.dir.join(format!("{container}.json"))
    }
}
