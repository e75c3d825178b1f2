//! cpuset partitions: the fake and the kernel must agree.

use cpulist::CpuSet;
use host::cgroup::{Cgroups, Error, Kind, ROOT, State};
use host::fakes::CgroupRules;
use host::{RealTree, Tree};

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

/// Needs at least two CPUs, and `cpuset` enabled for the root's children. Uses the last CPU.
fn a_partition_lives_and_dies(tree: &dyn Tree, prefix: &str) {
    let groups = Cgroups::new(tree);
    let all = set(&tree.read(&format!("{ROOT}/cpuset.cpus.effective")).unwrap());
    let mems = set(&tree.read(&format!("{ROOT}/cpuset.mems.effective")).unwrap());
    let last: CpuSet = all.iter().next_back().into_iter().collect();
    let (first, second) = (format!("{prefix}-a"), format!("{prefix}-b"));

    groups
        .create_partition(&first, &last, &mems, Kind::Isolated)
        .unwrap();
    assert_eq!(groups.state(&first).unwrap(), State::Valid(Kind::Isolated));
    let again = groups
        .create_partition(&first, &last, &mems, Kind::Isolated)
        .unwrap_err();
    assert!(again.already_exists(), "{again:?}");

    let taken = groups
        .create_partition(&second, &last, &mems, Kind::Isolated)
        .unwrap_err();
    match &taken {
        Error::Refused { reason, .. } => assert!(reason.contains("invalid"), "{reason}"),
        // Some kernels already refuse the overlapping cpuset.cpus.
        Error::Write { path, .. } => assert!(path.ends_with("cpuset.cpus"), "{path}"),
        other => panic!("{other:?}"),
    }
    assert!(
        !tree.exists(&format!("{ROOT}/{second}")),
        "a refused partition leaves nothing"
    );

    let found = groups.partitions(prefix).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].name.as_str(), &found[0].cpus),
        (first.as_str(), &last)
    );

    tree.create_dir(&format!("{ROOT}/{first}/child")).unwrap();
    assert!(!groups.populated(&first).unwrap());
    assert!(groups.procs(&first).unwrap().is_empty());
    groups.remove(&first).unwrap();
    assert!(!tree.exists(&format!("{ROOT}/{first}")));
    groups.remove(&first).unwrap();
    assert!(groups.populated(&first).unwrap_err().is_not_found());

    let empty = groups
        .create_partition(&second, &CpuSet::new(), &mems, Kind::Root)
        .unwrap_err();
    assert!(matches!(empty, Error::Refused { .. }), "{empty:?}");
    assert!(!tree.exists(&format!("{ROOT}/{second}")));
}

#[test]
fn fake_partition() {
    let tree = CgroupRules::new(set("0-3"), set("0"), set("")).tree();
    a_partition_lives_and_dies(&tree, "contract");
}

#[test]
#[ignore = "needs root and cgroup v2: root lane"]
fn real_partition() {
    let tree = RealTree::live();
    Cgroups::new(&tree).enable("", &["cpuset"]).unwrap();
    a_partition_lives_and_dies(&tree, &format!("contract-{}", std::process::id()));
}

#[test]
fn a_populated_group_stays_until_it_is_killed() {
    let tree = CgroupRules::new(set("0-3"), set("0"), set("")).tree();
    let groups = Cgroups::new(&tree);
    groups
        .create_partition("stillmetal-1", &set("2-3"), &set("0"), Kind::Root)
        .unwrap();
    groups
        .enable("stillmetal-1", &["cpuset", "memory"])
        .unwrap();
    tree.create_dir(&format!("{ROOT}/stillmetal-1/container"))
        .unwrap();
    groups.attach("stillmetal-1/container", 41).unwrap();
    groups.attach("stillmetal-1", 40).unwrap();
    assert_eq!(groups.procs("stillmetal-1").unwrap(), [40, 41]);
    assert!(groups.populated("stillmetal-1").unwrap());
    assert!(groups.remove("stillmetal-1").unwrap_err().is_busy());
    groups.kill("stillmetal-1").unwrap();
    assert!(!groups.populated("stillmetal-1").unwrap());
    groups.remove("stillmetal-1").unwrap();
    assert!(groups.partitions("stillmetal-").unwrap().is_empty());
}

/// As tests/vm/cmdline.rs finds it on the real thing.
#[test]
fn boot_isolated_cpus_enter_ordinary_groups_only() {
    let tree = CgroupRules::new(set("0-3"), set("0"), set("2-3")).tree();
    let groups = Cgroups::new(&tree);
    for (cpus, kind) in [("2-3", Kind::Root), ("2", Kind::Isolated)] {
        let refused = groups
            .create_partition("p", &set(cpus), &set("0"), kind)
            .unwrap_err();
        let Error::Refused { reason, .. } = &refused else {
            panic!("{refused:?}")
        };
        assert!(
            reason.ends_with("invalid (partition config conflicts with housekeeping setup)"),
            "{reason}"
        );
    }
    groups.ensure_member("p", &set("2"), &set("0")).unwrap();
    assert_eq!(groups.state("p").unwrap(), State::Member);
    groups.ensure_member("p", &set("2"), &set("0")).unwrap();
}

#[test]
fn housekeeping_groups_are_ordinary_and_may_exist() {
    let tree = CgroupRules::new(set("0-3"), set("0"), set("")).tree();
    let groups = Cgroups::new(&tree);
    groups.ensure_group("engine", &set("0")).unwrap();
    groups.ensure_group("engine", &set("0-1")).unwrap();
    assert_eq!(groups.state("engine").unwrap(), State::Member);
    assert_eq!(
        tree.get(&format!("{ROOT}/engine/cpuset.cpus")).unwrap(),
        "0-1"
    );
    groups
        .create_partition("p", &set("1"), &set("0"), Kind::Isolated)
        .unwrap();
}

#[test]
fn names_that_are_no_group_are_refused() {
    let tree = CgroupRules::new(set("0-3"), set("0"), set("")).tree();
    let groups = Cgroups::new(&tree);
    for name in [
        "",
        "..",
        "a/../b",
        "a//b",
        "cgroup.procs",
        "cpuset.cpus",
        "a\nb",
    ] {
        let made = groups.create_partition(name, &set("1"), &set("0"), Kind::Root);
        assert!(matches!(made, Err(Error::Name { .. })), "{name:?}");
        assert!(
            matches!(groups.remove(name), Err(Error::Name { .. })),
            "{name:?}"
        );
    }
    let missing = groups
        .create_partition("a/b", &set("1"), &set("0"), Kind::Root)
        .unwrap_err();
    assert!(missing.is_not_found());
}
