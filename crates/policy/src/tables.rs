//! The fields of the Engine API's request structs, all versions from 1.24 to 1.51.
//!
//! Sources: moby's `api/types` and `api/swagger.yaml`. Adding a field here lets it through for
//! admins, so decide first what [`crate::hostconfig`] says about it for users.

use crate::schema::Kind::{Bool, Dropped, Int, List, Map, Str, StrOrList, Struct};
use crate::schema::{Fields, Kind, STRING_MAP, STRINGS};

const DEVICE_RATES: Kind = List(&Struct(&[("Path", Str), ("Rate", Int)]));

const HEALTH: Fields = &[
    ("Test", STRINGS),
    ("Interval", Int),
    ("Timeout", Int),
    ("StartPeriod", Int),
    ("StartInterval", Int),
    ("Retries", Int),
];

/// `container.Config`: the portable half, also the body of `/commit`.
macro_rules! config_fields {
    ($($extra:expr),*) => {
        &[
            ("Hostname", Str),
            ("Domainname", Str),
            ("User", Str),
            ("AttachStdin", Bool),
            ("AttachStdout", Bool),
            ("AttachStderr", Bool),
            ("ExposedPorts", Map(&Struct(&[]))),
            ("Tty", Bool),
            ("OpenStdin", Bool),
            ("StdinOnce", Bool),
            ("Env", STRINGS),
            ("Cmd", StrOrList),
            ("Healthcheck", Struct(HEALTH)),
            ("ArgsEscaped", Bool),
            ("Image", Str),
            ("Volumes", Map(&Struct(&[]))),
            ("WorkingDir", Str),
            ("Entrypoint", StrOrList),
            ("NetworkDisabled", Bool),
            ("MacAddress", Str),
            ("OnBuild", STRINGS),
            ("Labels", STRING_MAP),
            ("StopSignal", Str),
            ("StopTimeout", Int),
            ("Shell", StrOrList),
            $($extra),*
        ]
    };
}

pub(crate) const CONFIG: Fields = config_fields!();
pub(crate) const CREATE: Fields = config_fields!(
    ("HostConfig", Struct(HOST_CONFIG)),
    (
        "NetworkingConfig",
        Struct(&[("EndpointsConfig", Map(&Struct(ENDPOINT)))])
    )
);

pub(crate) const ENDPOINT: Fields = &[
    (
        "IPAMConfig",
        Struct(&[
            ("IPv4Address", Str),
            ("IPv6Address", Str),
            ("LinkLocalIPs", STRINGS),
        ]),
    ),
    ("Links", STRINGS),
    ("Aliases", STRINGS),
    ("MacAddress", Str),
    ("DriverOpts", STRING_MAP),
    ("GwPriority", Int),
    ("NetworkID", Str),
    ("EndpointID", Str),
    ("Gateway", Str),
    ("IPAddress", Str),
    ("IPPrefixLen", Int),
    ("IPv6Gateway", Str),
    ("GlobalIPv6Address", Str),
    ("GlobalIPv6PrefixLen", Int),
    ("DNSNames", STRINGS),
];

const RESTART_POLICY: Kind = Struct(&[("Name", Str), ("MaximumRetryCount", Int)]);

/// `container.Resources`, embedded in HostConfig and in the body of an update.
macro_rules! resources_and {
    ($($extra:expr),*) => {
        &[
            ("CpuShares", Int),
            ("Memory", Int),
            ("NanoCpus", Int),
            ("CgroupParent", Str),
            ("BlkioWeight", Int),
            ("BlkioWeightDevice", List(&Struct(&[("Path", Str), ("Weight", Int)]))),
            ("BlkioDeviceReadBps", DEVICE_RATES),
            ("BlkioDeviceWriteBps", DEVICE_RATES),
            ("BlkioDeviceReadIOps", DEVICE_RATES),
            ("BlkioDeviceWriteIOps", DEVICE_RATES),
            ("CpuPeriod", Int),
            ("CpuQuota", Int),
            ("CpuRealtimePeriod", Int),
            ("CpuRealtimeRuntime", Int),
            ("CpusetCpus", Str),
            ("CpusetMems", Str),
            (
                "Devices",
                List(&Struct(&[
                    ("PathOnHost", Str),
                    ("PathInContainer", Str),
                    ("CgroupPermissions", Str),
                ])),
            ),
            ("DeviceCgroupRules", STRINGS),
            (
                "DeviceRequests",
                List(&Struct(&[
                    ("Driver", Str),
                    ("Count", Int),
                    ("DeviceIDs", STRINGS),
                    ("Capabilities", List(&STRINGS)),
                    ("Options", STRING_MAP),
                ])),
            ),
            ("KernelMemory", Int),
            ("KernelMemoryTCP", Int),
            ("MemoryReservation", Int),
            ("MemorySwap", Int),
            ("MemorySwappiness", Int),
            ("OomKillDisable", Bool),
            ("PidsLimit", Int),
            ("Ulimits", List(&Struct(&[("Name", Str), ("Hard", Int), ("Soft", Int)]))),
            ("CpuCount", Int),
            ("CpuPercent", Int),
            ("IOMaximumIOps", Int),
            ("IOMaximumBandwidth", Int),
            ("RestartPolicy", RESTART_POLICY),
            $($extra),*
        ]
    };
}

pub(crate) const UPDATE: Fields = resources_and!();

