//! The stock `docker` client, driven as a person would: a `docker context` with TLS material, and
//! nothing else from the host (no configuration, no environment).

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::command::{Invocation, Output};
use crate::error::{Error, Result};
use crate::running::Running;
use crate::{places, process};

const CONTEXT: &str = "node";
/// Under emulation on two busy cores a `docker run` takes seconds.
const WITHIN: Duration = Duration::from_secs(180);

/// The client: `STILLMETAL_DOCKER`, else `build/docker/docker`, else the one in `PATH`.
///
/// # Errors
/// [`Error::Missing`].
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STILLMETAL_DOCKER") {
        return Ok(path.into());
    }
    let ours = places::build_dir().join("docker/docker");
    if ours.is_file() {
        return Ok(ours);
    }
    process::find_in_path("docker").ok_or(Error::Missing {
        what: "the docker client",
        path: ours,
        hint: "`make image` takes it from Debian's docker-cli package",
    })
}

/// A `docker` client bound to one endpoint by a context of its own.
#[derive(Debug)]
pub struct Docker {
    program: PathBuf,
    config: TempDir,
    endpoint: String,
}

impl Docker {
    /// A client of the TLS endpoint at `address`; `certificates` holds `ca.pem`, and `cert.pem`
    /// with `key.pem` unless the client shall show none.
    ///
    /// # Errors
    /// [`Error::Missing`] without a client program, [`Error::CommandFailed`] when it refuses.
    pub fn connect(address: SocketAddr, certificates: &Path) -> Result<Self> {
        Self::connect_to(&format!("tcp://{address}"), certificates)
    }

    /// The same for any endpoint, `tcp://HOST:PORT` and perhaps a path.
    ///
    /// # Errors
    /// As [`Docker::connect`].
    pub fn connect_to(endpoint: &str, certificates: &Path) -> Result<Self> {
        let program = program()?;
        let config = crate::scratch::folder("docker")?;
        let endpoint = endpoint.to_owned();
        let mut spec = format!("host={endpoint}");
        for (key, name) in [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")] {
            let file = certificates.join(name);
            if file.is_file() {
                spec.push_str(&format!(",{key}={}", file.display()));
            }
        }
        let docker = Self {
            program,
            config,
            endpoint,
        };
        let arguments = ["context", "create", CONTEXT, "--docker", &spec];
        docker.bare().args(arguments).run_ok()?;
        Ok(docker)
    }

    /// Lets this client build with BuildKit, by the plugin `docker-buildx` beside our client.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::File`].
    pub fn with_buildx(self) -> Result<Self> {
        let plugins = places::build_dir().join("docker/cli-plugins");
        if !plugins.join("docker-buildx").is_file() {
            return Err(Error::Missing {
                what: "the docker client's BuildKit plugin",
                path: plugins.join("docker-buildx"),
                hint: "`make image` takes it from Debian's docker-buildx package",
            });
        }
        let place = self.config.path().join("cli-plugins");
        std::os::unix::fs::symlink(plugins, &place).map_err(Error::file("link", &place))?;
        Ok(self)
    }

    /// The endpoint's URL.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn bare(&self) -> Invocation {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let home = self.config.path().as_os_str().to_owned();
        Invocation::new(&self.program).within(WITHIN).only_env([
            ("PATH", path),
            ("HOME", home.clone()),
            ("DOCKER_CONFIG", home),
            ("TERM", "xterm".into()),
        ])
    }

    /// A command for this endpoint, to be given input, time, or a terminal.
    #[must_use]
    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Invocation {
        self.bare().args(["--context", CONTEXT]).args(args)
    }

    /// Runs a command to its end, whatever its status.
    ///
    /// # Errors
    /// As [`Invocation::run`].
    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<Output> {
        self.command(args).run()
    }

    /// Runs a command that must succeed.
    ///
    /// # Errors
    /// As [`Invocation::run_ok`].
    pub fn run_ok<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<Output> {
        self.command(args).run_ok()
    }

    /// Starts a long command.
    ///
    /// # Errors
    /// As [`Invocation::spawn`].
    pub fn spawn<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<Running> {
        self.command(args).spawn()
    }

    /// Loads an image archive and returns what the client printed.
    ///
    /// # Errors
    /// As [`Invocation::run_ok`].
    pub fn load(&self, archive: &Path) -> Result<String> {
        Ok(self
            .command(["load", "-q"])
            .stdin_file(archive)
            .run_ok()?
            .text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::loopback;

    #[test]
    #[ignore = "needs the docker client: VM lane"]
    fn a_context_is_made_and_used() {
        let certificates = tempfile::tempdir().unwrap();
        let docker = Docker::connect(loopback(1), certificates.path()).unwrap();
        let shown = docker
            .run_ok(["context", "inspect", CONTEXT])
            .unwrap()
            .text();
        assert!(shown.contains("tcp://127.0.0.1:1"), "{shown}");
        let output = docker.run(["version"]).unwrap();
        assert_eq!(output.code, Some(1));
        assert!(
            output.error_text().contains("127.0.0.1:1"),
            "{}",
            output.error_text()
        );
    }
}
