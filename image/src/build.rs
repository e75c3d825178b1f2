//! The image pipeline: root tree → squashfs → initramfs, plus SSH add-on, manifest and checksums.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::Shelf;
use crate::closure::{self, ClosureError};
use crate::contents::{self, ContentsError};
use crate::digest::{Key, Sha256};
use crate::fetch::Archive;
use crate::file::{self, FileError};
use crate::initramfs::{self, InitramfsError};
use crate::kernel::{self, KernelError};
use crate::lock::LockError;
use crate::manifest::{self, Crate, ManifestError, Materials};
use crate::program::ProgramError;
use crate::rootfs::{Recipe, RecipeError, list};
use crate::squash::{self, Compression, SquashError};
use crate::tree::TreeError;
use crate::unpack::{OffLock, Packages, UnpackError, load_lock};

pub const INITRD: &str = "stillmetal-initrd.img";
pub const SSH_IMAGE: &str = "stillmetal-ssh.img";
pub const MANIFEST: &str = "manifest.json";
pub const CMDLINE: &str = "stillmetal-cmdline";
pub const SUMS: &str = "SHA256SUMS";
pub const KERNEL: &str = "stillmetal-kernel";

/// What a cache entry holds. The checksums come last: they cover the others.
const OUTPUTS: [&str; 5] = [INITRD, SSH_IMAGE, MANIFEST, CMDLINE, SUMS];

const AGENT: &str = "usr/sbin/stillmetal-agent";
const GATE: &str = "usr/lib/stillmetal/gate";

