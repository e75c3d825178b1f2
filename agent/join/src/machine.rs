//! What tells this machine from others: hints for the controller, which gives out the identity.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use api::fleet::MachineHints;
use host::{Tree, durable};

/// Kept in the state directory where the hardware says nothing.
const GENERATED: &str = "machine-id";

const UUID: &str = "/sys/class/dmi/id/product_uuid";
const NET: &str = "/sys/class/net";
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// In the firmware of many machines, so it tells none of them from the others.
const EVERYBODYS: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];

/// More network cards than these are not named.
const CARDS: usize = 64;

/// There is nothing to tell this machine by.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The number drawn for it.
    #[error("keep {path}")]
    Keep {
        /// Where.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Not drawn even.
    #[error("draw a number for this machine")]
    Random(#[source] getrandom::Error),
}

/// The SMBIOS UUID, the addresses of the network cards (those that are hardware, if there are any),
/// host name and boot. Where there is neither UUID nor card, a number drawn once and kept in
/// `state_dir` takes the UUID's place.
///
/// # Errors
/// When that number is needed and can be neither read nor kept.
pub fn read(tree: &dyn Tree, state_dir: &Path) -> Result<MachineHints, MachineError> {
    let word = |path: &str| {
        let text = tree.read(path).ok()?;
        let text = text.trim().to_ascii_lowercase();
        (!text.is_empty()).then_some(text)
    };
    let macs = macs(tree);
    let mut uuid = word(UUID).filter(|uuid| is_uuid(uuid) && !EVERYBODYS.contains(&&**uuid));
    if uuid.is_none() && macs.is_empty() {
        uuid = Some(generated(state_dir)?);
    }
    Ok(MachineHints {
        hostname: tree
            .read(HOSTNAME)
            .map(|name| name.trim().to_owned())
            .unwrap_or_default(),
        uuid,
        macs,
        boot_id: word(BOOT_ID),
    })
}

/// A name for the agent itself, drawn once and kept in `state_dir`.
///
/// # Errors
/// When it can be neither read nor kept.
pub fn own(state_dir: &Path) -> Result<String, MachineError> {
    generated(state_dir)
}

/// One of several agents on one machine: told apart by an identity of its own, since the hardware is that
/// of all of them.
#[must_use]
pub fn instance(tree: &dyn Tree, name: &str, uuid: &str) -> MachineHints {
    let boot_id = tree.read(BOOT_ID).ok();
    MachineHints {
        hostname: name.to_owned(),
        uuid: Some(uuid.to_ascii_lowercase()),
        macs: BTreeSet::new(),
        boot_id: boot_id.map(|id| id.trim().to_ascii_lowercase()),
    }
}

/// Of hardware if there is any, else of what is neither loopback nor made of others.
fn macs(tree: &dyn Tree) -> BTreeSet<String> {
    let names = tree.list(NET).unwrap_or_default();
    let (mut hardware, mut others) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        let path = |file: &str| format!("{NET}/{name}/{file}");
        let text = |file: &str| tree.read(&path(file)).map(|text| text.trim().to_owned());
        let Ok(mac) = text("address") else { continue };
        let mac = mac.to_ascii_lowercase();
        // ARPHRD_ETHER; loopback, tunnels and InfiniBand are others.
        if text("type").ok().as_deref() != Some("1") || !is_mac(&mac) {
            continue;
        }
        // A veth's other end, a VLAN's card.
        let derived = text("iflink").ok() != text("ifindex").ok();
        let made_of_others = ["bridge", "bonding", "tun_flags"].map(&path);
        let made_of_others = made_of_others.iter().any(|path| tree.exists(path));
        if tree.exists(&path("device")) {
            hardware.insert(mac);
        } else if !derived && !made_of_others {
            others.insert(mac);
        }
    }
    let chosen = if hardware.is_empty() {
        others
    } else {
        hardware
    };
    chosen.into_iter().take(CARDS).collect()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, b)| match place {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// Six bytes, neither all zero nor all ones.
fn is_mac(text: &str) -> bool {
    text.len() == 17
        && text.bytes().enumerate().all(|(place, b)| match place % 3 {
            2 => b == b':',
            _ => b.is_ascii_hexdigit(),
        })
        && text.bytes().any(|b| !b":0".contains(&b))
        && text.bytes().any(|b| !b":f".contains(&b))
}

fn generated(state_dir: &Path) -> Result<String, MachineError> {
    let path = state_dir.join(GENERATED);
    let keep = |source| MachineError::Keep {
        path: path.clone(),
        source,
    };
    let kept = durable::read(&path, 64).map_err(keep)?;
    if let Some(uuid) = kept
        .map(|text| text.trim().to_owned())
        .filter(|text| is_uuid(text))
    {
        return Ok(uuid);
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(MachineError::Random)?;
    let mut number = u128::from_be_bytes(bytes);
    // RFC 9562, version 4: 4 bits and 2 are fixed.
    number = number & !(0xf << 76) | 0x4 << 76;
    number = number & !(0x3 << 62) | 0x2 << 62;
    let digits = format!("{number:032x}");
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &digits[range]);
    let uuid = groups.join("-");
    durable::replace(&path, uuid.as_bytes()).map_err(keep)?;
    Ok(uuid)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use host::RealTree;
    use proptest::prelude::*;

    use super::*;

    /// A machine's files.
    struct Machine {
        root: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let machine = Self { root };
            machine.file(HOSTNAME, "bench7\n");
            machine.file(BOOT_ID, "0b7e9a52-2f0c-4a3e-9d38-6d3bb0a8fd10\n");
            machine.card("lo", 1, "00:00:00:00:00:00", "772");
            machine
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn card(&self, name: &str, index: u32, mac: &str, kind: &str) {
            let file = |file: &str, text: &str| {
                self.file(&format!("{NET}/{name}/{file}"), &format!("{text}\n"));
            };
            file("address", mac);
            file("type", kind);
            file("ifindex", &index.to_string());
            file("iflink", &index.to_string());
        }

        fn read(&self) -> MachineHints {
            let state = self.root.path().join("state");
            read(&RealTree::new(self.root.path()), &state).unwrap()
        }
    }

    #[test]
    fn hardware_comes_before_everything_else() {
        let machine = Machine::new();
        machine.file(UUID, "4C4C4544-0051-3910-8053-B4C04F564433\n");
        machine.card("eth0", 2, "52:54:00:12:34:56", "1");
        machine.file(&format!("{NET}/eth0/device/vendor"), "0x1af4\n");
        machine.card("eth1", 3, "52:54:00:AB:CD:EF", "1");
        machine.file(&format!("{NET}/eth1/device/vendor"), "0x1af4\n");
        machine.card("dummy0", 4, "02:00:00:00:00:01", "1");
        machine.card("docker0", 5, "02:42:00:00:00:01", "1");
        machine.file(&format!("{NET}/docker0/bridge/bridge_id"), "x\n");
        let hints = machine.read();
        assert_eq!(hints.hostname, "bench7");
        assert_eq!(
            hints.uuid.as_deref(),
            Some("4c4c4544-0051-3910-8053-b4c04f564433")
        );
        let macs: Vec<&str> = hints.macs.iter().map(String::as_str).collect();
        assert_eq!(macs, ["52:54:00:12:34:56", "52:54:00:ab:cd:ef"]);
        assert_eq!(
            hints.boot_id.as_deref(),
            Some("0b7e9a52-2f0c-4a3e-9d38-6d3bb0a8fd10")
        );
        assert_eq!(machine.read(), hints);
        assert!(!machine.root.path().join("state").exists());
    }

    #[test]
    fn what_changes_from_boot_to_boot_tells_nothing() {
        let machine = Machine::new();
        machine.card("br0", 2, "02:00:00:00:00:02", "1");
        machine.file(&format!("{NET}/br0/bridge/bridge_id"), "x\n");
        machine.card("veth1", 3, "02:00:00:00:00:03", "1");
        machine.file(&format!("{NET}/veth1/iflink"), "9\n");
        machine.card("tap0", 4, "02:00:00:00:00:04", "1");
        machine.file(&format!("{NET}/tap0/tun_flags"), "0x1002\n");
        machine.card("ib0", 5, "80:00:00:00:00:05", "32");
        machine.card("odd", 6, "ff:ff:ff:ff:ff:ff", "1");
        let hints = machine.read();
        assert!(hints.macs.is_empty(), "{:?}", hints.macs);
        machine.card("usb0", 7, "02:00:00:00:00:07", "1");
        let hints = machine.read();
        assert_eq!(
            hints.macs.into_iter().collect::<Vec<_>>(),
            ["02:00:00:00:00:07"]
        );
        assert_eq!(hints.uuid, None);
    }

    #[test]
    fn a_machine_without_marks_gets_one_and_keeps_it() {
        for uuid in EVERYBODYS.iter().copied().chain(["Not Settable", ""]) {
            let machine = Machine::new();
            machine.file(UUID, uuid);
            let drawn = machine.read().uuid.unwrap();
            assert!(is_uuid(&drawn), "{drawn}");
            assert_eq!(&drawn[14..15], "4");
            assert!("89ab".contains(&drawn[19..20]), "{drawn}");
            assert_eq!(machine.read().uuid.as_deref(), Some(&*drawn));
            assert_ne!(Machine::new().read().uuid, Some(drawn));
        }
    }

    #[test]
    fn an_instance_is_not_its_machine() {
        let machine = Machine::new();
        machine.file(UUID, "4C4C4544-0051-3910-8053-B4C04F564433\n");
        machine.card("eth0", 2, "52:54:00:12:34:56", "1");
        let own = "6f1b9a52-2f0c-4a3e-9d38-6d3bb0a8fd10";
        let hints = instance(&RealTree::new(machine.root.path()), "node1", own);
        assert_eq!(hints.uuid.as_deref(), Some(own));
        assert_eq!((hints.hostname.as_str(), hints.macs.len()), ("node1", 0));
        assert_eq!(hints.boot_id, machine.read().boot_id);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn no_file_upsets_it(uuid in "\\PC{0,60}", mac in "\\PC{0,30}|[0-9a-f:]{17}", kind in "1|\\PC*") {
            let machine = Machine::new();
            machine.file(UUID, &uuid);
            machine.card("eth0", 2, &mac, &kind);
            let hints = machine.read();
            prop_assert!(hints.uuid.is_some() || !hints.macs.is_empty());
            prop_assert!(hints.uuid.iter().all(|uuid| is_uuid(uuid)));
            prop_assert!(hints.macs.iter().all(|mac| is_mac(mac)));
        }
    }
}
