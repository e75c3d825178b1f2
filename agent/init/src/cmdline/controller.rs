//! Where the controller is, and by what it is known. Both are public.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::is_domain;

/// Where a controller listens unless it is told otherwise.
pub const DEFAULT_PORT: u16 = 7443;

const PIN_PREFIX: &str = "sha256:";
const PIN_DIGITS: usize = 64;

/// Host and port, written `HOST:PORT`. An IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerAddress {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
}

/// Not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HOST or HOST:PORT, an IPv6 address in brackets")]
pub struct BadAddress;

impl FromStr for ControllerAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(BadAddress)?;
                host.parse::<Ipv6Addr>().map_err(|_| BadAddress)?;
                (host, port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                if host.parse::<IpAddr>().is_err() && !is_name(host) {
                    return Err(BadAddress);
                }
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => DEFAULT_PORT,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| BadAddress)?
            }
            _ => return Err(BadAddress),
        };
        if port == 0 {
            return Err(BadAddress);
        }
        let host = host.to_ascii_lowercase();
        Ok(Self { host, port })
    }
}

impl fmt::Display for ControllerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A DNS name. One whose last label is a number would be an IPv4 address with a slip in it.
fn is_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    is_domain(host) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// `sha256:` and 64 hexadecimal digits; returned with small ones.
pub(super) fn pin(text: &str) -> Option<String> {
    let digits = text.strip_prefix(PIN_PREFIX)?;
    let sound = digits.len() == PIN_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    sound.then(|| text.to_ascii_lowercase())
}
