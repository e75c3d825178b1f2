use dhcproto::v4::{Decodable, Decoder};
use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn machine() -> Machine {
    Machine::new("eth0", MAC, Some("n1"), 42)
}

fn reply(xid: u32, kind: MessageType, lease_seconds: u32) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, none, ADDRESS, none, none, &MAC);
    message.set_opcode(Opcode::BootReply);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(SERVER));
    options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
    options.insert(DhcpOption::Router(vec![SERVER]));
    options.insert(DhcpOption::DomainNameServer(vec![Ipv4Addr::new(
        10, 0, 2, 3,
    )]));
    options.insert(DhcpOption::AddressLeaseTime(lease_seconds));
    message
}

fn sent(actions: &[Action]) -> (&Message, Destination) {
    match actions {
        [.., Action::Send { to, message }] => (message, *to),
        other => panic!("nothing sent: {other:?}"),
    }
}

fn bound(machine: &mut Machine, now: Duration, lease_seconds: u32) -> Lease {
    let xid = sent(&machine.step(now, Input::Time)).0.xid();
    let offer = reply(xid, MessageType::Offer, lease_seconds);
    let request = machine.step(now, Input::Message(&offer));
    let (request, _) = sent(&request);
    assert_eq!(request.xid(), xid);
    match machine
        .step(
            now,
            Input::Message(&reply(xid, MessageType::Ack, lease_seconds)),
        )
        .as_slice()
    {
        [Action::Bind(lease)] => lease.clone(),
        other => panic!("not bound: {other:?}"),
    }
}

