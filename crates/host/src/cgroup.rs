//! cgroup v2 groups and cpuset partitions, as `Documentation/admin-guide/cgroup-v2.rst` has them.
//!
//! Facts this relies on: a partition's state must be read back, since the kernel accepts the
//! write and then says `isolated invalid (why)`; memory nodes must be set before anything runs in
//! the group; CPUs isolated at boot (`isolcpus=domain`) may only enter a partition of kind
//! `isolated`, and 6.12 refuses them even that; a group goes away only when it is empty.

use std::io;

use cpulist::CpuSet;

use crate::tree::Tree;

mod error;
pub use error::Error;

/// Where cgroup v2 is mounted on a Stillmetal node.
pub const ROOT: &str = "/sys/fs/cgroup";

/// Deeper trees than this are not ours to walk.
const MAX_DEPTH: usize = 16;

/// The group of a process, as [`Cgroups`] names it: the line of cgroup v2 in `/proc/PID/cgroup`.
///
/// # Errors
/// Names the process when there is none, or none with cgroup v2.
pub fn of_process(tree: &dyn Tree, pid: u32) -> io::Result<String> {
    let text = tree.read(&format!("/proc/{pid}/cgroup")).map_err(|error| {
        io::Error::new(error.kind(), format!("cgroup of process {pid}: {error}"))
    })?;
    let named = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let named = named.ok_or_else(|| io::Error::other(format!("process {pid} has no cgroup v2")))?;
    Ok(named.to_owned())
}

/// Kind of a cpuset partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No load balancing: for work on one CPU.
    Isolated,
    /// Load balanced among its CPUs: for work on several, whose threads would else pile up on one.
    Root,
}

impl Kind {
    /// What `cpuset.cpus.partition` takes and shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Root => "root",
        }
    }
}

/// State of a group as `cpuset.cpus.partition` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// An ordinary group.
    Member,
    Valid(Kind),
    /// It was a partition, or was to become one; the kernel's text.
    Invalid(String),
}

/// A partition found under the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    pub cpus: CpuSet,
    pub mems: CpuSet,
    pub state: State,
}

/// The groups under a mount of cgroup v2. Names are relative to it: `engine`, `stillmetal-x/abc`.
#[derive(Clone, Copy)]
pub struct Cgroups<'tree> {
    tree: &'tree dyn Tree,
    root: &'tree str,
}

