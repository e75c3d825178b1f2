//! `ip=` in the kernel's own syntax (Documentation/admin-guide/nfs/nfsroot.rst), IPv4:
//! `client:server:gateway:netmask:hostname:device:autoconf:dns0:dns1:ntp0`.

use std::net::Ipv4Addr;

use super::is_host_address;

/// How the network is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpConfig {
    /// `ip=off`: no address at all.
    Off,
    /// Every device with a carrier, or only the named one.
    Dhcp {
        device: Option<String>,
    },
    Static(StaticAddress),
}

/// An address given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAddress {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub router: Option<Ipv4Addr>,
    /// The first device with a carrier when absent.
    pub device: Option<String>,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Option<Ipv4Addr>,
}

/// Parses the value of `ip=`; the second part is the host name field.
pub(super) fn parse(value: &str) -> Result<(IpConfig, Option<String>), &'static str> {
    if !value.contains(':') {
        return match value {
            "off" | "none" => Ok((IpConfig::Off, None)),
            "" | "on" | "any" | "dhcp" | "both" => Ok((IpConfig::Dhcp { device: None }, None)),
            _ => {
                let address = host_address(value)?;
                let plain = static_address(address, "", "", None, &[])?;
                Ok((IpConfig::Static(plain), None))
            }
        };
    }
    let fields: Vec<&str> = value.split(':').collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or("");
    let hostname = Some(field(4).to_owned()).filter(|name| !name.is_empty());
    let device = device(field(5))?;
    if field(0).is_empty() {
        return match field(6) {
            "off" | "none" => Ok((IpConfig::Off, hostname)),
            "" | "on" | "any" | "dhcp" | "both" => Ok((IpConfig::Dhcp { device }, hostname)),
            _ => Err("this way of autoconfiguration is not supported"),
        };
    }
    let address = host_address(field(0))?;
    let servers = [field(7), field(8), field(9)];
    Ok((
        IpConfig::Static(static_address(
            address,
            field(2),
            field(3),
            device,
            &servers,
        )?),
        hostname,
    ))
}

fn static_address(
    address: Ipv4Addr,
    router: &str,
    mask: &str,
    device: Option<String>,
    servers: &[&str],
) -> Result<StaticAddress, &'static str> {
    let server = |index: usize| match servers.get(index).copied().unwrap_or("") {
        "" => Ok(None),
        text => host_address(text).map(Some),
    };
    Ok(StaticAddress {
        address,
        prefix: if mask.is_empty() {
            classful_prefix(address)
        } else {
            prefix_of(mask)?
        },
        router: if router.is_empty() {
            None
        } else {
            Some(host_address(router)?)
        },
        device,
        dns: [server(0)?, server(1)?].into_iter().flatten().collect(),
        ntp: server(2)?,
    })
}

fn host_address(text: &str) -> Result<Ipv4Addr, &'static str> {
    let address = text.parse().map_err(|_| "not an IPv4 address")?;
    if is_host_address(address) {
        Ok(address)
    } else {
        Err("not an address of a host")
    }
}

/// A dotted mask, or a bare prefix length, which people write and the kernel does not refuse to mean.
fn prefix_of(mask: &str) -> Result<u8, &'static str> {
    if let Ok(prefix @ 1..=32) = mask.parse::<u8>() {
        return Ok(prefix);
    }
    let mask = mask.parse::<Ipv4Addr>().map_err(|_| "not a netmask")?;
    prefix_of_mask(mask).ok_or("not a contiguous netmask")
}

/// The prefix length of a contiguous, non-empty mask.
pub(crate) fn prefix_of_mask(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    let contiguous = ones == bits.count_ones() && ones > 0;
    contiguous.then_some(u8::try_from(ones).ok()).flatten()
}

/// What the kernel assumes without a mask (`net/ipv4/ipconfig.c`).
pub(crate) fn classful_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

fn device(name: &str) -> Result<Option<String>, &'static str> {
    if name.is_empty() {
        return Ok(None);
    }
    let usable = name.len() < 16
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if usable {
        Ok(Some(name.to_owned()))
    } else {
        Err("not a device name")
    }
}
