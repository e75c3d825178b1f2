//! The journal of agents that are simulated: gone with the process, and without a file each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::work::Key;
use futures_util::future::BoxFuture;

use super::{Change, Contents, Found, Journal, JournalError};
use crate::fences::Fences;
use crate::folder::Folder;

/// Lives as long as its last clone, so a simulated agent can be killed and started on the same one.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    attempts: BTreeMap<Key, (Found, Folder)>,
    fences: Fences,
    full: bool,
}

impl Held {
    fn found(&mut self, key: Key) -> Result<&mut Found, JournalError> {
        match self.attempts.get_mut(&key) {
            Some((found, _)) => Ok(found),
            None => Err(JournalError::Unknown { key }),
        }
    }
}

impl Memory {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on nothing can be written, as on a full disk; or again it can.
    pub fn set_full(&self, full: bool) {
        self.held().full = full;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // each change is one call: a panic leaves nothing half done
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_one(&self, change: Change) -> Result<(), JournalError> {
        let mut held = self.held();
        if held.full {
            return Err(JournalError::Full);
        }
        match change {
            Change::Stage(key, stage) => held.found(key)?.stage = Some(stage),
            Change::End(key, ending) => held.found(key)?.ending = Some(ending),
            Change::Take(record) => {
                let key = record.assignment.key;
                let found = Found {
                    record,
                    stage: None,
                    ending: None,
                };
                held.attempts.insert(key, (found, Folder::memory()));
            }
            Change::Forget(key, fences) => {
                held.fences = fences;
                held.attempts.remove(&key);
            }
            Change::Fences(fences) => held.fences = fences,
        }
        Ok(())
    }
}

impl Journal for Memory {
    fn load(&self) -> BoxFuture<'_, Result<Contents, JournalError>> {
        let held = self.held();
        let mut fences = held.fences.clone();
        for key in held.attempts.keys() {
            fences.see(*key);
        }
        let attempts = held.attempts.values().map(|(found, _)| found.clone());
        let contents = Contents {
            attempts: attempts.collect(),
            fences,
        };
        Box::pin(std::future::ready(Ok(contents)))
    }

    fn write(&self, change: Change) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(std::future::ready(self.write_one(change)))
    }

    fn folder(&self, key: Key) -> Folder {
        let held = self.held();
        let folder = held.attempts.get(&key).map(|(_, folder)| folder.clone());
        folder.unwrap_or_else(Folder::memory)
    }
}
