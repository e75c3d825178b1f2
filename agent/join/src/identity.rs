//! Who the node is to its controller.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use pki::rustls::ClientConfig;
use pki::rustls::pki_types::CertificateDer;
use pki::rustls::pki_types::pem::PemObject;
use pki::{Pin, Protocol, Trust};
use serde::{Deserialize, Serialize};

use crate::error::IdentityError;
use crate::lifetime::Lifetime;

/// Key, certificate and authority, as they are kept. `Debug` leaves out the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Papers {
    pub(crate) id: String,
    pub(crate) key_pem: String,
    pub(crate) cert_pem: String,
    pub(crate) ca_pem: String,
    /// Milliseconds since the epoch by this node's clock.
    pub(crate) obtained_ms: u64,
}

impl fmt::Debug for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Papers")
            .field("id", &self.id)
            .field("obtained_ms", &self.obtained_ms)
            .finish_non_exhaustive()
    }
}

/// Papers that were looked at: the authority is the pinned one and issued the certificate, which is
/// for this key and this node, and not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) papers: Papers,
    pub(crate) life: Lifetime,
}

impl Identity {
    pub(crate) fn check(
        papers: Papers,
        wanted: Pin,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let found = Pin::of_pem(&papers.ca_pem)?;
        if found != wanted {
            return Err(IdentityError::Authority { wanted, found });
        }
        pki::issued_to_node(&papers.cert_pem, &papers.ca_pem).map_err(IdentityError::Issuer)?;
        let der = CertificateDer::from_pem_slice(papers.cert_pem.as_bytes()).map_err(|source| {
            pki::Error::Pem {
                what: "node's certificate",
                source,
            }
        })?;
        let peer = pki::peer_of(&der)?;
        if peer.node.as_ref() != Some(&papers.id) {
            return Err(IdentityError::Node {
                wanted: papers.id,
                found: peer.node,
            });
        }
        let obtained = std::time::Duration::from_millis(papers.obtained_ms);
        let life = Lifetime {
            from: SystemTime::UNIX_EPOCH + obtained,
            to: peer.not_after,
        };
        let identity = Self { papers, life };
        // Whether the key is the certificate's.
        identity.config(Protocol::Tunnel)?;
        if life.is_over(now) {
            return Err(IdentityError::Over);
        }
        Ok(identity)
    }

    /// To call the controller as this node.
    pub(crate) fn config(&self, protocol: Protocol) -> Result<Arc<ClientConfig>, pki::Error> {
        let trust = Trust::Ca(self.papers.ca_pem.clone());
        let own = (&*self.papers.cert_pem, &*self.papers.key_pem);
        pki::node_client_config(&trust, Some(own), protocol)
    }
}
