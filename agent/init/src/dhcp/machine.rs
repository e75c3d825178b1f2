//! The DHCP client of RFC 2131 for one device, as a pure function of time and messages.
//!
//! [`Machine::step`] takes what happened and gives back what to do; it opens no socket and reads no clock. Left out on
//! purpose: the ARP probe before use, INIT-REBOOT (the node has no memory) and classless routes.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};

use super::lease::{self, Lease};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(64);
/// After this many unanswered REQUESTs the offer is forgotten.
const MAX_REQUESTS: u32 = 3;
/// RFC 2131 says a minute, which a two-minute lease does not survive.
const SHORTEST_RENEWAL_RETRY: Duration = Duration::from_secs(10);
/// A server that refuses everything is not asked in a tight loop.
const AFTER_NAK: Duration = Duration::from_secs(1);

const WANTED: [OptionCode; 8] = [
    OptionCode::SubnetMask,
    OptionCode::Router,
    OptionCode::DomainNameServer,
    OptionCode::Hostname,
    OptionCode::DomainName,
    OptionCode::NtpServers,
    OptionCode::Renewal,
    OptionCode::Rebinding,
];

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Nothing but the passing of time.
    Time,
    Message(&'a Message),
}

/// What to do about it.
#[derive(Debug)]
pub enum Action {
    Send {
        to: Destination,
        message: Box<Message>,
    },
    /// Use this lease; it may be the one in use, extended.
    Bind(Lease),
    /// Stop using this lease.
    Release(Lease),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Broadcast,
    Server(Ipv4Addr),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Discovering,
    Requesting(Lease),
    Bound(Lease),
    Renewing(Lease),
    Rebinding(Lease),
}

/// The client's state for one device.
#[derive(Debug)]
pub struct Machine {
    device: String,
    mac: [u8; 6],
    hostname: Option<String>,
    random: u64,
    phase: Phase,
    xid: u32,
    tries: u32,
    /// When this exchange began, for the `secs` field.
    since: Duration,
    wake_at: Duration,
}

impl Machine {
    /// A client without a lease, which starts at once. `seed` makes transaction ids differ between machines.
    #[must_use]
    pub fn new(device: &str, mac: [u8; 6], hostname: Option<&str>, seed: u64) -> Self {
        Self {
            device: device.to_owned(),
            mac,
            hostname: hostname.map(str::to_owned),
            random: seed,
            phase: Phase::Discovering,
            xid: 0,
            tries: 0,
            since: Duration::ZERO,
            wake_at: Duration::ZERO,
        }
    }

    /// A client that has a lease already.
    #[must_use]
    pub fn resume(lease: Lease, mac: [u8; 6], hostname: Option<&str>, seed: u64) -> Self {
        let mut machine = Self::new(&lease.device, mac, hostname, seed);
        machine.wake_at = lease.renew_at();
        machine.phase = Phase::Bound(lease);
        machine
    }

