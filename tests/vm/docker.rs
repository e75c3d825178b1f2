//! Builds, and what listens. The transcript of the docker client is in `lab`: through the controller.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::{Client, images};

use crate::shared;

/// Builds with BuildKit, each step saying where it ran.
fn build(docker: &testkit::Docker, dockerfile: &str, options: &[&str]) -> Result<testkit::Output> {
    let dir = testkit::scratch_folder("buildkit")?;
    std::fs::write(dir.path().join("Dockerfile"), dockerfile)?;
    std::fs::write(dir.path().join("given"), "from the context\n")?;
    let folder = dir.path().display().to_string();
    let mut command = vec!["build", "-t", "made:1", "--progress=plain", "--no-cache"];
    command.extend(options);
    command.push(&folder);
    Ok(docker
        .command(command)
        .within(Duration::from_secs(300))
        .run()?)
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn a_user_builds_with_buildkit_on_housekeeping_cpus_only() -> Result<()> {
    let node = shared::ready()?;
    let docker = node.docker(Client::User)?.with_buildx()?;
    docker.load(&images::busybox()?)?;
    let file = "FROM busybox\nCOPY given /given\nRUN grep Cpus_allowed_list /proc/self/status > /where\n\
                RUN --mount=type=tmpfs,target=/t touch /t/x\nCMD [\"cat\", \"/given\", \"/where\"]\n";
    let built = build(&docker, file, &[])?;
    ensure!(built.success(), "{}", built.error_text());
    ensure!(
        built.error_text().contains("exporting to image"),
        "not BuildKit: {}",
        built.error_text()
    );
    let said = docker.run_ok(["run", "--rm", "made:1"])?.text();
    ensure!(
        said == "from the context\nCpus_allowed_list:\t0\n",
        "{said}"
    );
    for (line, options) in [
        ("RUN --network=host true", &["--allow", "network.host"][..]),
        ("RUN true", &["--network", "host"]),
        (
            "RUN --security=insecure true",
            &["--allow", "security.insecure"],
        ),
    ] {
        let refused = build(&docker, &format!("FROM busybox\n{line}\n"), options)?;
        ensure!(!refused.success(), "{line} {options:?} was built");
    }
    Ok(())
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn a_build_step_cannot_choose_its_cgroup() -> Result<()> {
    let node = shared::ready()?;
    for client in [Client::User, Client::Admin] {
        let docker = node.docker(client)?.with_buildx()?;
        docker.load(&images::busybox()?)?;
        for parent in ["/", "/engine", "/housekeeping/../engine", "of-my-own"] {
            let refused = build(
                &docker,
                "FROM busybox\nRUN echo it ran\n",
                &["--cgroup-parent", parent],
            )?;
            let said = refused.error_text();
            ensure!(
                !refused.success() && said.contains("builds run on the housekeeping CPUs"),
                "{parent}: {said}"
            );
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn one_socket_listens() -> Result<()> {
    let node = shared::ready()?;
    let docker = node.docker(Client::Admin)?;
    docker.load(&images::busybox()?)?;
    let run = [
        "run",
        "--rm",
        "--network",
        "host",
        "busybox:latest",
        "netstat",
        "-lntuw",
    ];
    let text = docker.run_ok(run)?.text();
    let sockets: Vec<&str> = text.lines().skip(2).collect();
    // The shared node has the engine's own TLS on 2377 besides, for the comparison.
    let expected = |line: &&str| line.contains(":2376 ") || line.contains(":2377 ");
    ensure!(sockets.len() == 2 && sockets.iter().all(expected), "{text}");
    Ok(())
}
