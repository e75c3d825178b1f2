//! Where a controller is, whom to trust, and who calls.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;

/// The controller's port unless its address says another.
pub const DEFAULT_PORT: u16 = 7443;

/// All that is needed to call a controller.
#[derive(Clone, PartialEq, Eq)]
pub struct Context {
    /// `https://HOST:PORT`.
    pub controller: Url,
    /// The only authority that is trusted.
    pub ca_pem: String,
    pub cert_pem: String,
    /// Secret.
    pub key_pem: String,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("controller", &self.controller.as_str())
            .finish_non_exhaustive()
    }
}

/// A context's file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}", path.display())]
pub struct ContextError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// A text that is no controller's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no controller's address: HOST, HOST:PORT or https://HOST:PORT")]
pub struct BadAddress(pub String);

impl Context {
    /// Of a folder with `ca.pem`, `cert.pem` and `key.pem`.
    ///
    /// # Errors
    /// The file that cannot be read.
    pub fn read(controller: Url, folder: &Path) -> Result<Self, ContextError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|source| ContextError { path, source })
        };
        Ok(Self {
            controller,
            ca_pem: read("ca.pem")?,
            cert_pem: read("cert.pem")?,
            key_pem: read("key.pem")?,
        })
    }

    /// Host and port, as in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.controller)
    }

    /// Where a stock docker client finds a node's container API.
    #[must_use]
    pub fn docker_host(&self, node: &str) -> String {
        format!("tcp://{}/nodes/{node}", self.authority())
    }
}

pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    // 443 is what https means, and a URL does not keep it
    let port = url.port_or_known_default().unwrap_or(DEFAULT_PORT);
    format!("{host}:{port}")
}

/// Reads a controller's address; the port is 7443 unless it says another.
///
/// # Errors
/// [`BadAddress`]: anything but a host and a port.
pub fn controller_address(text: &str) -> Result<Url, BadAddress> {
    let bad = || BadAddress(text.to_owned());
    let bare = text.strip_prefix("https://").unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    if bare.is_empty() || bare.contains(['/', '?', '#', '@', '\\']) || bare.contains("://") {
        return Err(bad());
    }
    // after an IPv6 address in brackets, else after the only colon
    let after_host = match bare.strip_prefix('[') {
        Some(_) => bare.find(']').map(|end| &bare[end + 1..]).ok_or_else(bad)?,
        None => bare.find(':').map_or("", |colon| &bare[colon..]),
    };
    let port = match after_host {
        "" => DEFAULT_PORT,
        _ => {
            let digits = after_host.strip_prefix(':').ok_or_else(bad)?;
            let port = digits.parse().ok().filter(|port: &u16| *port != 0);
            port.ok_or_else(bad)?
        }
    };
    let mut url = Url::parse(&format!("https://{bare}")).map_err(|_| bad())?;
    url.set_port(Some(port)).map_err(|()| bad())?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, url) in [
            ("lab", "https://lab:7443/"),
            ("10.0.0.1:8443", "https://10.0.0.1:8443/"),
            ("https://lab.example:443", "https://lab.example/"),
            ("https://lab/", "https://lab:7443/"),
            ("[::1]:99", "https://[::1]:99/"),
            ("[::1]", "https://[::1]:7443/"),
        ] {
            assert_eq!(controller_address(text).unwrap().as_str(), url, "{text}");
        }
        for text in [
            "",
            "http://lab",
            "tcp://lab:1",
            "lab:",
            "lab:0",
            "lab:70000",
            "lab:x",
            "lab/nodes",
            "me@lab",
            "::1",
            "[::1",
            "a b",
        ] {
            assert_eq!(
                controller_address(text),
                Err(BadAddress(text.into())),
                "{text}"
            );
        }
    }

    #[test]
    fn where_docker_goes() {
        let context = |address| Context {
            controller: controller_address(address).unwrap(),
            ca_pem: String::new(),
            cert_pem: String::new(),
            key_pem: "secret".into(),
        };
        assert_eq!(context("lab").docker_host("n1"), "tcp://lab:7443/nodes/n1");
        assert_eq!(
            context("lab:443").docker_host("n1"),
            "tcp://lab:443/nodes/n1"
        );
        assert!(!format!("{:?}", context("lab")).contains("secret"));
    }
}
