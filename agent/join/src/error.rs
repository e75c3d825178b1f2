//! Why an attempt came to nothing.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pki::ServerRefused;
use pki::rustls::AlertDescription;
use tunnel::{End, HandshakeError};

/// An error and its causes in one line, for people.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        // Some repeat what they are made of.
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = error.source();
    }
    text
}

/// There is no connection to the controller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{host:?} is neither an IP address nor a DNS name")]
    Name { host: String },
    #[error("find the address of {host}")]
    Resolve { host: String, source: io::Error },
    #[error("no address of {host} within {within:?}")]
    ResolveDeadline { host: String, within: Duration },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("{}", Tried(tried))]
    NoneAnswered { tried: Vec<(SocketAddr, LineError)> },
}

/// One address does not lead to the controller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("no connection within {within:?}")]
    ConnectDeadline { within: Duration },
    #[error("connect")]
    Connect { source: io::Error },
    #[error("no TLS within {within:?}")]
    TlsDeadline { within: Duration },
    /// It is somebody else.
    #[error(transparent)]
    Stranger(ServerRefused),
    #[error("TLS")]
    Tls { source: io::Error },
}

struct Tried<'a>(&'a [(SocketAddr, LineError)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, error)) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{address}: {}", chain(error))?;
        }
        Ok(())
    }
}

/// A call brought no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the controller did not answer within {within:?}")]
    Deadline { within: Duration },
    #[error("{}", alert_words(*.0))]
    CertificateRefused(AlertDescription),
    #[error("call the controller")]
    Http(#[source] hyper::Error),
    #[error("read the controller's answer")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("the controller says no ({status}): {detail}")]
    Refused { status: u16, detail: String },
    #[error("write the request")]
    Encode(#[source] serde_json::Error),
    #[error("understand the controller's answer")]
    Decode(#[source] serde_json::Error),
}

/// An identity that cannot be used, kept or just received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("its authority is {found}, and {wanted} was pinned")]
    Authority { wanted: pki::Pin, found: pki::Pin },
    #[error("use key and certificate")]
    Pki(#[from] pki::Error),
    #[error("the certificate is not by the authority that came with it")]
    Issuer(#[source] pki::SignatureRefused),
    #[error("the certificate is no node's")]
    Peer(#[from] pki::ClientRefused),
    #[error("the certificate is for node {found:?}, not for {wanted}")]
    Node {
        wanted: String,
        found: Option<String>,
    },
    #[error("the certificate has ended already by this node's clock")]
    Over,
}

/// An attempt to be joined has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error("make a key")]
    Key(#[source] pki::Error),
    #[error("use the identity")]
    Config(#[source] pki::Error),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("enrol")]
    Enrol(#[source] CallError),
    #[error("renew the certificate")]
    Renew(#[source] CallError),
    #[error("the controller's answer is of no use")]
    Answer(#[source] IdentityError),
    #[error("{}", alert_words(*.0))]
    CertificateRefused(AlertDescription),
    #[error("the controller said nothing within {within:?}")]
    Mute { within: Duration },
    #[error("the controller closed the connection")]
    Closed(#[source] io::Error),
    #[error(transparent)]
    Tunnel(HandshakeError),
    /// In the controller's words.
    #[error("the controller ended the connection: {0}")]
    Notice(String),
    #[error(transparent)]
    Ended(End),
}

impl AttemptError {
    /// The controller was there, and did not want this node.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Enrol(error) | Self::Renew(error) => matches!(
                error,
                CallError::Refused { .. } | CallError::CertificateRefused(_)
            ),
            Self::CertificateRefused(_) | Self::Notice(_) => true,
            _ => false,
        }
    }

    /// The certificate is worth nothing any more, and asking again with it will not help.
    pub(crate) fn ends_identity(&self) -> bool {
        matches!(
            self,
            Self::CertificateRefused(
                AlertDescription::CertificateRevoked | AlertDescription::CertificateExpired
            )
        )
    }
}

/// What a server says by TLS of a client's certificate.
fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRevoked => {
            "the controller has revoked this node's certificate".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "this node's certificate has ended by the controller's clock".to_owned()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "this node's certificate is not by the controller's authority".to_owned()
        }
        AlertDescription::AccessDenied => {
            "the controller takes this node's certificate for nobody's".to_owned()
        }
        other => format!("the controller refuses the connection by TLS: {other:?}"),
    }
}
