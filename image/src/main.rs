//! Command line of the image builder; all work is in the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use stillmetal_image::squash::Compression;
use stillmetal_image::{build, cache, config, docker_cli, docker_image, relock};

/// Builds the Stillmetal boot image and what belongs to it.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    /// Directory with image.lock, the allow-lists and the static files.
    #[arg(long, global = true, default_value = "image", value_name = "DIR")]
    data: PathBuf,
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Resolve packages.txt against the Debian archive and write image.lock.
    Relock,
    /// Build initramfs, SSH add-on, manifest, command line and checksums.
    Build(Build),
    /// Write the extra initramfs with one node's certificates and options.
    Config(Config),
    /// Make a container image for `docker load` from locked packages.
    DockerImage(DockerImage),
    /// Extract the stock docker client for use on this machine.
    DockerCli {
        /// Directory that gets the program `docker`.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Build {
    /// Kernel boot image (bzImage).
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Tar archive with lib/modules/VERSION of that kernel.
    #[arg(long, value_name = "TAR")]
    modules: Option<PathBuf>,
    /// Statically linked stillmetal-agent.
    #[arg(long, value_name = "BINARY")]
    agent: PathBuf,
    /// The start gate, static too.
    #[arg(long)]
    gate: PathBuf,
    /// Static program for /init of the initramfs, if not the agent itself.
    #[arg(long, value_name = "BINARY")]
    init: Option<PathBuf>,
    /// The lock of the kernel's source package, for the manifest [default: kernel-config/source.lock beside --data].
    #[arg(long, value_name = "FILE")]
    kernel_source: Option<PathBuf>,
    /// Directory for the outputs.
    #[arg(long, value_name = "DIR", default_value = "build")]
    out: PathBuf,
    /// Compress quickly instead of well, for development.
    #[arg(long)]
    fast: bool,
}

#[derive(Debug, Args)]
struct Config {
    /// The archive to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// CA certificate that signs the clients allowed in.
    #[arg(long, value_name = "PEM", requires_all = ["cert", "key"])]
    ca: Option<PathBuf>,
    /// The node's certificate.
    #[arg(long, value_name = "PEM", requires = "ca")]
    cert: Option<PathBuf>,
    /// The node's private key.
    #[arg(long, value_name = "PEM", requires = "ca")]
    key: Option<PathBuf>,
    /// A join token (`still token create`), for a node that is to join the controller named on its
    /// command line.
    #[arg(long, value_name = "FILE")]
    join_token: Option<PathBuf>,
    /// SSH public keys that may log in as root; without this nothing listens on port 22.
    #[arg(long, value_name = "FILE")]
    authorized_keys: Option<PathBuf>,
    /// The SSH add-on that `build` wrote.
    #[arg(long, value_name = "FILE", default_value = "build/stillmetal-ssh.img")]
    ssh_image: PathBuf,
    /// Directory with ca.pem, cert.pem and key.pem for the engine's own TLS port (comparison only).
    #[arg(long, value_name = "DIR")]
    engine_tls: Option<PathBuf>,
    /// Another file, placed as /stillmetal/NAME; repeatable.
    #[arg(long = "file", value_name = "SOURCE:NAME")]
    files: Vec<String>,
}

#[derive(Debug, Args)]
struct DockerImage {
    /// Name and tag that `docker load` gives the image.
    #[arg(long, value_name = "NAME:TAG")]
    name: String,
    /// The archive to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Packages to look for the programs in.
    #[arg(long, value_name = "PKG,PKG", value_delimiter = ',', required = true)]
    from_package: Vec<String>,
    /// A program's path in its package; repeatable. busybox gets links for all its applets.
    #[arg(long = "bin", value_name = "PATH", required = true)]
    programs: Vec<String>,
    /// One word of the entrypoint; repeatable.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// One word of the default command; repeatable.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// An environment variable; repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stillmetal-image: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = std::path::absolute(&arguments.data)?;
    anyhow::ensure!(
        data.join("packages.txt").is_file(),
        "{} is not the image directory of the Stillmetal sources; run from their top or give --data",
        data.display()
    );
    let cache = cache::directory()?;
    match arguments.command {
        Task::Relock => {
            let lock = relock::relock(&data, &cache)?;
            eprintln!("image: locked {} packages", lock.packages().count());
        }
        Task::Build(build) => run_build(build, data, cache)?,
        Task::Config(config) => run_config(config)?,
        Task::DockerImage(image) => {
            let request = docker_image::Request {
                name: image.name,
                packages: image.from_package,
                programs: image.programs,
                entrypoint: image.entrypoint,
                cmd: image.cmd,
                env: image.env,
            };
            docker_image::write(&request, &data, &cache, &image.out)?;
            eprintln!("image: {} {}", request.name, image.out.display());
        }
        Task::DockerCli { out } => {
            let docker = docker_cli::extract(&data, &cache, &out)?;
            eprintln!("image: docker client {}", docker.display());
        }
    }
    Ok(())
}

fn run_build(build: Build, data: PathBuf, cache: PathBuf) -> anyhow::Result<()> {
    let compression = if build.fast {
        Compression::Fast
    } else {
        Compression::Release
    };
    let built = build::build(&build::Request {
        cache,
        kernel: build.kernel,
        modules: build.modules,
        kernel_source: build
            .kernel_source
            .unwrap_or_else(|| data.with_file_name("kernel-config").join("source.lock")),
        init: build.init.unwrap_or_else(|| build.agent.clone()),
        agent: build.agent,
        gate: build.gate,
        out: build.out.clone(),
        compression,
        data,
    })?;
    let megabytes = built.boot_bytes.div_ceil(100_000);
    eprintln!(
        "image: {} kernel+initrd {}.{} MB",
        build.out.join(build::INITRD).display(),
        megabytes / 10,
        megabytes % 10
    );
    for package in &built.off_lock {
        eprintln!(
            "image: OFF-LOCK: {} {} instead of {}; run `make relock`",
            package.package, package.got, package.wanted
        );
    }
    Ok(())
}

fn run_config(arguments: Config) -> anyhow::Result<()> {
    let identity = |ca, certificate, key| config::Identity {
        ca,
        certificate,
        key,
    };
    let node = match (arguments.ca, arguments.cert, arguments.key) {
        (Some(ca), Some(certificate), Some(key)) => Some(identity(ca, certificate, key)),
        _ => None,
    };
    let engine = arguments.engine_tls.map(|dir: PathBuf| {
        identity(
            dir.join("ca.pem"),
            dir.join("cert.pem"),
            dir.join("key.pem"),
        )
    });
    if arguments.authorized_keys.is_some() {
        require(&arguments.ssh_image).context("--authorized-keys needs the SSH add-on")?;
    }
    let request = config::Request {
        node,
        engine,
        join_token: arguments.join_token,
        ssh: arguments
            .authorized_keys
            .map(|keys| (keys, arguments.ssh_image)),
        extra: arguments.files,
    };
    config::write(&request, &arguments.out)?;
    eprintln!("image: {}", arguments.out.display());
    Ok(())
}

fn require(path: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        path.is_file(),
        "{} does not exist; run `make image`",
        path.display()
    );
    Ok(())
}
