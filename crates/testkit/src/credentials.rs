//! A session's certificates for tests: the good ones, and one of each wrong kind.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pki::rustls::pki_types::CertificateDer;
use pki::rustls::pki_types::pem::PemObject as _;
use pki::rustls::{ClientConfig, RootCertStore};
use pki::{Authority, Issued, RoleName, Validity};
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::images::image_tool;
use crate::places;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// Role `admin`.
    Admin,
    /// Role `user`.
    User,
    /// Shows no certificate.
    Anonymous,
    /// Role `admin`, but over since an hour.
    Expired,
    /// Role `admin`, signed by somebody else.
    Stranger,
    /// The node's own certificate, which is for serving.
    Node,
    /// Signed by the right authority, for clients, with a role that nobody knows.
    UnknownRole,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Admin,
        Self::User,
        Self::Anonymous,
        Self::Expired,
        Self::Stranger,
        Self::Node,
        Self::UnknownRole,
    ];

    fn folder(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Anonymous => "anonymous",
            Self::Expired => "expired",
            Self::Stranger => "stranger",
            Self::Node => "node",
            Self::UnknownRole => "unknown-role",
        }
    }
}

/// What goes into a node's configuration besides its certificate.
#[derive(Debug, Clone, Default)]
pub struct ConfigOptions {
    /// SSH keys that may log in; without any, nothing listens on port 22.
    pub authorized_keys: Option<PathBuf>,
    /// The engine listens with its own mutual TLS on port 2377 as well.
    pub engine_tls: bool,
    /// A file with what lets it join a controller, which gives it its certificates: it has none before.
    pub join_token: Option<PathBuf>,
}

/// The certificates, in a temporary folder.
#[derive(Debug)]
pub struct Credentials {
    folder: TempDir,
}

fn failed<E>(what: &'static str) -> impl FnOnce(E) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| Error::Certificates {
        what,
        source: Box::new(source),
    }
}

impl Credentials {
    /// Makes all of them, for a node reached through a forwarded loopback port.
    ///
    /// # Errors
    /// [`Error::Certificates`], [`Error::File`].
    pub fn generate() -> Result<Self> {
        let folder = crate::scratch::folder("keys")?;
        let top = folder.path();
        pki::write_bundle(top, &[], Validity::days(1)).map_err(failed("a session"))?;
        let this = Self { folder };
        let authority = Authority::from_pem(&this.read("ca.pem")?, &this.read("ca.key")?)
            .map_err(failed("the authority"))?;
        let stranger = Authority::generate("somebody else").map_err(failed("an authority"))?;
        let day = Validity::days(1);
        let make = failed::<pki::Error>;
        let issue = |authority: &Authority, validity| {
            authority.issue_client("admin", RoleName::Admin, validity)
        };
        let expired = issue(&authority, Validity::expired()).map_err(make("an expired client"))?;
        let strange = issue(&stranger, day).map_err(make("a strange client"))?;
        let unknown = authority
            .issue_client_as("nobody", "emperor", day)
            .map_err(make("a client"))?;
        let node = Issued {
            cert_pem: this.read("node.pem")?,
            key_pem: this.read("node.key")?,
        };
        this.write_client(Client::Expired, Some(&expired))?;
        this.write_client(Client::Stranger, Some(&strange))?;
        this.write_client(Client::UnknownRole, Some(&unknown))?;
        this.write_client(Client::Node, Some(&node))?;
        this.write_client(Client::Anonymous, None)?;
        // The engine's own TLS shows the node's certificate too.
        this.write_files("engine", Some(&node))?;
        Ok(this)
    }

    /// Where they all are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A folder with this client's `ca.pem`, `cert.pem` and `key.pem`, as docker wants it.
    #[must_use]
    pub fn client_folder(&self, client: Client) -> PathBuf {
        self.folder.path().join(client.folder())
    }

    /// A TLS configuration that shows this client's certificate.
    ///
    /// # Errors
    /// [`Error::Certificates`], [`Error::File`].
    pub fn tls(&self, client: Client) -> Result<Arc<ClientConfig>> {
        let ca = self.read("ca.pem")?;
        if client == Client::Anonymous {
            return anonymous(&ca);
        }
        let read = |name: &str| self.read(&format!("{}/{name}", client.folder()));
        let (cert, key) = (read("cert.pem")?, read("key.pem")?);
        pki::client_config(&ca, &cert, &key).map_err(failed("a TLS configuration"))
    }

    /// Writes the extra initramfs that gives a node these credentials.
    ///
    /// # Errors
    /// [`Error::Missing`] without the image tool, [`Error::CommandFailed`] when it refuses.
    pub fn config_img(&self, options: &ConfigOptions) -> Result<PathBuf> {
        let top = self.folder.path();
        let out = top.join("config.img");
        let mut command = image_tool()?.args(["config"]).arg_path("--out", &out);
        command = match &options.join_token {
            Some(token) => command.arg_path("--join-token", token),
            None => command
                .arg_path("--ca", &top.join("ca.pem"))
                .arg_path("--cert", &top.join("node.pem"))
                .arg_path("--key", &top.join("node.key")),
        };
        if let Some(keys) = &options.authorized_keys {
            let image = places::build_dir().join("stillmetal-ssh.img");
            command = command
                .arg_path("--authorized-keys", keys)
                .arg_path("--ssh-image", &image);
        }
        if options.engine_tls {
            command = command.arg_path("--engine-tls", &top.join("engine"));
        }
        command.run_ok()?;
        Ok(out)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        fs::read_to_string(&path).map_err(Error::file("read", path))
    }

    fn write_client(&self, client: Client, issued: Option<&Issued>) -> Result<()> {
        self.write_files(client.folder(), issued)
    }

    fn write_files(&self, name: &str, issued: Option<&Issued>) -> Result<()> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            // The image tool refuses keys that others could read.
            let mut file = fs::OpenOptions::new();
            file.write(true)
                .create_new(true)
                .mode(if name == "key.pem" { 0o600 } else { 0o644 });
            file.open(&path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(Error::file("write", path))
        };
        write("ca.pem", &self.read("ca.pem")?)?;
        if let Some(issued) = issued {
            write("cert.pem", &issued.cert_pem)?;
            write("key.pem", &issued.key_pem)?;
        }
        Ok(())
    }
}

fn anonymous(ca_pem: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let cert = cert.map_err(failed("a list of authorities"))?;
        roots.add(cert).map_err(failed("a list of authorities"))?;
    }
    let config = ClientConfig::builder_with_provider(pki::provider())
        .with_safe_default_protocol_versions()
        .map_err(failed("a TLS configuration"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_has_a_configuration() {
        let credentials = Credentials::generate().unwrap();
        for client in Client::ALL {
            assert!(credentials.tls(client).is_ok(), "{client:?}");
            assert!(
                credentials.client_folder(client).join("ca.pem").is_file(),
                "{client:?}"
            );
        }
        let anonymous = credentials.client_folder(Client::Anonymous);
        assert!(!anonymous.join("cert.pem").exists());
    }
}
