//! Certificates for people, made by whoever may read the authority's key.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use pki::{RoleName, Validity};

use crate::authority;

/// Longest common name in X.509 (RFC 5280, appendix A.1).
const LONGEST_NAME: usize = 64;

/// For whom a certificate is made.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where the controller keeps its authority.
    #[arg(long, value_name = "DIRECTORY")]
    pub state: PathBuf,
    /// Whose it is: queues, audit and results know the person by this name.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// `user` runs jobs and sees its own; `admin` may do everything.
    #[arg(long, default_value = "user", value_parser = role)]
    pub role: RoleName,
    /// How long it is good.
    #[arg(long, default_value = "365", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Folder to write ca.pem, cert.pem and key.pem into.
    #[arg(long, value_name = "DIRECTORY")]
    pub out: PathBuf,
}

fn role(name: &str) -> Result<RoleName, String> {
    RoleName::parse(name).ok_or_else(|| format!("`{name}` is no role: user or admin"))
}

/// Makes the certificate and its key. The controller need not run.
///
/// # Errors
/// When there is no authority, the name cannot be one, or a key is there already.
pub fn write(options: &Options) -> anyhow::Result<()> {
    let name = &options.name;
    let plain = !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.trim() == name
        && !name.contains(char::is_control);
    ensure!(
        plain,
        "{name:?} is no name of a person: 1 to {LONGEST_NAME} bytes, no control characters, no blanks around it"
    );
    let authority = options.state.join("ca.key");
    ensure!(
        authority.exists(),
        "there is no {}: start the controller once with --state {}",
        authority.display(),
        options.state.display()
    );
    let key = options.out.join("key.pem");
    ensure!(
        !key.exists(),
        "{} is there already: name another folder",
        key.display()
    );
    let authority = authority::open(&options.state).context("open the authority")?;
    let validity = Validity::days(options.days);
    authority::write_client(&authority, name, options.role, validity, &options.out)
        .context("write the certificate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    #[test]
    fn a_certificate_is_made_once_and_only_by_an_authority() {
        pki::install();
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            state: dir.path().join("state"),
            name: "ada".into(),
            role: RoleName::User,
            days: 1,
            out: dir.path().join("ada"),
        };
        let refused = |options: &Options| format!("{:#}", write(options).unwrap_err());
        assert!(refused(&options).contains("start the controller once"));
        assert!(!options.state.exists(), "no authority is made by mistake");

        std::fs::create_dir(&options.state).unwrap();
        authority::open(&options.state).unwrap();
        write(&options).unwrap();
        let pem = std::fs::read_to_string(options.out.join("cert.pem")).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let peer = pki::peer_of(&der).unwrap();
        assert_eq!((&*peer.role, &*peer.subject), ("user", "ada"));

        assert!(refused(&options).contains("is there already"));
        let nobody = Options {
            name: " ".into(),
            out: dir.path().join("nobody"),
            ..options
        };
        assert!(refused(&nobody).contains("no name of a person"));
        assert!(!nobody.out.exists());
    }
}
