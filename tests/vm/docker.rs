//! The transcript through our API, and beside the engine's own.

use anyhow::{Result, ensure};
use testkit::{Client, images};

use crate::shared;
use crate::transcript::{self, Material};

#[test]
#[ignore = "needs the built image: VM lane"]
fn the_transcript_is_that_of_the_bare_engine() -> Result<()> {
    let node = shared::ready()?;
    let dir = testkit::scratch_folder("transcript")?;
    let material = Material::prepare(dir.path(), &images::busybox()?, "busybox:latest")?;
    let ours = transcript::run(&node.docker(Client::User)?, &material)?;
    let engine = transcript::run(&node.bare_engine()?, &material)?;
    let found = transcript::unexpected_differences(&ours, &engine);
    ensure!(
        found.is_empty(),
        "not the engine's answers:\n{}",
        found.join("\n")
    );
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