/// The image cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(transparent)]
    Closure(#[from] ClosureError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Squash(#[from] SquashError),
    #[error(transparent)]
    Contents(#[from] ContentsError),
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("{}: not a static x86-64 executable; build the agent with -C target-feature=+crt-static", .0.display())]
    Agent(PathBuf),
    #[error("write the manifest")]
    Json(#[from] serde_json::Error),
}

/// What to build from, and where to.
#[derive(Debug)]
pub struct Request {
    /// The directory with the lock, the allow-lists and the static files.
    pub data: PathBuf,
    pub cache: PathBuf,
    pub kernel: PathBuf,
    pub modules: Option<PathBuf>,
    /// `source.lock` of the kernel.
    pub kernel_source: PathBuf,
    pub agent: PathBuf,
    /// What runs as stage one: the agent, or a smaller program that does only that.
    pub init: PathBuf,
    /// The start gate of certified containers.
    pub gate: PathBuf,
    pub out: PathBuf,
    pub compression: Compression,
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    pub key: Sha256,
    pub from_cache: bool,
    pub off_lock: Vec<OffLock>,
    /// Kernel and initramfs together: what a node downloads.
    pub boot_bytes: u64,
}

/// Builds the image, or copies it from the cache when its inputs are known.
///
/// # Errors
/// When an input is missing or unusable, or a step fails.
pub fn build(request: &Request) -> Result<Built, BuildError> {
    for binary in [&request.agent, &request.init, &request.gate] {
        match closure::inspect("agent", &file::read(binary)?)? {
            Some(elf) if elf.needed.is_empty() && elf.interpreter.is_none() => {}
            _ => return Err(BuildError::Agent(binary.clone())),
        }
    }
    let crates = manifest::agent_crates(&request.data)?;
    let key = key(request, &crates)?;
    let shelf = Shelf::new(&request.cache, "images");
    file::create_dir(&request.out)?;
    let from_cache = shelf.take(key, &OUTPUTS, &request.out)?;
    if from_cache {
        eprintln!("image: cached {key}");
    } else {
        let scratch_parent = request.cache.join("scratch");
        file::create_dir(&scratch_parent)?;
        let scratch = tempfile::tempdir_in(&scratch_parent)
            .map_err(FileError::at("work below", &scratch_parent))?;
        assemble(request, key, &crates, scratch.path())?;
        shelf.put(key, &OUTPUTS, scratch.path())?;
        for name in OUTPUTS {
            file::copy(&scratch.path().join(name), &request.out.join(name))?;
        }
    }
    let kernel = request.out.join(KERNEL);
    if fs::canonicalize(&kernel).ok() != fs::canonicalize(&request.kernel).ok() {
        file::copy(&request.kernel, &kernel)?;
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&file::read(&request.out.join(MANIFEST))?)?;
    let off_lock = serde_json::from_value(manifest["off_lock"].clone())?;
    let boot_bytes = size(&kernel)? + size(&request.out.join(INITRD))?;
    Ok(Built {
        key,
        from_cache,
        off_lock,
        boot_bytes,
    })
}

/// The digest of everything that the outputs depend on.
fn key(request: &Request, crates: &[Crate]) -> Result<Sha256, BuildError> {
    let mut key = Key::default();
    key.add("builder", &crate::BUILDER_VERSION.to_le_bytes());
    key.add("version", env!("CARGO_PKG_VERSION").as_bytes());
    key.add("mksquashfs", squash::version()?.as_bytes());
    key.add("zstd", initramfs::version()?.as_bytes());
    key.add("level", request.compression.level().as_bytes());
    for name in ["image.lock", "files.txt", "ssh.txt", "cmdline.txt"] {
        key.add_file(name, &request.data.join(name))?;
    }
    for dir in ["rootfs", "ssh-rootfs"] {
        add_dir(&mut key, &request.data.join(dir), dir)?;
    }
    for krate in crates {
        key.add(&krate.name, krate.version.as_bytes());
    }
    key.add_file("agent", &request.agent)?;
    key.add_file("init", &request.init)?;
    key.add_file("gate", &request.gate)?;
    key.add_file("kernel", &request.kernel)?;
    let source = kernel::source(&request.kernel_source, &request.kernel)?;
    key.add("kernel source", format!("{source:?}").as_bytes());
    if let Some(modules) = &request.modules {
        key.add_file("modules", modules)?;
    }
    Ok(key.finish())
}

fn add_dir(key: &mut Key, dir: &Path, label: &str) -> Result<(), FileError> {
    for (name, path) in list(dir)? {
        let label = format!("{label}/{name}");
        if path.is_dir() {
            add_dir(key, &path, &label)?;
        } else {
            key.add_file(&label, &path)?;
        }
    }
    Ok(())
}

/// Builds all of [`OUTPUTS`] into `scratch`.
fn assemble(
    request: &Request,
    key: Sha256,
    crates: &[Crate],
    scratch: &Path,
) -> Result<(), BuildError> {
    let data = &request.data;
    let mut packages = Packages::new(load_lock(data)?, Archive::new(data), &request.cache);

    let recipe = Recipe::load(&data.join("ssh.txt"), &data.join("ssh-rootfs"))?;
    let mut ssh = recipe.tree(&mut packages)?;
    contents::add_applets(&mut ssh, &mut packages)?;
    closure::close(&mut ssh, &mut packages)?;
    let ssh_packages = packages.take_used();

    let recipe = Recipe::load(&data.join("files.txt"), &data.join("rootfs"))?;
    let mut root = recipe.tree(&mut packages)?;
    closure::close(&mut root, &mut packages)?;
    let root_packages = packages.take_used();
    let (kernel_source, kernel_off_lock) = kernel::source(&request.kernel_source, &request.kernel)?;
    let mut off_lock = packages.off_lock().to_vec();
    off_lock.extend(kernel_off_lock);
    off_lock.sort_by(|a, b| a.package.cmp(&b.package));
    root.file(AGENT, 0o755, &request.agent)?;
    root.file(GATE, 0o755, &request.gate)?;
    if let Some(modules) = &request.modules {
        contents::add_modules(&mut root, modules)?;
    }
    if !off_lock.is_empty() {
        let lines = off_lock
            .iter()
            .map(|o| format!("{} {} {}\n", o.package, o.wanted, o.got));
        root.bytes(
            "etc/stillmetal-off-lock",
            0o444,
            lines.collect::<String>().into_bytes(),
        )?;
    }
    contents::check(&root)?;

    let manifest = manifest::document(&Materials {
        key,
        root_packages: &root_packages,
        ssh_packages: &ssh_packages,
        off_lock: &off_lock,
        crates,
        agent: Sha256::of_file(&request.agent)?,
        kernel: Sha256::of_file(&request.kernel)?,
        kernel_version: &kernel::version(&request.kernel)?,
        kernel_source: &kernel_source,
    });
    let mut manifest = serde_json::to_vec_pretty(&manifest)?;
    manifest.push(b'\n');
    root.bytes(
        "usr/share/stillmetal/manifest.json",
        0o444,
        manifest.clone(),
    )?;

    eprintln!(
        "image: squashfs, zstd level {}",
        request.compression.level()
    );
    squash::write(&ssh, request.compression, scratch, &scratch.join(SSH_IMAGE))?;
    let rootfs = scratch.join("rootfs.img");
    squash::write(&root, request.compression, scratch, &rootfs)?;

    eprintln!("image: initramfs");
    let initrd = scratch.join(INITRD);
    initramfs::write(
        &request.init,
        &rootfs,
        request.compression,
        scratch,
        &initrd,
    )?;
    file::replace(&scratch.join(MANIFEST), &manifest)?;
    let cmdline = cmdline(&file::read_text(&data.join("cmdline.txt"))?);
    file::replace(&scratch.join(CMDLINE), cmdline.as_bytes())?;
    file::replace(
        &scratch.join(SUMS),
        sums(&request.kernel, scratch)?.as_bytes(),
    )?;
    Ok(())
}

/// One line from the commented list.
fn cmdline(text: &str) -> String {
    let parameters = text.lines().filter_map(|line| {
        Some(line.split('#').next()?.trim()).filter(|parameter| !parameter.is_empty())
    });
    parameters.collect::<Vec<_>>().join(" ") + "\n"
}

fn sums(kernel: &Path, dir: &Path) -> Result<String, FileError> {
    let mut text = format!("{}  {KERNEL}\n", Sha256::of_file(kernel)?);
    for name in OUTPUTS.into_iter().filter(|name| *name != SUMS) {
        text.push_str(&format!("{}  {name}\n", Sha256::of_file(&dir.join(name))?));
    }
    Ok(text)
}

fn size(path: &Path) -> Result<u64, FileError> {
    Ok(fs::metadata(path)
        .map_err(FileError::at("inspect", path))?
        .len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_one_line_without_comments() {
        assert_eq!(cmdline("# head\n\na=1   # why\n b=2,3\n"), "a=1 b=2,3\n");
    }
}
