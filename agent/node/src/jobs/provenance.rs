//! What a job was measured on, and with what. A field that cannot be had says why, and is never left
//! out: who compares two results must see what is not known.

use std::collections::{BTreeMap, BTreeSet};

use api::provenance::{COMMAND, IMAGE, NOT_OBSERVABLE, SCHEMA};
use api::work::Assignment;
use host::Tree;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::Node;

const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";
const CPUINFO_BYTES: u64 = 16 << 20;
/// Of the machine, as its firmware says.
const FIRMWARE: [&str; 6] = [
    "sys_vendor",
    "product_name",
    "board_name",
    "bios_vendor",
    "bios_version",
    "bios_date",
];

/// Of a job that ran an image of this digest.
pub(super) async fn of_image(node: &Node, assignment: &Assignment, digest: &str) -> Vec<u8> {
    let image = json!({
        "name": assignment.request.image,
        "digest": if digest.is_empty() { unobservable("the engine did not say") } else { digest.into() },
    });
    of(node, assignment, IMAGE, image).await
}

/// Of a job that ran a program of the node.
pub(super) async fn of_command(node: &Node, assignment: &Assignment) -> Vec<u8> {
    let command = json!(assignment.request.command);
    of(node, assignment, COMMAND, command).await
}

async fn of(node: &Node, assignment: &Assignment, kind: &str, what: Value) -> Vec<u8> {
    let engine = match node.client().versions().await {
        Ok(versions) => json!(versions),
        Err(error) => unobservable(&crate::chain(&error)),
    };
    let status = node.status();
    let tree = node.tree();
    let mut all = Map::new();
    let mut add = |name: &str, value: Value| all.insert(name.to_owned(), value);
    add("schema", SCHEMA.into());
    add("job", json!(assignment.key));
    add(kind, what);
    add("cpus", json!(assignment.cpus));
    let hostname = Some(status.hostname).filter(|name| !name.is_empty());
    add("hostname", known(hostname, "/proc/sys/kernel/hostname"));
    add(
        "boot_id",
        known(status.boot_id, "/proc/sys/kernel/random/boot_id"),
    );
    add("kernel", known(status.kernel, "/proc/sys/kernel/osrelease"));
    add("kernel_build", line(tree, "/proc/version"));
    add("cmdline", known(status.cmdline, "/proc/cmdline"));
    add("virtual_machine", status.virtual_machine.into());
    add("processor", processor(tree));
    add("mitigations", mitigations(tree));
    add("firmware", firmware(tree));
    add(
        "memory_bytes",
        known(status.memory.total_bytes, "/proc/meminfo"),
    );
    add(
        "tuning",
        match status.tuning {
            Some(report) => json!(report),
            None => unobservable("tuning has not finished"),
        },
    );
    add("agent_version", status.agent_version.into());
    add("engine_versions", engine);
    add("manifest", manifest(node));
    // a value cannot fail to be text
    serde_json::to_vec_pretty(&Value::Object(all)).unwrap_or_default()
}

/// What kept it from being known.
fn unobservable(why: &str) -> Value {
    format!("{NOT_OBSERVABLE}{why}").into()
}

fn known<T: Into<Value>>(value: Option<T>, from: &str) -> Value {
    value.map_or_else(
        || unobservable(&format!("{from} could not be read")),
        Into::into,
    )
}

fn line(tree: &dyn Tree, path: &str) -> Value {
    match tree.read(path) {
        Ok(text) => text.trim().into(),
        Err(error) => unobservable(&format!("{path}: {error}")),
    }
}

/// Each different value of a field of `/proc/cpuinfo`: CPUs of one machine may differ in microcode.
fn processor(tree: &dyn Tree) -> Value {
    let text = match tree.read_up_to("/proc/cpuinfo", CPUINFO_BYTES) {
        Ok(text) => text,
        Err(error) => return unobservable(&format!("/proc/cpuinfo: {error}")),
    };
    let field = |name: &str| {
        let values: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
            .collect();
        let values: Vec<&str> = values.into_iter().collect();
        match values.as_slice() {
            [] => unobservable(&format!("/proc/cpuinfo has no `{name}`")),
            [one] => (*one).into(),
            several => json!(several),
        }
    };
    json!({
        "model": field("model name"),
        "family": field("cpu family"),
        "model_number": field("model"),
        "stepping": field("stepping"),
        "microcode": field("microcode"),
    })
}

