//! What a container writes: kept whole as documents, and watched while it runs.

use std::time::Duration;

use api::work::Document;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;
use stillmetal_work::executor::{Output, Task};
use stillmetal_work::folder::{Folder, FolderError, Writer};
use tokio::time::Instant;

use crate::engine::client::EngineClient;
use crate::engine::output::CLOSE_DEADLINE;

/// Bytes kept of each stream: what the engine keeps of a container's log.
pub const KEPT: u64 = 64 << 20;
/// Between two notices that something was written.
const NOTICE: Duration = Duration::from_secs(1);

/// Why a container's output is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("ask the engine for the log")]
    Engine { source: bollard::errors::Error },
    #[error("the engine did not close the log within {CLOSE_DEADLINE:?}")]
    Open,
    #[error("keep the log")]
    Keep(#[from] FolderError),
    #[error("the thread that kept the log died")]
    Died,
}

/// Keeps both streams of a container that has ended as documents `stdout` and `stderr`, up to
/// [`KEPT`] bytes of each.
pub(super) async fn keep(
    client: &EngineClient,
    container: &str,
    folder: &Folder,
) -> Result<Vec<Document>, LogError> {
    let (stdout, stderr) = (folder.create("stdout")?, folder.create("stderr")?);
    let copied = copy(client, container, stdout, stderr);
    let copied = tokio::time::timeout(CLOSE_DEADLINE, copied).await;
    let (stdout, stderr) = copied.map_err(|_elapsed| LogError::Open)??;
    let finish = move || Ok(vec![stdout.finish()?, stderr.finish()?]);
    let finished = tokio::task::spawn_blocking(finish).await;
    finished.map_err(|_| LogError::Died)?
}

async fn copy(
    client: &EngineClient,
    container: &str,
    mut stdout: Writer,
    mut stderr: Writer,
) -> Result<(Writer, Writer), LogError> {
    let engine = |source| LogError::Engine { source };
    let options = LogsOptions {
        follow: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let docker = client.connect().map_err(engine)?;
    let mut frames = docker.logs(container, Some(options));
    while let Some(frame) = frames.next().await {
        let (name, writer, message) = match frame.map_err(engine)? {
            LogOutput::StdErr { message } => ("stderr", &mut stderr, message),
            // a terminal has one stream
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                ("stdout", &mut stdout, message)
            }
            LogOutput::StdIn { .. } => continue,
        };
        let room = KEPT.saturating_sub(writer.bytes());
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let kept = &message[..message.len().min(room)];
        // to memory, or to a disk's cache
        writer.write(kept).map_err(|source| FolderError::Write {
            name: name.into(),
            source,
        })?;
    }
    Ok((stdout, stderr))
}

/// Says of a task, at most once a second, that its container writes, until that has ended.
pub(super) async fn watch(
    client: &EngineClient,
    container: &str,
    task: &Task,
) -> Result<(), LogError> {
    let engine = |source| LogError::Engine { source };
    let options = LogsOptions {
        follow: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let docker = client.connect().map_err(engine)?;
    let mut frames = docker.logs(container, Some(options));
    let mut last: Option<Instant> = None;
    while let Some(frame) = frames.next().await {
        frame.map_err(engine)?;
        if last.is_none_or(|last| last.elapsed() >= NOTICE) {
            last = Some(Instant::now());
            task.output(Output::Seen).await;
        }
    }
    Ok(())
}
