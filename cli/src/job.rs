//! `still job`: one job.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::job::{JobId, JobPart, JobStatus};
use api::work::Document;
use clap::{Args, Subcommand, ValueEnum};
use client::{Client, Download, LogStream};
use serde_json::json;

use crate::artifacts;
use crate::bundle::verify::LONGEST_CERTIFICATE;
use crate::certificates::{Checked, check, is_certificate};
use crate::context::Chosen;
use crate::jobs::{name, state};
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::{Output, fields, raw, raw_error};
use crate::quantity::{ahead, bytes, now_ms, seconds};
use crate::result::{self, PartResult};

/// Look at one job, read what it wrote, or end it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  still job show 7
  still job why 7                        what it waits for, and when it could start
  still job logs 7 --stream stderr
  still job certificate 7 --out proof    the proofs of its runs, for still verify
  still job artifacts 7 --out results    what its runs left
  still job tools 7 --out series         what tools saw while they ran
  still job cancel 7 --reason 'wrong image'")]
pub(crate) struct JobArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show all that is known of a job, with its result.
    Show { id: JobId },
    /// Say what a job waits for, and when it could start.
    Why { id: JobId },
    /// Print what a job wrote.
    Logs(Logs),
    /// End a job, wherever it stands. What it has produced is kept.
    Cancel {
        id: JobId,
        /// For the history.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Show the noise certificates of a job's runs, checked against who signed them.
    Certificate(Certificates),
    /// List what a job's runs left (`still run --artifact`), or fetch it, checked against its digests.
    Artifacts(artifacts::Arguments),
    /// List what tools saw of a job's runs (`still run --tool`), or fetch it, checked against its digests.
    Tools(artifacts::Arguments),
}

#[derive(Debug, Args)]
struct Logs {
    id: JobId,
    /// Go on with what it writes until it ends. That makes traffic on the node while it is measured, and is
    /// noted with the result.
    #[arg(long, short)]
    follow: bool,
    #[arg(long, value_enum, default_value_t = Stream::Stdout)]
    stream: Stream,
    /// Of a job on several nodes: which.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Args)]
struct Certificates {
    id: JobId,
    /// Only this node's.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only that of this run: the number in its name.
    #[arg(long, value_name = "N")]
    run: Option<u32>,
    /// Write them to this folder, byte by byte, instead of showing them.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(arguments: JobArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    match arguments.command {
        Task::Show { id } => show(&client, id, output).await?,
        Task::Why { id } => why(&client, id, output).await?,
        Task::Logs(arguments) => logs(&client, &arguments).await?,
        Task::Cancel { id, reason } => {
            let job = client.cancel(id, reason.as_deref()).await?;
            output.value(&job, || format!("job {id}: {}", state(&job)))?;
        }
        Task::Certificate(arguments) => {
            return certificates(&client, &arguments, chosen, output).await;
        }
        Task::Artifacts(arguments) => {
            let kind = artifacts::Kind::Artifacts;
            return artifacts::documents(&client, kind, &arguments, output).await;
        }
        Task::Tools(arguments) => {
            let kind = artifacts::Kind::Tools;
            return artifacts::documents(&client, kind, &arguments, output).await;
        }
    }
    Ok(Outcome::Done)
}

async fn show(client: &Client, id: JobId, output: Output) -> anyhow::Result<()> {
    let job = client.job_status(id).await?;
    show_with_result(client, &job, output).await
}

/// Prints all that is known of a job.
pub(crate) async fn show_with_result(
    client: &Client,
    job: &JobStatus,
    output: Output,
) -> anyhow::Result<()> {
    let results = result::fetch(client, job).await?;
    let value = json!({ "job": job, "results": results });
    output.value(&value, || describe(job, &results))
}

fn describe(job: &JobStatus, results: &[PartResult]) -> String {
    let request = &job.request;
    let (place, measure, limits) = (&request.place, &request.measure, &request.limits);
    let argv = match &request.command {
        Some(command) => command.join(" "),
        None => request.argv.join(" "),
    };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let labels: Vec<_> = place
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let mut pairs = vec![
        ("name", some(name(job))),
        ("arguments", some(argv)),
        ("user", Some(job.user.clone())),
        ("queue", Some(request.queue.clone())),
        ("asks for", Some(asks_for(job))),
        ("labels", some(labels.join(" "))),
        (
            "measures",
            Some(format!(
                "{} repetitions, {} warm-ups, {} attempts each, class {}, canary {} s",
                measure.repetitions,
                measure.warmups,
                measure.attempts,
                measure.class,
                measure.canary_seconds
            )),
        ),
        ("tools", some(request.tools.join(", "))),
        ("run limit", Some(seconds(limits.run_seconds.into()))),
    ];
    pairs.extend(result::times(job));
    if job.attempts > 1 {
        pairs.push(("attempts", Some(job.attempts.to_string())));
    }
    for part in &job.parts {
        for document in &part.documents {
            let size = bytes(document.bytes);
            let text = format!("{}: {} ({size})", part.node_name, document.name);
            pairs.push(("document", Some(text)));
        }
    }
    let mut text = result::block(job, results);
    text.push_str(&fields(&pairs));
    text
}

