//! What is kept in the state directory, and the token that comes in.
//!
//! `identity.json` is there once the node has joined; `enrolment.json` while it is about to: its key
//! and signing request, so that a restart does not change the fingerprint that somebody is comparing,
//! and the token. Both are replaced in one step and readable by their owner only.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use host::durable;
use pki::{Pin, Token, csr};
use serde::{Deserialize, Serialize};

use crate::error::chain;
use crate::identity::{Identity, Papers};

const IDENTITY: &str = "identity.json";
const ENROLMENT: &str = "enrolment.json";
/// Longest file here, in bytes.
const FILE: u64 = 64 * 1024;
/// Longest token file, in bytes.
const TOKEN: u64 = 4096;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It cannot be made.
    #[error("create {path}")]
    Create { path: PathBuf, source: io::Error },
    /// A file in it.
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    /// A file in it.
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    /// A file in it.
    #[error("remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    /// Without a key there is nothing to enrol.
    #[error("make the node's key")]
    Key(#[source] pki::Error),
}

/// What the node enrols with. `Debug` says whether there is a token and nothing else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrolment {
    pub(crate) key_pem: String,
    pub(crate) csr_pem: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment")
            .field("with_token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

impl Enrolment {
    pub(crate) fn new(token: Option<String>) -> Result<Self, pki::Error> {
        let (key_pem, csr_pem) = csr::generate()?;
        Ok(Self {
            key_pem,
            csr_pem,
            token,
        })
    }
}

/// The state directory.
#[derive(Debug, Clone)]
pub(crate) struct Keep {
    dir: PathBuf,
}

impl Keep {
    pub(crate) fn open(dir: &Path) -> Result<Self, KeepError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| KeepError::Create {
                path: dir.to_owned(),
                source,
            })?;
        let dir = dir.to_owned();
        Ok(Self { dir })
    }

    /// The identity, if there is a usable one. One that is not is no error: the node enrols anew.
    pub(crate) fn identity(&self, pin: Pin) -> Result<Option<Identity>, KeepError> {
        let Some(papers) = self.read::<Papers>(IDENTITY)? else {
            return Ok(None);
        };
        match Identity::check(papers, pin, SystemTime::now()) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "the kept identity is of no use; the node enrols anew"
                );
                Ok(None)
            }
        }
    }

    /// Also the end of the enrolment, token and all.
    pub(crate) fn keep_identity(&self, papers: &Papers) -> Result<(), KeepError> {
        self.write(IDENTITY, papers)?;
        self.forget_enrolment()
    }

    pub(crate) fn forget_enrolment(&self) -> Result<(), KeepError> {
        self.remove(ENROLMENT)
    }

    pub(crate) fn forget_identity(&self) -> Result<(), KeepError> {
        self.remove(IDENTITY)
    }

    pub(crate) fn enrolment(&self) -> Result<Option<Enrolment>, KeepError> {
        let kept = self.read::<Enrolment>(ENROLMENT)?;
        Ok(kept.filter(|it| csr::fingerprint(&it.csr_pem).is_ok()))
    }

    pub(crate) fn keep_enrolment(&self, enrolment: &Enrolment) -> Result<(), KeepError> {
        self.write(ENROLMENT, enrolment)
    }

    /// None as well for a text that is not what it should be: it is about to be replaced.
    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, KeepError> {
        let path = self.dir.join(name);
        let text = match durable::read(&path, FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => None,
            Err(source) => return Err(KeepError::Read { path, source }),
        };
        Ok(text.and_then(|text| match serde_json::from_str(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the file is damaged; passed over");
                None
            }
        }))
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), KeepError> {
        let path = self.dir.join(name);
        serde_json::to_vec(value)
            .map_err(io::Error::from)
            .and_then(|bytes| durable::replace(&path, &bytes))
            .map_err(|source| KeepError::Write { path, source })
    }

    fn remove(&self, name: &str) -> Result<(), KeepError> {
        let path = self.dir.join(name);
        durable::remove(&path).map_err(|source| KeepError::Remove { path, source })
    }
}

/// The token in a file, if there is one. A text that is none says so in the log, and is none.
pub(crate) fn read_token(path: &Path) -> Result<Option<String>, KeepError> {
    let text = durable::read(path, TOKEN).map_err(|source| KeepError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.and_then(|text| match Token::parse(&text) {
        Ok(token) => Some(token.expose()),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no join token; somebody has to approve");
            None
        }
    }))
}

/// Unlinks it.
pub(crate) fn remove_token(path: &Path) -> Result<(), KeepError> {
    durable::remove(path).map_err(|source| KeepError::Remove {
        path: path.to_owned(),
        source,
    })
}
