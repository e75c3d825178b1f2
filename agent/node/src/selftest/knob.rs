//! A knob that is turned for a while, and always put back.
//!
//! Dropping [`Turned`] writes the old value and reads it back. What outlives this process (a knob
//! outside of the claim's own cgroup) is noted in a file before it is turned: an agent that was
//! killed in between puts it back when it starts ([`Undo::replay`]).

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use host::{Tree, durable};
use serde::{Deserialize, Serialize};

/// The note is one path and one value.
const NOTE_BYTES: u64 = 4096;

/// Where the note lies.
#[derive(Debug, Clone)]
pub(super) struct Undo {
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Note {
    path: String,
    value: String,
}

impl Undo {
    pub(super) fn below(run_dir: &Path) -> Self {
        Self {
            file: run_dir.join("selftest-undo.json"),
        }
    }

    fn write(&self, note: &Note) -> io::Result<()> {
        let text = serde_json::to_vec(note).map_err(io::Error::other)?;
        durable::replace(&self.file, &text)
    }

    fn remove(&self) -> Result<(), String> {
        durable::remove(&self.file)
            .map_err(|error| format!("{} could not be removed: {error}", self.file.display()))
    }

    /// Puts back what a self-test that was killed left turned; `Some`: what it was.
    ///
    /// # Errors
    /// What could not be put back, in words; the note stays for the next attempt.
    pub(super) fn replay(&self, tree: &dyn Tree) -> Result<Option<String>, String> {
        let read = |error: io::Error| format!("read {}: {error}", self.file.display());
        let Some(text) = durable::read(&self.file, NOTE_BYTES).map_err(read)? else {
            return Ok(None);
        };
        let note: Note = serde_json::from_str(&text)
            .map_err(|error| format!("{}: {error}", self.file.display()))?;
        set(tree, &note.path, &note.value)?;
        self.remove()?;
        Ok(Some(format!("{} is {} again", note.path, note.value)))
    }
}

/// What could not be put back, over one self-test.
pub(super) type LeftBehind = RefCell<Vec<String>>;

/// A knob with another value than it had.
pub(super) struct Turned<'a> {
    tree: &'a dyn Tree,
    path: String,
    before: String,
    /// `None`: the knob goes away with its cgroup.
    undo: Option<&'a Undo>,
    left_behind: &'a LeftBehind,
}

impl<'a> Turned<'a> {
    /// Turns it and reads it back.
    ///
    /// # Errors
    /// What could not be done, in words; then the knob is put back.
    pub(super) fn to(
        value: &str,
        path: String,
        tree: &'a dyn Tree,
        undo: Option<&'a Undo>,
        left_behind: &'a LeftBehind,
    ) -> Result<Self, String> {
        let before = read(tree, &path)?;
        if let Some(undo) = undo {
            let note = Note {
                path: path.clone(),
                value: before.clone(),
            };
            undo.write(&note)
                .map_err(|error| format!("write {}: {error}", undo.file.display()))?;
        }
        let turned = Self {
            tree,
            path,
            before,
            undo,
            left_behind,
        };
        set(tree, &turned.path, value)?; // on an error it is put back by its Drop
        Ok(turned)
    }
}

impl Drop for Turned<'_> {
    fn drop(&mut self) {
        let back = set(self.tree, &self.path, &self.before);
        let forgotten = match (&back, self.undo) {
            (Ok(()), Some(undo)) => undo.remove(),
            _ => Ok(()),
        };
        if let Err(why) = back.and(forgotten) {
            tracing::error!(%why, "a knob that the self-test turned is not as it was");
            self.left_behind.borrow_mut().push(format!(
                "{why}; it was `{}` before: write that to it",
                self.before
            ));
        }
    }
}

fn read(tree: &dyn Tree, path: &str) -> Result<String, String> {
    tree.read(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| format!("read {path}: {error}"))
}

