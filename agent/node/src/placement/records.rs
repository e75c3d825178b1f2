//! The ledger on disk: one small file a claim, so that an agent that was killed finds what it had
//! promised. They lie on tmpfs: after a reboot there is no container either.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use policy::Certify;
use serde::{Deserialize, Serialize};

use super::ledger::{Claim, Token};

/// What is kept of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub claim: Claim,
    pub asked: Asked,
}

/// What the user typed: for `docker inspect`, and for how runs are measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// `None`: its runs are not measured.
    pub certify: Option<Certify>,
}

/// A claim could not be kept or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("create the claims directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("write claim {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("list claims in {}", path.display())]
    List { path: PathBuf, source: io::Error },
}

/// The directory of records.
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// # Errors
    /// [`RecordError::Directory`].
    pub fn open(dir: &Path) -> Result<Self, RecordError> {
        fs::create_dir_all(dir).map_err(|source| RecordError::Directory {
            path: dir.into(),
            source,
        })?;
        Ok(Self { dir: dir.into() })
    }

    /// Writes a record whole or not at all (new file, then rename).
    ///
    /// # Errors
    /// [`RecordError::Write`].
    pub fn save(&self, token: &Token, record: &Record) -> Result<(), RecordError> {
        let path = self.path(token);
        let text = serde_json::to_string(record).expect("a record has only string keys");
        host::durable::replace(&path, text.as_bytes())
            .map_err(|source| RecordError::Write { path, source })
    }

    /// Forgets a claim; one that is not there is forgotten already.
    pub fn remove(&self, token: &Token) {
        if let Err(error) = fs::remove_file(self.path(token))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(token = %token.0, %error, "a claim's record could not be removed");
        }
    }

    /// All readable records; an unreadable one is logged and left out (its container is found
    /// again through its cgroup).
    ///
    /// # Errors
    /// [`RecordError::List`].
    pub fn load(&self) -> Result<Vec<(Token, Record)>, RecordError> {
        let fail = |source| RecordError::List {
            path: self.dir.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let (Some(stem), Some("json")) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|extension| extension.to_str()),
            ) else {
                continue;
            };
            let record = fs::read_to_string(&path)
                .and_then(|text| serde_json::from_str(&text).map_err(io::Error::other));
            match record {
                Ok(record) => found.push((Token(stem.to_owned()), record)),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a claim's record is unreadable");
                }
            }
        }
        Ok(found)
    }

    fn path(&self, token: &Token) -> PathBuf {
        self.dir.join(format!("{}.json", token.0))
    }
}