    /// The lease in use, if there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Bound(lease) | Phase::Renewing(lease) | Phase::Rebinding(lease) => Some(lease),
            Phase::Discovering | Phase::Requesting(_) => None,
        }
    }

    /// Whether an answer is awaited: only then a socket is needed.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !matches!(self.phase, Phase::Bound(_))
    }

    /// When to call [`Self::step`] with [`Input::Time`], as a time of `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        self.wake_at
    }

    /// Marks the lease as the one with the default route.
    pub fn set_primary(&mut self, primary: bool) {
        if let Phase::Bound(lease) | Phase::Renewing(lease) | Phase::Rebinding(lease) =
            &mut self.phase
        {
            lease.primary = primary;
        }
    }

    /// Decides what to do at `now`.
    pub fn step(&mut self, now: Duration, input: Input<'_>) -> Vec<Action> {
        match input {
            Input::Time if now < self.wake_at => Vec::new(),
            Input::Time => self.on_time(now),
            Input::Message(message) if self.is_for_us(message) => self.on_message(now, message),
            Input::Message(_) => Vec::new(),
        }
    }

    fn is_for_us(&self, message: &Message) -> bool {
        // The length first: `chaddr()` slices past its array for one above 16.
        message.opcode() == Opcode::BootReply
            && message.xid() == self.xid
            && message.hlen() == 6
            && message.chaddr() == self.mac
    }

    fn on_time(&mut self, now: Duration) -> Vec<Action> {
        match self.phase.clone() {
            Phase::Discovering => {
                if self.tries == 0 {
                    self.begin(now);
                }
                self.retry_later(now);
                vec![self.send(now, Destination::Broadcast, MessageType::Discover, None)]
            }
            Phase::Requesting(_) if self.tries >= MAX_REQUESTS => self.start_over(now),
            Phase::Requesting(offer) => {
                self.retry_later(now);
                vec![self.request_offer(now, &offer)]
            }
            Phase::Bound(lease) if now >= lease.rebind_at() => self.rebind(now, lease),
            Phase::Bound(lease) => {
                self.begin(now);
                self.phase = Phase::Renewing(lease.clone());
                self.renew(now, &lease)
            }
            Phase::Renewing(lease) if now >= lease.rebind_at() => self.rebind(now, lease),
            Phase::Renewing(lease) => self.renew(now, &lease),
            Phase::Rebinding(lease) if now >= lease.expires_at() => self.lose(now, lease),
            Phase::Rebinding(lease) => self.rebind(now, lease),
        }
    }

    fn on_message(&mut self, now: Duration, message: &Message) -> Vec<Action> {
        let kind = message.opts().msg_type();
        match (self.phase.clone(), kind) {
            (Phase::Discovering, Some(MessageType::Offer)) => {
                let Some(offer) = lease::from_message(message, &self.device, None, now) else {
                    return Vec::new();
                };
                self.tries = 0;
                self.phase = Phase::Requesting(offer.clone());
                self.retry_later(now);
                vec![self.request_offer(now, &offer)]
            }
            (Phase::Requesting(offer), Some(MessageType::Ack)) => self.accept(now, message, &offer),
            (Phase::Requesting(offer), Some(MessageType::Nak)) if from(message, offer.server) => {
                self.tries = 0;
                self.phase = Phase::Discovering;
                self.wake_at = now + AFTER_NAK;
                Vec::new()
            }
            (Phase::Renewing(lease) | Phase::Rebinding(lease), Some(MessageType::Ack)) => {
                self.accept(now, message, &lease)
            }
            (Phase::Renewing(lease), Some(MessageType::Nak)) if from(message, lease.server) => {
                self.lose_after_nak(now, lease)
            }
            (Phase::Rebinding(lease), Some(MessageType::Nak)) => self.lose_after_nak(now, lease),
            _ => Vec::new(),
        }
    }

    fn accept(&mut self, now: Duration, message: &Message, old: &Lease) -> Vec<Action> {
        let granted = lease::from_message(message, &self.device, Some(old.server), now);
        let Some(mut lease) = granted.filter(|lease| lease.address == old.address) else {
            return Vec::new();
        };
        lease.primary = old.primary;
        self.tries = 0;
        self.wake_at = lease.renew_at();
        self.phase = Phase::Bound(lease.clone());
        vec![Action::Bind(lease)]
    }

    fn renew(&mut self, now: Duration, lease: &Lease) -> Vec<Action> {
        self.wake_at = halfway(now, lease.rebind_at());
        vec![self.send(
            now,
            Destination::Server(lease.server),
            MessageType::Request,
            Some(lease),
        )]
    }

    fn rebind(&mut self, now: Duration, lease: Lease) -> Vec<Action> {
        if now >= lease.expires_at() {
            return self.lose(now, lease);
        }
        if !matches!(self.phase, Phase::Rebinding(_)) {
            self.begin(now);
        }
        self.wake_at = halfway(now, lease.expires_at());
        let request = self.send(
            now,
            Destination::Broadcast,
            MessageType::Request,
            Some(&lease),
        );
        self.phase = Phase::Rebinding(lease);
        vec![request]
    }

    fn lose(&mut self, now: Duration, lease: Lease) -> Vec<Action> {
        let mut actions = vec![Action::Release(lease)];
        actions.extend(self.start_over(now));
        actions
    }

    fn lose_after_nak(&mut self, now: Duration, lease: Lease) -> Vec<Action> {
        self.tries = 0;
        self.phase = Phase::Discovering;
        self.wake_at = now + AFTER_NAK;
        vec![Action::Release(lease)]
    }

    fn start_over(&mut self, now: Duration) -> Vec<Action> {
        self.tries = 0;
        self.phase = Phase::Discovering;
        self.on_time(now)
    }

    /// A new exchange: answers to older ones no longer match.
    fn begin(&mut self, now: Duration) {
        self.since = now;
        self.tries = 0;
        self.xid = u32::try_from(self.next_random() >> 32).unwrap_or_default();
    }

    /// 1, 2, 4 … 64 s, plus up to a quarter of a second so that a rack that got power at once does not ask at once.
    fn retry_later(&mut self, now: Duration) {
        let delay = FIRST_RETRY
            .saturating_mul(1 << self.tries.min(6))
            .min(LONGEST_RETRY);
        let jitter = Duration::from_millis(self.next_random() >> 56);
        self.tries = self.tries.saturating_add(1);
        self.wake_at = now + delay + jitter;
    }

    /// splitmix64: good enough for transaction ids, and reproducible in tests.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn request_offer(&self, now: Duration, offer: &Lease) -> Action {
        let Action::Send { to, mut message } =
            self.send(now, Destination::Broadcast, MessageType::Request, None)
        else {
            unreachable!("send makes a Send");
        };
        message
            .opts_mut()
            .insert(DhcpOption::RequestedIpAddress(offer.address));
        message
            .opts_mut()
            .insert(DhcpOption::ServerIdentifier(offer.server));
        Action::Send { to, message }
    }

    fn send(
        &self,
        now: Duration,
        to: Destination,
        kind: MessageType,
        held: Option<&Lease>,
    ) -> Action {
        let none = Ipv4Addr::UNSPECIFIED;
        let own = held.map_or(none, |lease| lease.address);
        let mut message = Message::new_with_id(self.xid, own, none, none, none, &self.mac);
        let elapsed = now.saturating_sub(self.since).as_secs();
        message.set_secs(u16::try_from(elapsed).unwrap_or(u16::MAX));
        if held.is_none() {
            // Without an address the kernel would drop a unicast answer.
            message.set_flags(Flags::default().set_broadcast());
        }
        let mut client_id = vec![1];
        client_id.extend(self.mac);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ClientIdentifier(client_id));
        options.insert(DhcpOption::MaxMessageSize(1472));
        options.insert(DhcpOption::ClassIdentifier(b"stillmetal".to_vec()));
        options.insert(DhcpOption::ParameterRequestList(WANTED.to_vec()));
        if let Some(name) = &self.hostname {
            options.insert(DhcpOption::Hostname(name.clone()));
        }
        Action::Send {
            to,
            message: Box::new(message),
        }
    }
}

/// A server other than the one in question may not take a lease away.
fn from(message: &Message, server: Ipv4Addr) -> bool {
    lease::server_of(message).is_none_or(|sender| sender == server)
}

/// Half of what is left, but not sooner than the shortest retry, and not past the end.
fn halfway(now: Duration, end: Duration) -> Duration {
    let left = end.saturating_sub(now);
    let wait = (left / 2).max(SHORTEST_RENEWAL_RETRY).min(left);
    now.saturating_add(wait)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
