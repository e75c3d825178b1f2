//! Kernel files by absolute path, under a root.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use cpulist::CpuSet;
use nix::errno::Errno;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;

/// Longest file that [`Tree::read`] returns. Callers that expect more say so.
pub const MAX_READ_BYTES: u64 = 1024 * 1024;
/// Room that a read begins with.
const ROOM_BYTES: usize = 4096;

/// Files of /proc, /sys and the like. Paths are absolute, as on the running system
/// (`/sys/devices/system/cpu/online`); the implementation puts its root before them.
///
/// Errors are the kernel's own, so that a caller can tell `ENOENT` (no such knob) from `EIO`
/// (an interrupt that cannot be moved) or `EBUSY`.
pub trait Tree: Send + Sync {
    /// The whole text. Bytes that are not UTF-8 (a task may have named itself so) are replaced.
    ///
    /// # Errors
    /// The kernel's; `FileTooLarge` beyond `limit` bytes.
    fn read_up_to(&self, path: &str, limit: u64) -> io::Result<String>;

    /// [`Tree::read_up_to`] with [`MAX_READ_BYTES`].
    ///
    /// # Errors
    /// As [`Tree::read_up_to`].
    fn read(&self, path: &str) -> io::Result<String> {
        self.read_up_to(path, MAX_READ_BYTES)
    }

    /// Opens a file for reading again and again without the work of finding it.
    ///
    /// # Errors
    /// The kernel's.
    fn keep_open(&self, path: &str) -> io::Result<Box<dyn Kept>>;

    /// Hands `text` to the kernel in a single `write(2)`: the file must exist, and a value is
    /// never split.
    ///
    /// # Errors
    /// The kernel's; `WriteZero` when it took only a part.
    fn write(&self, path: &str, text: &str) -> io::Result<()>;

    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// The kernel's.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    fn exists(&self, path: &str) -> bool;

    /// # Errors
    /// The kernel's, `AlreadyExists` among them; parents are not made.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// # Errors
    /// The kernel's, `EBUSY` of a populated cgroup among them.
    fn remove_dir(&self, path: &str) -> io::Result<()>;

    /// Opens `path` for writing, writes `bytes` and keeps it open until the value is dropped.
    /// `/dev/cpu_dma_latency` is such a file: the request lasts as long as it is open.
    ///
    /// # Errors
    /// The kernel's.
    fn hold(&self, path: &str, bytes: &[u8]) -> io::Result<Hold>;

    /// Restricts thread `tid` to `cpus`; the only setting here that has no file.
    ///
    /// # Errors
    /// The kernel's: `ESRCH`, `EINVAL` for a thread that must not be moved. `Unsupported` when
    /// the root is not the running system's.
    fn set_affinity(&self, tid: u32, cpus: &CpuSet) -> io::Result<()>;
}

/// A file kept open. Each reading begins at its start and is of what it says then.
pub trait Kept: Send + Sync {
    /// As [`Tree::read_up_to`].
    ///
    /// # Errors
    /// The kernel's; `ENODEV` when what the file belonged to is gone.
    fn read_up_to(&self, limit: u64) -> io::Result<String>;
}

/// Something kept open; dropping it lets go.
pub struct Hold(#[expect(dead_code, reason = "kept for its Drop")] Box<dyn Send + Sync>);

impl Hold {
    pub fn new(inner: impl Send + Sync + 'static) -> Self {
        Self(Box::new(inner))
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hold")
    }
}

/// Refuses what could leave the root: relative paths, `..`, and NUL.
///
/// # Errors
/// `InvalidInput`, naming the path.
pub fn check_path(path: &str) -> io::Result<()> {
    let sound = path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| part != ".." && part != ".");
    if sound {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{path}` is not a plain absolute path"),
        ))
    }
}

/// The real files under a root: `/` on a live system, a directory in tests.
///
/// Symbolic links are followed as the kernel does, so the root is a starting point and no
/// sandbox: only give it trees that you trust.
#[derive(Clone, Debug)]
pub struct RealTree {
    root: PathBuf,
}

impl RealTree {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The running system.
    #[must_use]
    pub fn live() -> Self {
        Self::new("/")
    }

    fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        check_path(path)?;
        Ok(self.root.join(path.trim_start_matches('/')))
    }

    fn open_for_writing(&self, path: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        // A pseudo file replaces its value at each write. In a copy of such a tree (a directory
        // of ordinary files) the old text must go first for the same effect.
        options.write(true).truncate(!self.is_live());
        options.open(self.resolve(path)?)
    }
}

impl Tree for RealTree {
    fn read_up_to(&self, path: &str, limit: u64) -> io::Result<String> {
        text_of(&File::open(self.resolve(path)?)?, limit)
    }

    fn keep_open(&self, path: &str) -> io::Result<Box<dyn Kept>> {
        Ok(Box::new(KeptFile(File::open(self.resolve(path)?)?)))
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        single_write(&mut self.open_for_writing(path)?, text.as_bytes())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.resolve(path)?)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_ok_and(|path| path.exists())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        fs::create_dir(self.resolve(path)?)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        fs::remove_dir(self.resolve(path)?)
    }

    fn hold(&self, path: &str, bytes: &[u8]) -> io::Result<Hold> {
        let mut file = self.open_for_writing(path)?;
        single_write(&mut file, bytes)?;
        Ok(Hold::new(file))
    }

    fn set_affinity(&self, tid: u32, cpus: &CpuSet) -> io::Result<()> {
        if !self.is_live() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "threads are only moved on the running system",
            ));
        }
        let mut set = nix::sched::CpuSet::new();
        for cpu in cpus.iter() {
            set.set(cpu as usize)?;
        }
        let tid = i32::try_from(tid).map_err(|_| Errno::ESRCH)?;
        Ok(sched_setaffinity(Pid::from_raw(tid), &set)?)
    }
}

struct KeptFile(File);

impl Kept for KeptFile {
    fn read_up_to(&self, limit: u64) -> io::Result<String> {
        let mut file = &self.0;
        file.rewind()?;
        text_of(file, limit)
    }
}

fn text_of(file: &File, limit: u64) -> io::Result<String> {
    // osnoise/cpus of tracefs refuses (EINVAL) a read with less room than its whole text
    let mut bytes = Vec::with_capacity(ROOM_BYTES);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {limit} bytes"),
        ));
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn single_write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    loop {
        match file.write(bytes) {
            Ok(taken) if taken == bytes.len() => return Ok(()),
            Ok(taken) => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    format!("the kernel took {taken} of {} bytes", bytes.len()),
                ));
            }
            // Nothing was taken, so the value is still whole.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
