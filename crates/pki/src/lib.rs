//! Certificates, roles and TLS configurations: the only place that knows the crypto provider.
//!
//! One authority signs everything. Each certificate is for serving or for calling, never for both,
//! and says by a URI name what its holder is (`stillmetal:role:admin`):
//!
//! | role | for | made by |
//! |---|---|---|
//! | `controller` | serving | [`Authority::issue_controller`] |
//! | `node` | serving the container API on its own port | [`Authority::issue_node`] |
//! | `node`, and `stillmetal:node:ID` | calling its controller | [`Authority::issue_joined_node`] |
//! | `admin`, `user` | calling a node or the controller | [`Authority::issue_client`], [`Authority::issue_client_for`] |
//!
//! Whoever accepts a connection asks [`peer_of`] who calls; a certificate without a role is nobody's.
//!
//! Keys stay where they were made: a node or client that joins sends a signing request ([`csr`]), and
//! of that only the key is used. A node knows its controller at first by a [`Pin`] and later by the
//! authority's certificate ([`Trust`]); a controller knows a new node by a [`Token`] or by somebody's
//! approval.
//!
//! Certificates are revoked by number, at the controller's port and nowhere else: the controller asks
//! its [`Revocation`] in every handshake. There are no lists to hand out. A node's own port does not
//! ask, so a client's certificate for it ends with its date, or with the authority.

pub mod csr;

mod authority;
mod bundle;
mod certificate;
mod controller;
mod issue;
mod pin;
mod provider;
mod role;
mod signature;
mod text;
mod tls;
mod token;
mod trust;
mod verifier;

#[cfg(test)]
mod tests;

pub use authority::{Authority, Issued, RoleName, Validity};
pub use bundle::{NodeName, write_bundle};
pub use certificate::{CertificateFacts, certificate_facts, serial_hex};
pub use controller::{Revocation, controller_server_config};
pub use csr::CsrRefused;
pub use issue::{NodeIdentity, SignedCert};
pub use pin::{BadPin, Pin};
pub use provider::{install, provider};
pub use role::{CONTROLLER_ROLE, ClientRefused, NODE_ROLE, Peer, peer_of};
pub use rustls;
pub use signature::{Signature, SignatureRefused, issued_to_node, sign, verify};
pub use tls::{Protocol, client_config, server_config};
pub use token::{BadToken, Token, Verifier};
pub use trust::{ServerRefused, Trust, api_client_config, node_client_config};

use std::path::PathBuf;

/// What went wrong while making or reading certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or a certificate could not be made.
    #[error("issue the certificate of {subject}")]
    Issue {
        /// The common name.
        subject: String,
        /// What the certificate library says.
        source: rcgen::Error,
    },
    /// A name that is neither an IP address nor a DNS name.
    #[error("{name:?} is neither an IP address nor a DNS name")]
    BadName {
        /// As given.
        name: String,
    },
    /// A node's id that is none.
    #[error("{id:?} is not a node's id: 1 to 64 lower-case letters, digits and hyphens")]
    BadNodeId {
        /// As given.
        id: String,
    },
    /// A user's name that cannot be one.
    #[error("{user:?} is not a user's name: 1 to 64 bytes without control characters")]
    BadUser {
        /// As given.
        user: String,
    },
    /// A signing request that gets no certificate.
    #[error(transparent)]
    Csr(#[from] CsrRefused),
    /// The system has no random numbers.
    #[error("draw random numbers")]
    Random,
    /// Something that is in PEM, but no certificate.
    #[error("the certificate cannot be parsed")]
    Certificate,
    /// A PEM text that holds no usable object.
    #[error("read the {what}")]
    Pem {
        /// E.g. "authority's certificate".
        what: &'static str,
        /// What the PEM reader says.
        source: rustls::pki_types::pem::Error,
    },
    /// A PEM text without any certificate.
    #[error("the {what} holds no certificate")]
    Empty {
        /// E.g. "authority's certificate".
        what: &'static str,
    },
    /// The TLS library refuses a certificate or key.
    #[error("use the {what} for TLS")]
    Tls {
        /// E.g. "node's certificate and key".
        what: &'static str,
        /// What the TLS library says.
        source: rustls::Error,
    },
    /// The verifier of client certificates could not be built.
    #[error("build the verifier of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A file of a bundle could not be written.
    #[error("write {path}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}
