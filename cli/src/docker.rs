//! The stock docker client: contexts for nodes, and images out of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use client::Client;
use tokio::process::Command;

use crate::context::Chosen;
use crate::context::Contexts;
use crate::output::Output;

/// It makes a file or two.
const WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct DockerContext {
    node: String,
    /// Print the command instead of running it.
    #[arg(long)]
    print: bool,
    /// The context's name [default: stillmetal-NODE].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// The client: `STILLMETAL_DOCKER`, that of the build, or the one in `PATH`.
pub(crate) fn program() -> Option<PathBuf> {
    testkit::docker::program().ok()
}

pub(crate) async fn make_context(
    arguments: &DockerContext,
    client: &Client,
    chosen: &Chosen,
    output: Output,
) -> anyhow::Result<()> {
    // a context for nobody would only fail later, and less clearly
    let node = client.node(&arguments.node).await?;
    let (context_name, context) = chosen.read()?;
    let folder = Contexts::of_user()?.folder(&context_name);
    let default = || format!("stillmetal-{}", node.name);
    let name = arguments.name.clone().unwrap_or_else(default);
    let host = context.docker_host(&node.name);
    let endpoint = endpoint(&host, &folder);
    let docker = program();
    let words = |verb: &str| {
        let words = ["context", verb, &name, "--docker", &endpoint];
        words.map(str::to_owned)
    };
    let Some(docker) = docker.filter(|_| !arguments.print) else {
        let program = program().unwrap_or_else(|| "docker".into());
        let command = shown(&program, &words("create"));
        let value = serde_json::json!({ "name": name, "host": host, "command": command });
        return output.value(&value, || command.clone());
    };
    let exists = run(&docker, &["context", "inspect", &name]).await?.is_ok();
    let verb = if exists { "update" } else { "create" };
    if let Err(said) = run(&docker, &words(verb)).await? {
        bail!("{}: {said}", shown(&docker, &words(verb)));
    }
    let value = serde_json::json!({ "name": name, "host": host });
    output.value(&value, || {
        format!(
            "docker context {name} leads to {}:\n  {} --context {name} info",
            node.name,
            docker.display()
        )
    })
}

/// Removes a docker context, if there is one.
pub(crate) async fn remove_context(name: &str) {
    if let Some(docker) = program() {
        // of a context that somebody removed already nothing is left to remove
        drop(run(&docker, &["context", "rm", "--force", name]).await);
    }
}

/// Names of the docker contexts whose endpoint begins so.
pub(crate) async fn contexts_of(host: &str) -> Vec<String> {
    let Some(docker) = program() else {
        return Vec::new();
    };
    let format = "{{.Name}}\t{{.DockerEndpoint}}";
    let listed = run(&docker, &["context", "ls", "--format", format]).await;
    let Ok(Ok(listed)) = listed else {
        return Vec::new();
    };
    let pairs = listed.lines().filter_map(|line| line.split_once('\t'));
    let ours = pairs.filter(|(_, endpoint)| endpoint.starts_with(host));
    ours.map(|(name, _)| name.to_owned()).collect()
}

/// What it printed, or what it complained of.
async fn run<S: AsRef<std::ffi::OsStr>>(
    docker: &Path,
    arguments: &[S],
) -> anyhow::Result<Result<String, String>> {
    let command = Command::new(docker)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(WITHIN, command)
        .await
        .with_context(|| format!("{}: no end in {WITHIN:?}", docker.display()))?
        .with_context(|| format!("start {}", docker.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    })
}

/// As `--docker` wants it: comma-separated values.
fn endpoint(host: &str, folder: &Path) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    let pairs = [
        format!("host={host}"),
        format!("ca={}", file("ca.pem")),
        format!("cert={}", file("cert.pem")),
        format!("key={}", file("key.pem")),
    ];
    pairs.map(|pair| quoted_field(&pair)).join(",")
}

fn quoted_field(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// A command line that a shell takes.
fn shown(program: &Path, arguments: &[String]) -> String {
    let program = program.display().to_string();
    let words = std::iter::once(&program).chain(arguments);
    let words: Vec<_> = words.map(|word| quoted_word(word)).collect();
    words.join(" ")
}

fn quoted_word(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_words_are_quoted_when_they_must_be() {
        let host = "tcp://127.0.0.1:7443/nodes/n1";
        assert_eq!(
            endpoint(host, Path::new("/c")),
            "host=tcp://127.0.0.1:7443/nodes/n1,ca=/c/ca.pem,cert=/c/cert.pem,key=/c/key.pem"
        );
        let strange = endpoint(host, Path::new("/a,b\"c"));
        assert!(strange.contains(",\"ca=/a,b\"\"c/ca.pem\","), "{strange}");
        let words = ["a b".to_owned(), "it's".into(), String::new(), "x=1".into()];
        let line = shown(Path::new("/bin/docker"), &words);
        assert_eq!(line, r"/bin/docker 'a b' 'it'\''s' '' x=1");
    }
}
