//! The files of a session: authority, node and two clients, laid out as `docker` wants them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::Error;
use crate::authority::{Authority, Issued, RoleName, Validity};

/// An IP address or DNS name under which clients reach the node.
pub type NodeName<'a> = &'a str;

/// Always in a node's certificate: forwards on the same machine, and QEMU's user network.
const ALWAYS: [&str; 3] = ["127.0.0.1", "localhost", "10.0.2.15"];

/// Writes a new session below `dir`:
///
/// ```text
/// ca.pem ca.key node.pem node.key
/// admin/{ca,cert,key}.pem  user/{ca,cert,key}.pem     each a DOCKER_CERT_PATH
/// ```
///
/// Keys have mode 0600, directories 0700. What was there before is replaced, file by file.
///
/// # Errors
/// When a name is malformed or a file cannot be written.
pub fn write_bundle(dir: &Path, names: &[NodeName<'_>], validity: Validity) -> Result<(), Error> {
    let authority = Authority::generate("stillmetal session authority")?;
    let mut all: Vec<&str> = names.to_vec();
    all.extend(ALWAYS.iter().filter(|name| !names.contains(name)));
    let node = authority.issue_node(&all, validity)?;
    let admin = authority.issue_client("admin", RoleName::Admin, validity)?;
    let user = authority.issue_client("user", RoleName::User, validity)?;

    make_dir(dir)?;
    public(&dir.join("ca.pem"), authority.cert_pem())?;
    secret(&dir.join("ca.key"), &authority.key_pem())?;
    public(&dir.join("node.pem"), &node.cert_pem)?;
    secret(&dir.join("node.key"), &node.key_pem)?;
    write_client(&dir.join("admin"), authority.cert_pem(), &admin)?;
    write_client(&dir.join("user"), authority.cert_pem(), &user)
}

fn write_client(dir: &Path, ca_pem: &str, client: &Issued) -> Result<(), Error> {
    make_dir(dir)?;
    public(&dir.join("ca.pem"), ca_pem)?;
    public(&dir.join("cert.pem"), &client.cert_pem)?;
    secret(&dir.join("key.pem"), &client.key_pem)
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
}

fn public(path: &Path, text: &str) -> Result<(), Error> {
    write(path, text, 0o644)
}

fn secret(path: &Path, text: &str) -> Result<(), Error> {
    write(path, text, 0o600)
}

/// By a temporary file and a rename, so that a key never lies in a file with somebody's old mode.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".new.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}
