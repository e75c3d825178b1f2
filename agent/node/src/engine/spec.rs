//! How containerd and dockerd are started on the appliance: command lines, environment, readiness.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::client;

/// Waits until a service takes requests; the error says what it last answered.
type Ready = Box<dyn Fn(Instant) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Where programs are in the image.
const PROGRAMS: &str = "/usr/sbin:/usr/bin";

/// One process of the engine.
pub struct ServiceSpec {
    pub name: &'static str,
    pub(super) name_text: OsString,
    /// Program and arguments.
    pub command: Vec<OsString>,
    pub env: Vec<(String, String)>,
    /// Where its pid and start time are kept.
    pub identity: PathBuf,
    pub ready: Ready,
}

impl std::fmt::Debug for ServiceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceSpec")
            .field("name", &self.name)
            .field("command", &self.command)
            .finish()
    }
}

/// Both processes and where the result listens.
#[derive(Debug)]
pub struct EngineSpec {
    pub containerd: ServiceSpec,
    pub dockerd: ServiceSpec,
    pub socket: PathBuf,
}

/// What the command lines depend on.
#[derive(Debug, Clone)]
pub struct EngineOptions<'a> {
    /// `/run/stillmetal` on the appliance.
    pub run_dir: &'a Path,
    /// This program: it moves itself into the engine's cgroup and then becomes the service.
    pub agent: &'a Path,
    /// The engine's Go runtimes get one thread per housekeeping CPU (appliance.md §2.4).
    pub housekeeping_cpus: usize,
    /// `ca.pem`, `cert.pem`, `key.pem`: the engine's own TLS port 2377, for comparing against it.
    pub own_tls: Option<&'a Path>,
}

impl EngineSpec {
    #[must_use]
    pub fn new(options: &EngineOptions<'_>) -> Self {
        let run = options.run_dir;
        let socket = run.join("engine.sock");
        let containerd_socket = run.join("containerd.sock");
        let mut dockerd: Vec<OsString> = vec![
            "/usr/bin/dockerd".into(),
            format!("--host=unix://{}", socket.display()).into(),
            format!("--containerd={}", containerd_socket.display()).into(),
            format!("--pidfile={}", run.join("dockerd.pid").display()).into(),
            format!("--cgroup-parent={}", crate::cgroups::HOUSEKEEPING).into(),
        ];
        if let Some(tls) = options.own_tls {
            dockerd.extend([
                "--host=tcp://0.0.0.0:2377".into(),
                "--tlsverify".into(),
                format!("--tlscacert={}", tls.join("ca.pem").display()).into(),
                format!("--tlscert={}", tls.join("cert.pem").display()).into(),
                format!("--tlskey={}", tls.join("key.pem").display()).into(),
            ]);
        }
        let containerd = vec![
            "/usr/bin/containerd".into(),
            "--config=/etc/containerd/config.toml".into(),
            format!("--address={}", containerd_socket.display()).into(),
            "--root=/var/lib/containerd".into(),
            "--state=/run/containerd".into(),
        ];
        let service = |name: &'static str, command, path, ready| ServiceSpec {
            name,
            name_text: name.into(),
            command: in_engine_cgroup(options.agent, command),
            env: environment(path, options.housekeeping_cpus),
            identity: run.join(format!("{name}.identity")),
            ready,
        };
        let engine_socket = socket.clone();
        Self {
            containerd: service(
                "containerd",
                containerd,
                PROGRAMS.to_owned(),
                Box::new(move |deadline| Box::pin(accepts(containerd_socket.clone(), deadline))),
            ),
            dockerd: service(
                "dockerd",
                dockerd,
                // the runc that BuildKit finds is this program (agent/src/runc.rs)
                format!("/usr/lib/stillmetal:{PROGRAMS}"),
                Box::new(move |deadline| {
                    Box::pin(client::answers(engine_socket.clone(), deadline))
                }),
            ),
            socket,
        }
    }
}

fn in_engine_cgroup(agent: &Path, command: Vec<OsString>) -> Vec<OsString> {
    let mut whole: Vec<OsString> = vec![agent.into(), "enter".into()];
    whole.extend(
        [
            "--cgroup",
            crate::cgroups::ENGINE,
            "--oom-score-adj=-500",
            "--",
        ]
        .map(OsString::from),
    );
    whole.extend(command);
    whole
}

fn environment(path: String, housekeeping_cpus: usize) -> Vec<(String, String)> {
    [
        ("PATH", path),
        ("HOME", "/run/stillmetal".to_owned()),
        ("TMPDIR", "/var/tmp".to_owned()),
        ("GOMAXPROCS", housekeeping_cpus.max(1).to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Waits until the unix socket takes a connection.
async fn accepts(socket: PathBuf, deadline: Instant) -> Result<(), String> {
    loop {
        let error = match tokio::net::UnixStream::connect(&socket).await {
            Ok(_connection) => return Ok(()),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(format!("{} takes no connection: {error}", socket.display()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
