//! Noise certificates: shown, and checked against who signed them. Asks nobody.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use quiet::Certificate;
use serde::Serialize;
use stillmetal_node::certify;

use crate::outcome::{Ended, Outcome};
use crate::output::Output;

/// Check that a noise certificate is as a node signed it; what was changed is named if not.
#[derive(Debug, Args)]
#[command(
    after_help = "It needs no controller and no network. Exit code 1 if anything is not as it was signed.

Examples:
  still job certificate 7 --out proof && still verify --ca ca.pem proof
  still verify certificate-1.json            whether it was changed, whoever signed it"
)]
pub(crate) struct VerifyArguments {
    /// Certificates, or folders of them.
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// Certificate (PEM) of the authority that the signer must be of; without it, only that nothing was
    /// changed since some node signed it is known.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// What a check comes to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Checked {
    pub(crate) intact: bool,
    /// Common name of the node that signed.
    pub(crate) signer: Option<String>,
    /// The signer is of the authority that was asked for.
    pub(crate) trusted: bool,
    pub(crate) verdict: Option<quiet::Verdict>,
    /// What is not as it was signed.
    pub(crate) broken: Option<String>,
}

/// Checks seal, signer and verdict of a certificate's text.
pub(crate) fn check(text: &str, authority: Option<&str>) -> Checked {
    let broken = |signer, why: String| Checked {
        intact: false,
        signer,
        trusted: false,
        verdict: None,
        broken: Some(why),
    };
    let signer = match certify::verify(text, authority) {
        Ok(signer) => signer,
        Err(error) => return broken(None, format!("{:#}", anyhow::Error::from(error))),
    };
    let certificate: Certificate = match serde_json::from_str(text) {
        Ok(certificate) => certificate,
        Err(error) => return broken(Some(signer), format!("no noise certificate: {error}")),
    };
    if !certificate.is_consistent() {
        let why =
            "it is as it was signed, but this version's rules give its evidence another verdict";
        return broken(Some(signer), why.into());
    }
    Checked {
        intact: true,
        signer: Some(signer),
        trusted: authority.is_some(),
        verdict: Some(certificate.verdict),
        broken: None,
    }
}

impl Checked {
    /// On one line, of the document called `name`.
    pub(crate) fn line(&self, name: &str) -> String {
        let signer = self.signer.as_deref().unwrap_or("nobody");
        match (&self.broken, self.verdict) {
            (None, Some(verdict)) => {
                let trust = match self.trusted {
                    true => "of the given authority",
                    false => "whoever that is: give --ca to know",
                };
                format!("intact {name}: {verdict}, signed by {signer}, {trust}")
            }
            (broken, _) => format!(
                "BROKEN {name}: {}",
                broken.as_deref().unwrap_or("unreadable")
            ),
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    file: PathBuf,
    #[serde(flatten)]
    checked: Checked,
}

pub(crate) fn verify(arguments: &VerifyArguments, output: Output) -> Ended {
    let authority = arguments.ca.as_deref().map(read).transpose()?;
    let mut rows = Vec::new();
    for path in &arguments.paths {
        for file in files(path)? {
            let checked = check(&read(&file)?, authority.as_deref());
            rows.push(Row { file, checked });
        }
    }
    output.value(&rows, || {
        let lines = rows
            .iter()
            .map(|row| row.checked.line(&row.file.display().to_string()));
        lines.collect::<Vec<_>>().join("\n")
    })?;
    Ok(match rows.iter().all(|row| row.checked.intact) {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}

/// Whether a document of a job is a certificate.
pub(crate) fn is_certificate(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.starts_with("certificate") && file.ends_with(".json")
}

/// The file, or the certificates of a folder and the folders in it.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let entries = entries.with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            // links are not followed: they could lead in a circle
            let kind = entry.file_type()?;
            let name = entry.file_name();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_certificate(&name.to_string_lossy()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    ensure!(
        !found.is_empty(),
        "there is no certificate in {}",
        path.display()
    );
    Ok(found)
}

fn read(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
