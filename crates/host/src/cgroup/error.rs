//! What can go wrong with a cgroup.

use std::io;

use cpulist::{CpuSet, ParseError};

use super::MAX_DEPTH;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{name}` cannot be a cgroup's name")]
    Name { name: String },
    #[error("create cgroup {name}")]
    Create { name: String, source: io::Error },
    #[error("read {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} holds no list")]
    Parse { path: String, source: ParseError },
    #[error("write `{value}` to {path}")]
    Write {
        path: String,
        value: String,
        source: io::Error,
    },
    #[error("the kernel refuses partition {name} on CPUs {cpus}: {reason}")]
    Refused {
        name: String,
        cpus: CpuSet,
        reason: String,
    },
    #[error("remove cgroup {name}")]
    Remove { name: String, source: io::Error },
    #[error("cgroup {name} is nested more than {MAX_DEPTH} deep")]
    TooDeep { name: String },
}

impl Error {
    /// The group is still populated (or has children that came meanwhile): kill, wait, retry.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Remove { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Create { source, .. }
            | Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::Remove { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    #[must_use]
    pub fn already_exists(&self) -> bool {
        matches!(self, Self::Create { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
    }
}
