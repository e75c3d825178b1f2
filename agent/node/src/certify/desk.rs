//! Where a run is prepared and driven: `RUN_DIR/gates/TOKEN/`, on a tmpfs of its own.
//!
//! ```text
//! container   id of the container whose start was asked for; there only while a run is under way
//! control     the page that the gate and this agent share (see the crate `gate`)
//! fixed       there if the program is to have the same addresses each time
//! canary-N    the same for the canary on CPU N
//! ```

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::MsFlags;
use policy::Certify;

use super::page::Page;
use crate::placement::ledger::Token;

const CONTAINER: &str = "container";
const FIXED: &str = "fixed";
/// When a gate that nobody releases gives up: the canary before the job is over by then.
const START_DEADLINE: Duration = Duration::from_secs(1200);

/// Room for a few hundred pages. Containers can write to theirs, and so must not find the node's
/// memory behind it.
const TMPFS: &str = "mode=755,size=2m,nr_inodes=4096";

/// Mounts the file system that the desks of this node are on, once.
///
/// # Errors
/// The kernel's.
pub fn mount(run_dir: &Path) -> io::Result<()> {
    let gates = run_dir.join("gates");
    fs::create_dir_all(&gates)?;
    if fs::metadata(&gates)?.dev() != fs::metadata(run_dir)?.dev() {
        return Ok(()); // an earlier agent's
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("gates"), &gates, Some("tmpfs"), flags, Some(TMPFS))?;
    Ok(())
}

/// One claim's directory.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    dir: PathBuf,
}

impl Desk {
    pub(crate) fn at(run_dir: &Path, token: &Token) -> Self {
        Self {
            dir: run_dir.join("gates").join(&token.0),
        }
    }

    /// All on which a run was begun and not ended.
    pub(crate) fn all(run_dir: &Path) -> Vec<(Token, String)> {
        let entries = fs::read_dir(run_dir.join("gates")).into_iter().flatten();
        entries
            .filter_map(|entry| Some(Token(entry.ok()?.file_name().into_string().ok()?)))
            .filter_map(|token| {
                let container = Self::at(run_dir, &token).container()?;
                Some((token, container))
            })
            .collect()
    }

    /// Begins a run: a fresh control page, and leave for `container` to start.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open(&self, container: &str, certify: &Certify) -> io::Result<()> {
        self.close();
        fs::create_dir_all(&self.dir)?;
        let control = self.page("control")?;
        Page::open(&control)?.prepare(START_DEADLINE)?;
        if certify.fixed_addresses {
            fs::write(self.dir.join(FIXED), "")?;
        }
        fs::write(self.dir.join(CONTAINER), container)
    }

    /// An empty one, for canaries without a run.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.close();
        fs::create_dir_all(&self.dir)
    }

    /// Ends it: the container cannot be started any more but by a new run.
    pub(crate) fn close(&self) {
        // that nothing is there is what is wanted; a running gate keeps its page mapped
        drop(fs::remove_dir_all(&self.dir));
    }

    /// The container whose run was begun.
    pub(crate) fn container(&self) -> Option<String> {
        fs::read_to_string(self.dir.join(CONTAINER)).ok()
    }

    /// Whether its program is to have the same addresses each time.
    pub(crate) fn fixed_addresses(&self) -> bool {
        self.dir.join(FIXED).exists()
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// Makes a page of zeros, which a container's user of any id may write.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn page(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        let file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        file.set_len(gate::page::SIZE as u64)?;
        file.set_permissions(Permissions::from_mode(0o666))?;
        Ok(path)
    }
}
