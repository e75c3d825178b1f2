//! The image pipeline: root tree → squashfs → initramfs, plus SSH add-on, manifest and checksums.

use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Shelf;
use crate::closure::{self, ClosureError};
use crate::cpio::{self, CpioError};
use crate::digest::{Key, Sha256};
use crate::fetch::Archive;
use crate::file::{self, FileError};
use crate::lock::LockError;
use crate::manifest::{self, Crate, ManifestError, Materials};
use crate::program::{self, ProgramError};
use crate::rootfs::{Recipe, RecipeError, list};
use crate::squash::{self, Compression, SquashError};
use crate::tree::{Node, Tree, TreeError};
use crate::unpack::{OffLock, Packages, UnpackError, load_lock};

pub const INITRD: &str = "stillmetal-initrd.img";
pub const SSH_IMAGE: &str = "stillmetal-ssh.img";
pub const MANIFEST: &str = "manifest.json";
pub const CMDLINE: &str = "stillmetal-cmdline";
pub const SUMS: &str = "SHA256SUMS";
pub const KERNEL: &str = "stillmetal-kernel";

/// What a cache entry holds. The checksums come last: they cover the others.
const OUTPUTS: [&str; 5] = [INITRD, SSH_IMAGE, MANIFEST, CMDLINE, SUMS];

/// More executables than this in the root image is a mistake in the allow-list.
const MAX_EXECUTABLES: usize = 20;

/// Programs whose presence would make the root image a place to work in.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"];

