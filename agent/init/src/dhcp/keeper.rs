//! Runs a [`Machine`] for every device, and does what the machines say.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use super::lease::Lease;
use super::machine::{Action, Input, Machine};
use super::port::Port;
use crate::log;
use crate::net::{self, Address, Link, Netlink, Source};

/// While the node has no address, a cable or a device may come at any moment.
const SCAN_WITHOUT_LEASE: Duration = Duration::from_millis(50);
const SCAN_LONG_WITHOUT_LEASE: Duration = Duration::from_secs(2);
const SCAN_WITH_LEASE: Duration = Duration::from_secs(60);
/// Scanning often is for the boot; a node left without a network scans seldom.
const EAGER: Duration = Duration::from_secs(20);
/// A flood of datagrams may not keep the time-outs from being seen.
const MAX_MESSAGES_PER_TURN: usize = 64;

#[derive(Debug)]
pub(super) struct Keeper {
    netlink: Netlink,
    named: Option<String>,
    hostname: Option<String>,
    clients: Vec<Client>,
    raised: Vec<u32>,
    candidates: usize,
    started: Duration,
    scan_at: Duration,
}

#[derive(Debug)]
struct Client {
    link: Link,
    machine: Machine,
    port: Option<Port>,
}

impl Keeper {
    pub(super) fn open(named: Option<&str>, hostname: Option<&str>) -> io::Result<Self> {
        let now = log::uptime();
        Ok(Self {
            netlink: Netlink::open()?,
            named: named.map(str::to_owned),
            hostname: hostname.map(str::to_owned),
            clients: Vec::new(),
            raised: Vec::new(),
            candidates: 0,
            started: now,
            scan_at: now,
        })
    }

    pub(super) fn has_candidates(&self) -> bool {
        self.candidates > 0
    }

    pub(super) fn primary(&self) -> Option<Lease> {
        self.clients
            .iter()
            .filter_map(|c| c.machine.lease())
            .find(|lease| lease.primary)
            .cloned()
    }

    /// Waits for the next thing to happen, at most `patience`, and deals with it.
    pub(super) fn turn(&mut self, patience: Duration) {
        let now = log::uptime();
        if now >= self.scan_at {
            self.scan(now);
        }
        for index in 0..self.clients.len() {
            let actions = self.clients[index].machine.step(now, Input::Time);
            self.act(index, actions);
        }
        self.wait(now, patience);
        self.receive();
    }

    /// Takes in devices that appeared or got a carrier, and lets go of those that are gone.
    fn scan(&mut self, now: Duration) {
        match self.netlink.links() {
            Ok(mut links) => {
                self.clients
                    .retain(|client| links.iter().any(|l| l.index == client.link.index));
                links.retain(|link| net::is_candidate(&link.name, self.named.as_deref()));
                self.candidates = links.len();
                net::raise(&mut self.netlink, &links, &mut self.raised);
                for link in links.into_iter().filter(|link| link.carrier) {
                    self.take_in(link);
                }
            }
            Err(error) => log::warn(&format!("dhcp: list devices: {error}")),
        }
        let interval = match () {
            () if self.primary().is_some() => SCAN_WITH_LEASE,
            () if now.saturating_sub(self.started) < EAGER => SCAN_WITHOUT_LEASE,
            () => SCAN_LONG_WITHOUT_LEASE,
        };
        self.scan_at = now.saturating_add(interval);
    }

    fn take_in(&mut self, link: Link) {
        let known = self
            .clients
            .iter()
            .any(|client| client.link.index == link.index);
        let Some(mac) = link.mac.filter(|_| !known) else {
            return;
        };
        let hostname = self.hostname.as_deref();
        let machine = match Lease::read_device(&link.name) {
            Ok(lease) if lease.device == link.name => Machine::resume(lease, mac, hostname, seed()),
            _ => Machine::new(&link.name, mac, hostname, seed()),
        };
        self.clients.push(Client {
            link,
            machine,
            port: None,
        });
    }

