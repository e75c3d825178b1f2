//! The agent's own questions to the engine, through `bollard` over its unix socket.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    EventsOptions, InspectContainerOptions, KillContainerOptions, ListContainersOptions,
    ListImagesOptions, RemoveImageOptions, StopContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::placement::containers::{Containers, ContainersError, Seen};
use crate::runs::unproven;

/// No question of ours takes longer on a live engine.
const ANSWER_SECONDS: u64 = 30;

/// A client for the engine at one socket.
#[derive(Debug, Clone)]
pub struct EngineClient {
    socket: PathBuf,
}

/// A container as far as a certificate tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Of its first process; 0: it does not run.
    pub pid: u32,
    /// When it started last, as the engine writes it; another text after each start.
    pub started_at: String,
    /// Digest of the image.
    pub image: String,
    /// The image as the user named it.
    pub image_name: String,
    /// Without the slash before it.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// The program and its arguments, entrypoint included.
    pub argv: Vec<String>,
}

/// What an engine that is not ours can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It can keep containers on CPUs.
    pub cpusets: bool,
    /// `systemd`, `cgroupfs` or `none`.
    pub cgroup_driver: String,
    pub runtimes: Vec<String>,
}

impl EngineClient {
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// # Errors
    /// When the socket's path is not valid for bollard.
    pub fn connect(&self) -> Result<Docker, bollard::errors::Error> {
        // The engine is ours (26.1, API 1.45); bollard's newer default is negotiated down.
        Docker::connect_with_unix(
            &self.socket.to_string_lossy(),
            ANSWER_SECONDS,
            &bollard::ClientVersion {
                major_version: 1,
                minor_version: 45,
            },
        )
    }

    /// Stops every running container, each with `grace_seconds` before SIGKILL; all at once.
    /// Returns how many did not confirm their end.
    pub async fn stop_all(&self, grace_seconds: i32) -> usize {
        let Ok(docker) = self.connect() else { return 0 };
        let running = match docker.list_containers(None::<ListContainersOptions>).await {
            Ok(running) => running,
            Err(error) => {
                tracing::warn!(%error, "running containers could not be listed for shutdown");
                return 0;
            }
        };
        let stops = running
            .into_iter()
            .filter_map(|container| container.id)
            .map(|id| {
                let docker = docker.clone();
                async move {
                    let options = StopContainerOptions {
                        t: Some(grace_seconds),
                        ..Default::default()
                    };
                    docker.stop_container(&id, Some(options)).await.is_err()
                }
            });
        futures_util::future::join_all(stops)
            .await
            .into_iter()
            .filter(|failed| *failed)
            .count()
    }

