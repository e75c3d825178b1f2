//! `stillmetal-agent tune` and `restore` on an ordinary host: Debian with systemd, in a VM.

use std::sync::Arc;

use stillmetal_tests::bench::sides::{Booted, Side, Sides};
use testkit::{Credentials, places};

fn read_all(side: &Side) -> String {
    // what tuning may touch, and what it must leave alone around it; first lines, read by the shell
    // itself: a process a file would take minutes under emulation
    let script = "cd /host; for f in $(find sys/devices/system/cpu sys/devices/virtual/workqueue \
                  sys/kernel/mm sys/kernel/debug/sched proc/sys/kernel proc/sys/vm \
                  sys/class/net/*/queues/* -type f -perm -200 2>/dev/null | sort) \
                  $(ls -d proc/irq/*/smp_affinity_list proc/irq/default_smp_affinity); do \
                  case $f in *random*|*drop_caches|*compact_memory|*stat_refresh|*/uevent|*ns_last_pid|*proactive_compaction|*/byte_queue_limits/*) continue;; esac; \
                  l=unreadable; IFS= read -r l 2>/dev/null < $f; echo \"$f: $l\"; done; true";
    side.docker
        .command(["exec", "tuner", "sh", "-c", script])
        .within(std::time::Duration::from_secs(300))
        .run_ok()
        .unwrap()
        .text()
}

#[test]
#[ignore = "boots Debian: VM lane"]
fn tune_and_restore_leave_an_ordinary_host_as_it_was() {
    let credentials = Arc::new(Credentials::generate().unwrap());
    let sides = Sides::prepare(&credentials).unwrap();
    let side = sides.boot_theirs_with(3, "nohz_full=1-2").unwrap();
    let Booted::Theirs(_) = &side.booted else {
        panic!("not the baseline")
    };
    let docker = &side.docker;
    docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "tuner",
            "--privileged",
            "--pid",
            "host",
            "--network",
            "host",
            "-v",
            "/:/host:rslave",
            "busybox",
            "sleep",
            "100000",
        ])
        .unwrap();
    let agent = places::build_dir().join("stillmetal-agent");
    docker
        .run_ok(["cp", &agent.display().to_string(), "tuner:/host/run/agent"])
        .unwrap();
    docker
        .run_ok([
            "exec",
            "tuner",
            "sh",
            "-c",
            "mount -t debugfs debugfs /host/sys/kernel/debug 2>/dev/null; true",
        ])
        .unwrap();
    let in_host = |arguments: &[&str]| {
        let mut command = vec!["exec", "tuner", "chroot", "/host", "/run/agent"];
        command.extend(arguments);
        docker.run(command).unwrap()
    };
    let before = read_all(&side);
    assert!(
        before.lines().count() > 300,
        "{} files",
        before.lines().count()
    );
    let tuned = in_host(&["tune", "--json"]);
    assert!(tuned.success(), "{}", tuned.error_text());
    let report: serde_json::Value = serde_json::from_slice(&tuned.stdout).unwrap();
    assert_eq!(report["state"], "fit", "{report}");
    let during = read_all(&side);
    assert_ne!(before, during, "tuning changed nothing");
    let restored = in_host(&["restore"]);
    assert!(
        restored.success(),
        "{}{}",
        restored.text(),
        restored.error_text()
    );
    let after = read_all(&side);
    let differences: Vec<_> = before
        .lines()
        .zip(after.lines())
        .filter(|(a, b)| a != b)
        .take(20)
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
    assert_eq!(before.lines().count(), after.lines().count());
    // a second time is no harm, and says so
    let again = in_host(&["restore"]);
    assert!(
        again.text().contains("nothing to restore"),
        "{}{}",
        again.text(),
        again.error_text()
    );
}
