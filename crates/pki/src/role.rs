//! Reading a peer's role from its certificate.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

pub(crate) const ROLE_PREFIX: &str = "stillmetal:role:";
pub(crate) const NODE_ROLE: &str = "node";

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// `admin` or `user`, the word after `stillmetal:role:`; the caller decides which it knows.
    pub role: String,
    /// The common name, for the log.
    pub subject: String,
}

/// Why a certificate, though signed by the right authority, is no client's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClientRefused {
    /// Not a certificate.
    #[error("the client's certificate cannot be parsed")]
    Malformed,
    /// Made for servers, say.
    #[error("the certificate of {subject:?} is not for clients (extended key usage)")]
    NotForClients {
        /// Its common name.
        subject: String,
    },
    /// It must carry exactly one role.
    #[error("the certificate of {subject:?} carries {count} stillmetal roles, needs exactly one")]
    RoleCount {
        /// Its common name.
        subject: String,
        /// How many it carries.
        count: usize,
    },
}

/// The role in a certificate whose chain TLS has verified already.
///
/// # Errors
/// When the certificate is not for clients or does not carry exactly one role.
pub fn peer_role(certificate: &CertificateDer<'_>) -> Result<Peer, ClientRefused> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| ClientRefused::Malformed)?;
    if !rest.is_empty() {
        return Err(ClientRefused::Malformed);
    }
    let subject = parsed
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default()
        .to_owned();
    // webpki accepts a certificate without the extension; here it must say that it is a client's.
    let usage = parsed
        .extended_key_usage()
        .map_err(|_| ClientRefused::Malformed)?;
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err(ClientRefused::NotForClients { subject });
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| ClientRefused::Malformed)?;
    let roles: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(ROLE_PREFIX),
            _ => None,
        })
        .collect();
    match roles[..] {
        [role] => Ok(Peer {
            role: role.to_owned(),
            subject,
        }),
        _ => Err(ClientRefused::RoleCount {
            subject,
            count: roles.len(),
        }),
    }
}
