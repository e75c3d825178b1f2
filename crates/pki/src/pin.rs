//! The hash by which a node knows its controller's authority before it knows anything else.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::text::{hex, unhex};

const PREFIX: &str = "sha256:";

/// SHA-256 of an authority's certificate (its DER), written `sha256:` and 64 lower-case digits.
///
/// It is no secret: whoever knows it can recognise the authority, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin([u8; 32]);

/// Not a pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pin is {PREFIX} and 64 hexadecimal digits")]
pub struct BadPin;

impl Pin {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// Of the first certificate in a PEM text.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_pem(ca_pem: &str) -> Result<Self, Error> {
        CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map(|certificate| Self::of(&certificate))
            .map_err(|source| Error::Pem {
                what: "authority's certificate",
                source,
            })
    }
}

impl FromStr for Pin {
    type Err = BadPin;

    /// Capital digits are taken, as other tools print them.
    fn from_str(text: &str) -> Result<Self, BadPin> {
        text.strip_prefix(PREFIX)
            .and_then(|digits| unhex(&digits.to_ascii_lowercase()))
            .map(Self)
            .ok_or(BadPin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}
