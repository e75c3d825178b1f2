//! Noise certificates, and bundles of results with them: checked against who signed them. Asks nobody.

use std::fs::{self, File};
use std::io::{BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use quiet::Certificate;
use serde::Serialize;
use stillmetal_node::certify;

use crate::bundle::verify::{Contents, Failure, LONGEST_CERTIFICATE};
use crate::bundle::{self, verify};
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::Output;
use crate::text::count;

/// Check that noise certificates and bundles of results are as they were; what was changed is named.
#[derive(Debug, Args)]
#[command(
    after_help = "It needs no controller and no network. Exit code 1 if anything is not as it was signed.

Examples:
  still results export 7 && still verify --ca ca.pem job-7.tar
  still job certificate 7 --out proof && still verify --ca ca.pem proof
  still verify certificate-1.json            whether it was changed, whoever signed it"
)]
pub(crate) struct VerifyArguments {
    /// Bundles (job-7.tar), certificates, or folders of them.
    #[arg(required = true, value_name = "PATH")]
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

/// What a bundle comes to.
#[derive(Debug, Serialize)]
struct CheckedBundle {
    intact: bool,
    /// Its certificates are of the authority that was asked for, and there are some.
    trusted: bool,
    bundle: Option<Contents>,
    /// What is not as it was.
    broken: Option<String>,
}

impl CheckedBundle {
    fn of(result: Result<Contents, Failure>, given: bool) -> anyhow::Result<Self> {
        let (bundle, broken) = match result {
            Ok(contents) => (Some(contents), None),
            Err(Failure::Changed(changed)) => (None, Some(changed.to_string())),
            Err(failure @ Failure::Read(_)) => return Err(failure.into()),
        };
        let signed = bundle.as_ref().is_some_and(|it| it.certificates > 0);
        Ok(Self {
            intact: broken.is_none(),
            trusted: given && signed,
            bundle,
            broken,
        })
    }

    fn line(&self, name: &str) -> String {
        let Some(contents) = &self.bundle else {
            let broken = self.broken.as_deref();
            return format!("BROKEN {name}: {}", broken.unwrap_or("unreadable"));
        };
        let mut lines = vec![format!("intact {name}: {}", count(contents.files, "file"))];
        for job in &contents.jobs {
            let verdict = job.verdict.map(|verdict| format!(", {verdict}"));
            let proof = match job.certificates {
                0 => "no certificate: nothing of it is signed".to_owned(),
                many => count(many, "certificate"),
            };
            let verdict = verdict.unwrap_or_default();
            lines.push(format!("  job {}: {}{verdict}, {proof}", job.id, job.state));
        }
        let signers: Vec<_> = contents.signers.iter().map(String::as_str).collect();
        let signers = signers.join(", ");
        match (contents.certificates, self.trusted) {
            (0, _) => {}
            (_, true) => lines.push(format!("  signed by {signers} of the given authority")),
            (_, false) => lines.push(format!(
                "  signed by {signers} of the authority in the bundle; give --ca to check that it is yours"
            )),
        }
        lines.join("\n")
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Kind {
    Certificate(Checked),
    Bundle(CheckedBundle),
}

#[derive(Debug, Serialize)]
struct Row {
    file: PathBuf,
    #[serde(flatten)]
    kind: Kind,
}

impl Row {
    fn intact(&self) -> bool {
        match &self.kind {
            Kind::Certificate(checked) => checked.intact,
            Kind::Bundle(checked) => checked.intact,
        }
    }

    fn line(&self) -> String {
        let name = self.file.display().to_string();
        match &self.kind {
            Kind::Certificate(checked) => checked.line(&name),
            Kind::Bundle(checked) => checked.line(&name),
        }
    }
}

pub(crate) fn verify(arguments: &VerifyArguments, output: Output) -> Ended {
    let authority = arguments.ca.as_deref().map(read).transpose()?;
    if let (Some(path), Some(pem)) = (&arguments.ca, &authority)
        && !pem.contains("-----BEGIN CERTIFICATE-----")
    {
        return Err(Misuse::NoAuthority(path.clone()).into());
    }
    let mut rows = Vec::new();
    for path in &arguments.paths {
        for file in files(path)? {
            let kind = check_file(&file, authority.as_deref())?;
            rows.push(Row { file, kind });
        }
    }
    output.value(&rows, || {
        let lines = rows.iter().map(Row::line);
        lines.collect::<Vec<_>>().join("\n")
    })?;
    Ok(match rows.iter().all(Row::intact) {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}

fn check_file(path: &Path, authority: Option<&str>) -> anyhow::Result<Kind> {
    let failed = || format!("read {}", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let mut beginning = Vec::new();
    // a tar's first block
    let begins = (&mut file).take(512).read_to_end(&mut beginning);
    begins.and_then(|_| file.rewind()).with_context(failed)?;
    if bundle::is_bundle(&path.display().to_string(), &beginning) {
        let result = verify::verify(BufReader::new(file), authority);
        let checked = CheckedBundle::of(result, authority.is_some()).with_context(failed)?;
        return Ok(Kind::Bundle(checked));
    }
    let mut text = Vec::new();
    // one more than there may be
    let all = file.take(LONGEST_CERTIFICATE + 1).read_to_end(&mut text);
    let bytes = all.with_context(failed)?;
    let broken = |why: String| Checked {
        intact: false,
        signer: None,
        trusted: false,
        verdict: None,
        broken: Some(why),
    };
    Ok(Kind::Certificate(match String::from_utf8(text) {
        _ if bytes as u64 > LONGEST_CERTIFICATE => broken(format!(
            "more than {LONGEST_CERTIFICATE} bytes: no certificate is that long"
        )),
        Ok(text) => check(&text, authority),
        Err(_) => broken("neither a certificate nor a bundle: it is no text, and no tar".into()),
    }))
}

/// Whether a document of a job is a certificate.
pub(crate) fn is_certificate(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.starts_with("certificate") && file.ends_with(".json")
}

/// The name that a bundle gets by itself.
fn is_named_as_bundle(name: &str) -> bool {
    name.starts_with("job-") && name.ends_with(".tar")
}

/// The file, or the certificates and bundles of a folder and the folders in it.
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
                continue;
            }
            let name = name.to_string_lossy();
            if kind.is_file() && (is_certificate(&name) || is_named_as_bundle(&name)) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    ensure!(
        !found.is_empty(),
        "there is no certificate and no bundle (job-….tar) in {}",
        path.display()
    );
    Ok(found)
}

fn read(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