fn asks_for(job: &JobStatus) -> String {
    let place = &job.request.place;
    let mut text = match place.nodes {
        1 => String::new(),
        nodes => format!("{nodes} nodes, each with "),
    };
    let isolated = if place.unisolated { "" } else { "isolated " };
    let plural = if place.cpus == 1 { "" } else { "s" };
    text.push_str(&format!("{} {isolated}CPU{plural}", place.cpus));
    if let Some(memory) = place.memory_bytes {
        text.push_str(&format!(", {}", bytes(memory)));
    }
    for (what, glob) in [("node", &place.node), ("class", &place.class)] {
        if let Some(glob) = glob {
            text.push_str(&format!(", {what} {glob}"));
        }
    }
    for device in &place.devices {
        text.push_str(&format!(", device {device}"));
    }
    if place.share {
        text.push_str(", may share its nodes");
    }
    text
}

async fn why(client: &Client, id: JobId, output: Output) -> anyhow::Result<()> {
    let job = client.job_status(id).await?;
    let why = client.why(id).await?;
    output.value(&why, || {
        let mut lines = vec![format!("job {id}: {}", state(&job))];
        lines.extend(why_lines(&why));
        lines.join("\n")
    })
}

/// What a job waits for, a line each.
pub(crate) fn why_lines(why: &client::Why) -> Vec<String> {
    let words: Vec<String> = match &why.text[..] {
        [] => why
            .reasons
            .iter()
            .map(|reason| reason.code.clone())
            .collect(),
        text => text.to_vec(),
    };
    let mut lines: Vec<_> = words.iter().map(|line| format!("  {line}")).collect();
    if let Some(start) = why.could_start_ms {
        lines.push(format!("  it could start {}", ahead(start, now_ms())));
    }
    lines
}

async fn logs(client: &Client, arguments: &Logs) -> anyhow::Result<()> {
    let stream = match arguments.stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
    };
    let mut node = arguments.node.clone();
    if node.is_none() {
        let job = client.job_status(arguments.id).await?;
        node = match &job.parts[..] {
            [] => None,
            [only] => Some(only.node.to_string()),
            _ => return Err(Misuse::WhichNode(arguments.id).into()),
        };
    }
    let node = node.as_deref();
    let mut log = match arguments.follow {
        true => client.follow_logs(arguments.id, stream, node).await?,
        false => client.logs(arguments.id, stream, node).await?,
    };
    copy(&mut log, LogStream::Stdout, 0).await
}

/// Copies a download from a byte on.
pub(crate) async fn copy(
    download: &mut Download,
    to: LogStream,
    mut skip: u64,
) -> anyhow::Result<()> {
    while let Some(chunk) = download.chunk().await? {
        let skipped = usize::try_from(skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
        skip -= skipped as u64;
        print(to, &chunk[skipped..])?;
    }
    Ok(())
}

/// Prints what a job wrote, where it wrote it.
pub(crate) fn print(to: LogStream, bytes: &[u8]) -> anyhow::Result<()> {
    match to {
        LogStream::Stdout => raw(bytes),
        LogStream::Stderr => {
            raw_error(bytes);
            Ok(())
        }
    }
}

async fn certificates(
    client: &Client,
    arguments: &Certificates,
    chosen: &Chosen,
    output: Output,
) -> Ended {
    let job = client.job_status(arguments.id).await?;
    let (_, context) = chosen.read()?;
    let wanted: Vec<(&JobPart, &Document)> = job
        .parts
        .iter()
        .filter(|part| {
            let node = arguments.node.as_deref();
            node.is_none_or(|it| part.is_on(it))
        })
        .flat_map(|part| part.documents.iter().map(move |document| (part, document)))
        .filter(|(_, document)| is_certificate(&document.name))
        .filter(|(_, document)| {
            arguments
                .run
                .is_none_or(|run| is_of_run(&document.name, run))
        })
        .collect();
    anyhow::ensure!(
        !wanted.is_empty(),
        "job {} ({}) has no such certificate",
        job.id,
        state(&job)
    );
    let (mut values, mut texts, mut intact) = (Vec::new(), Vec::new(), true);
    for (part, document) in wanted {
        let id = part.node.as_str();
        let fetched = client.fetch_document(job.id, id, document, LONGEST_CERTIFICATE);
        let text = String::from_utf8(fetched.await?).context("read a certificate")?;
        let name = format!("{} of {}", document.name, part.node_name);
        let checked = check(&text, Some(&context.ca_pem));
        intact &= checked.intact;
        let mut shown = match &arguments.out {
            Some(out) => {
                let several = job.parts.len() > 1;
                let folder = if several { out.join(id) } else { out.clone() };
                let path = save(&folder, &document.name, &text)?;
                format!("wrote {}\n", path.display())
            }
            None => render(&text),
        };
        shown.push_str(&checked.line(&name));
        values.push(value(part, document, &checked, &text));
        texts.push(shown);
    }
    output.value(&values, || texts.join("\n\n"))?;
    Ok(if intact {
        Outcome::Done
    } else {
        Outcome::Failed
    })
}

fn value(part: &JobPart, document: &Document, checked: &Checked, text: &str) -> serde_json::Value {
    let certificate: Option<serde_json::Value> = serde_json::from_str(text).ok();
    json!({
        "node": part.node_name,
        "name": document.name,
        "checked": checked,
        "certificate": certificate,
    })
}

fn render(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(certificate) => quiet::render(&certificate),
        Err(_) => String::new(),
    }
}

/// `certificate-3.json` is that of run 3.
fn is_of_run(name: &str, run: u32) -> bool {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    digits.parse() == Ok(run)
}

/// Names of documents are the controller's; a file is made nowhere but in `folder`.
fn save(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let flat: String = name.replace('/', "-");
    let path = folder.join(flat);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, text))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
