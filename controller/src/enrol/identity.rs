//! Which node a machine is. Pure.
//!
//! A machine is known again by its SMBIOS UUID and, where makers give the same one to many machines,
//! by a network card that it had before; without a UUID by a card alone.

use std::collections::BTreeSet;

use api::fleet::{MachineHints, NodeId};

/// UUIDs that makers leave in many machines alike.
const NOBODYS: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];

/// What is known of the nodes that there are.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub id: &'a NodeId,
    pub machine: &'a MachineHints,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// That node, perhaps after a reboot.
    Known(NodeId),
    New(NodeId),
}

impl Identity {
    #[must_use]
    pub fn id(&self) -> &NodeId {
        let (Self::Known(id) | Self::New(id)) = self;
        id
    }
}

/// Who the machine is. `spare` becomes part of the id of a machine that has neither UUID nor card:
/// lower-case letters and digits, different each time.
#[must_use]
pub fn identify<'a>(
    nodes: impl Iterator<Item = Known<'a>>,
    machine: &MachineHints,
    spare: &str,
) -> Identity {
    let nodes: Vec<Known<'a>> = nodes.collect();
    let uuid = usable(machine);
    let same = nodes
        .iter()
        .find(|node| match (uuid, usable(node.machine)) {
            (Some(uuid), Some(other)) => uuid == other && cards_agree(machine, node.machine),
            (None, None) => share_a_card(machine, node.machine),
            _ => false,
        });
    if let Some(node) = same {
        return Identity::Known(node.id.clone());
    }
    let plain = match (uuid, machine.macs.first()) {
        (Some(uuid), _) => uuid.to_owned(),
        (None, Some(mac)) => format!("mac-{}", mac.replace(':', "")),
        (None, None) => format!("node-{spare}"),
    };
    let taken: BTreeSet<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    let numbered = (2..10_000).map(|number| format!("{plain}-{number}"));
    let free = std::iter::once(plain.clone())
        .chain(numbered)
        .find(|id| !taken.contains(&**id));
    let id = free.and_then(|id| NodeId::try_from(id).ok());
    let spare = || NodeId::try_from(format!("node-{spare}"));
    let id = id.or_else(|| spare().ok());
    Identity::New(id.expect("the caller's spare is lower-case letters and digits"))
}

fn usable(machine: &MachineHints) -> Option<&str> {
    let uuid = machine.uuid.as_deref()?;
    let known = |b: u8| b.is_ascii_hexdigit() && !b.is_ascii_uppercase() || b == b'-';
    (uuid.len() == 36 && uuid.bytes().all(known) && !NOBODYS.contains(&uuid)).then_some(uuid)
}

/// Where either side does not say which cards it has, the UUID alone decides.
fn cards_agree(one: &MachineHints, other: &MachineHints) -> bool {
    one.macs.is_empty() || other.macs.is_empty() || share_a_card(one, other)
}

fn share_a_card(one: &MachineHints, other: &MachineHints) -> bool {
    one.macs.intersection(&other.macs).next().is_some()
}

/// Whether a token that is bound to a UUID or MAC is for this machine.
#[must_use]
pub fn is_bound_to(machine: &MachineHints, wanted: &str) -> bool {
    let wanted = wanted.to_ascii_lowercase();
    machine.uuid.as_deref() == Some(&*wanted) || machine.macs.contains(&*wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(uuid: Option<&str>, macs: &[&str]) -> MachineHints {
        MachineHints {
            hostname: "bench".into(),
            uuid: uuid.map(str::to_owned),
            macs: macs.iter().map(|mac| (*mac).to_owned()).collect(),
            boot_id: None,
        }
    }

    fn known(all: &[(NodeId, MachineHints)]) -> impl Iterator<Item = Known<'_>> {
        all.iter().map(|(id, machine)| Known { id, machine })
    }

    const ONE: &str = "8a6a3c8e-0e5c-4b8a-9a40-c5d1e2f30a01";

    #[test]
    fn a_machine_is_known_again_after_a_reboot() {
        let first = machine(Some(ONE), &["52:54:00:00:00:01"]);
        let new = identify(known(&[]), &first, "x");
        assert_eq!(
            new,
            Identity::New(NodeId::try_from(ONE.to_owned()).unwrap())
        );
        let nodes = [(new.id().clone(), first.clone())];
        assert_eq!(
            identify(known(&nodes), &first, "y"),
            Identity::Known(new.id().clone())
        );
        let one_more_card = machine(Some(ONE), &["52:54:00:00:00:01", "52:54:00:00:00:09"]);
        assert_eq!(
            identify(known(&nodes), &one_more_card, "y"),
            Identity::Known(new.id().clone())
        );
    }

    #[test]
    fn two_machines_with_one_uuid_are_two_nodes() {
        let first = machine(Some(ONE), &["52:54:00:00:00:01"]);
        let second = machine(Some(ONE), &["52:54:00:00:00:02"]);
        let nodes = [(identify(known(&[]), &first, "x").id().clone(), first)];
        let Identity::New(id) = identify(known(&nodes), &second, "y") else {
            panic!("taken for the first one");
        };
        assert_eq!(id.as_str(), format!("{ONE}-2"));
    }

    #[test]
    fn a_uuid_of_many_is_no_identity() {
        for uuid in NOBODYS {
            let first = machine(Some(uuid), &["52:54:00:00:00:01"]);
            let id = identify(known(&[]), &first, "x").id().clone();
            assert_eq!(id.as_str(), "mac-525400000001");
        }
    }

    #[test]
    fn without_uuid_and_card_each_machine_is_new() {
        let bare = machine(None, &[]);
        let id = identify(known(&[]), &bare, "k3j").id().clone();
        assert_eq!(id.as_str(), "node-k3j");
        let nodes = [(id, bare.clone())];
        assert!(matches!(
            identify(known(&nodes), &bare, "k3k"),
            Identity::New(_)
        ));
    }

    #[test]
    fn hostnames_are_nobodys_identity() {
        let first = machine(None, &["52:54:00:00:00:01"]);
        let second = machine(None, &["52:54:00:00:00:02"]);
        let nodes = [(identify(known(&[]), &first, "x").id().clone(), first)];
        assert!(matches!(
            identify(known(&nodes), &second, "y"),
            Identity::New(_)
        ));
    }

    #[test]
    fn nonsense_for_a_uuid_is_passed_over() {
        for uuid in [
            "",
            "Not Specified",
            "8A6A3C8E-0E5C-4B8A-9A40-C5D1E2F30A01",
            "../../etc/passwd",
        ] {
            let odd = machine(Some(uuid), &[]);
            assert_eq!(identify(known(&[]), &odd, "s").id().as_str(), "node-s");
        }
    }
}
