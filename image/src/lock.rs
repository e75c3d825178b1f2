//! `image.lock`: which package versions, by content, the image is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::file::{self, FileError};

/// One pinned Debian package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub sha256: Sha256,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// Path below the archive's root; never a host.
    pub filename: String,
    /// Shared libraries that it supplies; lets a build fetch only what it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sonames: Vec<String>,
}

/// The whole lock file, packages sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    packages: BTreeMap<String, Package>,
}

/// The lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: not a valid lock", path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("{}, line {line}: {what}", path.display())]
    Package {
        path: PathBuf,
        line: usize,
        what: String,
    },
    #[error("package {0} is not in image.lock; add it to packages.txt and run `make relock`")]
    NotLocked(String),
    #[error("write lock")]
    Write(#[from] toml::ser::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(default)]
    package: Vec<toml::Spanned<Package>>,
}

#[derive(Serialize)]
struct Written<'a> {
    package: Vec<&'a Package>,
}

impl Lock {
    #[must_use]
    pub fn new(packages: Vec<Package>) -> Self {
        Self {
            packages: packages.into_iter().map(|p| (p.name.clone(), p)).collect(),
        }
    }

    /// # Errors
    /// When the file is missing, malformed or contradicts itself; the line is named.
    pub fn load(path: &Path) -> Result<Self, LockError> {
        Self::parse(&file::read_text(path)?, path)
    }

    /// # Errors
    /// Like [`Lock::load`]; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, LockError> {
        let read: Read = toml::from_str(text).map_err(|source| LockError::Parse {
            path: path.to_path_buf(),
            source: Box::new(source),
        })?;
        let mut lock = Self::default();
        for spanned in read.package {
            let start = spanned.span().start;
            let package = spanned.into_inner();
            let problem = check(&package).or_else(|| {
                lock.packages
                    .contains_key(&package.name)
                    .then(|| format!("package {} is listed twice", package.name))
            });
            if let Some(what) = problem {
                let line = text[..start].matches('\n').count() + 1;
                return Err(LockError::Package {
                    path: path.to_path_buf(),
                    line,
                    what,
                });
            }
            lock.packages.insert(package.name.clone(), package);
        }
        Ok(lock)
    }

    /// # Errors
    /// Never for values that were parsed; kept as a `Result` for the serialiser's sake.
    pub fn to_toml(&self) -> Result<String, LockError> {
        let body = toml::to_string(&Written {
            package: self.packages.values().collect(),
        })?;
        Ok(format!(
            "# Written by `stillmetal-image relock` from packages.txt and Debian trixie; do not edit.\n\n{body}"
        ))
    }

    /// # Errors
    /// When the package is not locked.
    pub fn package(&self, name: &str) -> Result<&Package, LockError> {
        self.packages
            .get(name)
            .ok_or_else(|| LockError::NotLocked(name.to_owned()))
    }

    /// The package that supplies a shared library.
    #[must_use]
    pub fn supplier(&self, soname: &str) -> Option<&Package> {
        self.packages
            .values()
            .find(|p| p.sonames.iter().any(|s| s == soname))
    }

    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }
}

/// Package names, versions and paths reach command lines and file names: nothing but Debian's characters.
fn check(package: &Package) -> Option<String> {
    let allowed = |text: &str, extra: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    if !allowed(&package.name, "+-.") {
        return Some(format!("{:?} is not a Debian package name", package.name));
    }
    if !allowed(&package.version, "+-.~:") {
        return Some(format!(
            "{}: {:?} is not a Debian version",
            package.name, package.version
        ));
    }
    if !package.filename.starts_with("pool/") || package.filename.split('/').any(|p| p == "..") {
        return Some(format!(
            "{}: {:?} is not a pool path",
            package.name, package.filename
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, filename: &str) -> String {
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"1:1.0-1+b1\"\nsha256 = \"{}\"\nsize = 3\nfilename = \"{filename}\"\n",
            Sha256::of(b"x")
        )
    }

    fn error(text: &str) -> String {
        let error = Lock::parse(text, Path::new("image.lock")).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    }

    #[test]
    fn round_trips() {
        let mut package = Lock::parse(&entry("libc6", "pool/x.deb"), Path::new("l"))
            .unwrap()
            .package("libc6")
            .unwrap()
            .clone();
        package.sonames = vec!["libc.so.6".into()];
        let lock = Lock::new(vec![package]);
        let text = lock.to_toml().unwrap();
        assert_eq!(Lock::parse(&text, Path::new("l")).unwrap(), lock);
        assert_eq!(lock.supplier("libc.so.6").unwrap().name, "libc6");
        assert!(lock.supplier("libm.so.6").is_none());
    }

    #[test]
    fn errors_name_the_line() {
        let twice = format!("{}\n{}", entry("a", "pool/a"), entry("a", "pool/a"));
        let message = error(&twice);
        assert!(
            message.contains("line 8") && message.contains("twice"),
            "{message}"
        );
        let message = error(&format!("# c\n{}", entry("a", "http://mirror/pool/a")));
        assert!(
            message.contains("line 2") && message.contains("pool path"),
            "{message}"
        );
        let message = error(&entry("a b", "pool/a"));
        assert!(message.contains("package name"), "{message}");
        let digest = Sha256::of(b"x").to_string();
        let message = error(&entry("a", "pool/a").replace(&digest, "abc"));
        assert!(
            message.contains("line 4") && message.contains("SHA-256"),
            "{message}"
        );
        let message = error(&entry("a", "pool/a").replace("size = 3", "size = \"3\""));
        assert!(message.contains("line 5"), "{message}");
    }

    #[test]
    fn an_unlocked_package_says_what_to_do() {
        let message = Lock::default().package("fio").unwrap_err().to_string();
        assert!(
            message.contains("fio") && message.contains("relock"),
            "{message}"
        );
    }
}
