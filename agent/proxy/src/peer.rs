//! Who is at the other end, and how many connections it has.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use pki::rustls::pki_types::CertificateDer;
use policy::Role;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The holder of a client certificate.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) role: Role,
    pub(crate) subject: Arc<str>,
}

/// A connection in service, for as long as any part of it is.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) _place: Place,
    /// The socket below TLS.
    pub(crate) socket: OwnedFd,
}

impl Line {
    /// Waits until the kernel has given the connection up: reset by the peer, or silent despite
    /// keep-alive probes. Nobody notices by reading, once the peer has ended its half.
    pub(crate) async fn died(&self) {
        // A descriptor of its own, since the kernel queues readiness per descriptor.
        let watch = self
            .socket
            .try_clone()
            .and_then(|socket| TcpStream::from_std(std::net::TcpStream::from(socket)));
        match watch {
            Ok(watch) => drop(watch.ready(Interest::ERROR).await),
            Err(error) => {
                tracing::debug!(%error, "connection cannot be watched");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Why a peer with a verified certificate is nobody's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("no client certificate")]
    NoCertificate,
    #[error(transparent)]
    Refused(#[from] pki::ClientRefused),
    #[error("the role {role:?} of {subject:?} is unknown")]
    UnknownRole { role: String, subject: String },
}

impl Peer {
    pub(crate) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Result<Self, PeerError> {
        let certificate = certificates
            .and_then(<[_]>::first)
            .ok_or(PeerError::NoCertificate)?;
        let pki::Peer { role, subject } = pki::peer_role(certificate)?;
        match role.parse() {
            Ok(role) => Ok(Self {
                role,
                subject: subject.into(),
            }),
            Err(_) => Err(PeerError::UnknownRole { role, subject }),
        }
    }
}

/// Connections in service, counted by certificate so that one cannot crowd out the others.
#[derive(Debug, Default)]
pub(crate) struct Census {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_certificate: HashMap<Vec<u8>, usize>,
}

/// A place in the census, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    census: Arc<Census>,
    certificate: Vec<u8>,
}

impl Census {
    /// A place, unless all, or all of this certificate, are taken.
    pub(crate) fn enter(
        self: &Arc<Self>,
        certificate: &[u8],
        limit: usize,
        limit_per_certificate: usize,
    ) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.by_certificate.get(certificate).copied().unwrap_or(0);
        if counts.total >= limit || own >= limit_per_certificate {
            return None;
        }
        counts.total += 1;
        counts.by_certificate.insert(certificate.to_vec(), own + 1);
        Some(Place {
            census: Arc::clone(self),
            certificate: certificate.to_vec(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .census
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        if let Some(own) = counts.by_certificate.get_mut(&self.certificate) {
            *own -= 1;
            if *own == 0 {
                counts.by_certificate.remove(&self.certificate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_per_certificate_and_given_back() {
        let census = Arc::new(Census::default());
        let first = census.enter(b"a", 3, 2).unwrap();
        let _second = census.enter(b"a", 3, 2).unwrap();
        assert!(census.enter(b"a", 3, 2).is_none());
        let _other = census.enter(b"b", 3, 2).unwrap();
        assert!(census.enter(b"c", 3, 2).is_none());
        drop(first);
        let _again = census.enter(b"a", 3, 2).unwrap();
    }
}
