//! What `tune` found, kept for `restore`: written before anything is changed.
//!
//! The first tuning's values win: a second one adds knobs that are new (an interrupt that came
//! meanwhile) and leaves the rest alone, since what it finds is the first one's work. A state
//! from before a reboot is worth nothing, as the reboot undid everything.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use host::{Tree, durable};
use serde::{Deserialize, Serialize};

use crate::cell::Cell;
use crate::plan::{Plan, Want};

/// Where it is kept unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/run/stillmetal/tune-state.json";
const MAX_STATE_BYTES: u64 = 64 * 1024 * 1024;
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the tuning state {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the tuning state {path} is damaged")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the tuning state {path} has version {found}; this program knows version {VERSION}")]
    Version { path: PathBuf, found: u32 },
    #[error("write the tuning state {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("remove the tuning state {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("another tune or restore is at work with {path}: wait for its end, and try again")]
    Busy { path: PathBuf },
    #[error("lock the directory {path} of the tuning state")]
    Lock { path: PathBuf, source: io::Error },
    #[error("serialise the tuning state")]
    Serialise { source: serde_json::Error },
}

/// One value as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    pub knob: String,
    pub cell: Cell,
    pub before: String,
}

/// The values in the order in which they were changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    /// Which boot this belongs to.
    boot_id: Option<String>,
    pub saved: Vec<Saved>,
}

/// What a kept state is worth now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    None,
    /// From an earlier boot.
    Stale,
    Current(State),
}

/// Keeps other tune and restore commands with the same state directory out, until dropped or until
/// the process ends in whatever way. It is the directory that is locked: nothing is left over.
#[derive(Debug)]
#[must_use]
pub struct Alone(#[expect(dead_code, reason = "kept for its lock")] File);

impl Alone {
    /// # Errors
    /// [`Error::Busy`], [`Error::Lock`].
    pub fn lock(state: &Path) -> Result<Self, Error> {
        let directory = match state.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let failed = |source| Error::Lock {
            path: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let file = File::open(directory).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Busy {
                path: state.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl State {
    /// Everything that carrying out `plan` may change, as it is now.
    #[must_use]
    pub fn of(plan: &Plan, tree: &dyn Tree) -> Self {
        let saved = plan
            .steps
            .iter()
            .filter(|step| !matches!(step.cell, Cell::Held { .. }))
            .filter(|step| step.want.text().is_some() && !matches!(step.want, Want::Absent(_)))
            .filter_map(|step| {
                let before = step.cell.read(tree).ok()?;
                Some(Saved {
                    knob: step.knob.clone(),
                    cell: step.cell.clone(),
                    before,
                })
            })
            .collect();
        Self {
            version: VERSION,
            boot_id: boot_id(tree),
            saved,
        }
    }

    /// Adds what `later` knows and this does not.
    pub fn extend(&mut self, later: Self) {
        for saved in later.saved {
            if self.saved.iter().all(|known| known.cell != saved.cell) {
                self.saved.push(saved);
            }
        }
    }

    /// # Errors
    /// [`Error::Read`], [`Error::Parse`], [`Error::Version`].
    pub fn load(path: &Path, tree: &dyn Tree) -> Result<Loaded, Error> {
        let path = || path.to_owned();
        let text = durable::read(&path(), MAX_STATE_BYTES).map_err(|source| Error::Read {
            path: path(),
            source,
        })?;
        let Some(text) = text else {
            return Ok(Loaded::None);
        };
        let state: Self = serde_json::from_str(&text).map_err(|source| Error::Parse {
            path: path(),
            source,
        })?;
        if state.version != VERSION {
            return Err(Error::Version {
                path: path(),
                found: state.version,
            });
        }
        if state.boot_id != boot_id(tree) {
            return Ok(Loaded::Stale);
        }
        Ok(Loaded::Current(state))
    }

    /// Replaces the file at `path` in one step, mode 0600.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).map_err(|source| Error::Serialise { source })?;
        durable::replace(path, &text).map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
    }
}

/// # Errors
/// [`Error::Remove`].
pub fn remove(path: &Path) -> Result<(), Error> {
    durable::remove(path).map_err(|source| Error::Remove {
        path: path.to_owned(),
        source,
    })
}

fn boot_id(tree: &dyn Tree) -> Option<String> {
    Some(
        tree.read("/proc/sys/kernel/random/boot_id")
            .ok()?
            .trim()
            .to_owned(),
    )
}
