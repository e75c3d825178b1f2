//! Calling the controller: by its authority's hash at first, by its authority's certificate later.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::Error;
use crate::certificate::{common_name, moment, parse};
use crate::pin::Pin;
use crate::provider::provider;
use crate::role::{CONTROLLER_ROLE, has_role};
use crate::tls::{Protocol, chain, key};

/// By what a caller knows the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// By the hash of its authority's certificate, which the controller sends along.
    Pin(Pin),
    /// By its authority's certificate (PEM).
    Ca(String),
}

/// Why a server is not the controller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerRefused {
    /// None of the certificates that it sent is the authority that was pinned.
    #[error("the server's authority is not {wanted}; it sent {}", Pins(sent))]
    NotPinned {
        /// The pin.
        wanted: Pin,
        /// Of all that it sent beside its own.
        sent: Vec<Pin>,
    },
    /// The authority's own certificate.
    #[error("the certificate of the authority {subject:?} is not valid now; check the clock")]
    AuthorityNotValidNow {
        /// Its common name.
        subject: String,
    },
    /// It may not issue certificates.
    #[error("the certificate of {subject:?} is no authority's")]
    NotAnAuthority {
        /// Its common name.
        subject: String,
    },
    /// A good certificate, but a node's, say.
    #[error("the certificate of {subject:?} is not a controller's")]
    NotController {
        /// Its common name.
        subject: String,
    },
}

impl ServerRefused {
    /// Finds the reason in what a failed handshake says.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(
                inner,
            )))) = error.downcast_ref::<rustls::Error>()
            {
                return inner.downcast_ref();
            }
            // What an input error is made of is not among its sources.
            next = match error.downcast_ref::<std::io::Error>() {
                Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
                None => error.source(),
            };
        }
        None
    }
}

impl From<ServerRefused> for rustls::Error {
    fn from(refused: ServerRefused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}

struct Pins<'a>(&'a [Pin]);

impl fmt::Display for Pins<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no authority's certificate at all"),
            pins => {
                for (index, pin) in pins.iter().enumerate() {
                    write!(f, "{}{pin}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

/// How a node calls its controller, with its certificate and key (both PEM) if it has them.
///
/// - TLS 1.3 and nothing older; nothing is resumed.
/// - The server must be the controller: its certificate has that role, and is good for the name that
///   was dialled. A node's certificate for serving, though of the same authority, will not do.
/// - An authority whose own certificate has expired is trusted no more. webpki does not look.
///
/// # Errors
/// When a PEM text is malformed, or certificate and key do not belong together.
pub fn node_client_config(
    trust: &Trust,
    identity: Option<(&str, &str)>,
    protocol: Protocol,
) -> Result<Arc<ClientConfig>, Error> {
    let anchors = match trust {
        Trust::Pin(pin) => Anchors::Pinned(*pin),
        Trust::Ca(pem) => Anchors::Known(chain(pem, "authority's certificate")?),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| Error::Tls {
            what: "protocol version",
            source,
        })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ControllerVerifier { anchors }));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert_pem, key_pem)) => builder
            .with_client_auth_cert(
                chain(cert_pem, "client's certificate")?,
                key(key_pem, "client's key")?,
            )
            .map_err(|source| Error::Tls {
                what: "client's certificate and key",
                source,
            })?,
    };
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// How a client of the API calls the controller: [`node_client_config`] for [`Protocol::Http`].
///
/// # Errors
/// As there.
pub fn api_client_config(
    trust: &Trust,
    identity: Option<(&str, &str)>,
) -> Result<Arc<ClientConfig>, Error> {
    node_client_config(trust, identity, Protocol::Http)
}

#[derive(Debug)]
enum Anchors {
    Pinned(Pin),
    Known(Vec<CertificateDer<'static>>),
}

/// Accepts the controller and nobody else.
#[derive(Debug)]
struct ControllerVerifier {
    anchors: Anchors,
}

impl ControllerVerifier {
    /// The authorities that may have issued the server's certificate.
    fn roots(
        &self,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<RootCertStore, rustls::Error> {
        let trusted: Vec<&CertificateDer<'_>> = match &self.anchors {
            Anchors::Known(known) => known.iter().collect(),
            Anchors::Pinned(pin) => sent.iter().filter(|cert| Pin::of(cert) == *pin).collect(),
        };
        if let (Anchors::Pinned(wanted), []) = (&self.anchors, &trusted[..]) {
            let (wanted, sent) = (*wanted, sent.iter().map(Pin::of).collect());
            return Err(ServerRefused::NotPinned { wanted, sent }.into());
        }
        let mut roots = RootCertStore::empty();
        let mut refused = None;
        for authority in trusted {
            match check_authority(authority, now) {
                Ok(()) => roots.add(authority.clone().into_owned())?,
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if roots.is_empty() => Err(error),
            _ => Ok(roots),
        }
    }
}

fn check_authority(authority: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let parsed = parse(authority).ok_or(CertificateError::BadEncoding)?;
    let subject = common_name(&parsed);
    if !parsed.is_ca() {
        return Err(ServerRefused::NotAnAuthority { subject }.into());
    }
    let validity = parsed.validity();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
    if now < moment(validity.not_before) || now > moment(validity.not_after) {
        return Err(ServerRefused::AuthorityNotValidNow { subject }.into());
    }
    Ok(())
}

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = self.roots(intermediates, now)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        verify_server_name(&certificate, server_name)?;
        let parsed = parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        if !has_role(&parsed, CONTROLLER_ROLE) {
            let subject = common_name(&parsed);
            return Err(ServerRefused::NotController { subject }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
