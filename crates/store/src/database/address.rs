//! Where the store is.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;

use crate::OpenError;

/// Of a store.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Sqlite { path: String },
    Postgres { options: Arc<PgConnectOptions> },
}

impl FromStr for Address {
    type Err = OpenError;

    fn from_str(url: &str) -> Result<Self, OpenError> {
        if let Some(rest) = url.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            // SQLite takes some names for something else than files
            let special = path.starts_with(':') || path.starts_with("file:");
            if path.is_empty() || special || path.contains(['?', '\0']) {
                return Err(OpenError::Url { source: None });
            }
            return Ok(Self::Sqlite { path: path.into() });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(url).map_err(|e| OpenError::Url {
                source: Some(Box::new(e)),
            })?;
            return Ok(Self::Postgres {
                options: Arc::new(options),
            });
        }
        Err(OpenError::Url { source: None })
    }
}

impl Address {
    /// Makes the file of a new SQLite store, for nobody else to read.
    pub(crate) fn make(&self) -> Result<(), OpenError> {
        let Self::Sqlite { path } = self else {
            return Ok(());
        };
        make_private(Path::new(path)).map_err(|source| OpenError::Create {
            path: path.into(),
            source,
        })
    }
}

/// A file that only its owner may read, if there is none yet.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(url: &str) -> Option<String> {
        match url.parse() {
            Ok(Address::Sqlite { path }) => Some(path),
            _ => None,
        }
    }

    #[test]
    fn files() {
        assert_eq!(path("sqlite:/a/b.db").as_deref(), Some("/a/b.db"));
        assert_eq!(path("sqlite:///a/b.db").as_deref(), Some("/a/b.db"));
        assert_eq!(path("sqlite:b.db").as_deref(), Some("b.db"));
        for bad in [
            "",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:file:x",
            "sqlite:/a?mode=memory",
            "/a/b.db",
            "mysql://h/d",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn servers() {
        assert!(matches!(
            "postgres://u:p@h/d".parse(),
            Ok(Address::Postgres { .. })
        ));
        assert!(matches!(
            "postgresql:///d?host=/run/x".parse(),
            Ok(Address::Postgres { .. })
        ));
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = "postgres://u:secret@h:99999/d"
            .parse::<Address>()
            .expect_err("no such port");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
