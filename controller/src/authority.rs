//! The controller's own authority: a directory with its keys, and which certificates it took back.
//!
//! ```text
//! ca.pem ca.key               made once; whoever has the key can make any certificate
//! ```

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use api::fleet::NodeId;
use pki::{Authority, Revocation, RoleName, Validity};
use store::Change;

use crate::lifecycle::{Certificate, Millis};

/// The authority cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others (mode {mode:03o}); run: chmod 600 {path}")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{missing} is missing beside {present}: an authority is both")]
    Half { missing: PathBuf, present: PathBuf },
    #[error("use the authority in {path}")]
    Use { path: PathBuf, source: pki::Error },
    #[error("make certificates")]
    Make(#[from] pki::Error),
}

/// Reads the authority of this controller, or makes it if there is none.
///
/// # Errors
/// When its files cannot be read or written, can be read by others, or are not whole.
pub fn open(state: &Path) -> Result<Authority, AuthorityError> {
    let (cert, key) = (state.join("ca.pem"), state.join("ca.key"));
    match (cert.exists(), key.exists()) {
        (true, true) => {
            let metadata = fs::metadata(&key).map_err(|source| read_error(&key, source))?;
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(AuthorityError::Exposed { path: key, mode });
            }
            let authority = Authority::from_pem(&read(&cert)?, &read(&key)?);
            authority.map_err(|source| AuthorityError::Use { path: cert, source })
        }
        (false, false) => {
            let authority = Authority::generate("stillmetal controller authority")?;
            // the key first: a certificate without its key would be taken for an accident
            write(&key, &authority.key_pem(), 0o600)?;
            write(&cert, authority.cert_pem(), 0o644)?;
            Ok(authority)
        }
        (true, false) => Err(AuthorityError::Half {
            missing: key,
            present: cert,
        }),
        // killed between the two at the very first start: nothing was signed with it yet
        (false, true) => {
            fs::remove_file(&key).map_err(|source| AuthorityError::Write {
                path: key.clone(),
                source,
            })?;
            open(state)
        }
    }
}

/// Writes a new certificate and key of a client, laid out as `docker` and `still` want it:
/// `ca.pem cert.pem key.pem`.
///
/// # Errors
/// When it cannot be made or written.
pub fn write_client(
    authority: &Authority,
    name: &str,
    role: RoleName,
    validity: Validity,
    folder: &Path,
) -> Result<(), AuthorityError> {
    fs::create_dir_all(folder).map_err(|source| AuthorityError::Write {
        path: folder.to_owned(),
        source,
    })?;
    let client = authority.issue_client(name, role, validity)?;
    write(&folder.join("key.pem"), &client.key_pem, 0o600)?;
    write(&folder.join("cert.pem"), &client.cert_pem, 0o644)?;
    write(&folder.join("ca.pem"), authority.cert_pem(), 0o644)
}

fn read_error(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::Read {
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| read_error(path, source))
}

/// By a temporary file and a rename, on the disk before this returns.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let temporary = path.with_extension("new");
    let attempt = || {
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    attempt().map_err(|source| AuthorityError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Certificates that are worth nothing any more, by number.
#[derive(Debug, Default)]
pub struct Revoked {
    serials: RwLock<HashSet<String>>,
}

impl Revoked {
    #[must_use]
    pub fn new(serials: impl IntoIterator<Item = String>) -> Self {
        Self {
            serials: RwLock::new(serials.into_iter().collect()),
        }
    }

    /// From the next handshake on, whatever the store is doing; and what is to be stored.
    pub fn take_back(
        &self,
        now: Millis,
        node: &NodeId,
        certificates: Vec<Certificate>,
        why: &str,
    ) -> Vec<Change> {
        let live = certificates.into_iter().filter(|it| it.until_ms > now);
        live.map(|certificate| {
            self.add(&certificate.serial);
            Change::Revoked(store::Revocation {
                serial: certificate.serial,
                node: Some(node.clone()),
                at_ms: now,
                expires_ms: certificate.until_ms,
                why: Some(why.to_owned()),
            })
        })
        .collect()
    }

    /// From now on.
    pub fn add(&self, serial: &str) {
        let mut serials = self.serials.write().unwrap_or_else(PoisonError::into_inner);
        serials.insert(serial.to_owned());
    }
}

impl Revocation for Revoked {
    fn is_revoked(&self, serial: &[u8]) -> bool {
        let serials = self.serials.read().unwrap_or_else(PoisonError::into_inner);
        serials.contains(&pki::serial_hex(serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap().cert_pem().to_owned();
        assert_eq!(open(folder.path()).unwrap().cert_pem(), first);
        let mode = fs::metadata(folder.path().join("ca.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        let key = folder.path().join("ca.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            open(folder.path()),
            Err(AuthorityError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn half_an_authority_is_no_reason_to_make_another() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        fs::remove_file(folder.path().join("ca.key")).unwrap();
        assert!(matches!(
            open(folder.path()),
            Err(AuthorityError::Half { .. })
        ));
        assert!(folder.path().join("ca.pem").exists());
    }

    #[test]
    fn what_was_revoked_is_known_by_its_number() {
        let authority = Authority::generate("test").unwrap();
        let (_, csr) = pki::csr::generate().unwrap();
        let node = pki::NodeIdentity { id: "n" };
        let signed = authority
            .issue_joined_node(&csr, &node, Validity::days(1))
            .unwrap();
        let revoked = Revoked::default();
        let bytes: Vec<u8> = (0..signed.serial_hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&signed.serial_hex[at..at + 2], 16).unwrap())
            .collect();
        assert!(!revoked.is_revoked(&bytes));
        revoked.add(&signed.serial_hex);
        assert!(revoked.is_revoked(&bytes));
    }
}