    fn wait(&self, now: Duration, patience: Duration) {
        let wake_at = self
            .clients
            .iter()
            .map(|client| client.machine.wake_at())
            .min();
        let until = wake_at
            .unwrap_or(Duration::MAX)
            .min(self.scan_at)
            .saturating_sub(now);
        // Rounded up: a poll that returns just before the time is up would spin.
        let wait = until.min(patience).saturating_add(Duration::from_millis(1));
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let mut fds: Vec<PollFd<'_>> = self
            .clients
            .iter()
            .filter_map(|client| client.port.as_ref())
            .map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN))
            .collect();
        // Time-outs, signals and readiness all lead to the same next look at every socket and machine.
        let _any = poll(&mut fds, timeout);
    }

    fn receive(&mut self) {
        for index in 0..self.clients.len() {
            for _ in 0..MAX_MESSAGES_PER_TURN {
                let client = &mut self.clients[index];
                let Some(message) = client.port.as_ref().and_then(Port::receive) else {
                    break;
                };
                let actions = client.machine.step(log::uptime(), Input::Message(&message));
                self.act(index, actions);
            }
        }
    }

    fn act(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            let device = self.clients[index].link.name.clone();
            let done = match action {
                Action::Send { to, message } => self.clients[index].send(to, &message),
                Action::Bind(lease) => self.bind(index, lease),
                Action::Release(lease) => self.release(index, &lease),
            };
            if let Err(error) = done {
                log::warn(&format!("dhcp on {device}: {error}"));
            }
        }
        let client = &mut self.clients[index];
        if !client.machine.is_listening() {
            client.port = None;
        }
    }

    fn bind(&mut self, index: usize, mut lease: Lease) -> io::Result<()> {
        lease.primary = lease.primary || self.primary().is_none();
        self.clients[index].machine.set_primary(lease.primary);
        let link = self.clients[index].link.index;
        self.netlink
            .add_address(link, lease.address, lease.prefix)?;
        log::info(&format!(
            "dhcp on {}: {}/{} from {} for {} s",
            lease.device, lease.address, lease.prefix, lease.server, lease.lease_seconds
        ));
        if lease.primary {
            self.make_primary(link, &lease)
        } else {
            lease.write()
        }
    }

    fn make_primary(&mut self, link: u32, lease: &Lease) -> io::Result<()> {
        if let Some(router) = lease.router {
            self.netlink.set_default_route(link, router)?;
        }
        net::write_resolv_conf(&lease.dns, lease.domain.as_deref())?;
        lease.write()?;
        let address = Address {
            device: lease.device.clone(),
            address: lease.address,
            prefix: lease.prefix,
            router: lease.router,
            source: Source::Dhcp,
        };
        // A renewal changes nothing that anybody waits for.
        if Address::read().is_ok_and(|known| known == address) {
            return Ok(());
        }
        net::announce(&address)
    }

    fn release(&mut self, index: usize, lease: &Lease) -> io::Result<()> {
        log::warn(&format!("dhcp on {}: lost {}", lease.device, lease.address));
        lease.forget();
        if lease.primary {
            // Whoever comes next is announced, even with the same address.
            let _absent = std::fs::remove_file(crate::NETWORK_FILE);
        }
        let link = self.clients[index].link.index;
        // Its routes go with it.
        self.netlink
            .remove_address(link, lease.address, lease.prefix)?;
        if !lease.primary {
            return Ok(());
        }
        let heir = self.clients.iter().enumerate().find_map(|(other, client)| {
            (other != index)
                .then_some(other)
                .zip(client.machine.lease().cloned())
        });
        let Some((other, mut lease)) = heir else {
            return Ok(());
        };
        lease.primary = true;
        self.clients[other].machine.set_primary(true);
        let link = self.clients[other].link.index;
        self.make_primary(link, &lease)
    }
}

impl Client {
    fn send(&mut self, to: super::Destination, message: &dhcproto::v4::Message) -> io::Result<()> {
        let port = match self.port.take() {
            Some(port) => port,
            None => Port::open(&self.link.name)?,
        };
        self.port.insert(port).send(to, message)
    }
}

/// Different on every boot and machine: otherwise a rack's transaction ids would collide.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match random {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => log::uptime().as_nanos().try_into().unwrap_or(u64::MAX),
    }
}
