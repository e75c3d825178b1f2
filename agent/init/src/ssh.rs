//! SSH, when the boot brought both a key and the add-on image: dropbear, chrooted into the image, keys only.
//!
//! Otherwise nothing of it exists and nothing listens on port 22. Passwords cannot work: `-s` refuses them, and root
//! has none. The host key is made at boot and lives in memory.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mounts::{self, Depth, MountError};
use crate::service::{self, Spec};
use crate::{CONFIG_DIR, log};

/// Where stage one mounts the image.
pub(crate) const ROOT: &str = "/run/stillmetal/ssh-root";
const STATE: &str = "/run/stillmetal/ssh";

/// The node's directories, and where the image has a mount point for them. `/run` and `/` come alone: this very image
/// is mounted below them.
const BINDS: [(&str, &str, Depth); 6] = [
    ("/proc", "proc", Depth::WithSubmounts),
    ("/sys", "sys", Depth::WithSubmounts),
    ("/dev", "dev", Depth::WithSubmounts),
    ("/run", "run", Depth::Alone),
    ("/tmp", "tmp", Depth::Alone),
    ("/", "node", Depth::Alone),
];

const MAKE_KEY: Spec = Spec {
    name: "ssh host key",
    program: "/usr/bin/dropbearkey",
    args: &[
        "dropbearkey",
        "-t",
        "ed25519",
        "-f",
        "/run/stillmetal/ssh/hostkey",
    ],
    root: None,
    oom_score_adj: 0,
};

/// Foreground, log to stderr, no passwords (-s, -g), no forwarding (-j, -k).
const DROPBEAR: Spec = Spec {
    name: "ssh",
    program: "/usr/sbin/dropbear",
    args: &[
        "dropbear",
        "-F",
        "-E",
        "-s",
        "-g",
        "-j",
        "-k",
        "-p",
        "22",
        "-r",
        "/run/stillmetal/ssh/hostkey",
        "-P",
        "/run/stillmetal/ssh/dropbear.pid",
    ],
    root: None,
    oom_score_adj: -500,
};

const KEY_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum SshError {
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("make the host key")]
    HostKey { source: io::Error },
}

pub(crate) fn keys_given() -> bool {
    fs::metadata(given_keys()).is_ok_and(|file| file.is_file() && file.len() > 0)
}

fn given_keys() -> PathBuf {
    Path::new(CONFIG_DIR).join("authorized_keys")
}

/// The service, if there is to be one.
pub(crate) fn prepare() -> Option<Spec> {
    let root = Path::new(ROOT);
    if !keys_given() || !root.join("usr/sbin/dropbear").exists() {
        return None;
    }
    match arrange(root) {
        Ok(()) => Some(Spec {
            root: Some(root.to_owned()),
            ..DROPBEAR
        }),
        Err(error) => {
            log::warn(&format!("ssh is not available: {}", log::chain(&error)));
            None
        }
    }
}

fn arrange(root: &Path) -> Result<(), SshError> {
    let state = Path::new(STATE);
    let keys = state.join("authorized_keys");
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(state)
        .and_then(|()| fs::copy(given_keys(), &keys).map(drop))
        // dropbear refuses keys that others could write.
        .and_then(|()| fs::set_permissions(&keys, Permissions::from_mode(0o400)))
        .map_err(|source| SshError::Write {
            path: keys.clone(),
            source,
        })?;
    for (from, name, depth) in BINDS {
        let to = root.join(name);
        if to.is_dir() {
            mounts::bind(Path::new(from), &to, depth)?;
        }
    }
    service::run_once(
        &Spec {
            root: Some(root.to_owned()),
            ..MAKE_KEY
        },
        KEY_PATIENCE,
    )
    .map_err(|source| SshError::HostKey { source })
}
