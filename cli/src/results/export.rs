//! `still results export`.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use api::job::JobId;
use clap::Args;
use client::Client;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::io::{AsyncWrite, BufWriter};

use crate::bundle::pack::Packing;
use crate::context::Chosen;
use crate::interrupts::Interrupts;
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::Output;
use crate::progress::Progress;
use crate::quantity::bytes;
use crate::text::count;

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// Jobs that are over.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<JobId>,
    /// The bundle [default: job-ID.tar, in this folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Take the place of a file that is there.
    #[arg(long)]
    force: bool,
}

/// It was not waited for.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: nothing was written")]
struct Interrupted;

pub(super) async fn run(
    client: &Client,
    arguments: &ExportArguments,
    chosen: &Chosen,
    output: Output,
) -> Ended {
    let out = out(arguments)?;
    let (_, context) = chosen.read()?;
    // from here on control-C ends this in order: what was begun is removed
    let interrupts = Interrupts::listen().context("listen for signals")?;
    let exported = export(client, arguments, &out, &context.ca_pem);
    let exported = tokio::select! {
        exported = exported => exported?,
        () = interrupts.reach(1) => return Err(Interrupted.into()),
    };
    let value = json!({ "file": out, "bytes": exported.bytes, "files": exported.files });
    output.value(&value, || {
        let files = count(exported.files, "file");
        let file = out.display();
        format!(
            "wrote {file}: {files}, {}; still verify {file} checks it",
            bytes(exported.bytes)
        )
    })?;
    Ok(Outcome::Done)
}

fn out(arguments: &ExportArguments) -> Result<PathBuf, Misuse> {
    let out = match (&arguments.out, &arguments.ids[..]) {
        (Some(out), _) => out.clone(),
        (None, [id, others @ ..]) if others.iter().all(|other| other == id) => {
            format!("job-{id}.tar").into()
        }
        (None, _) => return Err(Misuse::NameTheBundle),
    };
    if out.is_dir() {
        return Err(Misuse::OutIsFolder(out));
    }
    // seen again when it is put in its place; this is before anything is fetched
    if !arguments.force && out.symlink_metadata().is_ok() {
        return Err(Misuse::Exists(out));
    }
    Ok(out)
}

struct Exported {
    bytes: u64,
    files: usize,
}

async fn export(
    client: &Client,
    arguments: &ExportArguments,
    out: &Path,
    ca_pem: &str,
) -> anyhow::Result<Exported> {
    let failed = || format!("write {}", out.display());
    let packing = Packing::of(client, &arguments.ids, ca_pem).await?;
    let (length, files) = (packing.bytes()?, packing.files());
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = temporary(folder).with_context(failed)?;
    let progress = Progress::bytes("exporting", Some(length));
    let file = temporary.as_file().try_clone().with_context(failed)?;
    let mut sink = BufWriter::new(Followed {
        file: tokio::fs::File::from_std(file),
        written: 0,
        tell: progress.follower(),
    });
    packing
        .write(client, &mut sink)
        .await
        .with_context(failed)?;
    drop(sink);
    progress.clear();
    keep(temporary, out, folder, arguments.force)?;
    Ok(Exported {
        bytes: length,
        files,
    })
}

/// Removed when it is dropped.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".still-export-")
        // as any new file: what the umask leaves
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
}

/// Whole, on the disk and under its name, or not there.
fn keep(temporary: NamedTempFile, out: &Path, folder: &Path, force: bool) -> anyhow::Result<()> {
    let failed = || format!("write {}", out.display());
    temporary.as_file().sync_all().with_context(failed)?;
    let kept = match force {
        true => temporary.persist(out),
        false => temporary.persist_noclobber(out),
    };
    kept.map_err(|error| match error.error.kind() {
        // it came meanwhile
        io::ErrorKind::AlreadyExists => Misuse::Exists(out.to_owned()).into(),
        _ => anyhow::Error::from(error.error).context(failed()),
    })?;
    let folder = File::open(folder).with_context(failed)?;
    folder.sync_all().with_context(failed)
}

/// A file of whose growth somebody is told.
struct Followed<F> {
    file: tokio::fs::File,
    written: u64,
    tell: F,
}

impl<F: FnMut(u64) + Unpin> AsyncWrite for Followed<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.file).poll_write(context, buffer);
        if let Poll::Ready(Ok(count)) = &poll {
            self.written += *count as u64;
            let written = self.written;
            (self.tell)(written);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(context)
    }
}
