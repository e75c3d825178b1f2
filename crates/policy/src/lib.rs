//! What a client of a node's container API may do: one request in, allow, deny or rewrite out.
//!
//! Deny by default. [`route`] decides on the request line: unknown endpoints, methods and
//! parameters are refused, and the target to forward is rebuilt from what was checked.
//! [`check_body`] decides on a body that [`BodyRule::Json`] asked to buffer; what it returns is
//! serialised anew and forwarded in place of the bytes that came. [`check_existing`] decides
//! whether a role may touch a container that exists.
//!
//! Pure: no clock, no sockets, no kernel files. The caller must also
//! - refuse a form body with [`check_content_type`], and send `Content-Type: application/json`
//!   with every re-serialised body;
//! - for [`Endpoint::ExecStart`] and [`Endpoint::ExecResize`] of a user, ask the engine for the
//!   exec and give the answer to [`check_exec`];
//! - follow [`linked_containers`] of every container it checks.
//!
//! It must *not* believe `stillmetal.*` labels of an existing container: an image can set them.
#![forbid(unsafe_code)]

mod build;
mod certify;
mod create;
mod denial;
mod endpoints;
mod exec;
mod existing;
mod hostconfig;
mod json;
mod mounts;
mod network;
mod placement;
mod route;
mod schema;
mod tables;
mod target;
mod update;
mod volume;

use std::fmt;
use std::str::FromStr;

use cpulist::CpuSet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use build::check_build_step;
pub use certify::{Certify, Scheduling, Trace};
pub use create::{set_cgroup_parent, set_runtime};
pub use denial::Denial;
pub use existing::{check_exec, check_existing, linked_containers, mounted_volumes};
pub use route::{Route, route};
pub use volume::check_volume;

/// Who asks, by the client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs containers that cannot leave their confinement.
    User,
    /// Everything that a node offers.
    Admin,
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: `user` or `admin`")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "user" => Ok(Self::User),
            "admin" => Ok(Self::Admin),
            other => Err(UnknownRole(other.to_owned())),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Admin => "admin",
        })
    }
}

/// What the rules need to know about the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub isolated: CpuSet,
    pub housekeeping: CpuSet,
    /// Why pinned work is refused, if it is.
    pub unfit: Option<String>,
}

/// What a request is about, as far as the proxy treats it specially.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    ContainerCreate,
    ContainerStart {
        id: String,
    },
    ContainerRestart {
        id: String,
    },
    ContainerStop {
        id: String,
    },
    ContainerKill {
        id: String,
    },
    ContainerRemove {
        id: String,
    },
    ContainerUpdate {
        id: String,
    },
    ContainerInspect {
        id: String,
    },
    ContainerList,
    ContainerAttach {
        id: String,
    },
    ExecCreate {
        id: String,
    },
    ExecStart {
        id: String,
    },
    ExecResize {
        id: String,
    },
    Commit,
    Build,
    Session,
    Grpc,
    /// A pull or an import.
    ImageCreate,
    ImageLoad,
    ImagePush,
    NetworkCreate,
    NetworkConnect,
    NetworkDisconnect,
    VolumeCreate,
    Auth,
    Events,
    Other,
}

/// What to do with a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRule {
    /// A body that is not empty is refused.
    Empty,
    /// Forwarded unread: archives, build contexts, what follows an upgrade.
    Stream,
    /// Buffered up to the limit, given to [`check_body`], forwarded as re-serialised.
    Json { max_bytes: usize },
}

/// A body that may be forwarded.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Checked {
    /// Serialise and forward this.
    pub body: Value,
    /// Some only for [`Endpoint::ContainerCreate`].
    pub placement: Option<PlacementRequest>,
    /// Containers named in the body that must pass [`check_existing`] first.
    pub subjects: Vec<String>,
    /// Volumes named in the body that, if they exist, must pass [`check_volume`] first.
    pub volumes: Vec<String>,
}

/// Where a new container asks to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementRequest {
    /// With all other unpinned work; a `CpusetCpus` left in the body narrows it.
    Housekeeping,
    /// On isolated CPUs of its own; the body no longer names them.
    Pinned(Pin),
}

/// A claim on isolated CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub cpus: CpuChoice,
    pub mems: Option<CpuSet>,
    /// As the user wrote them, for inspect.
    pub asked_cpuset_cpus: String,
    pub asked_cpuset_mems: String,
    /// Whether its runs are measured.
    pub certify: Option<Certify>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuChoice {
    Exact(CpuSet),
    /// Any so many.
    Count(u32),
}

/// Decides on a body that [`BodyRule::Json`] asked for.
///
/// # Errors
/// 400 for what is malformed, ambiguous, unknown or impossible on a node; 403 for what the role
/// may not do; 409 for a placement that the node cannot give; 413 for a body that is too large.
pub fn check_body(
    role: Role,
    endpoint: &Endpoint,
    node: &NodeFacts,
    body: &[u8],
) -> Result<Checked, Denial> {
    match endpoint {
        Endpoint::ContainerCreate => create::check(role, node, body),
        Endpoint::ContainerUpdate { .. } => update::check(role, body),
        Endpoint::ExecCreate { .. } => exec::check_create(role, body),
        Endpoint::ExecStart { .. } => {
            exec::check_optional(tables::EXEC_START, exec::START_MAX_BYTES, body)
        }
        Endpoint::Commit => exec::check_optional(tables::CONFIG, exec::COMMIT_MAX_BYTES, body),
        Endpoint::ImagePush => exec::check_optional(tables::AUTH, exec::AUTH_MAX_BYTES, body),
        Endpoint::Auth => exec::check_required(tables::AUTH, exec::AUTH_MAX_BYTES, body),
        Endpoint::NetworkCreate => network::check_create(role, body),
        Endpoint::NetworkConnect => network::check_membership(role, tables::NETWORK_CONNECT, body),
        Endpoint::NetworkDisconnect => {
            network::check_membership(role, tables::NETWORK_DISCONNECT, body)
        }
        Endpoint::VolumeCreate => volume::check_create(role, body),
        _ => Err(Denial::malformed(
            "this request takes no JSON body: send it without one",
        )),
    }
}

/// Refuses bodies that the engine would read as parameters.
///
/// Go's `ParseForm` merges a form body into the query and lets it win, so a streamed build could
/// say `networkmode=host` where no rule looks. (`curl -d` and `--data-binary` send that type
/// unless told otherwise.)
///
/// # Errors
/// 400 for `application/x-www-form-urlencoded` and `multipart/form-data`.
pub fn check_content_type(content_type: Option<&str>) -> Result<(), Denial> {
    let essence = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    if essence.starts_with("application/x-www-form-urlencoded")
        || essence.starts_with("multipart/form-data")
    {
        return Err(Denial::malformed(format!(
            "a body of type {essence} is refused: the engine would read parameters from it; send application/x-tar or application/json"
        )));
    }
    Ok(())
}
