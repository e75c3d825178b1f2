//! Where the project's files are. Nothing here is specific to one machine.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folder of build results: `STILLMETAL_BUILD`, else `build/` of the workspace that cargo or
/// the current directory is in.
#[must_use]
pub fn build_dir() -> PathBuf {
    if let Some(path) = std::env::var_os("STILLMETAL_BUILD") {
        return path.into();
    }
    workspace_dir().unwrap_or_default().join("build")
}

/// The top of the workspace.
#[must_use]
pub fn workspace_dir() -> Option<PathBuf> {
    let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(path) => path.into(),
        None => std::env::current_dir().ok()?,
    };
    workspace_above(&start)
}

fn workspace_above(start: &Path) -> Option<PathBuf> {
    let is_top = |folder: &&Path| {
        std::fs::read_to_string(folder.join("Cargo.toml"))
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
    };
    start.ancestors().find(is_top).map(Path::to_path_buf)
}

/// Results that survive a clean build: `STILLMETAL_CACHE`, else `~/.cache/stillmetal`.
#[must_use]
pub fn cache_dir() -> PathBuf {
    if let Some(path) = std::env::var_os("STILLMETAL_CACHE") {
        return path.into();
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/stillmetal")
}

/// Where consoles are kept.
#[must_use]
pub fn logs_dir() -> PathBuf {
    build_dir().join("test-logs")
}

/// The built image: what QEMU boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The file with the default command line.
    pub cmdline: PathBuf,
}

impl Artifacts {
    /// The project's own image, from [`build_dir`].
    ///
    /// # Errors
    /// [`Error::Missing`] if it is not built.
    pub fn find() -> Result<Self> {
        Self::in_folder(&build_dir())
    }

    /// The image in another folder.
    ///
    /// # Errors
    /// As [`Artifacts::find`].
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let need = |name: &str, what| {
            let path = folder.join(name);
            let hint = "build it with `make image`";
            if path.is_file() {
                Ok(path)
            } else {
                Err(Error::Missing { what, path, hint })
            }
        };
        Ok(Self {
            kernel: need("stillmetal-kernel", "the kernel")?,
            initrd: need("stillmetal-initrd.img", "the image")?,
            cmdline: need("stillmetal-cmdline", "the kernel command line")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_above_a_package() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let top = workspace_above(here).unwrap();
        assert!(top.join("crates/testkit").is_dir());
        assert_eq!(workspace_above(Path::new("/nonexistent")), None);
    }
}
