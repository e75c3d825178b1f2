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
    let mode = fs::metadata(key_path)
        .map_err(FileError::at("inspect", key_path))?
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed {
            path: key_path.clone(),
            mode,
        });
    }
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
