//! The lab's folder: its lock and its files.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::Record;
use crate::places::{NoHome, state_dir};

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error(transparent)]
    NoHome(#[from] NoHome),
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("understand {}", path.display())]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::File {
        action,
        path,
        source,
    }
}

/// Where everything of a lab is.
#[derive(Debug, Clone)]
pub(super) struct LabFolder {
    top: PathBuf,
}

/// Whether a lab is there.
#[derive(Debug)]
pub(super) enum Locked {
    /// Nobody had it: now it is ours, until this is closed here and in every process it was given to.
    Ours(File),
    /// A supervisor lives.
    Held,
}

impl LabFolder {
    /// That of whoever runs this.
    pub(super) fn of_user() -> Result<Self, FolderError> {
        Ok(Self::at(state_dir()?.join("lab")))
    }

    pub(super) fn at(top: PathBuf) -> Self {
        Self { top }
    }

    pub(super) fn path(&self) -> &Path {
        &self.top
    }

    fn lock_file(&self) -> PathBuf {
        self.top.join("lock")
    }

    fn record_file(&self) -> PathBuf {
        self.top.join("record.json")
    }

    pub(super) fn supervisor_log(&self) -> PathBuf {
        self.top.join("supervisor.log")
    }

    pub(super) fn controller_log(&self) -> PathBuf {
        self.top.join("controller.log")
    }

    /// The controller's state.
    pub(super) fn controller(&self) -> PathBuf {
        self.top.join("controller")
    }

    /// `ca.pem`, `cert.pem` and `key.pem` of the first admin.
    pub(super) fn admin(&self) -> PathBuf {
        self.top.join("admin")
    }

    pub(super) fn consoles(&self) -> PathBuf {
        self.top.join("consoles")
    }

    /// An agent's, where nodes are processes.
    pub(super) fn agent(&self, name: &str) -> PathBuf {
        self.top.join("agents").join(name)
    }

    /// The engine's images before the lab.
    pub(super) fn images_before(&self) -> PathBuf {
        self.top.join("images-before")
    }

    /// Images that agents ran.
    pub(super) fn images_used(&self) -> PathBuf {
        self.top.join("images-used")
    }

    /// The context that was in use before the lab's.
    pub(super) fn previous_context(&self) -> PathBuf {
        self.top.join("previous-context")
    }

    /// Takes the lock, unless somebody has it.
    pub(super) fn lock(&self) -> Result<Locked, FolderError> {
        loop {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.top)
                .map_err(failed("make folder", &self.top))?;
            let path = self.lock_file();
            let opened = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path);
            let file = match opened {
                Ok(file) => file,
                // removed with its folder a moment ago
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("open", &path)(error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Locked::Held),
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
            }
            // whoever had it may have removed it meanwhile: then this is a lock on nothing
            if self.is_lock(&file) {
                return Ok(Locked::Ours(file));
            }
        }
    }

    /// Whether this open file is the lock.
    pub(super) fn is_lock(&self, file: &File) -> bool {
        let identity = |of: io::Result<fs::Metadata>| of.ok().map(|it| (it.dev(), it.ino()));
        let here = identity(file.metadata());
        here.is_some() && here == identity(fs::metadata(self.lock_file()))
    }

    /// What the supervisor wrote last; `None`: nothing yet.
    pub(super) fn record(&self) -> Result<Option<Record>, FolderError> {
        let path = self.record_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        match serde_json::from_str(&text) {
            Ok(record) => Ok(Some(record)),
            Err(source) => Err(FolderError::Malformed { path, source }),
        }
    }

    /// Writes it; a reader sees the old or the new one.
    pub(super) fn write_record(&self, record: &Record) -> Result<(), FolderError> {
        let path = self.record_file();
        let text = match serde_json::to_vec_pretty(record) {
            Ok(text) => text,
            Err(source) => return Err(FolderError::Malformed { path, source }),
        };
        let part = self.top.join("record.json.new");
        File::create(&part)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&part, &path))
            .map_err(failed("write", &path))
    }

    /// Removes what an earlier lab left, except the lock that we hold.
    pub(super) fn empty(&self) -> Result<(), FolderError> {
        let entries = fs::read_dir(&self.top).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(failed("list", &self.top))? {
            let path = entry.path();
            if path == self.lock_file() {
                continue;
            }
            let kind = entry.file_type().map_err(failed("look at", &path))?;
            let removed = match kind.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// Removes all of it; `_lock` is ours, so nobody uses it.
    pub(super) fn remove(&self, _lock: File) -> Result<(), FolderError> {
        fs::remove_dir_all(&self.top).map_err(failed("remove", &self.top))?;
        if let Some(above) = self.top.parent() {
            // it holds something else
            drop(fs::remove_dir(above));
        }
        Ok(())
    }
}

/// The last lines of a file that may be long; empty if it cannot be read.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    /// Enough for any lines worth quoting.
    const WINDOW: u64 = 16 * 1024;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut text = Vec::new();
        file.take(WINDOW).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// How often files are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, LabFolder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = LabFolder::at(temporary.path().join("stillmetal/lab"));
        (temporary, folder)
    }

    #[test]
    fn one_at_a_time() {
        let (_temporary, folder) = folder();
        let Locked::Ours(lock) = folder.lock().unwrap() else {
            panic!("nobody has it");
        };
        assert!(folder.is_lock(&lock));
        assert!(matches!(folder.lock().unwrap(), Locked::Held));
        // it belongs to everybody who was given it
        let given = lock.try_clone().unwrap();
        drop(lock);
        assert!(matches!(folder.lock().unwrap(), Locked::Held));
        drop(given);
        assert!(matches!(folder.lock().unwrap(), Locked::Ours(_)));
    }

    #[test]
    fn a_lock_that_was_removed_is_none() {
        let (temporary, folder) = folder();
        let Locked::Ours(lock) = folder.lock().unwrap() else {
            panic!("nobody has it");
        };
        let stale = lock.try_clone().unwrap();
        fs::write(folder.path().join("rest"), "x").unwrap();
        folder.remove(lock).unwrap();
        assert!(!temporary.path().join("stillmetal").exists());
        let Locked::Ours(lock) = folder.lock().unwrap() else {
            panic!("nobody has it");
        };
        assert!(!folder.is_lock(&stale));
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/rest"), "x").unwrap();
        folder.empty().unwrap();
        assert!(folder.is_lock(&lock));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_end_of_a_file() {
        let (temporary, _) = folder();
        let file = temporary.path().join("log");
        assert_eq!(tail(&file, 3), "");
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&file, text).unwrap();
        assert_eq!(tail(&file, 2), "line 9998\nline 9999");
    }
}