impl std::fmt::Debug for Cgroups<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cgroups")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl<'tree> Cgroups<'tree> {
    #[must_use]
    pub fn new(tree: &'tree dyn Tree) -> Self {
        Self { tree, root: ROOT }
    }

    /// For a mount elsewhere.
    #[must_use]
    pub fn at(tree: &'tree dyn Tree, root: &'tree str) -> Self {
        Self { tree, root }
    }

    /// Absolute path of a group's file.
    fn path(&self, name: &str, file: &str) -> String {
        if name.is_empty() {
            format!("{}/{file}", self.root)
        } else {
            format!("{}/{name}/{file}", self.root)
        }
    }

    fn directory(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    fn read(&self, name: &str, file: &str) -> Result<String, Error> {
        let path = self.path(name, file);
        self.tree
            .read(&path)
            .map_err(|source| Error::Read { path, source })
    }

    fn write(&self, name: &str, file: &str, value: &str) -> Result<(), Error> {
        let path = self.path(name, file);
        // A write of nothing would never reach the kernel; a lone line end clears a value.
        let text = if value.is_empty() { "\n" } else { value };
        self.tree.write(&path, text).map_err(|source| Error::Write {
            path,
            value: value.to_owned(),
            source,
        })
    }

    fn list(&self, name: &str, file: &str) -> Result<CpuSet, Error> {
        self.read(name, file)?
            .parse()
            .map_err(|source| Error::Parse {
                path: self.path(name, file),
                source,
            })
    }

    /// Lets children of the root use these controllers; already enabled ones stay.
    ///
    /// # Errors
    /// [`Error::Write`] naming the first that the kernel does not have.
    pub fn enable(&self, name: &str, controllers: &[&str]) -> Result<(), Error> {
        // One at a time: the kernel takes all of a line or nothing.
        for controller in controllers {
            self.write(name, "cgroup.subtree_control", &format!("+{controller}"))?;
        }
        Ok(())
    }

    /// An ordinary group confined to `cpus` (housekeeping): made if missing, set either way.
    ///
    /// # Errors
    /// [`Error::Create`], [`Error::Write`].
    pub fn ensure_group(&self, name: &str, cpus: &CpuSet) -> Result<(), Error> {
        match self.create(name) {
            Err(error) if error.already_exists() => {}
            other => other?,
        }
        self.write(name, "cpuset.cpus", &cpus.to_string())
    }

    /// [`Cgroups::ensure_group`] with memory nodes, read back.
    ///
    /// # Errors
    /// [`Error::Create`], [`Error::Write`], [`Error::Refused`] when other CPUs became effective.
    pub fn ensure_member(&self, name: &str, cpus: &CpuSet, mems: &CpuSet) -> Result<(), Error> {
        self.ensure_group(name, cpus)?;
        self.write(name, "cpuset.mems", &mems.to_string())?;
        self.check_effective(name, cpus)
    }

    fn check_effective(&self, name: &str, cpus: &CpuSet) -> Result<(), Error> {
        let effective = self.list(name, "cpuset.cpus.effective")?;
        if effective == *cpus {
            return Ok(());
        }
        Err(Error::Refused {
            name: name.to_owned(),
            cpus: cpus.clone(),
            reason: format!("only CPUs `{effective}` became effective"),
        })
    }

    fn create(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        self.tree
            .create_dir(&self.directory(name))
            .map_err(|source| Error::Create {
                name: name.to_owned(),
                source,
            })
    }

    /// A new exclusive partition directly under the root. On failure nothing is left behind.
    ///
    /// # Errors
    /// [`Error::Create`] (see [`Error::already_exists`]), [`Error::Write`], and
    /// [`Error::Refused`] with the kernel's reason.
    pub fn create_partition(
        &self,
        name: &str,
        cpus: &CpuSet,
        mems: &CpuSet,
        kind: Kind,
    ) -> Result<(), Error> {
        self.create(name)?;
        let made = self.become_partition(name, cpus, mems, kind);
        if made.is_err() {
            // The first error is the one to report, and the group is empty: nothing else is lost.
            drop(self.tree.remove_dir(&self.directory(name)));
        }
        made
    }

    fn become_partition(
        &self,
        name: &str,
        cpus: &CpuSet,
        mems: &CpuSet,
        kind: Kind,
    ) -> Result<(), Error> {
        // Memory first: pages of a task that starts in between would land on any node.
        self.write(name, "cpuset.mems", &mems.to_string())?;
        self.write(name, "cpuset.cpus", &cpus.to_string())?;
        self.write(name, "cpuset.cpus.partition", kind.as_str())?;
        let refused = |reason: String| {
            Err(Error::Refused {
                name: name.to_owned(),
                cpus: cpus.clone(),
                reason,
            })
        };
        match self.state(name)? {
            State::Valid(found) if found == kind => {}
            State::Invalid(text) => return refused(text),
            other => return refused(format!("it reads back {other:?}")),
        }
        self.check_effective(name, cpus)
    }

    /// # Errors
    /// [`Error::Read`].
    pub fn state(&self, name: &str) -> Result<State, Error> {
        let text = self.read(name, "cpuset.cpus.partition")?;
        Ok(match text.trim() {
            "member" => State::Member,
            "isolated" => State::Valid(Kind::Isolated),
            "root" => State::Valid(Kind::Root),
            other => State::Invalid(other.to_owned()),
        })
    }

    /// Removes a group and its children, deepest first. It must be empty: whether to
    /// [`Cgroups::kill`] is the caller's decision. A group that is already gone is a success.
    ///
    /// # Errors
    /// [`Error::Remove`]; [`Error::is_busy`] tells that something still runs in it.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let mut groups = self.subtree(name)?;
        // The subtree lists parents before children.
        groups.reverse();
        for group in groups {
            match self.tree.remove_dir(&self.directory(&group)) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Remove {
                        name: group,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Does any process, also a zombie's live thread, run in the group or below?
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn populated(&self, name: &str) -> Result<bool, Error> {
        let events = self.read(name, "cgroup.events")?;
        Ok(events.lines().any(|line| line.trim() == "populated 1"))
    }

    /// SIGKILL for everything in the group and below; returns before they are gone.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn kill(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        self.write(name, "cgroup.kill", "1")
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn attach(&self, name: &str, pid: u32) -> Result<(), Error> {
        self.write(name, "cgroup.procs", &pid.to_string())
    }

    /// Process ids in the group and below, sorted. Groups that vanish meanwhile are skipped.
    ///
    /// # Errors
    /// [`Error::Read`] when the group itself is missing.
    pub fn procs(&self, name: &str) -> Result<Vec<u32>, Error> {
        let mut pids = Vec::new();
        for group in self.subtree(name)? {
            match self.read(&group, "cgroup.procs") {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                Err(error) if group != name && error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Groups directly under the root whose name starts with `prefix`, with their partition's
    /// state; what the agent adopts after a restart.
    ///
    /// # Errors
    /// [`Error::Read`] when the root cannot be listed, [`Error::Parse`].
    pub fn partitions(&self, prefix: &str) -> Result<Vec<Partition>, Error> {
        let mut found = Vec::new();
        for name in self
            .children("")?
            .into_iter()
            .filter(|name| name.starts_with(prefix))
        {
            match self.partition(name) {
                Ok(partition) => found.push(partition),
                Err(error) if error.is_not_found() => {} // went away meanwhile
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn partition(&self, name: String) -> Result<Partition, Error> {
        Ok(Partition {
            cpus: self.list(&name, "cpuset.cpus")?,
            mems: self.list(&name, "cpuset.mems")?,
            state: self.state(&name)?,
            name,
        })
    }

    /// Names of the child groups, relative to the root.
    fn children(&self, name: &str) -> Result<Vec<String>, Error> {
        let path = if name.is_empty() {
            self.root.to_owned()
        } else {
            self.directory(name)
        };
        let names = self
            .tree
            .list(&path)
            .map_err(|source| Error::Read { path, source })?;
        Ok(names
            .into_iter()
            .map(|child| {
                if name.is_empty() {
                    child
                } else {
                    format!("{name}/{child}")
                }
            })
            // Every group has this file, nothing else has.
            .filter(|child| self.tree.exists(&self.path(child, "cgroup.events")))
            .collect())
    }

    /// The group and everything below, parents first. Empty when it does not exist.
    fn subtree(&self, name: &str) -> Result<Vec<String>, Error> {
        let mut groups = vec![name.to_owned()];
        let mut next = 0;
        while let Some(group) = groups.get(next).cloned() {
            if group.split('/').count() > MAX_DEPTH {
                return Err(Error::TooDeep { name: group });
            }
            match self.children(&group) {
                Ok(children) => groups.extend(children),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            next += 1;
        }
        Ok(groups)
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let sound = !name.is_empty()
        && name.len() <= 255
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !name.contains(['\n', '\0'])
        // The kernel's own files carry these prefixes in the same directory.
        && !["cgroup.", "cpuset.", "cpu.", "memory.", "io.", "pids."]
            .iter()
            .any(|own| name.starts_with(own));
    if sound {
        Ok(())
    } else {
        Err(Error::Name {
            name: name.to_owned(),
        })
    }
}
