//! Downloads packages through `apt-trixie.sh`, which verifies the archive's signature and keeps a cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::digest::Sha256;
use crate::file::{self, FileError};
use crate::lock::Package;
use crate::program::{self, ProgramError};

/// Exit status of `apt-trixie.sh` for a version that the archive does not offer.
const NOT_OFFERED: i32 = 4;

/// The Debian archive that this machine is configured for.
#[derive(Debug, Clone)]
pub struct Archive {
    script: PathBuf,
}

/// Downloading failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{script} {arguments} failed ({status}); its messages are above", script = script.display())]
    Script {
        script: PathBuf,
        arguments: String,
        status: std::process::ExitStatus,
    },
    #[error("the archive does not offer package {0}")]
    Unknown(String),
    #[error("apt-trixie.sh show {package}: no usable field {field}")]
    Stanza {
        package: String,
        field: &'static str,
    },
    #[error("{package} {version} has sha256 {got}, expected {wanted}")]
    Content {
        package: String,
        version: String,
        wanted: Sha256,
        got: Sha256,
    },
    #[error("apt-trixie.sh delivered no single .deb for {0}")]
    NoFile(String),
}

/// What a fetch came to.
#[derive(Debug)]
pub enum Fetched {
    Deb(PathBuf),
    /// The archive has replaced this version.
    Gone,
}

impl Archive {
    /// `data` is the directory with `apt-trixie.sh`.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self {
            script: data.join("apt-trixie.sh"),
        }
    }

    /// The current version of a package, without its sonames.
    ///
    /// # Errors
    /// When the archive cannot be read or does not know the package.
    pub fn current(&self, package: &str) -> Result<Package, FetchError> {
        let (code, stdout) = self.call(&["show", package])?;
        if code == NOT_OFFERED {
            return Err(FetchError::Unknown(package.to_owned()));
        }
        parse_stanza(package, &stdout)
    }

    /// Puts the package's `.deb` into `dir`, which must be empty.
    ///
    /// # Errors
    /// When the download fails or its content is not the expected one.
    pub fn fetch(&self, package: &Package, dir: &Path) -> Result<Fetched, FetchError> {
        let spec = format!("{}={}@{}", package.name, package.version, package.sha256);
        let (code, _) = self.call(&["fetch", &spec, &dir.to_string_lossy()])?;
        if code == NOT_OFFERED {
            return Ok(Fetched::Gone);
        }
        let mut debs = std::fs::read_dir(dir)
            .map_err(FileError::at("list", dir))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(FileError::at("list", dir))?;
        let (Some(deb), true) = (debs.pop(), debs.is_empty()) else {
            return Err(FetchError::NoFile(spec));
        };
        let got = Sha256::of_file(&deb.path())?;
        if got != package.sha256 {
            let Package {
                name,
                version,
                sha256,
                ..
            } = package.clone();
            return Err(FetchError::Content {
                package: name,
                version,
                wanted: sha256,
                got,
            });
        }
        Ok(Fetched::Deb(deb.path()))
    }

    fn call(&self, arguments: &[&str]) -> Result<(i32, String), FetchError> {
        let mut command = Command::new(&self.script);
        // Its progress and its reasons are for the person who waits.
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let output = program::output(&mut command, "bash")?;
        match output.status.code() {
            Some(code @ (0 | NOT_OFFERED)) => {
                Ok((code, String::from_utf8_lossy(&output.stdout).into_owned()))
            }
            _ => Err(FetchError::Script {
                script: self.script.clone(),
                arguments: arguments.join(" "),
                status: output.status,
            }),
        }
    }
}

fn parse_stanza(package: &str, text: &str) -> Result<Package, FetchError> {
    let field = |field: &'static str| {
        text.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
            .ok_or_else(|| FetchError::Stanza {
                package: package.to_owned(),
                field,
            })
    };
    let bad = |field| FetchError::Stanza {
        package: package.to_owned(),
        field,
    };
    Ok(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        sha256: field("SHA256")?.parse().map_err(|_| bad("SHA256"))?,
        size: field("Size")?.parse().map_err(|_| bad("Size"))?,
        filename: field("Filename")?.to_owned(),
        sonames: Vec::new(),
    })
}

/// A fresh directory for one download, removed with the value.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn download_dir(parent: &Path) -> Result<tempfile::TempDir, FileError> {
    file::create_dir(parent)?;
    tempfile::tempdir_in(parent).map_err(FileError::at("create directory in", parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stanza_and_names_a_missing_field() {
        let digest = Sha256::of(b"");
        let text = format!(
            "Package: tini\nVersion: 0.19\nArchitecture: amd64\nSHA256: {digest}\nSize: 12\nFilename: pool/t.deb\n"
        );
        let package = parse_stanza("tini", &text).unwrap();
        assert_eq!((package.version.as_str(), package.size), ("0.19", 12));
        let error = parse_stanza("tini", &text.replace("Size: 12", "Size: x")).unwrap_err();
        assert!(error.to_string().contains("Size"), "{error}");
        assert!(parse_stanza("tini", "Package: tini\n").is_err());
    }
}
