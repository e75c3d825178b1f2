//! The same agent in a container without any power.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use serde_json::Value;
use testkit::scratch_folder;

use crate::engine::Engine;
use stillmetal_tests::people::{People, eventually, program};

/// `nobody`.
const NOBODY: u32 = 65534;

/// A folder that is nobody's, with a token.
fn home(people: &People) -> tempfile::TempDir {
    let home = scratch_folder("caged").unwrap();
    let token = home.path().join("token");
    people.token(&token);
    for path in [home.path(), &token] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    home
}

/// Starts the agent as nobody, without capabilities.
fn cage(engine: &Engine, people: &People, name: &str, home: &Path, more: &[&str]) {
    let agent = program("stillmetal-agent");
    let bind = |source: &Path, at: &str| format!("-v={}:{at}", source.display());
    let (address, pin) = people.address();
    // of letters only that a UUID may have
    let last: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    let identity = format!("6f1b9a52-2f0c-4a3e-9d38-{last:0>12}");
    let binds = [
        format!("{}:ro", bind(&agent, "/agent")),
        bind(home, "/home"),
        "-v=/usr/lib:/usr/lib:ro".into(),
        "-v=/lib:/lib:ro".into(),
        "-v=/lib64:/lib64:ro".into(),
    ];
    let rest = [
        "--entrypoint=/agent",
        "busybox",
        "daemon",
        "--controller",
        &address,
        "--ca",
        &pin,
        "--token-file=/home/token",
        "--state-dir=/home/state",
        "--run-dir=/home/run",
        "--name",
        name,
        "--instance",
        &identity,
    ];
    let words = [
        "run",
        "-d",
        "--network=host",
        "--cap-drop=ALL",
        "--user=65534",
    ];
    let words = words
        .into_iter()
        .chain(["--name", name, "--security-opt=no-new-privileges"])
        .chain(binds.iter().map(String::as_str))
        .chain(more.iter().copied())
        .chain(rest);
    engine.text(words);
}

fn node(people: &People, name: &str) -> Value {
    let nodes = people.json(["nodes"]);
    let nodes = nodes.as_array().unwrap().iter();
    nodes
        .clone()
        .find(|node| node["name"] == name)
        .cloned()
        .unwrap_or_default()
}

#[test]
#[ignore = "needs root and docker.io: root lane"]
fn an_agent_without_powers_says_which_and_takes_what_it_can() {
    let (engine, people) = (Engine::start(), People::start(program));
    engine.load_busybox();
    let (homes, socket) = ([home(&people), home(&people)], engine.socket());
    let mount = format!("-v={}:/run/docker.sock", socket.display());
    let group = format!("--group-add={}", socket.metadata().unwrap().gid());
    cage(
        &engine,
        &people,
        "caged",
        homes[0].path(),
        &[&mount, &group],
    );
    cage(&engine, &people, "alone", homes[1].path(), &[]);
    eventually("one is ready, the other one has told why not", || {
        let (caged, alone) = (node(&people, "caged"), node(&people, "alone"));
        caged["state"] == "ready" && alone["state"] == "unfit"
    });
    let lacks = |name: &str| node(&people, name)["facts"]["lacks"].to_string();
    for power in ["CAP_SYS_ADMIN", "CAP_SYS_NICE", "partitions:"] {
        assert!(lacks("caged").contains(power), "{}", lacks("caged"));
    }
    assert!(
        lacks("alone").contains("engine: no engine answers"),
        "{}",
        lacks("alone")
    );
    let reason = node(&people, "alone")["reason"].to_string();
    assert!(reason.contains("/run/docker.sock"), "{reason}");
    let words = ["run", "--unproven", "busybox", "echo", "from beside"];
    let said = people.still(words).ok().unwrap().text();
    assert!(said.contains("from beside"), "{said}");
    assert!(said.contains("done, unproven"), "{said}");
    // ended as containers are, it leaves what is not its own
    for name in ["caged", "alone"] {
        engine.text(["stop", "-t", "20", name]);
        let code = engine.text(["inspect", "-f", "{{.State.ExitCode}}", name]);
        assert_eq!(code, "0", "{}", engine.text(["logs", name]));
        engine.text(["rm", name]);
    }
    assert_eq!(engine.containers(), "");
    people.stop();
}
