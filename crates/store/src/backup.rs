//! A copy of a SQLite store, made while it is in use.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use crate::BackupError;
use crate::database::{Arg, Database, Dialect};

/// For all of it.
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) async fn backup(database: &Database, to: &Path) -> Result<(), BackupError> {
    let path = to.to_path_buf();
    if database.dialect() != Dialect::Sqlite {
        return Err(BackupError::NotSqlite);
    }
    let Some(name) = to.to_str() else {
        return Err(BackupError::Path { path });
    };
    // SQLite writes into an empty file; this one is for nobody else to read
    reserve(to).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists { path: path.clone() },
        _ => BackupError::Create {
            path: path.clone(),
            source,
        },
    })?;
    let outcome = match timeout(LIMIT, copy(database, name)).await {
        Ok(Ok(())) => sync(path.clone()).await,
        Ok(Err(source)) => Err(BackupError::Copy { path, source }),
        Err(_) => Err(BackupError::Late { path, limit: LIMIT }),
    };
    if outcome.is_err() {
        // half a copy is none; that it cannot be removed says less than what went wrong
        drop(std::fs::remove_file(to));
    }
    outcome
}

fn reserve(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(())
}

async fn copy(database: &Database, name: &str) -> Result<(), sqlx::Error> {
    let mut link = database.connect().await?;
    link.run("VACUUM INTO $1", &[Arg::Text(name)]).await?;
    link.close().await
}

/// SQLite does not wait for the disk with this.
async fn sync(path: PathBuf) -> Result<(), BackupError> {
    let file = path.clone();
    let synced = tokio::task::spawn_blocking(move || {
        File::open(&file)?.sync_all()?;
        match file.parent() {
            Some(directory) if directory != Path::new("") => File::open(directory)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    });
    let synced = synced.await.unwrap_or_else(|e| Err(io::Error::other(e)));
    synced.map_err(|source| BackupError::Create { path, source })
}
