//! Tuning that can be undone: what is found is on disk before anything is changed.

use std::path::Path;

use host::Tree;

use crate::apply::{Applied, apply};
use crate::plan::{Options, Plan, plan};
use crate::restore::{Restored, restore};
use crate::state::{self, Alone, Error, Loaded, State};
use crate::topology;

/// Tunes, after keeping at `path` what was there before the first tuning since the machine booted.
///
/// # Errors
/// When it cannot be kept: then nothing was changed.
pub fn tune(path: &Path, options: &Options, tree: &dyn Tree) -> Result<(Plan, Applied), Error> {
    let _alone = Alone::lock(path)?;
    let plan = plan(&topology::read(tree), options);
    let found = State::of(&plan, tree);
    let keep = match State::load(path, tree)? {
        Loaded::Current(mut first) => {
            first.extend(found);
            first
        }
        Loaded::None | Loaded::Stale => found,
    };
    // Before the first change, so that a crash half way can be undone.
    keep.store(path)?;
    let applied = apply(&plan, tree);
    Ok((plan, applied))
}

/// What there was to put back.
#[derive(Debug, PartialEq, Eq)]
pub enum Undone {
    /// This machine is not tuned.
    Nothing,
    /// It was rebooted since, which undid everything.
    Stale,
    /// What could not be put back is still kept.
    Restored(Restored),
}

/// Puts back what is kept at `path`, and forgets what is back.
///
/// # Errors
/// When what is kept cannot be read or replaced.
pub fn undo(path: &Path, tree: &dyn Tree) -> Result<Undone, Error> {
    let _alone = Alone::lock(path)?;
    let mut state = match State::load(path, tree)? {
        Loaded::Current(state) => state,
        Loaded::None => return Ok(Undone::Nothing),
        Loaded::Stale => {
            state::remove(path)?;
            return Ok(Undone::Stale);
        }
    };
    let result = restore(&state, tree);
    if result.failed.is_empty() {
        state::remove(path)?;
        return Ok(Undone::Restored(result));
    }
    // The old values are known nowhere else: a second attempt needs them.
    let failed = result.failed.iter();
    state.saved = failed.map(|leftover| leftover.saved.clone()).collect();
    state.store(path)?;
    Ok(Undone::Restored(result))
}
