//! A lease: what a server granted, as it is kept in a file for the agent and for the next keeper of it.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use serde::{Deserialize, Serialize};

use crate::cmdline::ip::{classful_prefix, prefix_of_mask};
use crate::cmdline::is_host_address;
use crate::{STATE_DIR, net};

/// `0xffff_ffff` is for ever (RFC 2131 §3.3).
pub(super) const INFINITE_SECONDS: u32 = u32::MAX;
/// A server that forgets the time, or grants none, is not asked again every second.
const DEFAULT_SECONDS: u32 = 3600;
const MINIMUM_SECONDS: u32 = 30;
/// A file larger than this is not one of ours.
const MAX_SERVERS: usize = 8;

/// Times are seconds of `CLOCK_BOOTTIME`, which nobody can set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub device: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub router: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub hostname: Option<String>,
    pub server: Ipv4Addr,
    pub lease_seconds: u32,
    pub t1_seconds: u32,
    pub t2_seconds: u32,
    pub obtained: u64,
    /// This device's router is the default route.
    pub primary: bool,
}

impl Lease {
    /// The primary lease, if the node got its address by DHCP.
    ///
    /// # Errors
    /// When there is none.
    pub fn read() -> io::Result<Self> {
        Self::read_file(&primary_path())
    }

    pub(super) fn read_device(device: &str) -> io::Result<Self> {
        Self::read_file(&device_path(device))
    }

    fn read_file(path: &Path) -> io::Result<Self> {
        let lease: Self = serde_json::from_slice(&fs::read(path)?)?;
        if lease.t1_seconds <= lease.t2_seconds && lease.t2_seconds <= lease.lease_seconds {
            Ok(lease)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "times out of order",
            ))
        }
    }

    pub(super) fn write(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        net::replace(&device_path(&self.device), &bytes)?;
        if self.primary {
            net::replace(&primary_path(), &bytes)
        } else {
            Ok(())
        }
    }

    pub(super) fn forget(&self) {
        // Absent is what is wanted; anything else is overwritten by the next lease.
        let _absent = fs::remove_file(device_path(&self.device));
        if self.primary {
            let _absent = fs::remove_file(primary_path());
        }
    }

    pub(super) fn renew_at(&self) -> Duration {
        self.after(self.t1_seconds)
    }

    pub(super) fn rebind_at(&self) -> Duration {
        self.after(self.t2_seconds)
    }

    pub(super) fn expires_at(&self) -> Duration {
        self.after(self.lease_seconds)
    }

    fn after(&self, seconds: u32) -> Duration {
        if self.lease_seconds == INFINITE_SECONDS {
            return Duration::MAX;
        }
        Duration::from_secs(self.obtained.saturating_add(seconds.into()))
    }
}

fn primary_path() -> PathBuf {
    Path::new(STATE_DIR).join("lease.json")
}

fn device_path(device: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("lease-{device}.json"))
}

/// Reads an OFFER or ACK. `None` when it grants nothing usable. `server` stands in where a renewal's answer does not
/// repeat who it is from.
pub(super) fn from_message(
    message: &Message,
    device: &str,
    server: Option<Ipv4Addr>,
    now: Duration,
) -> Option<Lease> {
    let address = message.yiaddr();
    let granted = matches!(
        message.opts().msg_type(),
        Some(MessageType::Offer | MessageType::Ack)
    );
    let server = server_of(message).or(server)?;
    if !granted || !is_host_address(address) || !is_host_address(server) {
        return None;
    }
    let option = |code| message.opts().get(code);
    let prefix = match option(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => prefix_of_mask(*mask)?,
        _ => classful_prefix(address),
    };
    let router = match option(OptionCode::Router) {
        Some(DhcpOption::Router(all)) => all.first().copied().filter(|&a| is_host_address(a)),
        _ => None,
    };
    let hosts = |all: &[Ipv4Addr]| {
        all.iter()
            .copied()
            .filter(|&a| is_host_address(a))
            .take(MAX_SERVERS)
            .collect()
    };
    let lease_seconds = match option(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) => (*seconds).max(MINIMUM_SECONDS),
        _ => DEFAULT_SECONDS,
    };
    let asked_t1 = match option(OptionCode::Renewal) {
        Some(DhcpOption::Renewal(seconds)) => Some(*seconds),
        _ => None,
    };
    let asked_t2 = match option(OptionCode::Rebinding) {
        Some(DhcpOption::Rebinding(seconds)) => Some(*seconds),
        _ => None,
    };
    let (t1_seconds, t2_seconds) = renewal_times(lease_seconds, asked_t1, asked_t2);
    Some(Lease {
        device: device.to_owned(),
        address,
        prefix,
        router,
        dns: match option(OptionCode::DomainNameServer) {
            Some(DhcpOption::DomainNameServer(all)) => hosts(all),
            _ => Vec::new(),
        },
        ntp: match option(OptionCode::NtpServers) {
            Some(DhcpOption::NtpServers(all)) => hosts(all),
            _ => Vec::new(),
        },
        domain: match option(OptionCode::DomainName) {
            Some(DhcpOption::DomainName(name)) => Some(name.trim_end_matches('\0').to_owned()),
            _ => None,
        },
        hostname: match option(OptionCode::Hostname) {
            Some(DhcpOption::Hostname(name)) => Some(name.trim_end_matches('\0').to_owned()),
            _ => None,
        },
        server,
        lease_seconds,
        t1_seconds,
        t2_seconds,
        obtained: now.as_secs(),
        primary: false,
    })
}

pub(super) fn server_of(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
        _ => None,
    }
}

/// T1 and T2 as asked if they make sense, else a half and seven eighths (RFC 2131 §4.4.5).
fn renewal_times(lease: u32, t1: Option<u32>, t2: Option<u32>) -> (u32, u32) {
    let t2 = t2
        .filter(|&t2| t2 > 0 && t2 < lease)
        .unwrap_or(lease - lease / 8);
    let t1 = t1
        .filter(|&t1| t1 > 0 && t1 < t2)
        .unwrap_or((lease / 2).min(t2));
    (t1, t2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn renewal_times_keep_their_order() {
        assert_eq!(renewal_times(80, None, None), (40, 70));
        assert_eq!(renewal_times(80, Some(20), Some(60)), (20, 60));
        assert_eq!(renewal_times(80, Some(200), Some(300)), (40, 70));
    }

    #[test]
    fn survives_its_file_format() {
        let lease = Lease {
            device: "eth0".into(),
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: vec![Ipv4Addr::new(10, 0, 2, 3)],
            ntp: vec![],
            domain: Some("lab".into()),
            hostname: None,
            server: Ipv4Addr::new(10, 0, 2, 2),
            lease_seconds: 86400,
            t1_seconds: 43200,
            t2_seconds: 75600,
            obtained: 3,
            primary: true,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lease.json");
        fs::write(&path, serde_json::to_vec(&lease).unwrap()).unwrap();
        assert_eq!(Lease::read_file(&path).unwrap(), lease);
        assert_eq!(lease.renew_at(), Duration::from_secs(43203));

        let disordered = Lease {
            t1_seconds: 90000,
            ..lease
        };
        fs::write(&path, serde_json::to_vec(&disordered).unwrap()).unwrap();
        assert!(Lease::read_file(&path).is_err());
    }

    proptest! {
        #[test]
        fn times_are_always_ordered(lease in MINIMUM_SECONDS.., t1 in any::<Option<u32>>(), t2 in any::<Option<u32>>()) {
            let (t1, t2) = renewal_times(lease, t1, t2);
            prop_assert!(0 < t1 && t1 <= t2 && t2 <= lease);
        }
    }
}
