//! The stock `docker` client, through the proxy, to a real engine.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pki::{Authority, Validity};
use serde_json::Value;
use stillmetal_fakes::FakeNode;
use stillmetal_proxy::{ContainerEvent, Limits};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::rig::serve;

const PATIENCE: Duration = Duration::from_secs(90);

/// A real engine with everything it owns below one directory; killed when dropped.
struct Engine {
    daemon: Child,
    dir: TempDir,
}

impl Engine {
    async fn start() -> Self {
        // Not in $TMPDIR, which may be too long a path for sockets.
        let dir = tempfile::Builder::new()
            .prefix("sm-proxy")
            .tempdir_in("/tmp")
            .unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let daemon = Command::new("dockerd")
            .arg(format!("--host=unix://{}", at("engine.sock")))
            .arg(format!("--data-root={}", at("data")))
            .arg(format!("--exec-root={}", at("exec")))
            .arg(format!("--pidfile={}", at("pid")))
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            // As it is by default on a node, whose cgroups are of version 2.
            .arg("--default-cgroupns-mode=private")
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("dockerd of docker.io is installed");
        let engine = Self { daemon, dir };
        let ready = async {
            while UnixStream::connect(engine.socket()).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, ready).await.expect("the engine listens");
        engine
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }
}

impl Drop for Engine {
    /// Ended in order, so that it unmounts what it mounted; also after a failed test.
    fn drop(&mut self) {
        let Some(pid) = self.daemon.id() else { return };
        drop(
            std::process::Command::new("kill")
                .arg(pid.to_string())
                .status(),
        );
        let began = std::time::Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The client with one role's certificates.
struct Docker {
    host: String,
    certificates: PathBuf,
    home: PathBuf,
}

impl Docker {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", &self.certificates)
            .env("DOCKER_BUILDKIT", "0")
            .env("TERM", "dumb")
            .kill_on_drop(true);
        command
    }

    async fn with_input(&self, line: &str, input: &[u8]) -> Output {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feed = tokio::spawn(async move {
            // A command that reads no input closes the pipe; that is its own affair.
            drop(stdin.write_all(&input).await);
        });
        let output = timeout(PATIENCE, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("not in time: {line}"))
            .unwrap();
        feed.abort();
        output
    }

    /// Standard output of a command that must succeed.
    async fn ok(&self, line: &str) -> String {
        self.ok_with(line, b"").await
    }

    async fn ok_with(&self, line: &str, input: &[u8]) -> String {
        let output = self.with_input(line, input).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{line}: {}\n{text}{error}",
            output.status
        );
        text
    }

