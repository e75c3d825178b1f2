//! The harness with what is built: the launcher with the kernel alone (no initramfs, so it ends in
//! its well-known panic), and the image tool.

use std::time::Duration;

use testkit::{
    Accel, Cmdline, ConfigOptions, Credentials, DiskBus, Ending, Error, Nic, OnReset, VmBuilder,
    images, places, timeline,
};

const WITHIN: Duration = Duration::from_secs(120);

fn described(name: &str) -> VmBuilder {
    VmBuilder::new(name)
        .accel(Accel::Tcg)
        .kernel(places::build_dir().join("stillmetal-kernel"))
        .cmdline(Cmdline::parse("console=ttyS0 panic=-1"))
        .memory_mib(512)
}

#[test]
#[ignore = "needs the built kernel: VM lane"]
fn a_machine_with_everything_boots_and_resets() {
    let vm = described("kit-everything")
        .cpus(4)
        .threads_per_core(2)
        .numa_nodes(2)
        .empty_disk(DiskBus::Virtio, 1 << 20)
        .empty_disk(DiskBus::Nvme, 1 << 20)
        .empty_disk(DiskBus::Ahci, 1 << 20)
        .nic(Nic::user().restricted().forward(2376).forward(22))
        .nic(Nic::silent().model("e1000e"))
        .seed(1)
        .start()
        .unwrap();
    let forwarded = [2376, 22].map(|port| vm.address(port).unwrap());
    assert_ne!(forwarded[0], forwarded[1]);
    assert_eq!(vm.address(80), None);
    assert_eq!(vm.status().unwrap(), "running");
    assert_eq!(vm.disk_use().unwrap().len(), 3);
    vm.wait_line("Kernel panic - not syncing: VFS", WITHIN)
        .unwrap();
    assert_eq!(vm.wait_exit(WITHIN).unwrap(), Ending::Reset);
    let passed = timeline(
        &vm.console_lines(),
        &[("kernel", "Linux version"), ("x", "absent")],
    );
    assert!(passed[0].as_ref().is_some_and(|mark| mark.at < vm.age()));
    assert_eq!(passed[1], None);
    assert!(
        vm.console_lines()
            .iter()
            .any(|line| line.text.contains("Brought up 2 nodes, 4 CPUs"))
    );
    let log = std::fs::read_to_string(vm.log_file()).unwrap();
    assert!(log.contains("Kernel panic"));
}

#[test]
#[ignore = "needs the built kernel: VM lane"]
fn a_reset_can_restart_and_quit_ends() {
    let vm = described("kit-restart")
        .on_reset(OnReset::Restart)
        .start()
        .unwrap();
    vm.wait_line("Linux version", WITHIN).unwrap();
    let mark = vm.console().mark();
    vm.wait_line_after(mark, "Linux version", WITHIN).unwrap();
    vm.quit().unwrap();
    assert_eq!(vm.wait_exit(WITHIN).unwrap(), Ending::Quit);
}

#[test]
#[ignore = "needs the built kernel: VM lane"]
fn an_early_death_is_told_with_the_last_lines() {
    let error = described("kit-death")
        .init_marker("never")
        .boot(WITHIN)
        .unwrap_err();
    let Error::DiedEarly { line, tail, .. } = error else {
        panic!("{error}")
    };
    assert!(line.contains("Kernel panic"), "{line}");
    assert!(tail.contains("VFS"), "{tail}");
}

#[test]
#[ignore = "needs the built kernel: VM lane"]
fn qemus_complaint_is_told() {
    let error = described("kit-complaint")
        .qemu_args(["-device", "nonsense"])
        .start()
        .unwrap_err();
    let Error::Launch { stderr, .. } = &error else {
        panic!("{error}")
    };
    assert!(stderr.contains("nonsense"), "{stderr}");
}

#[test]
#[ignore = "needs the built kernel: VM lane"]
fn dropping_kills() {
    let vm = described("kit-drop")
        .on_reset(OnReset::Restart)
        .start()
        .unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", vm.pid()));
    assert!(process.exists());
    drop(vm);
    assert!(!process.exists());
}

#[test]
#[ignore = "needs the built image tool: VM lane"]
fn the_image_tool_makes_what_tests_need() {
    let credentials = Credentials::generate().unwrap();
    let options = ConfigOptions {
        engine_tls: true,
        ..ConfigOptions::default()
    };
    let archive = std::fs::read(credentials.config_img(&options).unwrap()).unwrap();
    let has = |name: &[u8]| archive.windows(name.len()).any(|window| window == name);
    assert!(has(b"stillmetal/node.key") && has(b"stillmetal/engine/key.pem"));
    assert!(!has(b"ca.key"), "the authority's key must stay here");
    assert!(images::busybox().unwrap().is_file());
    assert!(images::stress_ng().unwrap().is_file());
}
