//! `credentials`: a small certificate authority for a lab without a controller.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct CredentialsArguments {
    /// Directory for the authority, the node's certificate and the clients' (admin/, user/).
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A name or address by which clients reach the node; repeatable or separated by commas.
    #[arg(long = "name", value_name = "NAME", value_delimiter = ',')]
    names: Vec<String>,
    /// How long the certificates are valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

pub(crate) fn run(arguments: &CredentialsArguments) -> anyhow::Result<ExitCode> {
    let authority = arguments.out.join("ca.key");
    ensure!(
        !authority.exists(),
        "{} exists: certificates that it signed would become useless; choose another directory",
        authority.display()
    );
    let names: Vec<&str> = arguments.names.iter().map(String::as_str).collect();
    pki::write_bundle(&arguments.out, &names, pki::Validity::days(arguments.days))
        .with_context(|| format!("write certificates to {}", arguments.out.display()))?;
    println!("{}", arguments.out.display());
    Ok(ExitCode::SUCCESS)
}
