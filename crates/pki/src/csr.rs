//! Certificate signing requests: how a key that stays where it was made gets its certificate.
//!
//! Of a request only the public key counts. Names, extensions and whatever else it asks for are not
//! used: who gets which name is the authority's decision.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::Error;
use crate::text::hex;

/// Longest request that is looked at, in bytes. Ours have less than 500.
pub const MAX_PEM: usize = 16 * 1024;

/// Why a request gets no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefused {
    /// Longer than [`MAX_PEM`].
    #[error("the signing request is longer than {MAX_PEM} bytes")]
    TooLong,
    /// Not a signing request in PEM.
    #[error("the signing request cannot be parsed")]
    Malformed,
    /// Whoever sent it does not have the key.
    #[error("the signing request is not signed by its own key")]
    Signature,
    /// A key that TLS here has no use for.
    #[error("the signing request's key is of an unknown kind")]
    Key,
}

/// A new key (PKCS#8) and the request for its certificate, both PEM.
///
/// # Errors
/// When the key cannot be made.
pub fn generate() -> Result<(String, String), Error> {
    let failed = |source| Error::Issue {
        subject: "a signing request".to_owned(),
        source,
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), request.pem().map_err(failed)?))
}

/// Of a request's public key, for people to compare: eight groups of four hexadecimal digits, the
/// first half of its SHA-256. The certificate for it, and a request renewed with the same key, have
/// the same.
///
/// # Errors
/// When it is no request, or not signed by its own key.
pub fn fingerprint(csr_pem: &str) -> Result<String, CsrRefused> {
    let digest = Sha256::digest(public_key(csr_pem)?.subject_public_key_info());
    let groups: Vec<String> = digest[..16].chunks(2).map(hex).collect();
    Ok(groups.join("-"))
}

/// The key of a request that was signed with it.
pub(crate) fn public_key(csr_pem: &str) -> Result<PublicKey, CsrRefused> {
    if csr_pem.len() > MAX_PEM {
        return Err(CsrRefused::TooLong);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|_| CsrRefused::Malformed)?;
    let (rest, parsed) =
        X509CertificationRequest::from_der(&der).map_err(|_| CsrRefused::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrRefused::Malformed);
    }
    let request = CertificateSigningRequestParams::from_der(&der).map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => CsrRefused::Signature,
        rcgen::Error::UnsupportedSignatureAlgorithm => CsrRefused::Key,
        _ => CsrRefused::Malformed,
    })?;
    // The library takes the key's kind from the signature's algorithm; where the two differ, the
    // certificate would be for another key.
    let asked = parsed.certification_request_info.subject_pki.raw;
    if request.public_key.subject_public_key_info() != asked {
        return Err(CsrRefused::Key);
    }
    Ok(request.public_key)
}
