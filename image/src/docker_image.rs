//! Container images from locked Debian packages, as archives for `docker load`. No engine is needed.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cache::Shelf;
use crate::closure::{self, ClosureError};
use crate::contents::{self, ContentsError};
use crate::digest::{Key, Sha256};
use crate::fetch::Archive;
use crate::file::{self, FileError};
use crate::lock::LockError;
use crate::tree::{Node, Tree, TreeError};
use crate::unpack::{Packages, UnpackError, load_lock};

/// The image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Closure(#[from] ClosureError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Contents(#[from] ContentsError),
    #[error("image name {0:?} is not of the form NAME:TAG")]
    Name(String),
    #[error("none of the packages {packages} has a file {path}")]
    NoSuchFile { packages: String, path: String },
    #[error("write image archive")]
    Tar(#[from] std::io::Error),
}

/// What the image holds and runs.
#[derive(Debug, Clone)]
pub struct Request {
    /// `NAME:TAG`
    pub name: String,
    pub packages: Vec<String>,
    /// Paths of programs, looked up in the packages in turn.
    pub programs: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
}

/// Writes the archive to `out`, from the cache when its inputs are known.
///
/// # Errors
/// When a package, program or library is missing or the archive cannot be written.
pub fn write(request: &Request, data: &Path, cache: &Path, out: &Path) -> Result<(), ImageError> {
    const NAME: &str = "image.tar";
    let well_formed = request.name.split_once(':').is_some_and(|(name, tag)| {
        !name.is_empty() && !tag.is_empty() && !request.name.contains(char::is_whitespace)
    });
    if !well_formed {
        return Err(ImageError::Name(request.name.clone()));
    }
    let mut key = Key::default();
    key.add("builder", &crate::BUILDER_VERSION.to_le_bytes());
    key.add_file("image.lock", &data.join("image.lock"))?;
    key.add("request", format!("{request:?}").as_bytes());
    let key = key.finish();
    let shelf = Shelf::new(cache, "docker-images");
    file::create_dir(cache)?;
    let scratch = tempfile::tempdir_in(cache).map_err(FileError::at("work below", cache))?;
    if shelf.take(key, &[NAME], scratch.path())? {
        eprintln!("image: cached {key}");
    } else {
        let mut packages = Packages::new(load_lock(data)?, Archive::new(data), cache);
        let tree = tree(request, &mut packages)?;
        file::replace(&scratch.path().join(NAME), &archive(request, &tree)?)?;
        shelf.put(key, &[NAME], scratch.path())?;
    }
    file::copy(&scratch.path().join(NAME), out)?;
    Ok(())
}

fn tree(request: &Request, packages: &mut Packages) -> Result<Tree, ImageError> {
    let mut tree = Tree::default();
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        tree.symlink(link, target)?;
        tree.dir(target, 0o755)?;
    }
    for dir in ["etc", "var", "run"] {
        tree.dir(dir, 0o755)?;
    }
    tree.dir("root", 0o700)?;
    tree.dir("tmp", 0o1777)?;
    tree.dir("var/tmp", 0o1777)?;
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
    tree.bytes("etc/passwd", 0o644, passwd.into())?;
    tree.bytes("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n".into())?;
    for program in &request.programs {
        let path = program.trim_start_matches('/');
        tree.file(path, 0o755, &find(packages, &request.packages, path)?)?;
    }
    if tree.contains("usr/bin/busybox") {
        contents::add_applets(&mut tree, packages)?;
    }
    closure::close(&mut tree, packages)?;
    Ok(tree)
}

fn find(packages: &mut Packages, names: &[String], path: &str) -> Result<PathBuf, ImageError> {
    for name in names {
        let root = packages.open(name)?.root.clone();
        // The canonical path must stay inside: a package's absolute link would lead to this machine.
        match root.join(path).canonicalize() {
            Ok(real) if real.is_file() && real.starts_with(root.canonicalize()?) => {
                return Ok(real);
            }
            _ => {}
        }
    }
    Err(ImageError::NoSuchFile {
        packages: names.join(","),
        path: path.to_owned(),
    })
}

/// The format of `docker save`: one layer, its configuration, and the list of both.
fn archive(request: &Request, tree: &Tree) -> Result<Vec<u8>, ImageError> {
    let layer = layer(tree)?;
    let layer_name = format!("{}.tar", Sha256::of(&layer));
    let mut env = vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    env.extend_from_slice(&request.env);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": optional(&request.entrypoint),
            "Cmd": optional(&request.cmd),
            "Env": env,
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", Sha256::of(&layer))] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "stillmetal-image" }],
    })
    .to_string();
    let config_name = format!("{}.json", Sha256::of(config.as_bytes()));
    let manifest = json!([
        { "Config": config_name, "RepoTags": [request.name], "Layers": [layer_name] }
    ])
    .to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        (config_name.as_str(), config.as_bytes()),
        (layer_name.as_str(), &layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        append(&mut tar, name, tar::EntryType::Regular, 0o644, bytes)?;
    }
    Ok(tar.into_inner()?)
}

fn optional(list: &[String]) -> Option<&[String]> {
    (!list.is_empty()).then_some(list)
}

fn layer(tree: &Tree) -> Result<Vec<u8>, ImageError> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, node) in tree.iter() {
        match node {
            Node::Dir { mode } => {
                append(
                    &mut tar,
                    &format!("{path}/"),
                    tar::EntryType::Directory,
                    *mode,
                    &[],
                )?;
            }
            Node::File { mode, content } => {
                append(
                    &mut tar,
                    path,
                    tar::EntryType::Regular,
                    *mode,
                    &content.read()?,
                )?;
            }
            Node::Symlink { target } => {
                let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                tar.append_link(&mut header, path, target)?;
            }
            Node::CharDevice { .. } => unreachable!("no recipe of a container image has devices"),
        }
    }
    Ok(tar.into_inner()?)
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = header(kind, mode, bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)?;
    tar.get_mut().flush()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn request(name: &str) -> Request {
        Request {
            name: name.into(),
            packages: vec![],
            programs: vec![],
            entrypoint: vec!["/usr/bin/x".into()],
            cmd: vec![],
            env: vec!["A=b".into()],
        }
    }

    #[test]
    fn archive_names_its_parts_by_content() {
        let mut tree = Tree::default();
        tree.bytes("usr/bin/x", 0o755, b"x".to_vec()).unwrap();
        tree.symlink("bin", "usr/bin").unwrap();
        let bytes = archive(&request("x:1"), &tree).unwrap();
        assert_eq!(bytes, archive(&request("x:1"), &tree).unwrap());
        let mut parts = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            parts.insert(
                entry.path().unwrap().to_string_lossy().into_owned(),
                content,
            );
        }
        let manifest: serde_json::Value = serde_json::from_slice(&parts["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "x:1");
        let config: serde_json::Value =
            serde_json::from_slice(&parts[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        let layer = &parts[manifest[0]["Layers"][0].as_str().unwrap()];
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", Sha256::of(layer))
        );
        assert_eq!(config["config"]["Env"][1], "A=b");
        assert!(config["config"]["Cmd"].is_null());
    }

    #[test]
    fn a_name_without_tag_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x", "x:", ":1", "a b:1"] {
            let error = write(
                &request(name),
                dir.path(),
                dir.path(),
                &dir.path().join("o"),
            );
            assert!(matches!(error, Err(ImageError::Name(_))), "{name}");
        }
    }
}
