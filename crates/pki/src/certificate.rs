//! What a certificate says of itself.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::Error;
use crate::text::hex;

/// Of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The common name.
    pub subject: String,
    /// Its number in lower-case hexadecimal, without leading zero bytes.
    pub serial_hex: String,
    /// The first second at which it counts.
    pub not_before: SystemTime,
    /// The last one.
    pub not_after: SystemTime,
}

/// Of the first certificate in a PEM text. Nothing is verified.
///
/// # Errors
/// When there is none, or it cannot be parsed.
pub fn certificate_facts(cert_pem: &str) -> Result<CertificateFacts, Error> {
    let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|source| Error::Pem {
        what: "certificate",
        source,
    })?;
    let parsed = parse(&der).ok_or(Error::Certificate)?;
    Ok(CertificateFacts {
        subject: common_name(&parsed),
        serial_hex: serial_hex(parsed.raw_serial()),
        not_before: moment(parsed.validity().not_before),
        not_after: moment(parsed.validity().not_after),
    })
}

/// A serial number as it is written everywhere: lower-case hexadecimal, without leading zero bytes.
pub fn serial_hex(serial: &[u8]) -> String {
    hex(significant(serial))
}

/// Without the zero byte that keeps a number positive in DER.
pub(crate) fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

/// The certificate, if the bytes are one and nothing else.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

/// Its first common name, or nothing.
pub(crate) fn common_name(certificate: &X509Certificate<'_>) -> String {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    name.unwrap_or_default().to_owned()
}

/// Moments before 1970 count as its beginning.
pub(crate) fn moment(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
