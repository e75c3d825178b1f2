//! The in-memory tree itself.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cpulist::CpuSet;
use nix::errno::Errno;

use super::files::{Files, parent};
use crate::tree::{Hold, Kept, Tree, check_path};

/// How a file answers a write, when no [`Rule`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnWrite {
    /// Stores the text, with a line end, as kernel files read back.
    Accept,
    /// `EACCES`, as opening a 0444 file gives.
    ReadOnly,
    /// This errno.
    Fail(Errno),
    /// Says it was taken and keeps the old value: firmware that knows better.
    Sticky,
}

/// What a rule says to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not mine: ask the next rule, then the default.
    Pass,
    /// I did all there was to do.
    Done,
    Fail(Errno),
}

/// Behaviour added to a [`FakeTree`].
pub trait Rule: Send {
    fn on_write(&mut self, _files: &mut Files, _path: &str, _text: &str) -> Verdict {
        Verdict::Pass
    }
    fn on_create_dir(&mut self, _files: &mut Files, _path: &str) -> Verdict {
        Verdict::Pass
    }
    fn on_remove_dir(&mut self, _files: &mut Files, _path: &str) -> Verdict {
        Verdict::Pass
    }
}

#[derive(Default)]
struct State {
    files: Files,
    modes: BTreeMap<String, OnWrite>,
    unreadable: BTreeMap<String, Errno>,
    rules: Vec<Box<dyn Rule>>,
    writes: Vec<(String, String)>,
    held: Vec<(String, Vec<u8>)>,
}

/// Kernel files in memory. Clones share their state.
#[derive(Clone, Default)]
pub struct FakeTree {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for FakeTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeTree")
            .field("files", &self.snapshot())
            .finish_non_exhaustive()
    }
}

impl FakeTree {
    /// Empty and without rules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From lines `path = value`. `\n` and `\t` in a value stand for themselves, `#` starts a
    /// comment line. After the value ` !ro`, ` !sticky` or ` !EIO` (any errno name of
    /// [`errno_by_name`]) sets what a write gives.
    ///
    /// # Panics
    /// On a line of another form: fixtures are part of the tests.
    #[must_use]
    pub fn from_fixture(text: &str) -> Self {
        let tree = Self::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (path, value) = line
                .split_once('=')
                .expect("fixture lines read `path = value`");
            let (path, value) = (path.trim(), value.trim());
            let (value, mode) = match value.rsplit_once('!') {
                Some((value, "ro")) => (value.trim_end(), OnWrite::ReadOnly),
                Some((value, "sticky")) => (value.trim_end(), OnWrite::Sticky),
                Some((value, name)) if errno_by_name(name).is_some() => (
                    value.trim_end(),
                    OnWrite::Fail(errno_by_name(name).unwrap_or(Errno::EIO)),
                ),
                _ => (value, OnWrite::Accept),
            };
            tree.set(path, &value.replace("\\n", "\n").replace("\\t", "\t"));
            tree.on_write(path, mode);
        }
        tree
    }

    /// Adds behaviour; earlier rules are asked first.
    #[must_use]
    pub fn with_rule(self, rule: impl Rule + 'static) -> Self {
        self.lock().rules.push(Box::new(rule));
        self
    }

    /// Sets a file from outside, as when a device or thread appears; no rule is asked.
    pub fn set(&self, path: &str, text: &str) {
        self.lock().files.set(path, text);
    }

    /// Takes out a file or directory, as when a device goes away.
    pub fn remove(&self, path: &str) {
        self.lock().files.remove(path);
    }

    /// What a write to `path` gives from now on; stronger than any rule unless `Accept`.
    pub fn on_write(&self, path: &str, mode: OnWrite) {
        self.lock().modes.insert(path.to_owned(), mode);
    }

    /// Makes reading `path` fail.
    pub fn on_read_fail(&self, path: &str, errno: Errno) {
        self.lock().unreadable.insert(path.to_owned(), errno);
    }

    /// Trimmed text of a file, if it exists.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<String> {
        self.lock().files.get(path).map(str::to_owned)
    }

    /// Every file, byte for byte.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, String> {
        self.lock().files.texts.clone()
    }

    /// Writes that were tried since the last call, in order.
    #[must_use]
    pub fn take_writes(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.lock().writes)
    }

    /// Files held open now, with the bytes written to them.
    #[must_use]
    pub fn held(&self) -> Vec<(String, Vec<u8>)> {
        self.lock().held.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves values that are whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ask(&mut self, question: impl Fn(&mut dyn Rule, &mut Files) -> Verdict) -> Verdict {
        for rule in &mut self.rules {
            match question(rule.as_mut(), &mut self.files) {
                Verdict::Pass => {}
                decided => return decided,
            }
        }
        Verdict::Pass
    }
}

impl Tree for FakeTree {
    fn read_up_to(&self, path: &str, limit: u64) -> io::Result<String> {
        check_path(path)?;
        let state = self.lock();
        if let Some(errno) = state.unreadable.get(path) {
            return Err((*errno).into());
        }
        match state.files.texts.get(path) {
            Some(text) if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit => {
                Err(io::ErrorKind::FileTooLarge.into())
            }
            Some(text) => Ok(text.clone()),
            None if state.files.directories.contains(path) => Err(Errno::EISDIR.into()),
            None => Err(Errno::ENOENT.into()),
        }
    }

