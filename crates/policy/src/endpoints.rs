//! Every endpoint of the Engine API that a node offers, and the reasons for the rest.
//!
//! A path pattern's `{id}` is one segment (container, exec, network or volume), `{image}` one or
//! more. A parameter ending in `*` may come more than once. What is in no row is not offered.

use crate::{BodyRule, Endpoint, create, exec, network, update, volume};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Reads, or touches no single container.
    No,
    /// Touches the container of the path: a user needs one that the user could have created.
    Container,
}

#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) method: &'static str,
    pub(crate) pattern: &'static str,
    pub(crate) params: &'static [&'static str],
    pub(crate) body: BodyRule,
    pub(crate) touch: Touch,
    pub(crate) endpoint: fn(&str) -> Endpoint,
}

const fn offer(
    method: &'static str,
    pattern: &'static str,
    params: &'static [&'static str],
    endpoint: fn(&str) -> Endpoint,
) -> Offer {
    Offer {
        method,
        pattern,
        params,
        body: BodyRule::Empty,
        touch: Touch::No,
        endpoint,
    }
}

impl Offer {
    const fn body(mut self, body: BodyRule) -> Self {
        self.body = body;
        self
    }

    const fn json(self, max_bytes: usize) -> Self {
        self.body(BodyRule::Json { max_bytes })
    }

    const fn touching(mut self) -> Self {
        self.touch = Touch::Container;
        self
    }
}

fn other(_: &str) -> Endpoint {
    Endpoint::Other
}

macro_rules! of {
    ($name:ident) => {
        |id| Endpoint::$name { id: id.to_owned() }
    };
}

macro_rules! just {
    ($name:ident) => {
        |_| Endpoint::$name
    };
}

const ARCHIVE: &str = "/containers/{id}/archive";

pub(crate) const OFFERS: &[Offer] = &[
    // The node.
    offer("GET", "/_ping", &[], other),
    offer("HEAD", "/_ping", &[], other),
    offer("GET", "/version", &[], other),
    offer("GET", "/info", &[], other),
    offer(
        "GET",
        "/events",
        &["since", "until", "filters"],
        just!(Events),
    ),
    offer("GET", "/system/df", &["type*", "verbose"], other),
    offer("POST", "/auth", &[], just!(Auth)).json(exec::AUTH_MAX_BYTES),
    // Containers.
    offer(
        "GET",
        "/containers/json",
        LIST_CONTAINERS,
        just!(ContainerList),
    ),
    offer(
        "POST",
        "/containers/create",
        &["name", "platform"],
        just!(ContainerCreate),
    )
    .json(create::MAX_BYTES),
    offer("POST", "/containers/prune", &["filters"], other),
    offer(
        "GET",
        "/containers/{id}/json",
        &["size"],
        of!(ContainerInspect),
    ),
    offer("GET", "/containers/{id}/top", &["ps_args"], other),
    offer("GET", "/containers/{id}/logs", LOGS, other),
    offer(
        "GET",
        "/containers/{id}/stats",
        &["stream", "one-shot"],
        other,
    ),
    offer("GET", "/containers/{id}/changes", &[], other),
    offer("POST", "/containers/{id}/wait", &["condition"], other),
    offer("GET", "/containers/{id}/export", &[], other).touching(),
    offer("GET", ARCHIVE, &["path"], other).touching(),
    offer("HEAD", ARCHIVE, &["path"], other).touching(),
    offer(
        "PUT",
        ARCHIVE,
        &["path", "noOverwriteDirNonDir", "copyUIDGID"],
        other,
    )
    .touching()
    .body(BodyRule::Stream),
    offer(
        "POST",
        "/containers/{id}/start",
        &["detachKeys"],
        of!(ContainerStart),
    )
    .touching(),
    offer(
        "POST",
        "/containers/{id}/stop",
        &["t", "signal"],
        of!(ContainerStop),
    )
    .touching(),
    offer(
        "POST",
        "/containers/{id}/restart",
        &["t", "signal"],
        of!(ContainerRestart),
    )
    .touching(),
    offer(
        "POST",
        "/containers/{id}/kill",
        &["signal"],
        of!(ContainerKill),
    )
    .touching(),
    offer("POST", "/containers/{id}/pause", &[], other).touching(),
    offer("POST", "/containers/{id}/unpause", &[], other).touching(),
    offer("POST", "/containers/{id}/rename", &["name"], other).touching(),
    offer("POST", "/containers/{id}/resize", &["h", "w"], other).touching(),
    offer(
        "POST",
        "/containers/{id}/attach",
        ATTACH,
        of!(ContainerAttach),
    )
    .touching()
    .body(BodyRule::Stream),
    offer("POST", "/containers/{id}/update", &[], of!(ContainerUpdate))
        .touching()
        .json(update::MAX_BYTES),
    offer("POST", "/containers/{id}/exec", &[], of!(ExecCreate))
        .touching()
        .json(exec::CREATE_MAX_BYTES),
    offer(
        "DELETE",
        "/containers/{id}",
        &["v", "force"],
        of!(ContainerRemove),
    )
    .touching(),
    offer("POST", "/commit", COMMIT, just!(Commit)).json(exec::COMMIT_MAX_BYTES),
    // Execs. Whose container it is, the proxy finds out (see `check_exec`).
    offer("GET", "/exec/{id}/json", &[], other),
    offer("POST", "/exec/{id}/start", &[], of!(ExecStart)).json(exec::START_MAX_BYTES),
    offer("POST", "/exec/{id}/resize", &["h", "w"], of!(ExecResize)),
    // Images.
    offer("GET", "/images/json", LIST_IMAGES, other),
    offer(
        "GET",
        "/images/search",
        &["term", "limit", "filters"],
        other,
    ),
    offer("GET", "/images/get", &["names*", "platform*"], other),
    offer("POST", "/images/create", PULL, just!(ImageCreate)).body(BodyRule::Stream),
    offer(
        "POST",
        "/images/load",
        &["quiet", "platform*"],
        just!(ImageLoad),
    )
    .body(BodyRule::Stream),
    offer("POST", "/images/prune", &["filters"], other),
    offer(
        "GET",
        "/images/{image}/json",
        &["manifests", "platform"],
        other,
    ),
    offer("GET", "/images/{image}/history", &["platform"], other),
    offer("GET", "/images/{image}/get", &["platform*"], other),
    offer(
        "POST",
        "/images/{image}/push",
        &["tag", "platform"],
        just!(ImagePush),
    )
    .json(exec::AUTH_MAX_BYTES),
    offer("POST", "/images/{image}/tag", &["repo", "tag"], other),
    offer(
        "DELETE",
        "/images/{image}",
        &["force", "noprune", "platforms*"],
        other,
    ),
    offer("GET", "/distribution/{image}/json", &[], other),
    // Builds.
    offer("POST", "/build", BUILD, just!(Build)).body(BodyRule::Stream),
    offer("POST", "/build/prune", PRUNE_BUILD, other),
    offer("POST", "/build/cancel", &["id"], other),
    offer("POST", "/session", &[], just!(Session)).body(BodyRule::Stream),
    offer("POST", "/grpc", &[], just!(Grpc)).body(BodyRule::Stream),
    // Networks.
    offer("GET", "/networks", &["filters"], other),
    offer("POST", "/networks/create", &[], just!(NetworkCreate)).json(network::MAX_BYTES),
    offer("POST", "/networks/prune", &["filters"], other),
    offer("GET", "/networks/{id}", &["verbose", "scope"], other),
    offer("DELETE", "/networks/{id}", &[], other),
    offer("POST", "/networks/{id}/connect", &[], just!(NetworkConnect)).json(network::MAX_BYTES),
    offer(
        "POST",
        "/networks/{id}/disconnect",
        &[],
        just!(NetworkDisconnect),
    )
    .json(network::MAX_BYTES),
    // Volumes.
    offer("GET", "/volumes", &["filters"], other),
    offer("POST", "/volumes/create", &[], just!(VolumeCreate)).json(volume::MAX_BYTES),
    offer("POST", "/volumes/prune", &["filters"], other),
    offer("GET", "/volumes/{id}", &[], other),
    offer("DELETE", "/volumes/{id}", &["force"], other),
];