const AGENT: &str = "usr/sbin/stillmetal-agent";

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
    Cpio(#[from] CpioError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("{}: not a static x86-64 executable; build the agent with -C target-feature=+crt-static", .0.display())]
    Agent(PathBuf),
    #[error("read modules archive {}", path.display())]
    Modules {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("modules archive has {0:?}, which is not below lib/modules")]
    ModulePath(String),
    #[error("the root image would have a shell: {0}")]
    Shell(String),
    #[error("the root image would have {count} executables, more than {MAX_EXECUTABLES}: {names}")]
    TooManyExecutables { count: usize, names: String },
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
    pub agent: PathBuf,
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
    let agent = file::read(&request.agent)?;
    match closure::inspect("agent", &agent)? {
        Some(elf) if elf.needed.is_empty() && elf.interpreter.is_none() => {}
        _ => return Err(BuildError::Agent(request.agent.clone())),
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
    key.add_file("kernel", &request.kernel)?;
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
    add_applets(&mut ssh, &mut packages)?;
    closure::close(&mut ssh, &mut packages)?;
    let ssh_packages = packages.take_used();

    let recipe = Recipe::load(&data.join("files.txt"), &data.join("rootfs"))?;
    let mut root = recipe.tree(&mut packages)?;
    closure::close(&mut root, &mut packages)?;
    let root_packages = packages.take_used();
    let mut off_lock = packages.off_lock().to_vec();
    off_lock.sort_by(|a, b| a.package.cmp(&b.package));
    root.file(AGENT, 0o755, &request.agent)?;
    if let Some(modules) = &request.modules {
        add_modules(&mut root, modules)?;
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
    check(&root)?;

    let manifest = manifest::document(&Materials {
        key,
        root_packages: &root_packages,
        ssh_packages: &ssh_packages,
        off_lock: &off_lock,
        crates,
        agent: Sha256::of_file(&request.agent)?,
        kernel: Sha256::of_file(&request.kernel)?,
        kernel_version: &manifest::kernel_version(&request.kernel, &file::read(&request.kernel)?)?,
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
    write_initramfs(&request.agent, &rootfs, &scratch.join(INITRD))?;
    file::replace(&scratch.join(MANIFEST), &manifest)?;
    let cmdline = cmdline(&file::read_text(&data.join("cmdline.txt"))?);
    file::replace(&scratch.join(CMDLINE), cmdline.as_bytes())?;
    file::replace(
        &scratch.join(SUMS),
        sums(&request.kernel, scratch)?.as_bytes(),
    )?;
    Ok(())
}

/// Every busybox applet as a link, as the binary itself lists them.
pub(crate) fn add_applets(tree: &mut Tree, packages: &mut Packages) -> Result<(), BuildError> {
    let busybox = packages
        .open("busybox-static")?
        .root
        .join("usr/bin/busybox");
    let output = program::run(Command::new(&busybox).arg("--list"), "busybox-static")?;
    for applet in String::from_utf8_lossy(&output.stdout).lines() {
        let path = format!("usr/bin/{applet}");
        if !tree.contains(&path) && !tree.contains(&format!("usr/sbin/{applet}")) {
            tree.symlink(&path, "busybox")?;
        }
    }
    Ok(())
}

fn add_modules(root: &mut Tree, path: &Path) -> Result<(), BuildError> {
    let unreadable = |source| BuildError::Modules {
        path: path.to_path_buf(),
        source,
    };
    let mut archive = tar::Archive::new(File::open(path).map_err(unreadable)?);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        if !entry.header().entry_type().is_file() {
            continue; // directories follow from the files; build/source links lead nowhere here
        }
        let name = entry
            .path()
            .map_err(unreadable)?
            .to_string_lossy()
            .into_owned();
        let below = name.trim_start_matches("./").trim_start_matches("usr/");
        if !below.starts_with("lib/modules/") {
            return Err(BuildError::ModulePath(name));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(unreadable)?;
        root.bytes(&format!("usr/{below}"), 0o644, bytes)?;
    }
    Ok(())
}

/// What a root image must never have; setuid bits cannot even be put into a [`Tree`].
fn check(root: &Tree) -> Result<(), BuildError> {
    for (path, _) in root.iter() {
        if path
            .rsplit('/')
            .next()
            .is_some_and(|name| SHELLS.contains(&name))
        {
            return Err(BuildError::Shell(path.to_owned()));
        }
    }
    let names: Vec<&str> = root.executables().collect();
    if names.len() > MAX_EXECUTABLES {
        return Err(BuildError::TooManyExecutables {
            count: names.len(),
            names: names.join(" "),
        });
    }
    Ok(())
}

/// Stage one: the agent as /init, the mount points it uses, a console node, and the root image.
fn write_initramfs(agent: &Path, rootfs: &Path, out: &Path) -> Result<(), BuildError> {
    const ROOTFS: &str = "rootfs.img";
    let mut tree = Tree::default();
    tree.file("init", 0o755, agent)?;
    for dir in ["proc", "sys", "dev", "run", "newroot"] {
        tree.dir(dir, 0o755)?;
    }
    // The kernel opens it before devtmpfs is mounted; without it PID 1 has no stdio.
    tree.insert(
        "dev/console",
        Node::CharDevice {
            mode: 0o600,
            major: 5,
            minor: 1,
        },
    )?;
    tree.file(ROOTFS, 0o444, rootfs)?;
    // The large file last: with too little memory the kernel stops there, and /init can say so.
    let small = tree.iter().filter(|(path, _)| *path != ROOTFS);
    let large = tree.iter().filter(|(path, _)| *path == ROOTFS);
    let file = File::create(out).map_err(FileError::at("create", out))?;
    Ok(cpio::write(small.chain(large), &mut BufWriter::new(file))?)
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

    #[test]
    fn a_shell_or_too_many_programs_stop_the_build() {
        let mut tree = Tree::default();
        tree.symlink("usr/bin/sh", "x").unwrap();
        assert!(matches!(check(&tree), Err(BuildError::Shell(_))));
        let mut tree = Tree::default();
        for n in 0..21 {
            tree.bytes(&format!("usr/bin/p{n}"), 0o755, vec![]).unwrap();
        }
        assert!(matches!(
            check(&tree),
            Err(BuildError::TooManyExecutables { count: 21, .. })
        ));
    }
}
