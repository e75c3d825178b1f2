//! Nodes as the controller knows them, and how they join.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cpulist::CpuSet;
use quiet::TickMode;
use serde::{Deserialize, Serialize};

/// A node's identity: stays over reboots, differs between machines. Lower-case letters, digits and
/// hyphens, at most 64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", schema(pattern = r"^[a-z0-9-]{1,64}$"))]
pub struct NodeId(String);

/// Not an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadNodeId(pub String);

impl fmt::Display for BadNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a node's id: 1 to 64 lower-case letters, digits and hyphens",
            self.0
        )
    }
}

impl std::error::Error for BadNodeId {}

impl TryFrom<String> for NodeId {
    type Error = BadNodeId;

    fn try_from(text: String) -> Result<Self, BadNodeId> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(known) {
            return Err(BadNodeId(text));
        }
        Ok(Self(text))
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl NodeId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeFacts {
    pub hostname: String,
    pub agent_version: String,
    /// `/proc/sys/kernel/random/boot_id`: a new one is a reboot.
    pub boot_id: Option<String>,
    pub kernel: Option<String>,
    pub cmdline: Option<String>,
    pub virtual_machine: bool,
    /// Why benchmarks may not run there; `None`: they may.
    pub unfit: Option<String>,
    /// Machines of one kind have the same; empty: not known.
    pub class: String,
    pub labels: BTreeMap<String, String>,
    /// CPUs and memory for jobs, by NUMA node.
    pub domains: Vec<Domain>,
    pub devices: BTreeSet<String>,
    /// Its CPUs for jobs are isolated.
    pub isolated: bool,
    /// How it was booted; `None`: its CPUs differ, or it is not known.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::tick_mode))]
    pub tick: Option<TickMode>,
    /// Allows several benchmarks at once, if they do too.
    pub share: bool,
    /// Why no run there can be proven quiet: jobs are taken, and each result says this. `None`: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<String>,
    /// What its agent cannot do there, each with the reason; on the appliance nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
}

/// CPUs and memory that are near each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Domain {
    /// For jobs; housekeeping CPUs are not among them.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cpus: CpuSet,
    /// For jobs, bytes.
    pub memory_bytes: u64,
}

/// Whether a node takes work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum NodeState {
    Ready,
    /// What runs there may end; nothing new starts.
    Draining,
    /// It failed a health check.
    Quarantined {
        cause: String,
    },
    /// Not connected.
    Offline,
    /// Connected, and says that it cannot run benchmarks.
    Unfit {
        reason: String,
    },
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeView {
    pub id: NodeId,
    /// For people: its hostname, with a number if another one has it already.
    pub name: String,
    #[serde(flatten)]
    pub state: NodeState,
    /// As last told; `None`: it never connected.
    pub facts: Option<NodeFacts>,
    pub enrolled_ms: u64,
    /// Of its present connection.
    pub connected_ms: Option<u64>,
    /// When something last came from it.
    pub seen_ms: Option<u64>,
    /// What runs there.
    pub jobs: Vec<crate::job::JobId>,
    /// Labels that an operator gave it, beside its own.
    pub labels: BTreeMap<String, String>,
    /// Messages on the present connection's control stream.
    pub received: u64,
    pub sent: u64,
}

/// What an operator may change: `PATCH /v1/nodes/ID`. Absent fields stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// Ends a quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// An empty value takes the label away.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::labels))]
    pub labels: BTreeMap<String, String>,
}

/// `POST /v1/enrol`, the one call without a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// PKCS#10, PEM. The key stays where it was made; names in it are not used.
    #[cfg_attr(
        feature = "openapi",
        schema(max_length = 16384, pattern = "-----BEGIN CERTIFICATE REQUEST-----")
    )]
    pub csr_pem: String,
    /// Single-use. Without one, somebody has to approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = r"^[!-~]{1,512}$"))]
    pub token: Option<String>,
    pub machine: MachineHints,
}

/// What tells machines apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MachineHints {
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = r"^[^\u0000-\u001f\u007f]{0,255}$")
    )]
    pub hostname: String,
    /// SMBIOS UUID, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = r"^[0-9a-f-]{1,64}$"))]
    pub uuid: Option<String>,
    /// Of its network cards, lower case with colons.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::macs))]
    pub macs: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = r"^[0-9a-f-]{1,64}$"))]
    pub boot_id: Option<String>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "enrolment", rename_all = "kebab-case")]
pub enum EnrolAnswer {
    Admitted {
        id: NodeId,
        /// The certificate for the key of the CSR.
        cert_pem: String,
        ca_pem: String,
    },
    /// Ask again with the same CSR.
    Pending {
        /// For people to compare: of the CSR's public key.
        fingerprint: String,
        ask_again_seconds: u32,
    },
}

/// `POST /v1/renew`, with the client certificate that is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS#10, PEM, of a new key; names in it are not used.
    #[cfg_attr(
        feature = "openapi",
        schema(max_length = 16384, pattern = "-----BEGIN CERTIFICATE REQUEST-----")
    )]
    pub csr_pem: String,
}

/// Its answer: as before, for the new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewAnswer {
    pub cert_pem: String,
}

/// A machine that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PendingNode {
    pub fingerprint: String,
    pub machine: MachineHints,
    pub address: String,
    pub first_ms: u64,
    pub last_ms: u64,
}

/// `POST /v1/tokens`: lets machines join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Seconds until it is worth nothing.
    #[serde(default = "ten_minutes")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1, maximum = 2_592_000, default = 600)
    )]
    pub valid_seconds: u32,
    /// Only for the machine with this SMBIOS UUID or MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = r"^[0-9a-f:-]{1,64}$"))]
    pub machine: Option<String>,
}

fn ten_minutes() -> u32 {
    600
}

/// A token, without its secret except in the answer that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenView {
    /// Public part.
    pub id: String,
    /// The whole token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    pub machine: Option<String>,
    pub expires_ms: u64,
    pub used_by: Option<NodeId>,
}
