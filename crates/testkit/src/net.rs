//! Network cards of a machine and the loopback ports that lead into it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A loopback port that leads to a port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// TCP port in the guest.
    pub guest_port: u16,
    /// The guest's address if it is not the one that QEMU's DHCP server gives.
    pub guest_address: Option<Ipv4Addr>,
}

/// What a card is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Link {
    /// QEMU's user-mode network: DHCP, DNS, NAT.
    User {
        restricted: bool,
        subnet: Option<String>,
    },
    /// A cable with nobody at the other end: carrier, but no answer to anything.
    Silent,
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    link: Link,
    model: String,
    mac: Option<String>,
    forwards: Vec<Forward>,
}

impl Nic {
    fn on(link: Link) -> Self {
        Self {
            link,
            model: "virtio-net-pci".into(),
            mac: None,
            forwards: Vec::new(),
        }
    }

    /// A card on QEMU's user-mode network, which can also reach out. Its DHCP server gives
    /// 10.0.2.15; use [`Nic::forward_to`] for a guest with another, static address.
    #[must_use]
    pub fn user() -> Self {
        Self::on(Link::User {
            restricted: false,
            subnet: None,
        })
    }

    /// A card whose packets nobody answers (no DHCP server on the wire).
    #[must_use]
    pub fn silent() -> Self {
        Self::on(Link::Silent)
    }

    /// The guest may not reach out; forwards still lead in.
    #[must_use]
    pub fn restricted(mut self) -> Self {
        if let Link::User { restricted, .. } = &mut self.link {
            *restricted = true;
        }
        self
    }

    /// Another network than 10.0.2.0/24.
    #[must_use]
    pub fn subnet(mut self, cidr: &str) -> Self {
        if let Link::User { subnet, .. } = &mut self.link {
            *subnet = Some(cidr.into());
        }
        self
    }

    /// The emulated card (`virtio-net-pci` unless told; `e1000e`, `igb` and so on).
    #[must_use]
    pub fn model(mut self, model: &str) -> Self {
        self.model = model.into();
        self
    }

    /// The card's address.
    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.into());
        self
    }

    /// A free loopback port leads to `guest_port`.
    #[must_use]
    pub fn forward(mut self, guest_port: u16) -> Self {
        self.forwards.push(Forward {
            guest_port,
            guest_address: None,
        });
        self
    }

    /// A free loopback port leads to `guest_port` of a guest that uses `guest_address`.
    #[must_use]
    pub fn forward_to(mut self, guest_address: Ipv4Addr, guest_port: u16) -> Self {
        self.forwards.push(Forward {
            guest_port,
            guest_address: Some(guest_address),
        });
        self
    }

    /// The forwards asked for.
    #[must_use]
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// QEMU arguments for card number `index`; `ports` holds a host port for each forward.
    pub(crate) fn arguments(&self, index: usize, ports: &[u16]) -> Vec<String> {
        let backend = match &self.link {
            Link::User { restricted, subnet } => {
                let mut text = format!("user,id=net{index}");
                if *restricted {
                    text.push_str(",restrict=on");
                }
                if let Some(cidr) = subnet {
                    text.push_str(&format!(",net={cidr}"));
                }
                for (forward, port) in self.forwards.iter().zip(ports) {
                    let guest = forward
                        .guest_address
                        .map(|at| at.to_string())
                        .unwrap_or_default();
                    let guest_port = forward.guest_port;
                    text.push_str(&format!(
                        ",hostfwd=tcp:127.0.0.1:{port}-{guest}:{guest_port}"
                    ));
                }
                text
            }
            Link::Silent => format!("hubport,id=net{index},hubid={index}"),
        };
        let default_mac = || format!("52:54:00:5e:11:{index:02x}");
        let mac = self.mac.clone().unwrap_or_else(default_mac);
        // An empty romfile: nobody boots from these cards, and option ROMs cost boot time.
        let device = format!("{},netdev=net{index},mac={mac},romfile=", self.model);
        vec!["-netdev".into(), backend, "-device".into(), device]
    }
}

/// Free TCP ports of the loopback address, all different. Free now, that is: whoever uses them
/// must be ready to try again.
///
/// # Errors
/// The socket's error.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    held.iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect()
}

/// The loopback address with this port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_card() {
        let nic = Nic::user()
            .restricted()
            .forward(2376)
            .forward_to(Ipv4Addr::new(10, 0, 2, 77), 22);
        assert_eq!(
            nic.arguments(0, &[4001, 4002]),
            [
                "-netdev",
                "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:4001-:2376,\
                 hostfwd=tcp:127.0.0.1:4002-10.0.2.77:22",
                "-device",
                "virtio-net-pci,netdev=net0,mac=52:54:00:5e:11:00,romfile=",
            ]
        );
    }

    #[test]
    fn silent_card() {
        let arguments = Nic::silent()
            .model("e1000e")
            .mac("02:00:00:00:00:01")
            .arguments(1, &[]);
        assert_eq!(arguments[1], "hubport,id=net1,hubid=1");
        assert_eq!(
            arguments[3],
            "e1000e,netdev=net1,mac=02:00:00:00:00:01,romfile="
        );
    }

    #[test]
    fn ports_are_different_and_free() {
        let mut ports = free_ports(20).unwrap();
        for port in &ports {
            assert!(TcpListener::bind(loopback(*port)).is_ok());
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