    fn keep_open(&self, path: &str) -> io::Result<Box<dyn Kept>> {
        self.read_up_to(path, u64::MAX)?;
        Ok(Box::new(KeptFake {
            tree: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        check_path(path)?;
        let mut state = self.lock();
        if !state.files.texts.contains_key(path) {
            let directory = state.files.directories.contains(path);
            return Err(if directory {
                Errno::EISDIR
            } else {
                Errno::ENOENT
            }
            .into());
        }
        state
            .writes
            .push((path.to_owned(), text.trim_end().to_owned()));
        match state.modes.get(path).copied().unwrap_or(OnWrite::Accept) {
            OnWrite::ReadOnly => return Err(Errno::EACCES.into()),
            OnWrite::Fail(errno) => return Err(errno.into()),
            OnWrite::Sticky => return Ok(()),
            OnWrite::Accept => {}
        }
        match state.ask(|rule, files| rule.on_write(files, path, text.trim())) {
            Verdict::Pass => state.files.set(path, text),
            Verdict::Done => {}
            Verdict::Fail(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        check_path(path)?;
        let state = self.lock();
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Ok(state.files.children("/"));
        }
        if state.files.texts.contains_key(path) {
            return Err(Errno::ENOTDIR.into());
        }
        if !state.files.directories.contains(path) {
            return Err(Errno::ENOENT.into());
        }
        Ok(state.files.children(path))
    }

    fn exists(&self, path: &str) -> bool {
        let state = self.lock();
        state.files.texts.contains_key(path) || state.files.directories.contains(path)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        let mut state = self.lock();
        if state.files.texts.contains_key(path) || state.files.directories.contains(path) {
            return Err(Errno::EEXIST.into());
        }
        let above = parent(path);
        if !above.is_empty() && !state.files.directories.contains(above) {
            return Err(Errno::ENOENT.into());
        }
        match state.ask(|rule, files| rule.on_create_dir(files, path)) {
            Verdict::Pass => state.files.add_directory(path),
            Verdict::Done => {}
            Verdict::Fail(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        let mut state = self.lock();
        if !state.files.directories.contains(path) {
            let file = state.files.texts.contains_key(path);
            return Err(if file { Errno::ENOTDIR } else { Errno::ENOENT }.into());
        }
        match state.ask(|rule, files| rule.on_remove_dir(files, path)) {
            Verdict::Pass if !state.files.children(path).is_empty() => {
                return Err(Errno::ENOTEMPTY.into());
            }
            Verdict::Pass => {
                state.files.remove(path);
            }
            Verdict::Done => {}
            Verdict::Fail(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn hold(&self, path: &str, bytes: &[u8]) -> io::Result<Hold> {
        check_path(path)?;
        let mut state = self.lock();
        if !state.files.texts.contains_key(path) {
            return Err(Errno::ENOENT.into());
        }
        match state.modes.get(path) {
            Some(OnWrite::ReadOnly) => return Err(Errno::EACCES.into()),
            Some(OnWrite::Fail(errno)) => return Err((*errno).into()),
            _ => {}
        }
        state.held.push((path.to_owned(), bytes.to_vec()));
        Ok(Hold::new(Release {
            tree: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn set_affinity(&self, tid: u32, cpus: &CpuSet) -> io::Result<()> {
        let path = format!("/proc/{tid}/status");
        let mut state = self.lock();
        let Some(status) = state.files.texts.get(&path).cloned() else {
            return Err(Errno::ESRCH.into());
        };
        state.writes.push((path.clone(), cpus.to_string()));
        match state.modes.get(&path) {
            Some(OnWrite::Fail(errno)) => return Err((*errno).into()),
            Some(OnWrite::Sticky) => return Ok(()),
            _ => {}
        }
        let changed: Vec<String> = status
            .lines()
            .map(|line| match line.split_once(':') {
                Some(("Cpus_allowed_list", _)) => format!("Cpus_allowed_list:\t{cpus}"),
                _ => line.to_owned(),
            })
            .collect();
        state.files.set(&path, &changed.join("\n"));
        Ok(())
    }
}

/// What [`FakeTree::keep_open`] gives.
struct KeptFake {
    tree: FakeTree,
    path: String,
}

impl Kept for KeptFake {
    fn read_up_to(&self, limit: u64) -> io::Result<String> {
        match self.tree.read_up_to(&self.path, limit) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Errno::ENODEV.into()),
            read => read,
        }
    }
}

/// Ends a [`FakeTree::hold`].
struct Release {
    tree: FakeTree,
    path: String,
}

impl Drop for Release {
    fn drop(&mut self) {
        let mut state = self.tree.lock();
        if let Some(index) = state.held.iter().position(|(path, _)| *path == self.path) {
            state.held.remove(index);
        }
    }
}

/// The errnos that fixtures use.
#[must_use]
pub fn errno_by_name(name: &str) -> Option<Errno> {
    Some(match name {
        "EACCES" => Errno::EACCES,
        "EBUSY" => Errno::EBUSY,
        "EINVAL" => Errno::EINVAL,
        "EIO" => Errno::EIO,
        "ENODEV" => Errno::ENODEV,
        "ENOENT" => Errno::ENOENT,
        "EOPNOTSUPP" => Errno::EOPNOTSUPP,
        "EPERM" => Errno::EPERM,
        _ => return None,
    })
}
