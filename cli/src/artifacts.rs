//! `still job artifacts` and `still job tools`: what a job's runs left, and what was seen of them, listed or
//! fetched.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::job::{JobId, JobPart, JobStatus};
use api::work::Document;
use clap::Args;
use client::Client;
use serde_json::json;

use crate::jobs::state;
use crate::outcome::{Ended, Outcome};
use crate::output::Output;
use crate::quantity::bytes;

/// Which documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Artifacts,
    Tools,
}

impl Kind {
    /// Before the number of the run, in their names.
    fn folder(self) -> &'static str {
        match self {
            Self::Artifacts => "artifacts/",
            Self::Tools => "tools/",
        }
    }

    /// Why there are none, as far as the request says.
    fn none(self, job: &JobStatus) -> Option<&'static str> {
        let request = &job.request;
        match self {
            Self::Artifacts if request.artifacts.is_empty() => {
                Some(": it declared none (`still run --artifact PATH`)")
            }
            Self::Tools if request.tools.is_empty() => {
                Some(": it asked for no tools (`still run --tool light`)")
            }
            Self::Artifacts | Self::Tools => None,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Artifacts => "artifacts",
            Self::Tools => "series of tools",
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    id: JobId,
    /// Only this node's.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only those of this run, by its number.
    #[arg(long, value_name = "N")]
    run: Option<u32>,
    /// Write them to this folder, as RUN/NAME (NODE/RUN/NAME of several nodes), instead of listing them.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(crate) async fn documents(
    client: &Client,
    kind: Kind,
    arguments: &Arguments,
    output: Output,
) -> Ended {
    let job = client.job_status(arguments.id).await?;
    let wanted = wanted(&job, kind, arguments);
    anyhow::ensure!(
        !wanted.is_empty(),
        "job {} ({}) has no such {kind}{}",
        job.id,
        state(&job),
        kind.none(&job).unwrap_or_default()
    );
    let (mut values, mut lines) = (Vec::new(), Vec::new());
    for (part, document, short) in wanted {
        let size = bytes(document.bytes);
        let path = match &arguments.out {
            Some(out) => {
                let several = job.parts.len() > 1;
                let id = part.node.as_str();
                let folder = if several { out.join(id) } else { out.clone() };
                let path = folder.join(plain(short)?);
                fetch(client, job.id, part, document, &path).await?;
                Some(path)
            }
            None => None,
        };
        lines.push(match &path {
            Some(path) => format!("wrote {} ({size})", path.display()),
            None => format!("{}: {short} ({size})", part.node_name),
        });
        values.push(json!({
            "node": part.node_name, "document": document, "path": path,
        }));
    }
    output.value(&values, || lines.join("\n"))?;
    Ok(Outcome::Done)
}

/// Those that are asked for, and their names without the folder.
fn wanted<'a>(
    job: &'a JobStatus,
    kind: Kind,
    arguments: &Arguments,
) -> Vec<(&'a JobPart, &'a Document, &'a str)> {
    let of_node = |part: &&JobPart| {
        let node = arguments.node.as_deref();
        node.is_none_or(|it| part.is_on(it))
    };
    let of_run = |short: &str| {
        let run = short.split('/').next().and_then(|run| run.parse().ok());
        arguments.run.is_none_or(|wanted| run == Some(wanted))
    };
    let all = job.parts.iter().filter(of_node).flat_map(|part| {
        let documents = part.documents.iter();
        documents.filter_map(move |document| {
            let short = document.name.strip_prefix(kind.folder())?;
            Some((part, document, short))
        })
    });
    all.filter(|(_, _, short)| of_run(short)).collect()
}

/// Names of documents are the controller's; a file is made nowhere but in the folder.
fn plain(name: &str) -> anyhow::Result<&Path> {
    let strange = |part: &str| matches!(part, "" | "." | "..") || part.contains(['\\', '\0']);
    anyhow::ensure!(
        !name.split('/').any(strange),
        "{name:?} is not the name of a document"
    );
    Ok(Path::new(name))
}

/// Under its name only when it is whole and has the digest that the node gave it.
async fn fetch(
    client: &Client,
    job: JobId,
    part: &JobPart,
    document: &Document,
    path: &Path,
) -> anyhow::Result<()> {
    let written = || format!("write {}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(folder)
        .await
        .with_context(written)?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = tokio::fs::File::create(&partial)
        .await
        .with_context(written)?;
    let node = part.node.as_str();
    let copied = client.copy_document(job, node, document, &mut file).await;
    drop(file);
    if let Err(error) = copied {
        // the error is what matters
        drop(tokio::fs::remove_file(&partial).await);
        return Err(error.into());
    }
    tokio::fs::rename(&partial, path)
        .await
        .with_context(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert_eq!(plain("3/out.json").unwrap(), Path::new("3/out.json"));
        for name in ["", "/etc/x", "3//x", "../x", "3/..", "./x", "a\0"] {
            assert!(plain(name).is_err(), "{name:?}");
        }
    }
}
