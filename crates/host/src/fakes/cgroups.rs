//! cgroup v2 with cpuset partitions, reasons worded as Linux 6.12 words them
//! (`perr_strings` in kernel/cgroup/cpuset.c).

use cpulist::CpuSet;
use nix::errno::Errno;

use super::files::Files;
use super::tree::{Rule, Verdict};
use crate::cgroup::ROOT;

/// Emulates `/sys/fs/cgroup`.
#[derive(Clone, Debug)]
pub struct CgroupRules {
    cpus: CpuSet,
    mems: CpuSet,
    boot_isolated: CpuSet,
}

impl CgroupRules {
    /// A machine with these CPUs and memory nodes; `boot_isolated` as by `isolcpus=domain`.
    #[must_use]
    pub fn new(cpus: CpuSet, mems: CpuSet, boot_isolated: CpuSet) -> Self {
        Self {
            cpus,
            mems,
            boot_isolated,
        }
    }

    /// A tree with a root cgroup that lets its children use cpusets.
    #[must_use]
    pub fn tree(self) -> super::FakeTree {
        let tree = super::FakeTree::new();
        for (file, text) in [
            ("cgroup.controllers", "cpuset cpu io memory pids".to_owned()),
            (
                "cgroup.subtree_control",
                "cpuset cpu io memory pids".to_owned(),
            ),
            ("cgroup.procs", String::new()),
            ("cpuset.cpus.effective", self.cpus.to_string()),
            ("cpuset.mems.effective", self.mems.to_string()),
            ("cpuset.cpus.isolated", self.boot_isolated.to_string()),
        ] {
            tree.set(&format!("{ROOT}/{file}"), &text);
        }
        tree.with_rule(self)
    }

    /// What is wrong with making `group` a partition, if anything.
    fn fault(&self, files: &Files, group: &str) -> Option<&'static str> {
        let cpus = list(files, &format!("{group}/cpuset.cpus"));
        if cpus.is_empty() {
            return Some("cpuset.cpus and cpuset.cpus.exclusive are empty");
        }
        if group
            .rsplit_once('/')
            .is_some_and(|(above, _)| above != ROOT)
        {
            return Some("Parent is not a partition root");
        }
        // of either kind, on Linux 6.12
        if !cpus.is_disjoint(&self.boot_isolated) {
            return Some("partition config conflicts with housekeeping setup");
        }
        let taken = partitions(files)
            .filter(|(other, _)| other != group)
            .any(|(_, others)| !others.is_disjoint(&cpus));
        if taken {
            return Some("Cpu list in cpuset.cpus not exclusive");
        }
        if self.cpus.is_subset(&cpus) {
            return Some("Parent unable to distribute cpu downstream");
        }
        None
    }

    fn partition(&self, files: &mut Files, group: &str, kind: &str) -> Verdict {
        let path = format!("{group}/cpuset.cpus.partition");
        match kind {
            "member" => files.set(&path, kind),
            "isolated" | "root" => match self.fault(files, group) {
                // The write succeeds all the same: reading back is the only way to know.
                Some(fault) => files.set(&path, &format!("{kind} invalid ({fault})")),
                None => files.set(&path, kind),
            },
            _ => return Verdict::Fail(Errno::EINVAL),
        }
        Verdict::Done
    }

    fn cpus(&self, files: &mut Files, group: &str, text: &str) -> Verdict {
        let Ok(cpus) = text.parse::<CpuSet>() else {
            return Verdict::Fail(Errno::EINVAL);
        };
        files.set(&format!("{group}/cpuset.cpus"), &cpus.to_string());
        let effective = cpus.intersection(&self.cpus);
        let effective = if effective.is_empty() {
            self.cpus.clone()
        } else {
            effective
        };
        files.set(
            &format!("{group}/cpuset.cpus.effective"),
            &effective.to_string(),
        );
        Verdict::Done
    }
}

/// Valid partitions and their CPUs.
fn partitions(files: &Files) -> impl Iterator<Item = (String, CpuSet)> {
    files
        .under(ROOT)
        .filter(|(_, text)| matches!(text.trim(), "isolated" | "root"))
        .filter_map(|(path, _)| path.strip_suffix("/cpuset.cpus.partition"))
        .map(|group| {
            (
                group.to_owned(),
                list(files, &format!("{group}/cpuset.cpus")),
            )
        })
}