fn set(tree: &dyn Tree, path: &str, value: &str) -> Result<(), String> {
    tree.write(path, value)
        .map_err(|error| format!("write `{value}` to {path}: {error}"))?;
    let found = read(tree, path)?;
    if found == value {
        Ok(())
    } else {
        Err(format!(
            "{path} reads `{found}` after `{value}` was written"
        ))
    }
}

#[cfg(test)]
mod tests {
    use host::fakes::{FakeTree, OnWrite};
    use nix::errno::Errno;

    use super::*;

    const KNOB: &str = "/sys/kernel/debug/sched/fair_server/cpu1/runtime";

    struct Bench {
        tree: FakeTree,
        _folder: tempfile::TempDir,
        undo: Undo,
        left_behind: LeftBehind,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let tree = FakeTree::new();
            tree.set(KNOB, "0\n");
            Self {
                tree,
                undo: Undo::below(folder.path()),
                _folder: folder,
                left_behind: LeftBehind::default(),
            }
        }

        fn turn(&self) -> Result<Turned<'_>, String> {
            let undo = Some(&self.undo);
            Turned::to("50000000", KNOB.into(), &self.tree, undo, &self.left_behind)
        }

        fn value(&self) -> String {
            self.tree.get(KNOB).unwrap()
        }
    }

    #[test]
    fn a_knob_is_put_back_when_its_guard_goes_also_on_an_error() {
        let bench = Bench::new();
        let fails = || -> Result<(), String> {
            let _turned = bench.turn()?;
            assert_eq!(bench.value(), "50000000");
            assert!(bench.undo.file.exists(), "noted while it is turned");
            Err("the sampler died".into())
        };
        assert!(fails().is_err());
        assert_eq!(bench.value(), "0");
        assert!(!bench.undo.file.exists());
        assert!(bench.left_behind.borrow().is_empty());
    }

    #[test]
    fn a_knob_that_does_not_take_the_value_is_put_back_at_once() {
        let bench = Bench::new();
        bench.tree.on_write(KNOB, OnWrite::Sticky);
        let why = bench.turn().err().unwrap();
        assert!(
            why.contains("reads `0` after `50000000` was written"),
            "{why}"
        );
        assert_eq!(bench.value(), "0");
        assert!(bench.left_behind.borrow().is_empty());
        bench.tree.on_write(KNOB, OnWrite::Fail(Errno::EBUSY));
        assert!(bench.turn().err().unwrap().contains("write `50000000`"));
    }

    #[test]
    fn a_knob_that_cannot_be_put_back_is_told_and_noted_for_the_next_start() {
        let bench = Bench::new();
        let turned = bench.turn().unwrap();
        bench.tree.on_write(KNOB, OnWrite::Fail(Errno::EIO));
        drop(turned);
        let told = bench.left_behind.borrow().clone();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("it was `0` before"), "{told:?}");
        assert!(bench.undo.replay(&bench.tree).is_err());
        bench.tree.on_write(KNOB, OnWrite::Accept);
        let said = bench.undo.replay(&bench.tree).unwrap().unwrap();
        assert_eq!(said, format!("{KNOB} is 0 again"));
        assert_eq!(bench.value(), "0");
        assert_eq!(bench.undo.replay(&bench.tree), Ok(None));
    }

    #[test]
    fn an_agent_killed_in_between_puts_the_knob_back_at_its_next_start() {
        let bench = Bench::new();
        std::mem::forget(bench.turn().unwrap()); // SIGKILL runs no Drop
        assert_eq!(bench.value(), "50000000");
        assert!(bench.undo.replay(&bench.tree).unwrap().is_some());
        assert_eq!(bench.value(), "0");
    }

    #[test]
    fn a_note_that_is_no_note_changes_nothing() {
        let bench = Bench::new();
        std::fs::write(&bench.undo.file, "{").unwrap();
        let before = bench.tree.snapshot();
        assert!(bench.undo.replay(&bench.tree).is_err());
        assert_eq!(bench.tree.snapshot(), before);
    }
}
