//! The boot in the read-only root: from the mounts to the supervisor. Each step either must work, and then its failure
//! ends the boot by the policy, or may fail, and then it says so and the boot goes on.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::reboot::set_cad_enabled;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

use crate::cgroup::{self, CgroupError};
use crate::cmdline::{BootConfig, IpConfig};
use crate::mounts::{self, MountError};
use crate::net::Outcome;
use crate::service::Spec;
use crate::supervise::Supervisor;
use crate::{
    CONFIG_DIR, MEMORY_LOW_FILE, STATE_DIR, affinity, clock, fail, hostname, log, memory, modules,
    net, shutdown, signals, ssh, sysctl,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("create {path}")]
    Layout { path: PathBuf, source: io::Error },
    #[error("set up the control groups")]
    Cgroup(#[source] CgroupError),
    #[error("listen for signals")]
    Signals { source: io::Error },
    #[error("the supervisor ended")]
    SupervisorEnded,
}

/// Never returns when it succeeds.
pub(crate) fn run() -> BootError {
    match try_run() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_run() -> Result<Infallible, BootError> {
    signals::block_all_handled();
    umask(Mode::from_bits_truncate(0o022));
    if !Path::new("/proc/self").exists() {
        // Started without stage one, straight from a squashfs root.
        mounts::mount_all(mounts::STAGE_ONE)?;
        affinity::keep_off_isolated_cpus();
        sysctl::unlimit_kmsg();
    }
    let config = read_config();
    fail::set_policy(&config);
    log::marker("init started");
    for warning in &config.warnings {
        log::warn(&format!("command line: {warning}"));
    }
    mounts::mount_all(mounts::ROOT)?;
    lay_out()?;
    assert!(!config.panic_test, "asked to by stillmetal.panic_test=1");
    cgroup::set_up(Path::new(cgroup::ROOT)).map_err(BootError::Cgroup)?;
    if let Err(error) = set_cad_enabled(false) {
        log::warn(&format!("ctrl-alt-del stays the kernel's: {error}"));
    }
    set_limits();
    sysctl::apply_all();
    modules::load(&config.modules);
    modules::close_the_door();
    check_memory(&config);

    let network = net::bring_up(&config);
    name_the_node(&config, &network);
    clock::set_from(&time_servers(&config, &network));

    let mut services = vec![Spec::agent()];
    services.extend(ssh::prepare());
    if let Err(error) = mounts::share_propagation() {
        log::warn(&log::chain(&error));
    }
    Supervisor::new(services, cgroup::ROOT.into())
        .map_err(|source| BootError::Signals { source })?
        .run(&mut |action| shutdown::power(action));
    Err(BootError::SupervisorEnded)
}

fn read_config() -> BootConfig {
    BootConfig::read().unwrap_or_else(|error| {
        log::warn(&format!("read /proc/cmdline: {error}; defaults are used"));
        BootConfig::default()
    })
}

/// Directories in the fresh tmpfs mounts, with their modes.
const DIRECTORIES: [(&str, u32); 10] = [
    ("/run/lock", 0o1777),
    (STATE_DIR, 0o755),
    (CONFIG_DIR, 0o700),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/cache", 0o755),
    ("/var/tmp", 0o1777),
    ("/var/spool", 0o755),
    ("/var/opt", 0o755),
    ("/var/empty", 0o755),
];

/// `/var/run` must lead to `/run`, or engine's sockets are not where clients look.
const LINKS: [(&str, &str); 2] = [("/run", "/var/run"), ("/run/lock", "/var/lock")];

fn lay_out() -> Result<(), BootError> {
    for (path, mode) in DIRECTORIES {
        let failed = |source| BootError::Layout {
            path: path.into(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .map_err(failed)?;
        // What stage one made on the way has its modes; and the umask does not apply to these.
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    }
    for (target, link) in LINKS {
        match symlink(target, link) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(BootError::Layout {
                    path: link.into(),
                    source,
                });
            }
            _ => {}
        }
    }
    // `/etc/resolv.conf` and the others lead here: they exist from the start, if empty.
    for path in [net::RESOLV_CONF, "/run/hostname", "/run/hosts"] {
        fs::write(path, "").map_err(|source| BootError::Layout {
            path: path.into(),
            source,
        })?;
    }
    Ok(())
}

fn set_limits() {
    let unlimited = (RLIM_INFINITY, RLIM_INFINITY);
    let limits = [
        (Resource::RLIMIT_NOFILE, (1_048_576, 1_048_576)),
        (Resource::RLIMIT_NPROC, unlimited),
        (Resource::RLIMIT_MEMLOCK, unlimited),
        // No dumps into memory unless a container asks for them.
        (Resource::RLIMIT_CORE, (0, RLIM_INFINITY)),
    ];
    for (resource, (soft, hard)) in limits {
        if let Err(error) = setrlimit(resource, soft, hard) {
            log::warn(&format!("{resource:?}: {error}"));
        }
    }
}

/// With too little memory the boot goes on, for the API to say so; the agent reads the file and leaves the engine off.
fn check_memory(config: &BootConfig) {
    let need_mib = config.memory_min_mib.unwrap_or(memory::MINIMUM_MIB);
    let Some(text) = memory::verdict(memory::installed_mib(), need_mib) else {
        return;
    };
    log::marker(&text);
    if let Err(error) = fs::write(MEMORY_LOW_FILE, format!("{text}\n")) {
        log::warn(&format!("write {MEMORY_LOW_FILE}: {error}"));
    }
}

fn name_the_node(config: &BootConfig, network: &Outcome) {
    let offered = network
        .lease
        .as_ref()
        .and_then(|lease| lease.hostname.as_deref());
    let name = hostname::choose(config.hostname.as_deref(), offered, network.mac);
    if let Err(error) = hostname::apply(&name) {
        log::warn(&format!("host name {name}: {error}"));
    }
}

fn time_servers(config: &BootConfig, network: &Outcome) -> Vec<IpAddr> {
    let by_address = match &config.ip {
        IpConfig::Static(address) => address.ntp.map(IpAddr::V4),
        _ => None,
    };
    let offered = network
        .lease
        .iter()
        .flat_map(|lease| &lease.ntp)
        .map(|&a| IpAddr::V4(a));
    config
        .ntp
        .into_iter()
        .chain(by_address)
        .chain(offered)
        .collect()
}
