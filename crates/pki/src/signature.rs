//! Signatures over documents, with the keys that TLS uses.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;
use crate::certificate::{common_name, parse};
use crate::provider::provider;
use crate::role::{NODE_ROLE, has_role};

/// A signature and what made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// TLS's name of the scheme, such as `ECDSA_NISTP256_SHA256`.
    pub scheme: String,
    pub bytes: Vec<u8>,
}

/// Why a signature proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum SignatureRefused {
    #[error("the signer's certificate cannot be parsed")]
    Certificate,
    #[error("the authority's certificate cannot be parsed")]
    Authority,
    #[error("signature scheme {0:?} is not known")]
    Scheme(String),
    #[error("the signature is not by the key of {subject}")]
    Signature { subject: String },
    #[error("the certificate of {subject} was not issued by that authority")]
    Issuer { subject: String },
    /// People have certificates of the same authority.
    #[error("the certificate of {subject} is not a node's")]
    Role { subject: String },
}

/// Signs with a private key in PEM.
///
/// # Errors
/// When the key is malformed or cannot sign.
pub fn sign(key_pem: &str, message: &[u8]) -> Result<Signature, Error> {
    let failed = |source| Error::Tls {
        what: "key for signing",
        source,
    };
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|source| Error::Pem {
        what: "key for signing",
        source,
    })?;
    let provider = provider();
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(failed)?;
    let schemes = provider
        .signature_verification_algorithms
        .supported_schemes();
    let signer = key
        .choose_scheme(&schemes)
        .ok_or_else(|| failed(rustls::Error::General("no signature scheme fits".into())))?;
    Ok(Signature {
        scheme: format!("{:?}", signer.scheme()),
        bytes: signer.sign(message).map_err(failed)?,
    })
}

/// Checks a signature against the certificate of its signer (PEM); returns the common name.
///
/// # Errors
/// [`SignatureRefused`].
pub fn verify(
    signer_pem: &str,
    message: &[u8],
    signature: &Signature,
) -> Result<String, SignatureRefused> {
    let der = der(signer_pem).ok_or(SignatureRefused::Certificate)?;
    let certificate = parse(&der).ok_or(SignatureRefused::Certificate)?;
    let subject = common_name(&certificate);
    let provider = provider();
    let mapping = provider.signature_verification_algorithms.mapping;
    let (_, algorithms) = mapping
        .iter()
        .find(|(scheme, _)| format!("{scheme:?}") == signature.scheme)
        .ok_or_else(|| SignatureRefused::Scheme(signature.scheme.clone()))?;
    let key = &certificate.public_key().subject_public_key.data;
    let good = algorithms.iter().any(|algorithm| {
        let verified = algorithm.verify_signature(key, message, &signature.bytes);
        verified.is_ok()
    });
    if good {
        Ok(subject)
    } else {
        Err(SignatureRefused::Signature { subject })
    }
}

/// Checks that an authority issued a certificate to a node (both PEM). Says nothing about the time:
/// a certificate that has expired since is still the one that signed.
///
/// # Errors
/// [`SignatureRefused`].
pub fn issued_to_node(certificate_pem: &str, authority_pem: &str) -> Result<(), SignatureRefused> {
    let certificate_der = der(certificate_pem).ok_or(SignatureRefused::Certificate)?;
    let certificate = parse(&certificate_der).ok_or(SignatureRefused::Certificate)?;
    let authority_der = der(authority_pem).ok_or(SignatureRefused::Authority)?;
    let authority = parse(&authority_der).ok_or(SignatureRefused::Authority)?;
    let provider = provider();
    let good = provider
        .signature_verification_algorithms
        .all
        .iter()
        .any(|algorithm| {
            let verified = algorithm.verify_signature(
                &authority.public_key().subject_public_key.data,
                certificate.tbs_certificate.as_ref(),
                &certificate.signature_value.data,
            );
            verified.is_ok()
        });
    let subject = common_name(&certificate);
    if !good || certificate.issuer() != authority.subject() {
        return Err(SignatureRefused::Issuer { subject });
    }
    if !has_role(&certificate, NODE_ROLE) {
        return Err(SignatureRefused::Role { subject });
    }
    Ok(())
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}
