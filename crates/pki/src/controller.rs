//! TLS of the controller's one port: nodes, API clients, and whoever has no certificate yet.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};

use crate::Error;
use crate::authority::RoleName;
use crate::certificate::{parse, significant};
use crate::provider::provider;
use crate::role::{NODE_ROLE, peer_of};
use crate::tls::{Protocol, chain, key, roots};

/// Which certificates count no more although their time is not over.
pub trait Revocation: Send + Sync {
    /// Asked during each handshake, so it must answer at once. The number comes without leading
    /// zero bytes; [`serial_hex`](crate::serial_hex) writes it as
    /// [`SignedCert`](crate::SignedCert) does.
    fn is_revoked(&self, serial: &[u8]) -> bool;
}

/// Serves the controller's port.
///
/// - TLS 1.3 and nothing older; the protocols are [`Protocol::Tunnel`] and [`Protocol::Http`], or
///   none named.
/// - A client may come without a certificate; what it may do then is the application's decision. One
///   that it shows must be of this authority, neither expired nor revoked, and carry the role
///   `admin`, `user` or `node`, or there is no handshake. [`peer_of`] says whose it is.
/// - The authority's certificate is sent along, so that a node which knows only its
///   [`Pin`](crate::Pin) can check the rest.
/// - Sessions are not resumed: each connection shows its certificate anew.
///
/// # Errors
/// When a PEM text is malformed, or certificate and key do not belong together.
pub fn controller_server_config(
    ca_pem: &str,
    cert_pem: &str,
    key_pem: &str,
    revocation: Arc<dyn Revocation>,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider())
            .allow_unauthenticated()
            .build()?;
    let mut certificates = chain(cert_pem, "controller's certificate")?;
    for authority in chain(ca_pem, "authority's certificate")? {
        if !certificates.contains(&authority) {
            certificates.push(authority);
        }
    }
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| Error::Tls {
            what: "protocol version",
            source,
        })?
        .with_client_cert_verifier(Arc::new(CallerVerifier {
            chain: verifier,
            revocation,
        }))
        .with_single_cert(certificates, key(key_pem, "controller's key")?)
        .map_err(|source| Error::Tls {
            what: "controller's certificate and key",
            source,
        })?;
    config.alpn_protocols = [Protocol::Tunnel, Protocol::Http]
        .map(|protocol| protocol.alpn().to_vec())
        .into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// webpki's verifier of chains, then the role, then revocation.
struct CallerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    revocation: Arc<dyn Revocation>,
}

impl fmt::Debug for CallerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerVerifier")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for CallerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        let role_known = peer_of(end_entity)
            .is_ok_and(|peer| peer.role == NODE_ROLE || RoleName::parse(&peer.role).is_some());
        if !role_known {
            // The client sees "access denied".
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let certificate = parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        if self
            .revocation
            .is_revoked(significant(certificate.raw_serial()))
        {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
