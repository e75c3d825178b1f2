//! `config.img`: the extra initramfs that gives one node its identity and options.
//!
//! The image itself holds nothing secret; this archive does, so it is written for its owner only.
//! It is handed to the kernel after the image's initramfs (a second initrd, or concatenated).

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cpio::{self, CpioError};
use crate::file::{self, FileError};
use crate::tree::{Tree, TreeError};

/// Where the kernel puts the files; PID 1 takes them from there and unlinks them.
const PREFIX: &str = "stillmetal";

/// Key types that the SSH server accepts.
const SSH_KEY_TYPES: [&str; 4] = ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-"];

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cpio(#[from] CpioError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{} holds no usable {what} in PEM form", path.display())]
    Pem {
        path: PathBuf,
        what: &'static str,
        source: pem::Error,
    },
    #[error("{} is not an X.509 certificate", .0.display())]
    Certificate(PathBuf),
    #[error("{} can be read by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("private key {} does not belong to certificate {}", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("{}, line {line}: not an SSH public key", path.display())]
    SshKey { path: PathBuf, line: usize },
    #[error("{} holds no SSH public key", .0.display())]
    NoSshKey(PathBuf),
    #[error("{} holds no join token (stj_…); make one with: still token create", .0.display())]
    NoToken(PathBuf),
    #[error("--file wants SOURCE:NAME, got {0:?}")]
    Extra(String),
}

/// A certificate and its private key, as files.
#[derive(Debug, Clone)]
pub struct Identity {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What goes into the archive.
#[derive(Debug, Default)]
pub struct Request {
    pub node: Option<Identity>,
    /// Certificates of the engine's own TLS port (only for comparing with the bare engine).
    pub engine: Option<Identity>,
    /// What lets the node join its controller, once.
    pub join_token: Option<PathBuf>,
    /// SSH public keys and the add-on image that serves them.
    pub ssh: Option<(PathBuf, PathBuf)>,
    /// `SOURCE:NAME` pairs, placed as `/stillmetal/NAME`.
    pub extra: Vec<String>,
}

/// Checks the inputs and writes the archive.
///
/// # Errors
/// When an input is missing, unusable or exposed, or the archive cannot be written.
pub fn write(request: &Request, out: &Path) -> Result<(), ConfigError> {
    let mut tree = Tree::default();
    tree.dir(PREFIX, 0o700)?;
    if let Some(node) = &request.node {
        add_identity(&mut tree, node, ["ca.pem", "node.pem", "node.key"])?;
    }
    if let Some(engine) = &request.engine {
        tree.dir(&format!("{PREFIX}/engine"), 0o700)?;
        add_identity(
            &mut tree,
            engine,
            ["engine/ca.pem", "engine/cert.pem", "engine/key.pem"],
        )?;
    }
    if let Some(path) = &request.join_token {
        tree.bytes(&format!("{PREFIX}/join-token"), 0o400, join_token(path)?)?;
    }
    if let Some((keys, image)) = &request.ssh {
        let text = file::read_text(keys)?;
        check_ssh_keys(keys, &text)?;
        tree.bytes(
            &format!("{PREFIX}/authorized_keys"),
            0o400,
            text.into_bytes(),
        )?;
        tree.file(&format!("{PREFIX}/ssh.img"), 0o400, image)?;
    }
    for pair in &request.extra {
        let (source, name) = pair
            .rsplit_once(':')
            .ok_or(ConfigError::Extra(pair.clone()))?;
        tree.bytes(
            &format!("{PREFIX}/{name}"),
            0o400,
            file::read(Path::new(source))?,
        )?;
    }
    let part = file::beside(out);
    let mut options = fs::OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part);
    let mut target = opened.map_err(FileError::at("create", &part))?;
    let mut archive = Vec::new();
    cpio::write(tree.iter(), &mut archive)?;
    target
        .write_all(&archive)
        .map_err(FileError::at("write", &part))?;
    fs::rename(&part, out).map_err(FileError::at("replace", out))?;
    Ok(())
}

fn add_identity(
    tree: &mut Tree,
    identity: &Identity,
    [ca, certificate, key]: [&str; 3],
) -> Result<(), ConfigError> {
    let Identity {
        ca: ca_path,
        certificate: certificate_path,
        key: key_path,
    } = identity;
    certificates(ca_path)?;
    let chain = certificates(certificate_path)?;
    check_private(key_path)?;
    let key_pem = file::read(key_path)?;
    let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|source| ConfigError::Pem {
        path: key_path.clone(),
        what: "private key",
        source,
    })?;
    let (_, leaf) = X509Certificate::from_der(&chain[0])
        .map_err(|_| ConfigError::Certificate(certificate_path.clone()))?;
    if belongs(&private, &leaf) == Some(false) {
        let (key, certificate) = (key_path.clone(), certificate_path.clone());
        return Err(ConfigError::Mismatch { key, certificate });
    }
    tree.bytes(&format!("{PREFIX}/{ca}"), 0o444, file::read(ca_path)?)?;
    tree.bytes(
        &format!("{PREFIX}/{certificate}"),
        0o444,
        file::read(certificate_path)?,
    )?;
    tree.bytes(&format!("{PREFIX}/{key}"), 0o400, key_pem)?;
    Ok(())
}

