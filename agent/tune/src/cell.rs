//! A cell: one value in the kernel that can be read, and usually written.

use std::io;

use cpulist::CpuSet;
use host::{Tree, threads};
use serde::{Deserialize, Serialize};

/// Where a value lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    File {
        path: String,
    },
    /// Where a kernel thread may run. The name guards against a tid that was given out again.
    Thread {
        tid: u32,
        name: String,
    },
    /// A request that lasts as long as the file is open.
    Held {
        path: String,
    },
}

impl Cell {
    pub(crate) fn file(path: impl Into<String>) -> Self {
        Self::File { path: path.into() }
    }

    /// For people.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::File { path } | Self::Held { path } => path.clone(),
            Self::Thread { tid, name } => format!("thread {tid} ({name})"),
        }
    }

    /// The trimmed value. A held request has none.
    pub(crate) fn read(&self, tree: &dyn Tree) -> io::Result<String> {
        match self {
            Self::File { path } => Ok(tree.read(path)?.trim().to_owned()),
            Self::Thread { tid, name } => threads::kernel_thread(tree, *tid)
                .filter(|thread| thread.name == *name)
                .map(|thread| thread.allowed.to_string())
                .ok_or_else(|| io::ErrorKind::NotFound.into()),
            Self::Held { path } if tree.exists(path) => Ok(String::new()),
            Self::Held { .. } => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn write(&self, tree: &dyn Tree, value: &str) -> io::Result<()> {
        match self {
            Self::File { path } => match Limit::of(path) {
                Some(limit) => limit.write(tree, path, value),
                None => write_line(tree, path, value),
            },
            Self::Thread { tid, name } => {
                if threads::kernel_thread(tree, *tid).is_none_or(|thread| thread.name != *name) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let cpus: CpuSet = value
                    .parse()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                tree.set_affinity(*tid, &cpus)
            }
            Self::Held { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn write_line(tree: &dyn Tree, path: &str, value: &str) -> io::Result<()> {
    tree.write(path, &format!("{value}\n"))
}

/// A cpufreq limit. The kernel refuses a minimum above the maximum, so the other limit is moved
/// out of the way first; it is a cell of its own and gets its value in its turn.
struct Limit {
    other: String,
    is_min: bool,
}

impl Limit {
    fn of(path: &str) -> Option<Self> {
        let (policy, name) = path.rsplit_once('/')?;
        match name {
            "scaling_min_freq" => Some(Self {
                other: format!("{policy}/scaling_max_freq"),
                is_min: true,
            }),
            "scaling_max_freq" => Some(Self {
                other: format!("{policy}/scaling_min_freq"),
                is_min: false,
            }),
            _ => None,
        }
    }

    fn write(&self, tree: &dyn Tree, path: &str, value: &str) -> io::Result<()> {
        let other = tree
            .read(&self.other)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        if let (Ok(khz), Some(other)) = (value.parse::<u64>(), other)
            && (if self.is_min {
                khz > other
            } else {
                khz < other
            })
        {
            write_line(tree, &self.other, value)?;
        }
        write_line(tree, path, value)
    }
}