/// `trunc_cmd` and `only_ids` are docker-py's; no engine reads them.
const LIST_CONTAINERS: &[&str] = &[
    "all",
    "limit",
    "size",
    "filters",
    "since",
    "before",
    "trunc_cmd",
];
const LIST_IMAGES: &[&str] = &[
    "all",
    "filters",
    "filter",
    "digests",
    "shared-size",
    "manifests",
    "identity",
];
const LOGS: &[&str] = &[
    "follow",
    "stdout",
    "stderr",
    "since",
    "until",
    "timestamps",
    "tail",
    "details",
];
const ATTACH: &[&str] = &["detachKeys", "logs", "stream", "stdin", "stdout", "stderr"];
const COMMIT: &[&str] = &[
    "container",
    "repo",
    "tag",
    "comment",
    "author",
    "pause",
    "changes*",
];
const PULL: &[&str] = &[
    "fromImage",
    "fromSrc",
    "repo",
    "tag",
    "message",
    "platform",
    "changes*",
];
const PRUNE_BUILD: &[&str] = &[
    "keep-storage",
    "reserved-space",
    "max-used-space",
    "min-free-space",
    "all",
    "filters",
];
/// Those after `outputs` are here only to be refused with a reason (see [`crate::build`]).
const BUILD: &[&str] = &[
    "dockerfile",
    "t*",
    "q",
    "nocache",
    "rm",
    "forcerm",
    "pull",
    "memory",
    "memswap",
    "cpushares",
    "shmsize",
    "ulimits",
    "buildargs",
    "labels",
    "cachefrom",
    "extrahosts*",
    "networkmode",
    "target",
    "remote",
    "platform",
    "session",
    "buildid",
    "version",
    "squash",
    "outputs",
    "cpusetcpus",
    "cpusetmems",
    "cpuquota",
    "cpuperiod",
    "cgroupparent",
    "isolation",
    "securityopt*",
];

/// Why a path outside [`OFFERS`] is not there.
pub(crate) fn why_not(segments: &[String]) -> &'static str {
    const SWARM: &str = "a node is never part of a Swarm; a Stillmetal controller schedules work";
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        [
            "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs",
            ..,
        ] => SWARM,
        ["volumes", _] => "cluster volumes belong to Swarm",
        ["plugins", ..] => "the node is read-only and runs no engine plugins",
        ["containers", _, "attach", "ws"] => "attach by HTTP upgrade, as the docker CLI does",
        ["containers", _, "copy"] => "API 1.24 removed it; use /archive (docker cp)",
        ["containers", _, "checkpoints", ..] => "checkpoints need CRIU, which is not on the node",
        _ => "the node's rules know no such request",
    }
}
