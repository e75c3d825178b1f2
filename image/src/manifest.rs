//! `manifest.json`: the SPDX 2.3 bill of materials of an image.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::digest::Sha256;
use crate::kernel::Source;
use crate::program::{self, ProgramError};
use crate::unpack::{OffLock, Unpacked};

/// The bill cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("list the crates of the agent")]
    Cargo(#[from] ProgramError),
    #[error("cargo tree printed {0:?} where a crate and its version were expected")]
    Crate(String),
}

/// One Rust crate that is linked into the agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    pub name: String,
    pub version: String,
}

/// What the image is made of.
#[derive(Debug)]
pub struct Materials<'a> {
    /// The digest of all inputs: names the document.
    pub key: Sha256,
    pub root_packages: &'a [Unpacked],
    pub ssh_packages: &'a [Unpacked],
    pub off_lock: &'a [OffLock],
    pub crates: &'a [Crate],
    pub agent: Sha256,
    pub kernel: Sha256,
    pub kernel_version: &'a str,
    pub kernel_source: &'a Source,
}

/// The crates that cargo links into the agent, from the workspace around `data`.
///
/// # Errors
/// When cargo is missing or the workspace does not resolve.
pub fn agent_crates(data: &Path) -> Result<Vec<Crate>, ManifestError> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(data)
        .args(["tree", "--quiet", "--package"]);
    command.args(["stillmetal-agent", "--edges", "normal", "--prefix", "none"]);
    command.args([
        "--no-dedupe",
        "--format",
        "{p}",
        "--target",
        "x86_64-unknown-linux-gnu",
    ]);
    let output = program::run(
        &mut command,
        "cargo (or the Rust toolchain of rust-toolchain.toml)",
    )?;
    parse_tree(&String::from_utf8_lossy(&output.stdout))
}

fn parse_tree(text: &str) -> Result<Vec<Crate>, ManifestError> {
    let mut crates = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        // "name v1.2.3", with a path or a "(proc-macro)" mark behind it
        let mut words = line.split(' ');
        let (name, version) = (words.next(), words.next().and_then(|v| v.strip_prefix('v')));
        let (Some(name), Some(version)) = (name, version) else {
            return Err(ManifestError::Crate(line.to_owned()));
        };
        if !line.contains("(proc-macro)") {
            crates.push(Crate {
                name: name.to_owned(),
                version: version.to_owned(),
            });
        }
    }
    crates.sort();
    crates.dedup();
    Ok(crates)
}

/// The document, with all times at the epoch so that the same inputs give the same bytes.
#[must_use]
pub fn document(materials: &Materials<'_>) -> Value {
    let mut packages = vec![
        package(
            "Image",
            "stillmetal-image",
            env!("CARGO_PKG_VERSION"),
            None,
            None,
        ),
        package(
            "SshAddOn",
            "stillmetal-ssh",
            env!("CARGO_PKG_VERSION"),
            None,
            None,
        ),
        package(
            "Agent",
            "stillmetal-agent",
            env!("CARGO_PKG_VERSION"),
            Some(materials.agent),
            None,
        ),
        package(
            "Kernel",
            "linux",
            materials.kernel_version,
            Some(materials.kernel),
            None,
        ),
    ];
    let mut relationships = vec![
        relationship("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"),
        relationship("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-SshAddOn"),
        relationship("SPDXRef-Image", "CONTAINS", "SPDXRef-Agent"),
        relationship("SPDXRef-Image", "CONTAINS", "SPDXRef-Kernel"),
    ];
    let source = materials.kernel_source;
    let purl = deb_purl(&source.package, &source.version);
    let id = "KernelSource";
    packages.push(package(
        id,
        &source.package,
        &source.version,
        source.sha256,
        Some(purl),
    ));
    relationships.push(relationship(
        "SPDXRef-Kernel",
        "GENERATED_FROM",
        "SPDXRef-KernelSource",
    ));
    let root = materials.root_packages.iter().map(|p| ("SPDXRef-Image", p));
    let ssh = materials
        .ssh_packages
        .iter()
        .map(|p| ("SPDXRef-SshAddOn", p));
    let mut listed = BTreeSet::new();
    for (container, unpacked) in root.chain(ssh) {
        let deb = &unpacked.package;
        let id = format!("Deb-{}", identifier(&deb.name));
        let purl = deb_purl(&deb.name, &deb.version);
        if listed.insert(&deb.name) {
            packages.push(package(
                &id,
                &deb.name,
                &deb.version,
                Some(deb.sha256),
                Some(purl),
            ));
        }
        relationships.push(relationship(
            container,
            "CONTAINS",
            &format!("SPDXRef-{id}"),
        ));
    }
    for Crate { name, version } in materials.crates {
        let id = format!("Crate-{}-{}", identifier(name), identifier(version));
        let purl = format!("pkg:cargo/{}@{}", percent(name), percent(version));
        packages.push(package(&id, name, version, None, Some(purl)));
        relationships.push(relationship(
            "SPDXRef-Agent",
            "STATIC_LINK",
            &format!("SPDXRef-{id}"),
        ));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "stillmetal-image",
        "documentNamespace": format!("urn:stillmetal:image:{}", materials.key),
        "creationInfo": {
            "created": "1970-01-01T00:00:00Z",
            "creators": [concat!("Tool: stillmetal-image-", env!("CARGO_PKG_VERSION"))],
        },
        // Ours, not SPDX's: empty when every package is the locked one.
        "off_lock": materials.off_lock,
        "packages": packages,
        "relationships": relationships,
    })
}

fn package(
    id: &str,
    name: &str,
    version: &str,
    sha256: Option<Sha256>,
    purl: Option<String>,
) -> Value {
    let mut value = json!({
        "SPDXID": format!("SPDXRef-{id}"),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
    });
    if let Some(digest) = sha256 {
        value["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": digest }]);
    }
    if let Some(purl) = purl {
        value["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }]);
    }
    value
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn deb_purl(name: &str, version: &str) -> String {
    format!(
        "pkg:deb/debian/{}@{}?arch=amd64&distro=trixie",
        percent(name),
        percent(version)
    )
}

/// SPDX identifiers know letters, digits, dot and hyphen only.
fn identifier(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cargo_tree() {
        let text = "stillmetal-agent v0.1.0 (/src/agent)\ntokio v1.54.1\nserde_derive v1.0.229 (proc-macro)\ntokio v1.54.1\n";
        let names: Vec<_> = parse_tree(text)
            .unwrap()
            .into_iter()
            .map(|c| c.name)
            .collect();
        assert_eq!(names, ["stillmetal-agent", "tokio"]);
        assert!(parse_tree("nonsense").is_err());
    }

    #[test]
    fn package_urls_are_escaped() {
        assert_eq!(percent("1:1.0+b1~x"), "1%3A1.0%2Bb1~x");
        assert_eq!(identifier("libstdc++6"), "libstdc--6");
    }
}