pub(crate) const HOST_CONFIG: Fields = resources_and!(
    ("Binds", STRINGS),
    ("ContainerIDFile", Str),
    (
        "LogConfig",
        Struct(&[("Type", Str), ("Config", STRING_MAP)])
    ),
    ("NetworkMode", Str),
    (
        "PortBindings",
        Map(&List(&Struct(&[("HostIp", Str), ("HostPort", Str)])))
    ),
    ("AutoRemove", Bool),
    ("VolumeDriver", Str),
    ("VolumesFrom", STRINGS),
    ("ConsoleSize", List(&Int)),
    ("Annotations", STRING_MAP),
    ("CapAdd", STRINGS),
    ("CapDrop", STRINGS),
    ("CgroupnsMode", Str),
    ("Dns", STRINGS),
    ("DnsOptions", STRINGS),
    ("DnsSearch", STRINGS),
    ("ExtraHosts", STRINGS),
    ("GroupAdd", STRINGS),
    ("IpcMode", Str),
    ("Cgroup", Str),
    ("Links", STRINGS),
    ("OomScoreAdj", Int),
    ("PidMode", Str),
    ("Privileged", Bool),
    ("PublishAllPorts", Bool),
    ("ReadonlyRootfs", Bool),
    ("SecurityOpt", STRINGS),
    ("StorageOpt", STRING_MAP),
    ("Tmpfs", STRING_MAP),
    ("UTSMode", Str),
    ("UsernsMode", Str),
    ("ShmSize", Int),
    ("Sysctls", STRING_MAP),
    ("Runtime", Str),
    ("Isolation", Str),
    ("Mounts", List(&Struct(MOUNT))),
    ("MaskedPaths", STRINGS),
    ("ReadonlyPaths", STRINGS),
    ("Init", Bool)
);

const MOUNT: Fields = &[
    ("Type", Str),
    ("Source", Str),
    ("Target", Str),
    ("ReadOnly", Bool),
    ("Consistency", Str),
    (
        "BindOptions",
        Struct(&[
            ("Propagation", Str),
            ("NonRecursive", Bool),
            ("CreateMountpoint", Bool),
            ("ReadOnlyNonRecursive", Bool),
            ("ReadOnlyForceRecursive", Bool),
        ]),
    ),
    (
        "VolumeOptions",
        Struct(&[
            ("NoCopy", Bool),
            ("Labels", STRING_MAP),
            ("Subpath", Str),
            (
                "DriverConfig",
                Struct(&[("Name", Str), ("Options", STRING_MAP)]),
            ),
        ]),
    ),
    ("ImageOptions", Struct(&[("Subpath", Str)])),
    (
        "TmpfsOptions",
        Struct(&[
            ("SizeBytes", Int),
            ("Mode", Int),
            ("Options", List(&STRINGS)),
        ]),
    ),
    ("ClusterOptions", Struct(&[])),
];

pub(crate) const EXEC_CREATE: Fields = &[
    ("User", Str),
    ("Privileged", Bool),
    ("Tty", Bool),
    ("ConsoleSize", List(&Int)),
    ("AttachStdin", Bool),
    ("AttachStdout", Bool),
    ("AttachStderr", Bool),
    ("Detach", Bool),
    ("DetachKeys", Str),
    ("Env", STRINGS),
    ("WorkingDir", Str),
    ("Cmd", STRINGS),
    // docker-py repeats the container's name here; the engine takes it from the path.
    ("Container", Dropped),
];

pub(crate) const EXEC_START: Fields =
    &[("Detach", Bool), ("Tty", Bool), ("ConsoleSize", List(&Int))];

pub(crate) const AUTH: Fields = &[
    ("username", Str),
    ("password", Str),
    ("auth", Str),
    ("email", Str),
    ("serveraddress", Str),
    ("identitytoken", Str),
    ("registrytoken", Str),
];

pub(crate) const NETWORK_CREATE: Fields = &[
    ("Name", Str),
    ("CheckDuplicate", Bool),
    ("Driver", Str),
    ("Scope", Str),
    ("EnableIPv4", Bool),
    ("EnableIPv6", Bool),
    (
        "IPAM",
        Struct(&[
            ("Driver", Str),
            ("Options", STRING_MAP),
            ("Config", List(&Struct(POOL))),
        ]),
    ),
    ("Internal", Bool),
    ("Attachable", Bool),
    ("Ingress", Bool),
    ("ConfigOnly", Bool),
    ("ConfigFrom", Struct(&[("Network", Str)])),
    ("Options", STRING_MAP),
    ("Labels", STRING_MAP),
];

const POOL: Fields = &[
    ("Subnet", Str),
    ("IPRange", Str),
    ("Gateway", Str),
    ("AuxiliaryAddresses", STRING_MAP),
];

pub(crate) const NETWORK_CONNECT: Fields =
    &[("Container", Str), ("EndpointConfig", Struct(ENDPOINT))];

pub(crate) const NETWORK_DISCONNECT: Fields = &[("Container", Str), ("Force", Bool)];

/// `ClusterVolumeSpec` is left out on purpose: it belongs to Swarm.
pub(crate) const VOLUME_CREATE: Fields = &[
    ("Name", Str),
    ("Driver", Str),
    ("DriverOpts", STRING_MAP),
    ("Labels", STRING_MAP),
];