fn list(files: &Files, path: &str) -> CpuSet {
    files
        .get(path)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// Groups at and below `group`.
fn groups(files: &Files, group: &str) -> Vec<String> {
    let below = format!("{group}/");
    files
        .under(group)
        .filter_map(|(path, _)| path.strip_suffix("/cgroup.events"))
        .filter(|found| *found == group || found.starts_with(&below))
        .map(str::to_owned)
        .collect()
}

/// Brings every `cgroup.events` in line with the processes.
fn retell_events(files: &mut Files) {
    for group in groups(files, ROOT) {
        let populated = groups(files, &group).iter().any(|inner| {
            files
                .get(&format!("{inner}/cgroup.procs"))
                .is_some_and(|procs| !procs.is_empty())
        });
        let populated = u8::from(populated);
        files.set(
            &format!("{group}/cgroup.events"),
            &format!("populated {populated}\nfrozen 0"),
        );
    }
}

fn attach(files: &mut Files, group: &str, text: &str) -> Verdict {
    if text.parse::<u32>().is_err() {
        return Verdict::Fail(Errno::EINVAL);
    }
    let holders: Vec<(String, String)> = files
        .under(ROOT)
        .filter(|(path, _)| path.ends_with("/cgroup.procs"))
        .map(|(path, procs)| (path.to_owned(), procs.to_owned()))
        .collect();
    for (path, procs) in holders {
        let kept: Vec<&str> = procs.lines().filter(|line| *line != text).collect();
        files.set(&path, &kept.join("\n"));
    }
    let path = format!("{group}/cgroup.procs");
    let procs = format!("{}\n{text}", files.get(&path).unwrap_or_default());
    files.set(&path, procs.trim());
    retell_events(files);
    Verdict::Done
}

impl Rule for CgroupRules {
    fn on_write(&mut self, files: &mut Files, path: &str, text: &str) -> Verdict {
        let Some((group, file)) = path.rsplit_once('/') else {
            return Verdict::Pass;
        };
        if !group.starts_with(ROOT) {
            return Verdict::Pass;
        }
        match file {
            "cpuset.cpus.partition" => self.partition(files, group, text),
            "cpuset.cpus" => self.cpus(files, group, text),
            "cpuset.mems" => match text.parse::<CpuSet>() {
                Ok(mems) if mems.is_subset(&self.mems) => Verdict::Pass,
                _ => Verdict::Fail(Errno::EINVAL),
            },
            "cgroup.procs" => attach(files, group, text),
            "cgroup.kill" => {
                for inner in groups(files, group) {
                    files.set(&format!("{inner}/cgroup.procs"), "");
                }
                retell_events(files);
                Verdict::Done
            }
            "cgroup.subtree_control" => subtree_control(files, group, text),
            _ => Verdict::Pass,
        }
    }

    fn on_create_dir(&mut self, files: &mut Files, path: &str) -> Verdict {
        let Some((above, _)) = path.rsplit_once('/') else {
            return Verdict::Pass;
        };
        if !above.starts_with(ROOT) {
            return Verdict::Pass;
        }
        let enabled = files
            .get(&format!("{above}/cgroup.subtree_control"))
            .unwrap_or_default();
        let enabled = enabled.to_owned();
        let mut made = vec![
            ("cgroup.controllers", enabled.clone()),
            ("cgroup.subtree_control", String::new()),
            ("cgroup.procs", String::new()),
            ("cgroup.kill", String::new()),
            ("cgroup.events", "populated 0\nfrozen 0".into()),
        ];
        if enabled.split(' ').any(|controller| controller == "cpuset") {
            made.extend([
                ("cpuset.cpus", String::new()),
                ("cpuset.cpus.effective", self.cpus.to_string()),
                ("cpuset.cpus.partition", "member".into()),
                ("cpuset.mems", String::new()),
                ("cpuset.mems.effective", self.mems.to_string()),
            ]);
        }
        files.add_directory(path);
        for (file, text) in made {
            files.set(&format!("{path}/{file}"), &text);
        }
        Verdict::Done
    }

    fn on_remove_dir(&mut self, files: &mut Files, path: &str) -> Verdict {
        if !path.starts_with(&format!("{ROOT}/")) {
            return Verdict::Pass;
        }
        let populated = files
            .get(&format!("{path}/cgroup.procs"))
            .is_some_and(|procs| !procs.is_empty());
        if populated || groups(files, path).len() > 1 {
            return Verdict::Fail(Errno::EBUSY);
        }
        files.remove(path);
        Verdict::Done
    }
}

fn subtree_control(files: &mut Files, group: &str, text: &str) -> Verdict {
    let available = files
        .get(&format!("{group}/cgroup.controllers"))
        .unwrap_or_default();
    let path = format!("{group}/cgroup.subtree_control");
    let mut enabled: Vec<String> = files
        .get(&path)
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    for change in text.split_ascii_whitespace() {
        let Some((sign, name)) = change.split_at_checked(1) else {
            return Verdict::Fail(Errno::EINVAL);
        };
        if !available.split_ascii_whitespace().any(|one| one == name) {
            return Verdict::Fail(Errno::ENOENT);
        }
        enabled.retain(|one| one != name);
        match sign {
            "+" => enabled.push(name.to_owned()),
            "-" => {}
            _ => return Verdict::Fail(Errno::EINVAL),
        }
    }
    files.set(&path, &enabled.join(" "));
    Verdict::Done
}
