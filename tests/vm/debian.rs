//! The package on a stock Debian: installed with dpkg, started by systemd, at Debian's own engine; and
//! the same machine once its engine is set up for proofs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stillmetal_tests::bench::sides::{Side, Sides};
use stillmetal_tests::people::{People, built};
use testkit::{Credentials, Deadline, Output, places, poll};

/// Emulated, on a busy machine.
const WITHIN: Duration = Duration::from_secs(180);
/// How the engine must be started so that containers can be put into partitions and held back.
const ENGINE: &str = r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"], "runtimes": {"stillmetal": {"path": "/usr/lib/stillmetal/runc"}}}"#;

fn package() -> PathBuf {
    let entries = std::fs::read_dir(places::build_dir()).unwrap().flatten();
    let mut names = entries.map(|entry| entry.path());
    let found = names.find(|path| path.extension().is_some_and(|end| end == "deb"));
    found.expect("make deb has put the package into the build's folder")
}

/// The machine as its administrator sees it.
struct Debian {
    side: Side,
}

impl Debian {
    fn sh(&self, script: &str) -> Output {
        // by its path: `sh` alone, like `dpkg` and `ls` in it, would be busybox's own
        let words = ["exec", "host", "chroot", "/host", "/bin/sh", "-c", script];
        self.side
            .docker
            .command(words)
            .within(WITHIN)
            .run()
            .unwrap()
    }

    fn ok(&self, script: &str) -> String {
        self.sh(script).ok().unwrap().text()
    }

    /// A shell with the machine's own files and processes.
    fn enter(&self) {
        let words = [
            "run",
            "-d",
            "--restart=always",
            "--name=host",
            "--privileged",
            "--pid=host",
            "--network=host",
            "-v",
            "/:/host:rslave",
            "busybox",
            "sleep",
            "100000",
        ];
        self.side.docker.run_ok(words).unwrap();
    }

    /// Once nothing of the old engine answers any more.
    fn restart_engine(&self) {
        let main = "systemctl is-active docker && systemctl show -p MainPID docker";
        let before = self.ok(main);
        // the shell is a container of it, and goes with it
        drop(self.sh("systemctl --no-block restart docker"));
        let back = || {
            let now = self.sh(main);
            (now.success() && now.text() != before).then_some(())
        };
        poll(Deadline::after(WITHIN), Duration::from_secs(1), back).expect("the engine is back");
    }
}

#[test]
#[ignore = "boots Debian: VM lane"]
fn the_package_makes_a_node_of_a_stock_debian() {
    let people = People::start(built);
    let credentials = Arc::new(Credentials::generate().unwrap());
    let sides = Sides::prepare(&credentials).unwrap();
    let side = sides.boot_theirs_with(2, "nohz_full=1").unwrap();
    let debian = Debian { side };
    debian.enter();
    install(&debian, &people);
    it_takes_unproven_work(&debian, &people);
    with_its_engine_set_up_runs_are_judged(&debian, &people);
    it_goes_as_it_came(&debian);
    people.stop();
}

fn install(debian: &Debian, people: &People) {
    let package = package();
    let words = ["cp", package.to_str().unwrap(), "host:/host/run/agent.deb"];
    debian.side.docker.run_ok(words).unwrap();
    debian.ok("dpkg -i /run/agent.deb");
    let enabled = debian.sh("systemctl is-enabled stillmetal-agent");
    assert_eq!(
        enabled.text().trim(),
        "disabled",
        "it waits for a controller"
    );
    let token = people.home.path().join("token");
    people.token(&token);
    let token = std::fs::read_to_string(token).unwrap();
    let (_, pin) = people.address();
    let address = people.guests_address();
    debian.ok(&format!(
        "umask 077; mkdir -p /var/lib/stillmetal; echo '{}' > /var/lib/stillmetal/join-token; \
         printf 'STILLMETAL_CONTROLLER={address}\\nSTILLMETAL_CA={pin}\\n' >> /etc/stillmetal/agent.env; \
         systemctl enable --now stillmetal-agent",
        token.trim()
    ));
}

fn it_takes_unproven_work(debian: &Debian, people: &People) {
    let node = people.node_in("ready");
    let why = node["facts"]["unproven"].as_str().unwrap();
    assert!(why.contains("cgroup driver is systemd"), "{why}");
    let status = debian.ok("systemctl show -p StatusText stillmetal-agent");
    assert!(status.contains("unproven work only"), "{status}");
    let run = ["run", "--unproven", "busybox", "echo", "from Debian"];
    let output = people.still(run).ok().unwrap();
    let said = output.text();
    assert!(
        said.contains("from Debian") && said.contains("done, unproven"),
        "{said}"
    );
    assert!(said.contains("cgroup driver is systemd"), "{said}");
    // systemd starts it again, and it is the same node
    debian.ok("systemctl restart stillmetal-agent");
    assert_eq!(people.node_in("ready")["id"], node["id"]);
}

fn with_its_engine_set_up_runs_are_judged(debian: &Debian, people: &People) {
    let knobs = "cat /proc/sys/kernel/sched_rt_runtime_us /proc/irq/default_smp_affinity";
    let before = debian.ok(knobs);
    debian.ok(&format!("echo '{ENGINE}' > /etc/docker/daemon.json"));
    debian.restart_engine();
    debian.ok("systemctl restart stillmetal-agent");
    let isolated = || people.node()["facts"]["isolated"] == true;
    stillmetal_tests::people::eventually("it is a node for proofs", isolated);
    let node = people.node_in("ready");
    assert!(node["facts"]["unproven"].is_null(), "{node:#}");
    assert_eq!(node["facts"]["domains"][0]["cpus"], "1", "{node:#}");
    assert_ne!(debian.ok(knobs), before, "it is tuned");
    let words = ["run", "--canary", "1", "--attempts", "1", "busybox", "true"];
    let output = people.still(words);
    // an emulated CPU may be quiet or not: it was measured, and that is what is new
    let said = output.text();
    let known = ["quiet", "noisy", "unproven"];
    assert!(known.iter().any(|verdict| said.contains(verdict)), "{said}");
    let jobs = people.json(["jobs"]);
    let last = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["id"].as_u64());
    let id = last.max().flatten().unwrap().to_string();
    let proof = people.home.path().join("proof");
    let certificate = ["job", "certificate", &id, "--out", proof.to_str().unwrap()];
    people.still(certificate).ok().unwrap();
    let file = std::fs::read_dir(&proof).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    let certificate: quiet::Certificate = serde_json::from_str(&text).unwrap();
    let windows: Vec<_> = certificate
        .evidence
        .windows
        .iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(
        windows,
        quiet::WindowName::ALL,
        "{:#?}",
        certificate.evidence.troubles
    );
    debian.ok("systemctl stop stillmetal-agent");
    assert_eq!(debian.ok(knobs), before, "it is as it was");
}

fn it_goes_as_it_came(debian: &Debian) {
    debian.ok("dpkg --purge stillmetal-agent");
    let left = "ls -d /etc/stillmetal /var/lib/stillmetal /run/stillmetal /usr/lib/stillmetal /usr/bin/stillmetal-agent; systemctl is-active -q stillmetal-agent && echo runs";
    stillmetal_tests::people::eventually("nothing of it is left", || {
        let found = debian.sh(left).text();
        if !found.is_empty() {
            eprintln!("still there: {found}");
        }
        found.is_empty()
    });
    let containers = debian
        .side
        .docker
        .run_ok(["ps", "-a", "--format", "{{.Names}}"]);
    assert_eq!(containers.unwrap().text().trim(), "host");
}
