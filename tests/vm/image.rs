//! What the image is: in RAM, read-only, without secrets or a shell; and SSH only when asked for.

use std::sync::Arc;
use std::time::Duration;

use testkit::{ConfigOptions, Credentials, Invocation, Node, node};

use crate::look;

#[test]
#[ignore = "boots the image: VM lane"]
fn the_root_is_read_only_and_only_known_places_are_writable() {
    let node = look::shared();
    let attempt = |path: &str| {
        let volume = "/:/host:rslave";
        let target = format!("/host{path}/probe");
        node.docker
            .run(["run", "--rm", "-v", volume, "busybox", "touch", &target])
            .unwrap()
    };
    for path in ["", "/usr/bin", "/etc", "/sbin"] {
        let output = attempt(path);
        assert!(
            output.error_text().contains("Read-only"),
            "{path}: {}",
            output.error_text()
        );
    }
    let mounts = look::host_file(node, "/proc/1/mounts");
    let writable: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let writable = fields[3].split(',').any(|option| option == "rw");
            // what the engine mounts for its containers lies below its own directories
            let engine = fields[1].starts_with("/var/lib/docker/")
                || fields[1].starts_with("/run/docker/")
                || fields[1].starts_with("/run/containerd/");
            (writable && !engine).then_some(fields[1])
        })
        .collect();
    let known = [
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/run",
        "/tmp",
        "/var",
        "/sys/fs/cgroup",
        "/sys/kernel/debug",
        "/sys/kernel/tracing",
        "/sys/kernel/debug/tracing",
        "/run/docker/netns",
        "/run/stillmetal/gates",
    ];
    let unknown: Vec<&&str> = writable
        .iter()
        .filter(|mount| !known.contains(*mount) && !mount.starts_with("/run/docker"))
        .collect();
    assert!(
        unknown.is_empty(),
        "unexpected writable mounts: {unknown:?}"
    );
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn no_file_of_the_image_holds_a_private_key() {
    let folder = testkit::scratch_folder("unpacked").unwrap();
    // Stage one, compressed, then the root image: a squashfs 4.0, found by its magic number.
    let initrd = testkit::Artifacts::find().unwrap().initrd;
    let bytes = std::fs::read(&initrd).unwrap();
    let offset = bytes
        .windows(32)
        .position(|head| head.starts_with(b"hsqs") && head.ends_with(&[4, 0, 0, 0]))
        .expect("a root image in the initramfs");
    Invocation::new("unsquashfs")
        .args(["-quiet", "-no-progress", "-offset", &offset.to_string()])
        .arg_path("-dest", &folder.path().join("root"))
        .args([&initrd])
        .within(Duration::from_secs(120))
        .run_ok()
        .unwrap();
    let stage_one = testkit::places::build_dir().join("stage-one");
    std::fs::copy(stage_one, folder.path().join("init")).unwrap();
    // A PEM block with content, which starts with a DER sequence; programs that read keys hold the
    // bare words.
    const KEY: &[u8] = b"PRIVATE KEY-----\nM";
    let key = |file: &std::path::Path| {
        let bytes = std::fs::read(file).unwrap();
        bytes.windows(KEY.len()).any(|words| words == KEY)
    };
    let mut files = 0;
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files += 1;
                assert!(!key(&entry.path()), "{}", entry.path().display());
            }
        }
    }
    assert!(files > 30, "only {files} files: is this the image?");
    // the check can fail
    let planted = folder.path().join("planted");
    let pem = pki::Authority::generate("planted").unwrap().key_pem();
    std::fs::write(&planted, pem.as_bytes()).unwrap();
    assert!(key(&planted), "{}", &pem[..40]);
}

#[test]
#[ignore = "boots the image: VM lane"]
fn the_report_tells_every_knob_with_its_outcome() {
    let node = look::shared();
    let status = look::status(node);
    assert_eq!(status["state"], "fit", "{status}");
    let knobs = status["tuning"]["knobs"].as_array().unwrap();
    assert!(knobs.len() > 10, "{}", knobs.len());
    for knob in knobs {
        let outcome = knob["status"].as_str().unwrap();
        assert!(
            ["verified", "unchanged", "recorded", "n/a", "refused"].contains(&outcome),
            "{knob}"
        );
        if outcome == "n/a" || outcome == "refused" {
            assert!(knob["reason"].is_string(), "{knob}");
        }
    }
    let fair = knobs.iter().find(|knob| {
        knob["path"]
            .as_str()
            .is_some_and(|path| path.contains("fair_server/cpu1/runtime"))
    });
    let fair = fair.expect("the fair server's knob of CPU 1");
    assert_eq!(fair["after"], "0", "{fair}");
    // on the console, too
    node.node
        .vm
        .wait_line("fair_server.cpu1", Duration::from_secs(60))
        .unwrap();
    // past the agent: the kernel's own word
    let runtime = look::host_file(node, "/sys/kernel/debug/sched/fair_server/cpu1/runtime");
    assert_eq!(runtime.trim(), "0");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn ssh_takes_the_given_key_and_never_a_password() {
    let folder = testkit::scratch_folder("ssh").unwrap();
    let key = folder.path().join("key");
    Invocation::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .args([&key])
        .run_ok()
        .unwrap();
    let credentials = Arc::new(Credentials::generate().unwrap());
    let options = ConfigOptions {
        authorized_keys: Some(key.with_extension("pub")),
        ..ConfigOptions::default()
    };
    let description = node::describe("ssh", &credentials, &options).unwrap();
    let node = Node::boot(&description, &credentials).unwrap();
    node.wait_api().unwrap();
    let address = node.vm.address(22).unwrap();
    let port = address.port().to_string();
    let ssh = |extra: &[&str]| {
        Invocation::new("ssh")
            .args(["-F", "none", "-p", &port, "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"])
            .args(extra)
            .args(["root@127.0.0.1", "cat /proc/1/comm"])
            .within(Duration::from_secs(60))
            .run()
            .unwrap()
    };
    let identity = key.display().to_string();
    let with_key = ["-o", "IdentitiesOnly=yes", "-i", &identity];
    let mut entered = ssh(&with_key);
    look::eventually("ssh lets the key in", || {
        if !entered.success() {
            entered = ssh(&with_key);
        }
        entered.success()
    });
    assert_eq!(entered.text().trim(), "init", "{}", entered.error_text());
    let without = ssh(&[
        "-o",
        "PubkeyAuthentication=no",
        "-o",
        "PreferredAuthentications=password",
    ]);
    assert!(
        without
            .error_text()
            .contains("Permission denied (publickey)"),
        "{}",
        without.error_text()
    );
}
