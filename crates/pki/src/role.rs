//! Reading from a certificate who a peer is.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::certificate::{common_name, moment, parse, serial_hex};

pub(crate) const ROLE_PREFIX: &str = "stillmetal:role:";
pub(crate) const NODE_PREFIX: &str = "stillmetal:node:";

/// The role of a node, in its certificate for serving and in the one for calling.
pub const NODE_ROLE: &str = "node";
/// The role of the controller.
pub const CONTROLLER_ROLE: &str = "controller";

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// `admin`, `user` or `node`, the word after `stillmetal:role:`; the caller decides which it
    /// knows.
    pub role: String,
    /// The common name: the user, or the node's id.
    pub subject: String,
    /// The node's id; there if the role is `node`, and only then.
    pub node: Option<String>,
    /// The certificate's number, as [`serial_hex`] writes it.
    pub serial_hex: String,
    /// When the certificate ends.
    pub not_after: SystemTime,
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
    /// A node's must carry exactly one node id, anybody else's none.
    #[error("the certificate of {subject:?} has the role {role:?} and {count} node ids")]
    NodeIds {
        /// Its common name.
        subject: String,
        /// Its role.
        role: String,
        /// How many ids it carries.
        count: usize,
    },
}

/// Who a client is, from a certificate whose chain TLS has verified already.
///
/// # Errors
/// When the certificate is not for clients, does not carry exactly one role, or its node ids do not
/// go with it.
pub fn peer_of(certificate: &CertificateDer<'_>) -> Result<Peer, ClientRefused> {
    let parsed = parse(certificate).ok_or(ClientRefused::Malformed)?;
    let subject = common_name(&parsed);
    // webpki accepts a certificate without the extension; here it must say that it is a client's.
    let usage = parsed
        .extended_key_usage()
        .map_err(|_| ClientRefused::Malformed)?;
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err(ClientRefused::NotForClients { subject });
    }
    let roles = uris(&parsed, ROLE_PREFIX).ok_or(ClientRefused::Malformed)?;
    let [role] = roles[..] else {
        return Err(ClientRefused::RoleCount {
            subject,
            count: roles.len(),
        });
    };
    let ids = uris(&parsed, NODE_PREFIX).ok_or(ClientRefused::Malformed)?;
    let node = match ids[..] {
        [id] if role == NODE_ROLE && is_node_id(id) => Some(id.to_owned()),
        [] if role != NODE_ROLE => None,
        _ => {
            return Err(ClientRefused::NodeIds {
                subject,
                role: role.to_owned(),
                count: ids.len(),
            });
        }
    };
    Ok(Peer {
        role: role.to_owned(),
        subject,
        node,
        serial_hex: serial_hex(parsed.raw_serial()),
        not_after: moment(parsed.validity().not_after),
    })
}

/// Whether a certificate carries this role and no other.
pub(crate) fn has_role(certificate: &X509Certificate<'_>, role: &str) -> bool {
    uris(certificate, ROLE_PREFIX).is_some_and(|roles| roles == [role])
}

/// 1 to 64 lower-case letters, digits and hyphens.
pub(crate) fn is_node_id(id: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !id.is_empty() && id.len() <= 64 && id.bytes().all(known)
}

/// What follows `prefix` in the URI names that begin with it; None when the names are malformed.
fn uris<'a>(certificate: &'a X509Certificate<'_>, prefix: &str) -> Option<Vec<&'a str>> {
    let names = certificate.subject_alternative_name().ok()?;
    let uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(prefix),
            _ => None,
        });
    Some(uris.collect())
}
