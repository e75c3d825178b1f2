//! `still image`.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use api::image::ImageView;
use clap::{Args, Subcommand};
use client::{Client, Upload};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::context::Chosen;
use crate::docker;
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::Output;
use crate::progress::Progress;
use crate::quantity::{ago, bytes, now_ms};
use crate::registry;

/// Images that the controller has; they reach the nodes before a job is measured.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  still image push benchmark.tar             an archive, as `docker save` writes it
  docker save mine:1 | still image push -
  still image push docker:mine:1             the same, by your own docker client
  still image push registry:lab.example/mine:1   fetched from a registry, with docker's credentials
  still run --cpus 1 mine:1 --size 1000")]
pub(crate) struct ImageArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Send an image to the controller.
    Push {
        /// An archive as `docker save` writes it, `-` for standard input, docker:NAME of your docker client,
        /// or registry:HOST/NAME:TAG.
        #[arg(value_name = "FILE|docker:NAME|registry:NAME")]
        source: String,
    },
    /// List the images.
    List,
}

pub(crate) async fn run(arguments: ImageArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    match arguments.command {
        Task::List => list(&client.images().await?, output)?,
        Task::Push { source } => {
            let image = push(&client, &source).await?;
            output.value(&image, || {
                format!("{} {} {}", image.name, image.digest, bytes(image.bytes))
            })?;
        }
    }
    Ok(Outcome::Done)
}

fn list(images: &[ImageView], output: Output) -> anyhow::Result<()> {
    let now = now_ms();
    output.list(
        images,
        &["IMAGE", "DIGEST", "SIZE", "PUSHED", "BY"],
        |image| {
            vec![
                image.name.clone(),
                image.digest.clone(),
                bytes(image.bytes),
                ago(image.pushed_ms, now),
                image.user.clone(),
            ]
        },
    )
}

async fn push(client: &Client, source: &str) -> anyhow::Result<ImageView> {
    if let Some(name) = source.strip_prefix("docker:") {
        return push_from_docker(client, name).await;
    }
    if let Some(name) = source.strip_prefix("registry:") {
        return push_from_registry(client, name).await;
    }
    if source == "-" {
        let upload = Upload::new(tokio::io::stdin());
        return send(client, upload, None).await;
    }
    let path = Path::new(source);
    if !path.is_file() {
        return Err(Misuse::NoArchive(source.to_owned()).into());
    }
    let open = async {
        let file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        Ok::<_, std::io::Error>((file, length))
    };
    let opened = open.await;
    let (file, length) = opened.with_context(|| format!("read {source}"))?;
    send(client, Upload::new(file).bytes(length), Some(length)).await
}

async fn send(client: &Client, upload: Upload, length: Option<u64>) -> anyhow::Result<ImageView> {
    let progress = Progress::bytes("sending", length);
    let upload = upload.progress(progress.follower());
    let image = client.push_image(upload).await;
    progress.clear();
    Ok(image?)
}

async fn push_from_registry(client: &Client, name: &str) -> anyhow::Result<ImageView> {
    let progress = Progress::stages();
    let fetched = registry::fetch(name, &progress).await;
    progress.clear();
    let archive = fetched?;
    let file = archive.file.reopen().context("read the image's archive")?;
    let file = tokio::fs::File::from_std(file);
    let upload = Upload::new(file).bytes(archive.length);
    send(client, upload, Some(archive.length)).await
}

async fn push_from_docker(client: &Client, name: &str) -> anyhow::Result<ImageView> {
    let docker = docker::program().context("find a docker client: there is none in PATH")?;
    let mut child = Command::new(&docker)
        .args(["save", "--", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", docker.display()))?;
    let archive = child.stdout.take().context("read what docker saves")?;
    let complaints = child.stderr.take().context("read what docker says")?;
    let saved = SavedBy { archive, child };
    let (sent, said) = tokio::join!(
        send(client, Upload::new(saved), None),
        read_some(complaints)
    );
    match sent {
        Ok(image) => Ok(image),
        Err(error) if said.is_empty() => Err(error),
        Err(error) => bail!("docker save {name}: {said}; {error:#}"),
    }
}

/// The beginning; the rest is read and forgotten, so that the writer does not stand still.
async fn read_some(mut source: impl AsyncRead + Unpin) -> String {
    let mut begin = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(count @ 1..) = source.read(&mut piece).await {
        if begin.len() < 2000 {
            begin.extend_from_slice(&piece[..count]);
        }
    }
    String::from_utf8_lossy(&begin).trim().to_owned()
}

/// What a process writes; its end is one only if the process did not fail.
struct SavedBy {
    archive: tokio::process::ChildStdout,
    child: tokio::process::Child,
}

impl AsyncRead for SavedBy {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        use std::future::Future as _;
        use std::pin::{Pin, pin};
        use std::task::{Poll, ready};
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.archive).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        // half an archive must not look like a whole one
        let status = ready!(pin!(self.child.wait()).poll(context))?;
        Poll::Ready(if status.success() {
            Ok(())
        } else {
            Err(std::io::Error::other(format!("docker save: {status}")))
        })
    }
}
