//! Puts values back, the last changed first.

use std::io;

use host::Tree;
use serde::Serialize;

use crate::state::{Saved, State};

/// Rounds: some values can only be written once others are back (an interrupt's CPUs must be
/// online, a boost switch overwrites those of the policies), so what is still wrong after a round
/// is tried again.
const MAX_ROUNDS: u32 = 3;

/// A value that did not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    pub knob: String,
    pub path: String,
    pub wanted: String,
    /// `None`: it cannot be read.
    pub found: Option<String>,
    pub reason: String,
    #[serde(skip)]
    pub saved: Saved,
}

/// What came of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Knobs whose value was put back.
    pub restored: Vec<String>,
    /// How many already had their old value.
    pub already: usize,
    /// Devices and threads that no longer exist.
    pub gone: Vec<String>,
    pub failed: Vec<Leftover>,
}

/// Restores everything in `state` and verifies it at the end, when all is in place.
#[must_use]
pub fn restore(state: &State, tree: &dyn Tree) -> Restored {
    let mut result = Restored::default();
    let mut errors: Vec<Option<io::Error>> = state.saved.iter().map(|_| None).collect();
    let mut written = vec![false; state.saved.len()];
    for _ in 0..MAX_ROUNDS {
        let mut wrote = false;
        for (index, saved) in state.saved.iter().enumerate().rev() {
            match saved.cell.read(tree) {
                Ok(now) if now == saved.before => continue,
                // Write-only or asleep for now: the write decides. Gone: not even that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                _ => {}
            }
            errors[index] = saved.cell.write(tree, &saved.before).err();
            written[index] = true;
            wrote = true;
        }
        if !wrote {
            break;
        }
    }
    for ((saved, error), written) in state.saved.iter().zip(errors).zip(written) {
        match saved.cell.read(tree) {
            Ok(now) if now == saved.before && written => result.restored.push(saved.knob.clone()),
            Ok(now) if now == saved.before => result.already += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                result.gone.push(saved.knob.clone());
            }
            found => result.failed.push(leftover(saved, found, error)),
        }
    }
    result
}

fn leftover(saved: &Saved, found: io::Result<String>, error: Option<io::Error>) -> Leftover {
    let reason = match (&error, &found) {
        (Some(error), _) | (None, Err(error)) => error.to_string(),
        (None, Ok(found)) => format!("the kernel kept {found}"),
    };
    Leftover {
        knob: saved.knob.clone(),
        path: saved.cell.label(),
        wanted: saved.before.clone(),
        found: found.ok(),
        reason,
        saved: saved.clone(),
    }
}
