//! The network at boot: loopback, then a static address or DHCP, and what the agent can read about it afterwards.
//!
//! A node without an address still boots: it says so, its API is there on loopback, and
//! [`dhcp::keep_lease`](crate::dhcp::keep_lease) goes on trying.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cmdline::{BootConfig, IpConfig, StaticAddress};
use crate::dhcp::{self, Lease};
use crate::{NETWORK_FILE, log};

pub(crate) mod netlink;

pub(crate) use netlink::{Link, Netlink};

/// DHCP, waiting for the cable included. After this the boot goes on without an address.
const DHCP_DEADLINE: Duration = Duration::from_secs(15);
/// A link that negotiates takes seconds; a device that is not there at all does not hold a static set-up for ever.
const CARRIER_DEADLINE: Duration = Duration::from_secs(10);
const CARRIER_POLL: Duration = Duration::from_millis(20);

/// How the address came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Dhcp,
    Static,
}

/// The primary device's address, as in [`NETWORK_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub device: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub router: Option<Ipv4Addr>,
    pub source: Source,
}

impl Address {
    /// What the boot, or a later lease, left on record.
    ///
    /// # Errors
    /// When there is none: the node has no IPv4 address.
    pub fn read() -> io::Result<Self> {
        serde_json::from_slice(&fs::read(NETWORK_FILE)?).map_err(io::Error::from)
    }
}

/// What the rest of the boot wants to know about the network.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) lease: Option<Lease>,
    pub(crate) mac: Option<[u8; 6]>,
}

#[derive(Debug, thiserror::Error)]
enum NetError {
    #[error("open a netlink socket")]
    Open { source: io::Error },
    #[error("list the network devices")]
    List { source: io::Error },
    #[error("configure {device}")]
    Configure { device: String, source: io::Error },
    #[error("no network device {0} with a carrier")]
    NoDevice(String),
    #[error("write {path}")]
    Write {
        path: &'static str,
        source: io::Error,
    },
}

/// Brings the network up as far as it goes.
pub(crate) fn bring_up(config: &BootConfig) -> Outcome {
    match try_bring_up(config) {
        Ok(outcome) => outcome,
        Err(error) => {
            log::warn(&format!("network: {}", log::chain(&error)));
            log::marker("network unavailable");
            Outcome::default()
        }
    }
}

fn try_bring_up(config: &BootConfig) -> Result<Outcome, NetError> {
    let mut netlink = Netlink::open().map_err(|source| NetError::Open { source })?;
    let mut outcome = Outcome::default();
    for link in netlink
        .links()
        .map_err(|source| NetError::List { source })?
    {
        if link.name == "lo" {
            let set = netlink.set_up(link.index);
            set.map_err(|source| NetError::Configure {
                device: link.name,
                source,
            })?;
        } else if outcome.mac.is_none() && is_physical(&link.name) {
            outcome.mac = link.mac;
        }
    }
    match &config.ip {
        IpConfig::Off => log::info("network: off by ip="),
        IpConfig::Static(wanted) => configure_static(&mut netlink, wanted)?,
        IpConfig::Dhcp { device } => {
            outcome.lease =
                dhcp::obtain(device.as_deref(), config.hostname.as_deref(), DHCP_DEADLINE);
            if outcome.lease.is_none() {
                log::marker("network unavailable: no answer to DHCP, trying on");
            }
        }
    }
    Ok(outcome)
}

fn configure_static(netlink: &mut Netlink, wanted: &StaticAddress) -> Result<(), NetError> {
    let link = wait_for_carrier(netlink, wanted.device.as_deref())?;
    let failed = |source| NetError::Configure {
        device: link.name.clone(),
        source,
    };
    netlink
        .add_address(link.index, wanted.address, wanted.prefix)
        .map_err(failed)?;
    if let Some(router) = wanted.router {
        netlink
            .set_default_route(link.index, router)
            .map_err(failed)?;
    }
    write_resolv_conf(&wanted.dns, None).map_err(|source| NetError::Write {
        path: RESOLV_CONF,
        source,
    })?;
    announce(&Address {
        device: link.name.clone(),
        address: wanted.address,
        prefix: wanted.prefix,
        router: wanted.router,
        source: Source::Static,
    })
    .map_err(|source| NetError::Write {
        path: NETWORK_FILE,
        source,
    })
}

/// The named device or the first that has a carrier. A named one is used without a carrier too, in the end: its cable may
/// come later.
fn wait_for_carrier(netlink: &mut Netlink, name: Option<&str>) -> Result<Link, NetError> {
    let deadline = Instant::now() + CARRIER_DEADLINE;
    let mut raised: Vec<u32> = Vec::new();
    loop {
        let mut candidates = netlink
            .links()
            .map_err(|source| NetError::List { source })?;
        candidates.retain(|link| is_candidate(&link.name, name));
        raise(netlink, &candidates, &mut raised);
        if let Some(link) = candidates.iter().find(|link| link.carrier) {
            return Ok(link.clone());
        }
        if Instant::now() >= deadline {
            let named = candidates.into_iter().find(|_| name.is_some());
            return named.ok_or_else(|| NetError::NoDevice(name.unwrap_or("at all").to_owned()));
        }
        std::thread::sleep(CARRIER_POLL);
    }
}

/// Sets links up that were not yet: a device shows its carrier only then.
pub(crate) fn raise(netlink: &mut Netlink, links: &[Link], raised: &mut Vec<u32>) {
    for link in links.iter().filter(|link| !link.carrier) {
        if !raised.contains(&link.index) {
            raised.push(link.index);
            if let Err(error) = netlink.set_up(link.index) {
                log::warn(&format!("network: set {} up: {error}", link.name));
            }
        }
    }
}

/// Whether a device takes part: the one that was named, or else every one with hardware behind it. Bridges and
/// container ends that the engine makes have none.
pub(crate) fn is_candidate(device: &str, named: Option<&str>) -> bool {
    match named {
        Some(name) => device == name,
        None => is_physical(device),
    }
}

fn is_physical(device: &str) -> bool {
    Path::new("/sys/class/net")
        .join(device)
        .join("device")
        .exists()
}

pub(crate) const RESOLV_CONF: &str = "/run/resolv.conf";

pub(crate) fn write_resolv_conf(dns: &[Ipv4Addr], domain: Option<&str>) -> io::Result<()> {
    replace(Path::new(RESOLV_CONF), resolv_conf(dns, domain).as_bytes())
}

fn resolv_conf(dns: &[Ipv4Addr], domain: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(domain) = domain.filter(|domain| crate::cmdline::is_domain(domain)) {
        text.push_str(&format!("search {domain}\n"));
    }
    // The resolver reads three.
    for server in dns.iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

/// Records the primary address and tells the console.
pub(crate) fn announce(address: &Address) -> io::Result<()> {
    let how = match address.source {
        Source::Dhcp => "dhcp",
        Source::Static => "static",
    };
    log::marker(&format!(
        "network {}/{} dev {} ({how})",
        address.address, address.prefix, address.device
    ));
    replace(Path::new(NETWORK_FILE), &serde_json::to_vec(address)?)
}

/// Replaces a file so that a reader sees the old or the new content, never a part.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, content)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_holds_only_what_it_should() {
        let dns: Vec<Ipv4Addr> = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
            .map(|a| a.parse().unwrap())
            .into();
        assert_eq!(
            resolv_conf(&dns, Some("lab.example")),
            "search lab.example\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
        );
        // What a DHCP server says cannot add lines.
        assert_eq!(resolv_conf(&[], Some("x\nnameserver 6.6.6.6")), "");
    }
}