    /// The pid of a container's first process, 0 when it does not run.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub async fn pid(&self, id_or_name: &str) -> Result<i64, ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let found = docker
            .inspect_container(id_or_name, None::<InspectContainerOptions>)
            .await
            .map_err(|error| missing_or(id_or_name, "inspect a container", error))?;
        Ok(found.state.and_then(|state| state.pid).unwrap_or(0))
    }

    /// What a certificate says of a container.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub async fn about(&self, id: &str) -> Result<About, ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let found = docker
            .inspect_container(id, None::<InspectContainerOptions>)
            .await
            .map_err(|error| missing_or(id, "inspect a container", error))?;
        let program = found.path.into_iter();
        let state = found.state.unwrap_or_default();
        let config = found.config.unwrap_or_default();
        Ok(About {
            pid: state.pid.and_then(|pid| pid.try_into().ok()).unwrap_or(0),
            started_at: state.started_at.unwrap_or_default(),
            image: found.image.unwrap_or_default(),
            image_name: config.image.unwrap_or_default(),
            name: bare(found.name),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            argv: program.chain(found.args.unwrap_or_default()).collect(),
        })
    }

    /// Versions of the engine and of its parts, by name.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub async fn versions(&self) -> Result<BTreeMap<String, String>, ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let found = docker.version().await;
        let found = found.map_err(|error| engine("say its version", error))?;
        let parts = found.components.unwrap_or_default().into_iter();
        let mut all: BTreeMap<String, String> =
            parts.map(|part| (part.name, part.version)).collect();
        all.extend(found.api_version.map(|version| ("API".into(), version)));
        Ok(all)
    }

    /// What it can do.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub async fn abilities(&self) -> Result<Abilities, ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let found = docker.info().await;
        let found = found.map_err(|error| engine("say what it can do", error))?;
        let driver = found.cgroup_driver.map(|driver| driver.to_string());
        Ok(Abilities {
            cpusets: found.cpu_set == Some(true),
            cgroup_driver: driver.unwrap_or_else(|| "not told".into()),
            runtimes: found.runtimes.unwrap_or_default().into_keys().collect(),
        })
    }

    /// Until the engine goes away. Nothing is asked meanwhile, so that nothing is disturbed.
    pub(super) async fn until_gone(&self) {
        let Ok(docker) = self.connect() else { return };
        let filters = HashMap::from([("type".to_owned(), vec!["daemon".to_owned()])]);
        let options = EventsOptions {
            filters: Some(filters),
            ..Default::default()
        };
        let mut events = Box::pin(docker.events(Some(options)));
        while let Some(Ok(_event)) = events.next().await {}
    }

    /// Digests of all images.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub async fn image_ids(&self) -> Result<Vec<String>, ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let found = docker.list_images(None::<ListImagesOptions>).await;
        let found = found.map_err(|error| engine("list images", error))?;
        Ok(found.into_iter().map(|image| image.id).collect())
    }

    /// Takes an image away, unless somebody else uses it; that it is gone is as good.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub async fn remove_image(&self, id: &str) -> Result<(), ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let removed = docker.remove_image(id, None::<RemoveImageOptions>, None);
        match removed.await {
            Ok(_deleted) => Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404 | 409,
                ..
            }) => Ok(()),
            Err(error) => Err(engine("remove an image", error)),
        }
    }

    /// Whether the kernel killed a task of a container for want of memory; `None`: not told.
    pub(crate) async fn oom_killed(&self, id: &str) -> Option<bool> {
        let docker = self.connect().ok()?;
        let found = docker.inspect_container(id, None::<InspectContainerOptions>);
        found.await.ok()?.state?.oom_killed
    }

    /// The exit code of a container, when it has ended; `None`: the engine does not know it.
    pub async fn exit_code(&self, id: &str) -> Option<i32> {
        let docker = self.connect().ok()?;
        let mut ends = docker.wait_container(id, None::<WaitContainerOptions>);
        match ends.next().await? {
            Ok(end) => i32::try_from(end.status_code).ok(),
            // bollard makes an error of a code other than 0
            Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => {
                i32::try_from(code).ok()
            }
            Err(error) => {
                tracing::warn!(id, %error, "a container's end was not told");
                None
            }
        }
    }

    /// Notifies whenever a container ended or was removed, and once after each (re)connection,
    /// since events may have been missed before. Runs until it is dropped.
    pub async fn notify_ends(&self, ended: &Notify) {
        loop {
            if let Ok(docker) = self.connect() {
                let filters = HashMap::from([
                    ("type".to_owned(), vec!["container".to_owned()]),
                    (
                        "event".to_owned(),
                        vec!["die".to_owned(), "destroy".to_owned()],
                    ),
                ]);
                let options = EventsOptions {
                    filters: Some(filters),
                    ..Default::default()
                };
                let mut events = Box::pin(docker.events(Some(options)));
                ended.notify_one();
                while let Some(Ok(_event)) = events.next().await {
                    ended.notify_one();
                }
            }
            // the engine is not there (yet, or any more)
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn look(&self, docker: &Docker, id_or_name: &str) -> Result<Seen, ContainersError> {
        let found = docker
            .inspect_container(id_or_name, None::<InspectContainerOptions>)
            .await
            .map_err(|error| missing_or(id_or_name, "inspect a container", error))?;
        let state = found.state.unwrap_or_default();
        let labels = found.config.and_then(|config| config.labels);
        let claim = labels.and_then(|labels| unproven::token(labels.get(unproven::CLAIM)?));
        Ok(Seen {
            claim,
            id: found.id.unwrap_or_default(),
            name: bare(found.name),
            cgroup_parent: found
                .host_config
                .and_then(|host| host.cgroup_parent)
                .unwrap_or_default(),
            alive: state.running == Some(true) || state.restarting == Some(true),
        })
    }
}

impl Containers for EngineClient {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Seen>, ContainersError>> {
        Box::pin(async move {
            let docker = self.connect().map_err(|error| engine("connect", error))?;
            let options = ListContainersOptions {
                all: true,
                ..Default::default()
            };
            let all = docker
                .list_containers(Some(options))
                .await
                .map_err(|error| engine("list containers", error))?;
            let mut seen = Vec::with_capacity(all.len());
            for id in all.into_iter().filter_map(|container| container.id) {
                match self.look(&docker, &id).await {
                    Ok(container) => seen.push(container),
                    // it went away between the two questions
                    Err(ContainersError::NoSuch { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(seen)
        })
    }

    fn inspect<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, Result<Seen, ContainersError>> {
        Box::pin(async move {
            let docker = self.connect().map_err(|error| engine("connect", error))?;
            self.look(&docker, id_or_name).await
        })
    }

    fn kill<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ContainersError>> {
        Box::pin(async move {
            let docker = self.connect().map_err(|error| engine("connect", error))?;
            docker
                .kill_container(id, None::<KillContainerOptions>)
                .await
                .map_err(|error| missing_or(id, "kill a container", error))
        })
    }
}

/// Waits until the engine answers a ping.
pub(super) async fn answers(socket: PathBuf, deadline: Instant) -> Result<(), String> {
    let client = EngineClient::new(&socket);
    loop {
        let answer = match client.connect() {
            Ok(docker) => tokio::time::timeout(Duration::from_secs(5), docker.ping()).await,
            Err(error) => Ok(Err(error)),
        };
        let why = match answer {
            Ok(Ok(_pong)) => return Ok(()),
            Ok(Err(error)) => crate::chain(&error),
            Err(_elapsed) => "no answer to a ping within 5 s".into(),
        };
        if Instant::now() >= deadline {
            return Err(why);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A container's name without the engine's slash.
fn bare(name: Option<String>) -> String {
    name.unwrap_or_default().trim_start_matches('/').to_owned()
}

pub(super) fn engine(action: &'static str, error: bollard::errors::Error) -> ContainersError {
    ContainersError::Engine {
        action,
        source: Box::new(error),
    }
}

pub(super) fn missing_or(
    id: &str,
    action: &'static str,
    error: bollard::errors::Error,
) -> ContainersError {
    match error {
        bollard::errors::Error::DockerResponseServerError {
            status_code: 404, ..
        } => ContainersError::NoSuch { id: id.into() },
        other => engine(action, other),
    }
}
