//! Certificates for keys that the authority never sees, and the controller's own.

use std::time::SystemTime;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, PublicKey};

use crate::Error;
use crate::authority::{Authority, Issued, RoleName, Validity, alt_name, blank, uri};
use crate::certificate::certificate_facts;
use crate::csr;
use crate::role::{CONTROLLER_ROLE, NODE_PREFIX, NODE_ROLE, ROLE_PREFIX, is_node_id};

/// Longest common name (X.520, `ub-common-name`).
const COMMON_NAME: usize = 64;

/// A certificate for somebody else's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCert {
    /// The certificate.
    pub cert_pem: String,
    /// Its number, 32 lower-case digits, by which it can be revoked.
    pub serial_hex: String,
    /// When it ends, in whole seconds.
    pub not_after: SystemTime,
}

/// What a node's certificate says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIdentity<'a> {
    /// 1 to 64 lower-case letters, digits and hyphens.
    pub id: &'a str,
}

impl Authority {
    /// The certificate of a node that joins: for calling only, with the role `node` and the node's
    /// id. Of the request only the key is used.
    ///
    /// # Errors
    /// When the request is malformed or not signed by its own key, or the id is none.
    pub fn issue_joined_node(
        &self,
        csr_pem: &str,
        node: &NodeIdentity<'_>,
        validity: Validity,
    ) -> Result<SignedCert, Error> {
        if !is_node_id(node.id) {
            return Err(Error::BadNodeId {
                id: node.id.to_owned(),
            });
        }
        let mut params = blank(node.id, validity);
        params.subject_alt_names = vec![uri(ROLE_PREFIX, NODE_ROLE)?, uri(NODE_PREFIX, node.id)?];
        self.sign_request(csr_pem, node.id, params)
    }

    /// A client's certificate for a key of its own making. Of the request only the key is used.
    ///
    /// # Errors
    /// When the request is malformed or not signed by its own key, or the name cannot be one.
    pub fn issue_client_for(
        &self,
        csr_pem: &str,
        user: &str,
        role: RoleName,
        validity: Validity,
    ) -> Result<SignedCert, Error> {
        let plain = !user.is_empty()
            && user.len() <= COMMON_NAME
            && user.trim() == user
            && !user.contains(char::is_control);
        if !plain {
            return Err(Error::BadUser {
                user: user.to_owned(),
            });
        }
        let mut params = blank(user, validity);
        params.subject_alt_names = vec![uri(ROLE_PREFIX, role.as_str())?];
        self.sign_request(csr_pem, user, params)
    }

    /// The controller's own certificate for the given IP addresses and DNS names, with a new key. It
    /// is good for serving only. The text holds the authority's certificate after it, as
    /// [`controller_server_config`](crate::controller_server_config) sends them.
    ///
    /// # Errors
    /// When a name is malformed or the certificate cannot be made.
    pub fn issue_controller(&self, names: &[&str], validity: Validity) -> Result<Issued, Error> {
        let subject = "stillmetal controller";
        let mut params = blank(subject, validity);
        for name in names {
            params.subject_alt_names.push(alt_name(name)?);
        }
        params
            .subject_alt_names
            .push(uri(ROLE_PREFIX, CONTROLLER_ROLE)?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut issued = self.sign(subject, params)?;
        issued.cert_pem.push_str(self.cert_pem());
        Ok(issued)
    }

    fn sign_request(
        &self,
        csr_pem: &str,
        subject: &str,
        mut params: CertificateParams,
    ) -> Result<SignedCert, Error> {
        let key: PublicKey = csr::public_key(csr_pem)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert_pem = self.sign_key(subject, params, &key)?;
        let facts = certificate_facts(&cert_pem)?;
        Ok(SignedCert {
            cert_pem,
            serial_hex: facts.serial_hex,
            not_after: facts.not_after,
        })
    }
}
