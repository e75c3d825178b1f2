//! `tune` and `restore` as the command line runs them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use host::Tree;
use host::fakes::OnWrite;
use nix::errno::Errno;
use stillmetal_tune::cli::{self, PlaceArgs, RestoreArgs, TuneArgs};

use super::*;

struct Command {
    directory: tempfile::TempDir,
}

impl Command {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("run/tune-state.json")
    }

    fn place(&self, root: &Path) -> PlaceArgs {
        PlaceArgs {
            root: root.to_owned(),
            state: self.state(),
        }
    }

    fn tune_args(&self) -> TuneArgs {
        TuneArgs {
            json: false,
            dry_run: false,
            keep_smt: false,
            place: self.place(Path::new("/")),
        }
    }

    fn tune(&self, tree: &dyn Tree) -> (ExitCode, String) {
        let mut out = Vec::new();
        let code = cli::tune(&self.tune_args(), tree, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    fn restore(&self, tree: &dyn Tree) -> (ExitCode, String) {
        let mut out = Vec::new();
        let args = RestoreArgs {
            json: false,
            place: self.place(Path::new("/")),
        };
        let code = cli::undo(&args, tree, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }
}

#[test]
fn every_fixture_comes_back_byte_for_byte() {
    for fixture in [INTEL, AMD, ACPI, QEMU, NULL] {
        let tree = machine(fixture);
        let before = settings(&tree);
        let command = Command::new();
        assert_eq!(command.tune(&tree).0, ExitCode::SUCCESS);
        assert_ne!(settings(&tree), before);
        let (code, text) = command.restore(&tree);
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        assert_eq!(
            difference(&settings(&tree), &before),
            [] as [String; 0],
            "{text}"
        );
        assert!(!command.state().exists());
        assert_eq!(
            command.restore(&tree).1,
            "nothing to restore: this machine is not tuned\n"
        );
    }
}

#[test]
fn the_first_tuning_decides_what_is_restored() {
    use std::os::unix::fs::PermissionsExt;
    let tree = machine(INTEL);
    let command = Command::new();
    command.tune(&tree);
    let mode = std::fs::metadata(command.state())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    tree.set("/proc/irq/77/smp_affinity_list", "0-3");
    command.tune(&tree);
    let mut expected = settings(&machine(INTEL));
    expected.insert("/proc/irq/77/smp_affinity_list".into(), "0-3\n".into());
    let (code, text) = command.restore(&tree);
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert_eq!(settings(&tree), expected);
    let directory = command.state().parent().unwrap().to_owned();
    assert_eq!(
        std::fs::read_dir(directory).unwrap().count(),
        0,
        "no temporary files stay"
    );
}

#[test]
fn an_offline_sibling_stays_offline() {
    let tree = machine(INTEL);
    tree.write(&format!("{CPU}/cpu6/online"), "0").unwrap();
    let before = settings(&tree);
    let command = Command::new();
    command.tune(&tree);
    let (code, text) = command.restore(&tree);
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert_eq!(settings(&tree), before);
}

#[test]
fn what_cannot_be_restored_is_listed_and_kept_for_another_try() {
    let tree = machine(INTEL);
    let before = settings(&tree);
    let command = Command::new();
    command.tune(&tree);
    tree.on_write("/proc/sys/vm/swappiness", OnWrite::Fail(Errno::EPERM));
    let (code, text) = command.restore(&tree);
    assert_eq!(code, ExitCode::FAILURE);
    assert!(
        text.contains("not restored: vm.swappiness (/proc/sys/vm/swappiness) is 0, was 60"),
        "{text}"
    );
    assert!(command.state().exists());
    tree.on_write("/proc/sys/vm/swappiness", OnWrite::Accept);
    assert_eq!(command.restore(&tree).0, ExitCode::SUCCESS);
    assert_eq!(settings(&tree), before);
    assert!(!command.state().exists());
}

#[test]
fn devices_and_threads_that_went_away_are_no_failure() {
    let tree = machine(INTEL);
    let command = Command::new();
    command.tune(&tree);
    tree.remove("/proc/irq/24");
    // The id was given to another thread since.
    tree.set("/proc/40/stat", "40 (kcompactd0) S 2 0 0 0 -1 2099264 0 0");
    let (code, text) = command.restore(&tree);
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert!(
        text.contains("gone: irq.24") && text.contains("gone: kthread.kswapd0"),
        "{text}"
    );
    assert!(
        tree.get("/proc/40/status")
            .unwrap()
            .contains("Cpus_allowed_list:\t0\n")
    );
}

#[test]
fn a_state_from_before_a_reboot_is_not_used() {
    let tree = machine(INTEL);
    let command = Command::new();
    command.tune(&tree);
    let rebooted = machine(INTEL);
    rebooted.set("/proc/sys/kernel/random/boot_id", "another");
    rebooted.set("/proc/sys/vm/swappiness", "10");
    let before = settings(&rebooted);
    let (_, text) = command.restore(&rebooted);
    assert!(text.contains("rebooted"), "{text}");
    assert_eq!(settings(&rebooted), before);
    assert!(!command.state().exists());
}

#[test]
fn a_dry_run_changes_nothing() {
    let tree = machine(INTEL);
    let before = tree.snapshot();
    let command = Command::new();
    let mut out = Vec::new();
    let args = TuneArgs {
        dry_run: true,
        ..command.tune_args()
    };
    cli::tune(&args, &tree, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let row = text
        .lines()
        .find(|line| line.starts_with("kernel.sched_rt_runtime_us "))
        .unwrap();
    assert_eq!(row.split_ascii_whitespace().nth(1), Some("-1"));
    assert_eq!(tree.snapshot(), before);
    assert_eq!(tree.take_writes(), []);
    assert!(!command.state().exists());
}

#[test]
fn without_a_place_for_the_state_nothing_is_changed() {
    let tree = machine(INTEL);
    let before = tree.snapshot();
    let command = Command::new();
    std::fs::write(command.directory.path().join("run"), "a file").unwrap();
    let error = cli::tune(&command.tune_args(), &tree, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("tuning state"), "{error}");
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn a_damaged_state_is_not_overwritten() {
    let tree = machine(INTEL);
    let command = Command::new();
    std::fs::create_dir(command.directory.path().join("run")).unwrap();
    std::fs::write(command.state(), "{").unwrap();
    let before = tree.snapshot();
    assert!(cli::tune(&command.tune_args(), &tree, &mut Vec::new()).is_err());
    assert_eq!(tree.snapshot(), before);
    assert_eq!(std::fs::read_to_string(command.state()).unwrap(), "{");
}

#[test]
fn a_directory_is_tuned_and_restored() {
    let command = Command::new();
    let root = command.directory.path().join("root");
    // Threads cannot be moved in a copy, and nothing here behaves like a kernel.
    let files: BTreeMap<String, String> = FakeTree::from_fixture(AMD)
        .snapshot()
        .into_iter()
        .filter(|(path, _)| !path.ends_with("/stat"))
        .collect();
    for (path, text) in &files {
        let path = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let args = TuneArgs {
        json: true,
        ..command.tune_args()
    };
    let mut out = Vec::new();
    let args = TuneArgs {
        place: command.place(&root),
        ..args
    };
    assert_eq!(cli::run_tune(&args, &mut out).unwrap(), ExitCode::SUCCESS);
    let report: Report = serde_json::from_slice(&out).unwrap();
    assert_eq!(status(&report, "cpufreq.boost"), Status::Verified);
    let args = RestoreArgs {
        json: true,
        place: command.place(&root),
    };
    let mut out = Vec::new();
    assert_eq!(
        cli::run_restore(&args, &mut out).unwrap(),
        ExitCode::SUCCESS
    );
    for (path, text) in &files {
        let found = std::fs::read_to_string(root.join(path.trim_start_matches('/'))).unwrap();
        assert_eq!(&found, text, "{path}");
    }
}

#[test]
fn two_at_once_are_refused_and_a_dry_run_is_not() {
    let command = Command::new();
    let tree = machine(INTEL);
    let alone = stillmetal_tune::state::Alone::lock(&command.state()).unwrap();
    let error = cli::tune(&command.tune_args(), &tree, &mut Vec::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("another tune or restore is at work"),
        "{error}"
    );
    let args = RestoreArgs {
        json: false,
        place: command.place(Path::new("/")),
    };
    assert!(cli::undo(&args, &tree, &mut Vec::new()).is_err());
    let mut dry = command.tune_args();
    dry.dry_run = true;
    cli::tune(&dry, &tree, &mut Vec::new()).unwrap();
    drop(alone);
    assert_eq!(command.tune(&tree).0, ExitCode::SUCCESS);
}