#[test]
fn discover_offer_request_ack() {
    let mut machine = machine();
    let discover = machine.step(seconds(1), Input::Time);
    let (message, to) = sent(&discover);
    assert_eq!(to, Destination::Broadcast);
    assert_eq!(message.opts().msg_type(), Some(MessageType::Discover));
    assert!(message.flags().broadcast());

    let offer = reply(message.xid(), MessageType::Offer, 600);
    let request = machine.step(seconds(1), Input::Message(&offer));
    let (message, _) = sent(&request);
    assert_eq!(message.opts().msg_type(), Some(MessageType::Request));
    assert_eq!(
        message.opts().get(OptionCode::RequestedIpAddress),
        Some(&DhcpOption::RequestedIpAddress(ADDRESS))
    );
    assert_eq!(lease::server_of(message), Some(SERVER));

    let ack = reply(message.xid(), MessageType::Ack, 600);
    let actions = machine.step(seconds(2), Input::Message(&ack));
    let [Action::Bind(lease)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(
        (lease.address, lease.prefix, lease.router),
        (ADDRESS, 24, Some(SERVER))
    );
    assert_eq!(
        (lease.t1_seconds, lease.t2_seconds, lease.obtained),
        (300, 525, 2)
    );
    assert_eq!(machine.wake_at(), seconds(302));
    assert!(!machine.is_listening());
}

#[test]
fn silence_is_met_with_growing_delays() {
    let mut machine = machine();
    let mut now = Duration::ZERO;
    let mut delays = Vec::new();
    for _ in 0..9 {
        assert_eq!(machine.step(now, Input::Time).len(), 1);
        delays.push((machine.wake_at() - now).as_secs());
        now = machine.wake_at();
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    assert!(machine.step(now - seconds(1), Input::Time).is_empty());
}

#[test]
fn an_offer_that_is_not_confirmed_is_forgotten() {
    let mut machine = machine();
    let xid = sent(&machine.step(seconds(0), Input::Time)).0.xid();
    machine.step(
        seconds(0),
        Input::Message(&reply(xid, MessageType::Offer, 600)),
    );
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let actions = machine.step(machine.wake_at(), Input::Time);
        kinds.push(sent(&actions).0.opts().msg_type().unwrap());
    }
    assert_eq!(
        kinds,
        [
            MessageType::Request,
            MessageType::Request,
            MessageType::Discover
        ]
    );
}

#[test]
fn renews_by_unicast_then_rebinds_by_broadcast_then_gives_up() {
    let mut machine = machine();
    let lease = bound(&mut machine, seconds(0), 800);
    let renew = machine.step(seconds(400), Input::Time);
    let (message, to) = sent(&renew);
    assert_eq!(
        (to, message.ciaddr()),
        (Destination::Server(SERVER), ADDRESS)
    );
    assert!(!message.flags().broadcast());
    assert!(
        message.opts().get(OptionCode::ServerIdentifier).is_none(),
        "RFC 2131 table 5"
    );

    assert_eq!(machine.wake_at(), seconds(550));
    let rebind = machine.step(seconds(700), Input::Time);
    assert_eq!(sent(&rebind).1, Destination::Broadcast);
    assert!(machine.lease().is_some(), "in use until it expires");

    let end = machine.step(seconds(800), Input::Time);
    let [Action::Release(lost), Action::Send { message, .. }] = end.as_slice() else {
        panic!()
    };
    assert_eq!(lost.address, lease.address);
    assert_eq!(message.opts().msg_type(), Some(MessageType::Discover));
    assert!(machine.lease().is_none());
}

#[test]
fn a_renewal_extends_and_keeps_the_default_route() {
    let mut machine = machine();
    bound(&mut machine, seconds(0), 800);
    machine.set_primary(true);
    let xid = sent(&machine.step(seconds(400), Input::Time)).0.xid();
    let actions = machine.step(
        seconds(401),
        Input::Message(&reply(xid, MessageType::Ack, 800)),
    );
    let [Action::Bind(lease)] = actions.as_slice() else {
        panic!()
    };
    assert!(lease.primary);
    assert_eq!(machine.wake_at(), seconds(801));
}

#[test]
fn a_refusal_releases_the_address() {
    let mut machine = machine();
    bound(&mut machine, seconds(0), 800);
    let xid = sent(&machine.step(seconds(400), Input::Time)).0.xid();
    let actions = machine.step(
        seconds(401),
        Input::Message(&reply(xid, MessageType::Nak, 0)),
    );
    assert!(matches!(actions.as_slice(), [Action::Release(_)]));
    assert_eq!(machine.wake_at(), seconds(402));
}

#[test]
fn a_suspended_machine_notices_that_its_lease_is_over() {
    let mut machine = machine();
    bound(&mut machine, seconds(0), 800);
    let actions = machine.step(seconds(5000), Input::Time);
    assert!(matches!(
        actions.as_slice(),
        [Action::Release(_), Action::Send { .. }]
    ));
}

#[test]
fn an_endless_lease_is_never_renewed() {
    let mut machine = machine();
    bound(&mut machine, seconds(0), u32::MAX);
    assert!(machine.step(seconds(1 << 40), Input::Time).is_empty());
}

#[test]
fn answers_to_others_are_passed_over() {
    let mut machine = machine();
    let xid = sent(&machine.step(seconds(0), Input::Time)).0.xid();
    let mut other_mac = reply(xid, MessageType::Offer, 600);
    other_mac.set_chaddr(&[9; 6]);
    let other_xid = reply(xid ^ 1, MessageType::Offer, 600);
    let mut request = reply(xid, MessageType::Offer, 600);
    request.set_opcode(Opcode::BootRequest);
    for message in [other_mac, other_xid, request] {
        assert!(
            machine
                .step(seconds(0), Input::Message(&message))
                .is_empty()
        );
    }
    let mut nonsense = reply(xid, MessageType::Offer, 600);
    nonsense.set_yiaddr(Ipv4Addr::BROADCAST);
    assert!(
        machine
            .step(seconds(0), Input::Message(&nonsense))
            .is_empty()
    );
}

proptest! {
    /// Whatever arrives whenever: no panic, and never a lease of an address that no host may have.
    #[test]
    fn any_bytes_at_any_time(
        steps in proptest::collection::vec((0u64..2000, proptest::collection::vec(any::<u8>(), 0..64), any::<bool>()), 0..24)
    ) {
        let mut machine = machine();
        let mut now = Duration::ZERO;
        for (delay, tail, valid) in steps {
            now += seconds(delay);
            machine.step(now, Input::Time);
            // A reply that is ours up to the options, then anything.
            let mut head = vec![2, 1, if valid { 6 } else { 255 }, 0];
            head.extend(machine.xid.to_be_bytes());
            head.extend([0; 8]);
            head.extend(ADDRESS.octets());
            head.extend([0; 8]);
            head.extend(MAC);
            head.resize(236, 0);
            head.extend([99, 130, 83, 99]);
            head.extend(tail);
            let clean = super::super::filter::filter(&head).unwrap_or_default();
            if let Ok(message) = Message::decode(&mut Decoder::new(&clean)) {
                machine.step(now, Input::Message(&message));
            }
            if let Some(lease) = machine.lease() {
                prop_assert!(crate::cmdline::is_host_address(lease.address));
            }
        }
    }
}
