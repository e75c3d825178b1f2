//! Certificates, roles and TLS configurations: the only place that knows the crypto provider.
//!
//! One authority signs everything. A node's certificate is for servers only and carries the role
//! `node`; a client's certificate is for clients only and carries `admin` or `user` as a URI name
//! (`stillmetal:role:admin`). Whoever accepts a connection asks [`peer_role`] for the role; a
//! certificate without a client role is nobody's.
//!
//! This crate does not revoke: an authority lives as long as the session that it was made for, and
//! ends with it.

mod authority;
mod bundle;
mod provider;
mod role;
mod signature;
mod tls;
mod verifier;

#[cfg(test)]
mod tests;

pub use authority::{Authority, Issued, RoleName, Validity};
pub use bundle::{NodeName, write_bundle};
pub use provider::{install, provider};
pub use role::{ClientRefused, Peer, peer_role};
pub use rustls;
pub use signature::{Signature, SignatureRefused, issued_by, sign, verify};
pub use tls::{client_config, server_config};

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
