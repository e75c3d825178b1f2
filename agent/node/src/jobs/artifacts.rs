//! Files and folders that a job keeps of each of its runs, as documents `artifacts/RUN/…`: a regular
//! file as it is under its own name, anything else as `N.tar`, N counting the declared paths from 1.
//!
//! They go from the engine to the work folder in pieces. A run's are bounded, by a limit and by what
//! the node has room for: the work folder of a machine without a disk is its memory.

use std::io::{self, Read};

use api::run::Attempt;
use api::work::Document;
use stillmetal_work::folder::{Folder, FolderError, Writer};

use crate::engine::archive::{ArchiveError, Kind};
use crate::engine::client::EngineClient;
use crate::runs::Collected;
use crate::runs::metrics::{Fault, Lack};

/// Bytes that are kept of one run.
const RUN_BYTES: u64 = 1 << 30;
/// Of what the file system has free, one run's artifacts may take this part.
const SHARE: u64 = 2;
/// Longest name of a file under which it is kept; all names of a job have to fit into one message.
const NAME: usize = 64;

/// Keeps `paths` of a container that has ended.
pub(super) async fn collect(
    client: &EngineClient,
    folder: &Folder,
    run: &Attempt,
    paths: &[String],
) -> Collected {
    let mut left = RUN_BYTES.min(room(folder));
    let mut collected = Collected::default();
    for (index, path) in paths.iter().enumerate() {
        match keep(client, folder, run, (paths, index), left).await {
            Ok(document) => {
                left = left.saturating_sub(document.bytes);
                let name = document.name.clone();
                collected.names.insert(path.clone(), name);
                collected.documents.push(document);
            }
            Err((why, fault)) => {
                let why = format!("artifact {path}: {why}");
                collected.lack.get_or_insert(Lack { why, fault });
            }
        }
    }
    collected
}

/// What came of one path.
enum Kept {
    Document(Document),
    /// It is longer than the limit.
    TooLong,
    Failed(FolderError),
}

async fn keep(
    client: &EngineClient,
    folder: &Folder,
    run: &Attempt,
    (paths, index): (&[String], usize),
    limit: u64,
) -> Result<Document, (String, Fault)> {
    let names = Names {
        file: format!("artifacts/{}/{}", run.number, file_name(paths, index)),
        archive: format!("artifacts/{}/{}.tar", run.number, index + 1),
    };
    let kept = client.take(&run.container, &paths[index], {
        let folder = folder.clone();
        move |kind, content| {
            let name = match kind {
                Kind::File { bytes } if bytes > limit => return Ok(Kept::TooLong),
                Kind::File { .. } => &names.file,
                Kind::Folder | Kind::Other => &names.archive,
            };
            let mut writer = match folder.create(name) {
                Ok(writer) => writer,
                Err(error) => return Ok(Kept::Failed(error)),
            };
            match copy(content, &mut writer, limit) {
                Ok(()) => {}
                Err(Copy::TooLong) => return Ok(Kept::TooLong),
                Err(Copy::Read(error)) => return Err(error),
                Err(Copy::Write(source)) => {
                    let name = name.clone();
                    return Ok(Kept::Failed(FolderError::Write { name, source }));
                }
            }
            Ok(writer.finish().map_or_else(Kept::Failed, Kept::Document))
        }
    });
    match kept.await {
        Ok(Kept::Document(document)) => Ok(document),
        Ok(Kept::TooLong) => {
            let why = format!(
                "longer than the {limit} bytes that are left for this run's artifacts: at most {} MiB of \
                 each run are kept, and half of what the node has free",
                RUN_BYTES >> 20
            );
            Err((why, Fault::Benchmark))
        }
        Ok(Kept::Failed(error)) => {
            let why = format!("the node cannot keep it: {}", crate::chain(&error));
            Err((why, Fault::Node))
        }
        Err(error @ (ArchiveError::NotThere | ArchiveError::Links)) => {
            Err((error.to_string(), Fault::Benchmark))
        }
        Err(error) => Err((crate::chain(&error), Fault::Node)),
    }
}

struct Names {
    file: String,
    archive: String,
}

/// A file's own name, if it can be a document's and is nobody else's; else its number.
fn file_name(paths: &[String], index: usize) -> String {
    let last = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let own = last(&paths[index]);
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let sound = !own.is_empty() && own.len() <= NAME && own.bytes().all(known);
    let reserved = |name: &str| {
        let number = name.strip_suffix(".tar").unwrap_or(name);
        number.bytes().all(|b| b.is_ascii_digit())
    };
    let same = paths.iter().filter(|path| last(path) == own).count();
    if sound && same == 1 && !reserved(&own) && own != "." && own != ".." {
        own
    } else {
        (index + 1).to_string()
    }
}

enum Copy {
    TooLong,
    Read(io::Error),
    Write(io::Error),
}

fn copy(content: &mut dyn Read, writer: &mut Writer, limit: u64) -> Result<(), Copy> {
    let mut chunk = vec![0; 1 << 16];
    loop {
        let count = match content.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Copy::Read(error)),
        };
        if writer.bytes() + count as u64 > limit {
            return Err(Copy::TooLong);
        }
        writer.write(&chunk[..count]).map_err(Copy::Write)?;
    }
}

/// Bytes that may be taken of the file system of the work folder.
fn room(folder: &Folder) -> u64 {
    // nothing is written there: its folder's file system is asked for
    let path = folder.file("artifacts").ok().flatten();
    let Some(parent) = path.as_deref().and_then(|path| path.parent()) else {
        return u64::MAX;
    };
    match nix::sys::statvfs::statvfs(parent) {
        Ok(about) => {
            about
                .blocks_available()
                .saturating_mul(about.fragment_size())
                / SHARE
        }
        Err(error) => {
            tracing::warn!(%error, "how much room there is for artifacts is not known");
            u64::MAX
        }
    }
}

#[cfg(test)]
mod tests;