    /// Exit status and standard error.
    async fn fails(&self, line: &str) -> (i32, String) {
        let output = self.with_input(line, b"").await;
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

/// A root file system with busybox and its names.
fn write_root(dir: &Path) {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir(dir.join("tmp")).unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    for name in [
        "cat", "echo", "false", "head", "id", "sh", "sleep", "touch", "true", "tty", "wc",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and docker.io: root lane"]
async fn a_transcript_with_the_stock_client() {
    // Shown only if the test fails.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter("stillmetal=debug")
            .with_test_writer()
            .try_init(),
    );
    let engine = Engine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let authority = Authority::generate("test").unwrap();
    let node = Arc::new(FakeNode::new(engine.socket()));
    let (address, shutdown, server) = serve(&authority, &node, Limits::default()).await;
    let client = |name: &str| {
        let role = pki::RoleName::parse(name).unwrap();
        let issued = authority
            .issue_client(name, role, Validity::days(1))
            .unwrap();
        let certificates = path(name);
        std::fs::create_dir(&certificates).unwrap();
        std::fs::write(certificates.join("ca.pem"), authority.cert_pem()).unwrap();
        std::fs::write(certificates.join("cert.pem"), &issued.cert_pem).unwrap();
        std::fs::write(certificates.join("key.pem"), &issued.key_pem).unwrap();
        Docker {
            host: format!("tcp://{address}"),
            certificates,
            home: dir.path().into(),
        }
    };
    let (user, admin) = (client("user"), client("admin"));
    let root = path("root");
    write_root(&root);

    images(&user, &root).await;
    runs(&user).await;
    lives(&user, &node).await;
    tells(&user, &node).await;
    copies(&user, dir.path()).await;
    builds(&user, dir.path()).await;
    roles(&user, &admin).await;
    admin.ok("docker system prune -f").await;

    shutdown.cancel();
    server.await.unwrap();
    drop(engine);
}

async fn images(user: &Docker, root: &Path) {
    let version = user
        .ok("docker version --format '{{.Server.Version}}'")
        .await;
    assert!(!version.trim().is_empty());
    user.ok("docker info").await;
    user.ok(&format!(
        "tar -C {} -c . | docker import - job:1",
        root.display()
    ))
    .await;
    user.ok("docker save job:1 | cat > $HOME/job.tar && docker rmi job:1")
        .await;
    let loaded = user.ok("docker load -i $HOME/job.tar").await;
    assert!(loaded.contains("job:1"), "{loaded}");
    assert!(user.ok("docker images").await.contains("job"));
}

async fn runs(user: &Docker) {
    let run = "docker run --rm --network none";
    assert_eq!(
        user.ok(&format!("{run} job:1 /bin/echo hello")).await,
        "hello\n"
    );
    assert_eq!(
        user.fails(&format!("{run} job:1 /bin/sh -c 'exit 42'"))
            .await
            .0,
        42
    );
    // Half-close: wc answers only when its input has ended.
    let input = vec![b'x'; 3 * 1024 * 1024 + 17];
    let counted = user
        .ok_with(&format!("{run} -i job:1 /bin/wc -c"), &input)
        .await;
    assert_eq!(counted.trim(), input.len().to_string());
    let echoed = user
        .ok_with(&format!("{run} -i job:1 /bin/cat"), &input)
        .await;
    assert_eq!(echoed.len(), input.len());
    // A command that ends without reading its input.
    user.ok_with(&format!("{run} -i job:1 /bin/true"), &input)
        .await;
    let part = user
        .ok_with(&format!("{run} -i job:1 /bin/head -c 5"), &input)
        .await;
    assert_eq!(part, "xxxxx");
    let terminal = user
        .ok(&format!(
            "script -qec \"{run} -it job:1 /bin/tty\" /dev/null"
        ))
        .await;
    assert!(
        terminal.contains("/dev/pts/") || terminal.contains("/dev/console"),
        "{terminal}"
    );
    let limited = format!("{run} -e A=b --user 1000 --read-only --memory 64m --cap-drop ALL");
    let line = format!("{limited} job:1 /bin/sh -c 'id -u; echo $A; echo > /x || true'");
    let shown = user.ok(&line).await;
    assert_eq!(shown.lines().take(2).collect::<Vec<_>>(), ["1000", "b"]);
    let volume = "-v data:/data";
    user.ok(&format!(
        "{run} {volume} job:1 /bin/sh -c 'echo kept > /data/file'"
    ))
    .await;
    assert_eq!(
        user.ok(&format!("{run} {volume} job:1 /bin/cat /data/file"))
            .await,
        "kept\n"
    );
    user.ok("docker volume rm data").await;
}

async fn lives(user: &Docker, node: &FakeNode) {
    let script = "'echo one; while ! test -e /tmp/go; do sleep 0.1; done; echo two; exit 7'";
    user.ok(&format!(
        "docker run -d --name live --network none job:1 /bin/sh -c {script}"
    ))
    .await;
    let (status, _) = user.fails("docker exec live /bin/sh -c 'exit 5'").await;
    assert_eq!(status, 5);
    assert_eq!(
        user.ok_with("docker exec -i live /bin/wc -c", b"12345")
            .await
            .trim(),
        "5"
    );
    let terminal = "script -qec 'docker exec -it live /bin/tty' /dev/null";
    assert!(user.ok(terminal).await.contains("/dev/pts/"));
    assert!(
        user.ok("docker stats --no-stream live")
            .await
            .contains("live")
    );
    assert!(user.ok("docker top live").await.contains("sleep"));
    assert!(
        user.ok("docker inspect live")
            .await
            .contains("\"Running\": true")
    );
    let mut watch = user.command("docker");
    watch.args([
        "events",
        "--since=1m",
        "--filter=container=live",
        "--filter=event=die",
    ]);
    let mut watch = watch
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(watch.stdout.take().unwrap()).lines();
    let follow = user.ok("docker logs -f live");
    let wait = user.ok("docker wait live");
    let go = async {
        user.ok("docker exec -d live /bin/touch /tmp/go").await;
    };
    let (logs, code, ()) = tokio::join!(follow, wait, go);
    assert_eq!(logs, "one\ntwo\n");
    assert_eq!(code, "7\n");
    let happened = timeout(PATIENCE, events.next_line())
        .await
        .expect("an event")
        .unwrap();
    assert!(happened.unwrap().contains("container die"));
    watch.kill().await.unwrap();
    assert!(
        node.events()
            .iter()
            .any(|event| event.starts_with("starting "))
    );
    user.ok("docker rm -f live && docker run -d --name rest --network none job:1 /bin/sleep 600")
        .await;
    user.ok("docker restart -t 0 rest && docker pause rest && docker unpause rest")
        .await;
    user.ok("docker stop -t 0 rest && docker start rest && docker kill rest")
        .await;
    user.ok("docker rename rest done && docker rm -f done")
        .await;
    // A refused start of a `--rm` container does not leave the client waiting.
    *node.refuse_starts.lock().unwrap() = Some(policy::Denial {
        status: 409,
        message: "CPU 2 is held by `other`".into(),
    });
    let (status, error) = user
        .fails("docker run --rm --network none job:1 /bin/true")
        .await;
    assert_eq!(status, 125, "{error}");
    assert!(error.contains("CPU 2 is held by `other`"), "{error}");
    *node.refuse_starts.lock().unwrap() = None;
    assert_eq!(user.ok("docker ps -aq").await, "");
}

/// An event of the node is to the client what an event of the engine is.
async fn tells(user: &Docker, node: &FakeNode) {
    user.ok("docker create --name told --label a=b --network none job:1 /bin/true")
        .await;
    // a second from now: the client sends whole seconds, and this one is not over
    let events = async |filter: &str| {
        let line = format!(
            "docker events --since 1 --until=-1s --format '{{{{json .}}}}' --filter {filter}"
        );
        let text = user.ok(&line).await;
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<Value>>()
    };
    let engine = events("container=told").await;
    assert_eq!(engine.len(), 1, "{engine:?}");
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let own = engine[0]["Actor"]["Attributes"].as_object().unwrap();
    let action = "stillmetal.verdict: quiet";
    node.told.tell(ContainerEvent {
        action: action.into(),
        container_id: word(&engine[0]["Actor"]["ID"]),
        attributes: own
            .iter()
            .map(|(name, value)| (name.clone(), word(value)))
            .collect(),
        time_ns: engine[0]["timeNano"].as_i64().unwrap() + 1,
    });
    user.ok("docker rm told").await;
    let mut expected = engine[0].clone();
    expected["status"] = action.into();
    expected["Action"] = action.into();
    expected["timeNano"] = (engine[0]["timeNano"].as_i64().unwrap() + 1).into();
    assert_eq!(events("event=stillmetal.verdict").await, [expected.clone()]);
    assert_eq!(events("label=a=b --filter event=create").await, engine);
    let all = events("container=told").await;
    assert_eq!(all[..2], [engine[0].clone(), expected]);
    assert_eq!(all[2]["Action"], "destroy");
    assert_eq!(all.len(), 3);
}

async fn copies(user: &Docker, dir: &Path) {
    let bytes = vec![b'y'; 5 * 1024 * 1024];
    std::fs::write(dir.join("in"), &bytes).unwrap();
    user.ok("docker create --name box --network none job:1 /bin/true")
        .await;
    user.ok("docker cp $HOME/in box:/tmp/in && docker cp box:/tmp/in $HOME/out")
        .await;
    assert!(std::fs::read(dir.join("out")).unwrap() == bytes);
    let (status, error) = user.fails("docker cp $HOME/in box:/none/such/place").await;
    assert_eq!(status, 1);
    assert!(
        error.to_lowercase().contains("no such") || error.contains("Could not find"),
        "{error}"
    );
    user.ok("docker rm box").await;
}

async fn builds(user: &Docker, dir: &Path) {
    let context = dir.join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("file"), "built\n").unwrap();
    let recipe = "FROM job:1\nCOPY file /file\nRUN [\"/bin/touch\", \"/ran\"]\nCMD [\"/bin/cat\", \"/file\"]\n";
    std::fs::write(context.join("Dockerfile"), recipe).unwrap();
    user.ok("docker build --network none -t built:1 $HOME/context")
        .await;
    assert_eq!(
        user.ok("docker run --rm --network none built:1").await,
        "built\n"
    );
}

async fn roles(user: &Docker, admin: &Docker) {
    let run = "docker run --rm --network none";
    for option in [
        "--privileged",
        "-v /:/host",
        "--pid host",
        "--cap-add SYS_ADMIN",
    ] {
        let line = format!("{run} {option} job:1 /bin/true");
        let (status, error) = user.fails(&line).await;
        assert_eq!(status, 125, "{line}: {error}");
        assert!(error.contains("user"), "{line}: {error}");
    }
    // Created only: where this runs, nobody may be able to start a privileged container.
    let strong = "docker create --privileged -v /:/host --name strong --network none";
    admin.ok(&format!("{strong} job:1 /bin/sleep 60")).await;
    for line in [
        "docker start strong",
        "docker exec strong /bin/true",
        "docker rm -f strong",
    ] {
        let (_, error) = user.fails(line).await;
        assert!(error.contains("not for role user"), "{line}: {error}");
    }
    admin.ok("docker rm -f strong").await;
}
