//! The folder of contexts. A context is there whole or not at all.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use client::{BadAddress, Context, ContextError, controller_address};
use serde::{Deserialize, Serialize};

use crate::outcome::Misuse;
use crate::places::{NoHome, config_dir};

/// A context's name, which is its folder's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContextName(String);

impl ContextName {
    pub(crate) fn parse(text: &str) -> Result<Self, Misuse> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let begins = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if begins && text.len() <= 64 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misuse::ContextName(text.to_owned()))
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A context cannot be read, written or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    NoHome(#[from] NoHome),
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Unreadable(#[from] ContextError),
    #[error("understand {}", path.display())]
    Malformed {
        path: PathBuf,
        source: toml::de::Error,
    },
    #[error("understand {}", path.display())]
    Address { path: PathBuf, source: BadAddress },
    #[error("write down a context")]
    Encode(#[from] toml::ser::Error),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File {
        action,
        path,
        source,
    }
}

/// What `context.toml` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// `https://HOST:PORT`.
    controller: String,
}

const FILE: &str = "context.toml";

/// All contexts of a user.
#[derive(Debug)]
pub(crate) struct Contexts {
    top: PathBuf,
}

impl Contexts {
    /// Those of whoever runs this.
    pub(crate) fn of_user() -> Result<Self, StoreError> {
        Ok(Self::at(config_dir()?))
    }

    pub(crate) fn at(top: PathBuf) -> Self {
        Self { top }
    }

    /// Where a context's files are.
    pub(crate) fn folder(&self, name: &ContextName) -> PathBuf {
        self.top.join("contexts").join(&name.0)
    }

    fn current_file(&self) -> PathBuf {
        self.top.join("current")
    }

    /// In the order of the alphabet.
    pub(crate) fn names(&self) -> Result<Vec<ContextName>, StoreError> {
        let folder = self.top.join("contexts");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &folder)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("list", &folder))?;
            // a temporary folder, or somebody else's
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| ContextName::parse(name).ok());
            names.extend(name.filter(|_| entry.path().join(FILE).is_file()));
        }
        names.sort();
        Ok(names)
    }

    /// The one that is used unless another is named.
    pub(crate) fn current(&self) -> Result<Option<ContextName>, StoreError> {
        let path = self.current_file();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(ContextName::parse(text.trim()).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    pub(crate) fn set_current(&self, name: &ContextName) -> Result<(), StoreError> {
        private_folder(&self.top)?;
        let path = self.current_file();
        let part = self.top.join(format!(".current.{}", std::process::id()));
        write(&part, &format!("{name}\n"), 0o644)?;
        fs::rename(&part, &path).map_err(failed("replace", &path))
    }

    pub(crate) fn read(&self, name: &ContextName) -> Result<Context, StoreError> {
        let folder = self.folder(name);
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
        let file: File = match toml::from_str(&text) {
            Ok(file) => file,
            Err(source) => return Err(StoreError::Malformed { path, source }),
        };
        let controller = controller_address(&file.controller)
            .map_err(|source| StoreError::Address { path, source })?;
        Ok(Context::read(controller, &folder)?)
    }

    /// Writes a context down, in place of one with its name.
    pub(crate) fn write(&self, name: &ContextName, context: &Context) -> Result<(), StoreError> {
        let contexts = self.top.join("contexts");
        private_folder(&contexts)?;
        let part = contexts.join(format!(".{name}.{}", std::process::id()));
        remove_folder(&part)?;
        private_folder(&part)?;
        let file = File {
            controller: format!("https://{}", context.authority()),
        };
        write(&part.join(FILE), &toml::to_string(&file)?, 0o644)?;
        write(&part.join("ca.pem"), &context.ca_pem, 0o644)?;
        write(&part.join("cert.pem"), &context.cert_pem, 0o644)?;
        write(&part.join("key.pem"), &context.key_pem, 0o600)?;
        let folder = self.folder(name);
        remove_folder(&folder)?;
        fs::rename(&part, &folder).map_err(failed("make", &folder))
    }

    /// Removes a context, and what held nothing else; one that is not there is no error.
    pub(crate) fn remove(&self, name: &ContextName) -> Result<(), StoreError> {
        remove_folder(&self.folder(name))?;
        if self.current()?.as_ref() == Some(name) {
            let path = self.current_file();
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        for folder in [self.top.join("contexts"), self.top.clone()] {
            // it holds something, or is not there
            drop(fs::remove_dir(folder));
        }
        Ok(())
    }
}

fn private_folder(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make folder", path))
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A new file, never with somebody's old mode.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), StoreError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn name(text: &str) -> ContextName {
        ContextName::parse(text).unwrap()
    }

    fn context(address: &str) -> Context {
        Context {
            controller: controller_address(address).unwrap(),
            ca_pem: "ca".into(),
            cert_pem: "cert".into(),
            key_pem: "key".into(),
        }
    }

    #[test]
    fn names_are_plain() {
        for good in ["lab", "a.b-c_1", "7"] {
            assert!(ContextName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "a/b",
            "a b",
            "ä",
            &"x".repeat(65),
        ] {
            assert!(ContextName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn they_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("deep/stillmetal");
        let contexts = Contexts::at(top.clone());
        assert!(contexts.names().unwrap().is_empty());
        assert_eq!(contexts.current().unwrap(), None);

        contexts.write(&name("lab"), &context("lab:1")).unwrap();
        contexts.write(&name("far"), &context("far:443")).unwrap();
        contexts.write(&name("lab"), &context("lab:2")).unwrap();
        contexts.set_current(&name("lab")).unwrap();
        assert_eq!(contexts.names().unwrap(), [name("far"), name("lab")]);
        assert_eq!(contexts.read(&name("lab")).unwrap(), context("lab:2"));
        assert_eq!(contexts.read(&name("far")).unwrap(), context("far:443"));
        assert_eq!(contexts.current().unwrap(), Some(name("lab")));

        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let lab = contexts.folder(&name("lab"));
        assert_eq!(mode(lab.join("key.pem")), 0o600);
        assert_eq!(mode(lab), 0o700);

        contexts.remove(&name("lab")).unwrap();
        contexts.remove(&name("lab")).unwrap();
        assert_eq!(contexts.current().unwrap(), None);
        assert_eq!(contexts.names().unwrap(), [name("far")]);
        contexts.remove(&name("far")).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(folder.path().into());
        contexts.write(&name("x"), &context("x")).unwrap();
        let file = contexts.folder(&name("x")).join(FILE);
        for text in [
            "controller = 1",
            "controller = \"http://x\"",
            "other = \"x\"",
        ] {
            fs::write(&file, text).unwrap();
            let error = contexts.read(&name("x")).unwrap_err().to_string();
            assert!(error.contains("x/context.toml"), "{error}");
        }
    }
}