fn mitigations(tree: &dyn Tree) -> Value {
    match tree.list(VULNERABILITIES) {
        Ok(names) => {
            let all: BTreeMap<&String, Value> = names
                .iter()
                .map(|name| (name, line(tree, &format!("{VULNERABILITIES}/{name}"))))
                .collect();
            json!(all)
        }
        Err(error) => unobservable(&format!("{VULNERABILITIES}: {error}")),
    }
}

fn firmware(tree: &dyn Tree) -> Value {
    let all: BTreeMap<&str, Value> = FIRMWARE
        .iter()
        .map(|name| (*name, line(tree, &format!("/sys/class/dmi/id/{name}"))))
        .collect();
    json!(all)
}

/// Of the appliance's image: package, version and digest of all that is in it.
fn manifest(node: &Node) -> Value {
    match node.manifest() {
        Ok(text) => {
            let hash = Sha256::digest(text.as_bytes());
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "sha256": hash })
        }
        Err(denial) => unobservable(&denial.message),
    }
}

#[cfg(test)]
mod tests {
    use api::provenance::missing;
    use host::fakes::FakeTree;

    use super::*;
    use crate::node::tests::node;

    fn assignment(request: Value) -> Assignment {
        let assignment = json!({
            "key": {"job": 7, "attempt": 1, "fence": 3}, "user": "ada", "role": "admin",
            "request": request, "cpus": "1", "devices": [], "lease_seconds": 60,
            "wait_for_begin": false,
        });
        serde_json::from_value(assignment).unwrap()
    }

    #[tokio::test]
    async fn every_required_field_is_there_even_where_nothing_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(folder.path());
        let image = assignment(json!({"image": "x"}));
        let command = assignment(json!({"command": ["/bin/true"]}));
        for (text, ran, other) in [
            (of_image(&node, &image, "sha256:ab").await, IMAGE, COMMAND),
            (of_image(&node, &image, "").await, IMAGE, COMMAND),
            (of_command(&node, &command).await, COMMAND, IMAGE),
        ] {
            let provenance: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(missing(&provenance), Vec::<String>::new());
            assert!(provenance.get(ran).is_some(), "{provenance}");
            assert!(provenance.get(other).is_none(), "{provenance}");
            for field in ["hostname", "boot_id", "tuning", "engine_versions"] {
                let why = provenance[field].as_str().unwrap_or_default();
                assert!(why.starts_with(NOT_OBSERVABLE), "{field}: {provenance}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_its_reason() {
        let tree = FakeTree::new();
        for value in [processor(&tree), mitigations(&tree)] {
            let text = value.as_str().expect("one reason");
            assert!(text.starts_with("not observable: /"), "{text}");
        }
        let firmware = firmware(&tree);
        let text = firmware["bios_version"].as_str().unwrap();
        assert!(text.starts_with("not observable: /sys/class/dmi"), "{text}");
    }

    #[test]
    fn processors_and_mitigations_are_told_in_full() {
        let tree = FakeTree::new();
        let cpu = |microcode: &str| {
            format!("model name\t: Fast 1\nstepping\t: 3\nmicrocode\t: {microcode}\n\n")
        };
        tree.set("/proc/cpuinfo", &(cpu("0x1") + &cpu("0x2") + &cpu("0x1")));
        tree.set(&format!("{VULNERABILITIES}/meltdown"), "Mitigation: PTI\n");
        tree.set(&format!("{VULNERABILITIES}/mds"), "Not affected\n");
        let found = processor(&tree);
        assert_eq!(found["model"], "Fast 1");
        assert_eq!(found["microcode"], json!(["0x1", "0x2"]));
        assert_eq!(
            found["family"],
            "not observable: /proc/cpuinfo has no `cpu family`"
        );
        let expected = json!({"mds": "Not affected", "meltdown": "Mitigation: PTI"});
        assert_eq!(mitigations(&tree), expected);
    }
}
