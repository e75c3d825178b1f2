//! TLS configurations for both ends.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::Error;
use crate::provider::provider;
use crate::verifier::ClientVerifier;

/// What is spoken inside TLS, as both ends name it in the handshake (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `crates/tunnel`: from a node to its controller.
    Tunnel,
    /// HTTP/1.1.
    Http,
}

impl Protocol {
    /// Its name on the wire.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Tunnel => b"stillmetal-tunnel/1",
            Self::Http => b"http/1.1",
        }
    }

    /// The protocol of this name. Who names none speaks HTTP.
    pub fn of(alpn: Option<&[u8]>) -> Option<Self> {
        let Some(name) = alpn else {
            return Some(Self::Http);
        };
        [Self::Tunnel, Self::Http]
            .into_iter()
            .find(|protocol| protocol.alpn() == name)
    }
}

/// Serves with this certificate and demands a certificate of the same authority with a client role.
///
/// Sessions are not resumed: each connection shows its certificate anew, so that one which has
/// expired meanwhile is refused and the role is always read from a certificate just verified.
///
/// # Errors
/// When a PEM text is malformed, or certificate and key do not belong together.
pub fn server_config(
    ca_pem: &str,
    cert_pem: &str,
    key_pem: &str,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider())
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|source| Error::Tls {
            what: "protocol versions",
            source,
        })?
        .with_client_cert_verifier(Arc::new(ClientVerifier { chain: verifier }))
        .with_single_cert(
            chain(cert_pem, "node's certificate")?,
            key(key_pem, "node's key")?,
        )
        .map_err(|source| Error::Tls {
            what: "node's certificate and key",
            source,
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Calls with this certificate and trusts this authority only.
///
/// # Errors
/// When a PEM text is malformed, or certificate and key do not belong together.
pub fn client_config(
    ca_pem: &str,
    cert_pem: &str,
    key_pem: &str,
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|source| Error::Tls {
            what: "protocol versions",
            source,
        })?
        .with_root_certificates(roots(ca_pem)?)
        .with_client_auth_cert(
            chain(cert_pem, "client's certificate")?,
            key(key_pem, "client's key")?,
        )
        .map_err(|source| Error::Tls {
            what: "client's certificate and key",
            source,
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

pub(crate) fn roots(ca_pem: &str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for cert in chain(ca_pem, "authority's certificate")? {
        store.add(cert).map_err(|source| Error::Tls {
            what: "authority's certificate",
            source,
        })?;
    }
    Ok(store)
}

pub(crate) fn chain(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certs = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| Error::Pem { what, source })?;
    if certs.is_empty() {
        Err(Error::Empty { what })
    } else {
        Ok(certs)
    }
}

pub(crate) fn key(pem: &str, what: &'static str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| Error::Pem { what, source })
}