/// A secret that others can read is none.
fn check_private(path: &Path) -> Result<(), ConfigError> {
    let mode = fs::metadata(path)
        .map_err(FileError::at("inspect", path))?
        .mode()
        & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        let path = path.to_path_buf();
        Err(ConfigError::Exposed { path, mode })
    }
}

/// The token alone, without the line feed of its file. Whether it is worth anything only the
/// controller knows; this is against handing over another file.
fn join_token(path: &Path) -> Result<Vec<u8>, ConfigError> {
    check_private(path)?;
    let text = file::read_text(path)?;
    let token = text.trim();
    let rest = token.strip_prefix("stj_").unwrap_or_default();
    let plain = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    if rest.is_empty() || !plain {
        return Err(ConfigError::NoToken(path.to_path_buf()));
    }
    Ok(token.as_bytes().to_vec())
}

/// At least one certificate, each of them X.509.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let bytes = file::read(path)?;
    let bad = |source| ConfigError::Pem {
        path: path.to_path_buf(),
        what: "certificate",
        source,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(bad)?;
    if chain.is_empty() {
        return Err(bad(pem::Error::NoItemsFound));
    }
    for certificate in &chain {
        X509Certificate::from_der(certificate)
            .map_err(|_| ConfigError::Certificate(path.to_path_buf()))?;
    }
    Ok(chain)
}

/// Whether a private key names the certificate's public key; `None` when it names none.
///
/// Private keys of today's tools carry their public half, so this needs no cryptography: it is here to
/// explain a mix-up before the boot, not to prove anything.
fn belongs(key: &PrivateKeyDer<'_>, certificate: &X509Certificate<'_>) -> Option<bool> {
    use x509_parser::public_key::PublicKey;
    // rsaEncryption, 1.2.840.113549.1.1.1
    const RSA: [u8; 11] = [
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
    ];
    let der = key.secret_der();
    let contains = |needle: &[u8]| der.windows(needle.len()).any(|window| window == needle);
    match certificate.public_key().parsed().ok()? {
        PublicKey::RSA(rsa) => Some(contains(rsa.modulus)),
        PublicKey::EC(point) if contains(point.data()) => Some(true),
        PublicKey::EC(_) if matches!(key, PrivateKeyDer::Pkcs1(_)) || contains(&RSA) => Some(false),
        PublicKey::EC(point) => {
            // ECPrivateKey.publicKey [1] BIT STRING, RFC 5915: the same length, another point
            let bits = u8::try_from(point.data().len() + 1).ok()?;
            contains(&[0xa1, bits + 2, 0x03, bits, 0x00]).then_some(false)
        }
        _ => None,
    }
}

fn check_ssh_keys(path: &Path, text: &str) -> Result<(), ConfigError> {
    let mut keys = 0;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let typed = line
            .split_whitespace()
            .any(|word| SSH_KEY_TYPES.iter().any(|kind| word.starts_with(kind)));
        if !typed {
            return Err(ConfigError::SshKey {
                path: path.to_path_buf(),
                line: index + 1,
            });
        }
        keys += 1;
    }
    if keys == 0 {
        Err(ConfigError::NoSshKey(path.to_path_buf()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn ssh_keys_are_checked_by_line() {
        let path = Path::new("keys");
        check_ssh_keys(path, "# c\nssh-ed25519 AAAA me\nfrom=\"x\" ssh-rsa AAAA\n").unwrap();
        let error = check_ssh_keys(path, "\nhello world\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(matches!(
            check_ssh_keys(path, "# none\n"),
            Err(ConfigError::NoSshKey(_))
        ));
    }

    #[test]
    fn a_join_token_is_private_and_goes_in_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (dir.path().join("token"), dir.path().join("config.img"));
        let write_as = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let request = Request {
                join_token: Some(path.clone()),
                ..Request::default()
            };
            write(&request, &out)
        };
        assert!(matches!(
            write_as("stj_00.11\n", 0o640),
            Err(ConfigError::Exposed { mode: 0o640, .. })
        ));
        for text in ["", "stj_", "stj_00.11\nstj_22.33", "a key"] {
            assert!(
                matches!(write_as(text, 0o600), Err(ConfigError::NoToken(_))),
                "{text:?}"
            );
        }
        write_as("stj_00.11\n", 0o600).unwrap();
        let archive = fs::read(&out).unwrap();
        let text = String::from_utf8_lossy(&archive);
        // The header of a newc entry: magic, inode, mode, …, and the name 110 bytes after its start.
        let name = text.find("stillmetal/join-token\0").unwrap();
        assert_eq!(&text[name - 110..name - 104], "070701");
        assert_eq!(&text[name - 96..name - 88], "00008100");
        assert!(text.contains("stj_00.11\0"));
        assert!(!text.contains("stj_00.11\n"));
    }

    #[test]
    fn extra_files_need_a_name() {
        let out = tempfile::tempdir().unwrap();
        let request = Request {
            extra: vec!["/etc/hostname".into()],
            ..Request::default()
        };
        let error = write(&request, &out.path().join("c")).unwrap_err();
        assert!(matches!(error, ConfigError::Extra(_)));
        let request = Request {
            extra: vec!["/etc/hostname:../../x".into()],
            ..Request::default()
        };
        assert!(matches!(
            write(&request, &out.path().join("c")),
            Err(ConfigError::Tree(_))
        ));
    }
}
