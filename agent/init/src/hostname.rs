//! The node's name: from the command line, else from DHCP, else from the first device's hardware address.

use std::fs;
use std::io;

use crate::cmdline::is_hostname;

/// Picks a name. A network's domain is not part of it.
pub(crate) fn choose(asked: Option<&str>, dhcp: Option<&str>, mac: Option<[u8; 6]>) -> String {
    let offered = dhcp
        .and_then(|name| name.split('.').next())
        .filter(|name| is_hostname(name));
    if let Some(name) = asked.or(offered) {
        return name.to_owned();
    }
    match mac {
        Some([.., a, b, c]) => format!("stillmetal-{a:02x}{b:02x}{c:02x}"),
        None => "stillmetal".to_owned(),
    }
}

/// Sets it, and writes the files behind `/etc/hostname` and `/etc/hosts`.
pub(crate) fn apply(name: &str) -> io::Result<()> {
    nix::unistd::sethostname(name)?;
    fs::write("/run/hostname", format!("{name}\n"))?;
    fs::write(
        "/run/hosts",
        format!("127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_preference() {
        let mac = Some([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        assert_eq!(choose(Some("asked"), Some("dhcp"), mac), "asked");
        assert_eq!(choose(None, Some("dhcp.lab.example"), mac), "dhcp");
        assert_eq!(choose(None, Some("not ok"), mac), "stillmetal-abcdef");
        assert_eq!(choose(None, None, None), "stillmetal");
    }
}
