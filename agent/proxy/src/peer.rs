//! Who is at the other end, and how many connections it has.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pki::rustls::pki_types::CertificateDer;
use policy::Role;

/// The holder of a client certificate.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) role: Role,
    pub(crate) subject: Arc<str>,
}

/// A connection in service, for as long as any part of it is.
pub(crate) struct Line {
    _place: Place,
    gone: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Line {
    pub(crate) fn new(place: Place, gone: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            _place: place,
            gone: Mutex::new(Some(gone.boxed())),
        }
    }

    /// Waits until the peer has left. Only once: whoever has taken the connection over asks.
    pub(crate) async fn gone(&self) {
        let gone = self
            .gone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match gone {
            Some(gone) => gone.await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
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
        let pki::Peer { role, subject, .. } = pki::peer_of(certificate)?;
        match role.parse() {
            Ok(role) => Ok(Self {
                role,
                subject: subject.into(),
            }),
            Err(_) => Err(PeerError::UnknownRole { role, subject }),
        }
    }
}

/// Whose connections are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// Of the node's own port.
    Certificate(Vec<u8>),
    /// Authenticated by somebody else.
    User(String),
}

/// Connections in service, counted by holder so that one cannot crowd out the others.
#[derive(Debug, Default)]
pub(crate) struct Census {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_holder: HashMap<Holder, usize>,
}

/// A place in the census, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    census: Arc<Census>,
    holder: Holder,
}

impl Census {
    /// A place, unless all, or all of this holder, are taken.
    pub(crate) fn enter(
        self: &Arc<Self>,
        holder: Holder,
        limit: usize,
        limit_per_holder: usize,
    ) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.by_holder.get(&holder).copied().unwrap_or(0);
        if counts.total >= limit || own >= limit_per_holder {
            return None;
        }
        counts.total += 1;
        counts.by_holder.insert(holder.clone(), own + 1);
        Some(Place {
            census: Arc::clone(self),
            holder,
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
        if let Some(own) = counts.by_holder.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                counts.by_holder.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_per_holder_and_given_back() {
        let census = Arc::new(Census::default());
        let enter = |name: &str| census.enter(Holder::User(name.into()), 3, 2);
        let first = enter("a").unwrap();
        let _second = enter("a").unwrap();
        assert!(enter("a").is_none());
        let _other = census
            .enter(Holder::Certificate(b"a".into()), 3, 2)
            .unwrap();
        assert!(enter("c").is_none());
        drop(first);
        let _again = enter("a").unwrap();
    }
}
