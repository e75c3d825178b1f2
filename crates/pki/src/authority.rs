//! The authority and what it issues.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};

use crate::Error;
use crate::provider::random;
use crate::role::{NODE_ROLE, ROLE_PREFIX};

/// The roles that a client certificate can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    /// Everything.
    Admin,
    /// No privileged containers, host namespaces or host paths.
    User,
}

impl RoleName {
    /// As it stands in the certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
        }
    }
}

impl RoleName {
    /// The role of this name, if it is a client's.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Admin, Self::User]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// From when to when a certificate counts.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// Not before this moment.
    pub not_before: SystemTime,
    /// Not after this moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// From a day ago (a node without a clock battery may lag) until `length` from now.
    pub fn for_the_next(length: Duration) -> Self {
        let now = SystemTime::now();
        Self {
            not_before: now - Duration::from_secs(86_400),
            not_after: now + length,
        }
    }

    /// Whole days from now on.
    pub fn days(days: u32) -> Self {
        Self::for_the_next(Duration::from_secs(u64::from(days) * 86_400))
    }

    /// Over since an hour, for tests.
    pub fn expired() -> Self {
        let now = SystemTime::now();
        Self {
            not_before: now - Duration::from_secs(7 * 86_400),
            not_after: now - Duration::from_secs(3_600),
        }
    }
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// The private key (PKCS#8).
    pub key_pem: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

/// Ten years: an authority is replaced with its session, not by its date.
const AUTHORITY_DAYS: u32 = 3_650;

impl Authority {
    /// A new authority with a new key.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn generate(name: &str) -> Result<Self, Error> {
        Self::generate_for(name, Validity::days(AUTHORITY_DAYS))
    }

    /// As [`Authority::generate`], for a time of one's own.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn generate_for(name: &str, validity: Validity) -> Result<Self, Error> {
        let failed = |source| Error::Issue {
            subject: name.to_owned(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = blank(name, validity);
        // No intermediate authorities below this one.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert_pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            cert_pem,
        })
    }

    /// An authority that was written down before.
    ///
    /// # Errors
    /// When either text is not what it should be.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let failed = |source| Error::Issue {
            subject: "the authority".to_owned(),
            source,
        };
        let key = KeyPair::from_pem(key_pem).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(failed)?;
        Ok(Self {
            issuer,
            cert_pem: cert_pem.to_owned(),
        })
    }

    /// The certificate that others trust.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key; whoever has it can make any certificate.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A node's certificate for the given IP addresses and DNS names. It is good for serving only.
    ///
    /// # Errors
    /// When a name is malformed or the certificate cannot be made.
    pub fn issue_node(&self, names: &[&str], validity: Validity) -> Result<Issued, Error> {
        let subject = names.first().copied().unwrap_or("node");
        let mut params = blank(subject, validity);
        for name in names {
            params.subject_alt_names.push(alt_name(name)?);
        }
        params.subject_alt_names.push(uri(ROLE_PREFIX, NODE_ROLE)?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(subject, params)
    }

    /// A client's certificate. It is good for calling only.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn issue_client(
        &self,
        name: &str,
        role: RoleName,
        validity: Validity,
    ) -> Result<Issued, Error> {
        self.issue_client_as(name, role.as_str(), validity)
    }

    /// As [`Authority::issue_client`] with any word for a role, to test what refuses it.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn issue_client_as(
        &self,
        name: &str,
        role: &str,
        validity: Validity,
    ) -> Result<Issued, Error> {
        let mut params = blank(name, validity);
        params.subject_alt_names.push(uri(ROLE_PREFIX, role)?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params)
    }

    /// For a new key.
    pub(crate) fn sign(&self, subject: &str, params: CertificateParams) -> Result<Issued, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| {
            let subject = subject.to_owned();
            Error::Issue { subject, source }
        })?;
        Ok(Issued {
            cert_pem: self.sign_key(subject, params, &key)?,
            key_pem: key.serialize_pem(),
        })
    }

    /// For this key; returns PEM.
    pub(crate) fn sign_key(
        &self,
        subject: &str,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<String, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        let cert = params
            .signed_by(key, &self.issuer)
            .map_err(|source| Error::Issue {
                subject: subject.to_owned(),
                source,
            })?;
        Ok(cert.pem())
    }
}

/// 128 bits, of which 126 are random: positive and of one length, so that each has one text.
fn serial() -> Result<SerialNumber, Error> {
    let mut number: [u8; 16] = random()?;
    number[0] = number[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&number))
}

pub(crate) fn blank(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params
}

pub(crate) fn alt_name(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = IpAddr::from_str(name) {
        return Ok(SanType::IpAddress(address));
    }
    rustls::pki_types::DnsName::try_from(name)
        .ok()
        .and_then(|_| Ia5String::try_from(name).ok())
        .map(SanType::DnsName)
        .ok_or_else(|| Error::BadName {
            name: name.to_owned(),
        })
}

pub(crate) fn uri(prefix: &str, word: &str) -> Result<SanType, Error> {
    let uri = format!("{prefix}{word}");
    Ia5String::try_from(uri.as_str())
        .map(SanType::URI)
        .map_err(|_| Error::BadName { name: uri })
}
