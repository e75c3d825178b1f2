//! `certificate` and `verify`: what to do with a noise certificate's file, on any machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use quiet::Certificate;
use stillmetal_node::certify;

/// Exit code when the document is not what a node signed.
const BROKEN: u8 = 1;

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// A certificate, as GET /stillmetal/v1/certificates/ID gives it.
    file: PathBuf,
    /// Write the timeline of interruptions to this file too: a picture (SVG) of a run that was traced
    /// (label stillmetal.trace=true). A file that is there is replaced.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// A certificate, as GET /stillmetal/v1/certificates/ID gives it.
    file: PathBuf,
    /// Certificate (PEM) of the authority that the node must be of; without it, only that nothing was
    /// changed since some node signed it is known.
    #[arg(long)]
    ca: Option<PathBuf>,
}

/// Prints the certificate on one screen, and draws it.
pub(crate) fn show(arguments: &ShowArguments) -> anyhow::Result<ExitCode> {
    let certificate: Certificate = serde_json::from_str(&read(&arguments.file)?)
        .with_context(|| format!("{} is no noise certificate", arguments.file.display()))?;
    print!("{}", quiet::render(&certificate));
    if let Some(svg) = &arguments.svg {
        let picture = quiet::timeline(&certificate)
            .with_context(|| format!("no picture of {}", arguments.file.display()))?;
        std::fs::File::create(svg)
            .and_then(|mut file| file.write_all(picture.as_bytes()))
            .with_context(|| format!("write {}", svg.display()))?;
        println!("\nwrote {}", svg.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks seal and verdict without asking anybody.
pub(crate) fn verify(arguments: &VerifyArguments) -> anyhow::Result<ExitCode> {
    let text = read(&arguments.file)?;
    let authority = arguments.ca.as_deref().map(read).transpose()?;
    let file = arguments.file.display();
    let signer = match certify::verify(&text, authority.as_deref()) {
        Ok(signer) => signer,
        Err(broken) => {
            println!("BROKEN {file}: {}", stillmetal_node::chain(&broken));
            return Ok(BROKEN.into());
        }
    };
    let certificate: Certificate =
        serde_json::from_str(&text).with_context(|| format!("{file} is no noise certificate"))?;
    if !certificate.is_consistent() {
        println!(
            "BROKEN {file}: it is as {signer} signed it, but this version's rules give its evidence another verdict"
        );
        return Ok(BROKEN.into());
    }
    let trust = if authority.is_some() {
        "of the given authority"
    } else {
        "whoever that is: give --ca to know"
    };
    println!(
        "intact {file}: {} ({:?}), signed by {signer}, {trust}",
        certificate.verdict, certificate.outcome
    );
    Ok(ExitCode::SUCCESS)
}

fn read(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
