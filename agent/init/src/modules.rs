//! Kernel modules: the names on the command line and what `modules.dep` says they need, loaded with `finit_module`; then
//! the door is closed for good. No modprobe, no aliases: everything that every machine needs is built in.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::utsname::uname;

use crate::log;

/// Loads the named modules. Failures are logged, for whoever asked for them to see on the console: a
/// node without one storage driver is still a node.
pub(crate) fn load(names: &[String]) {
    if names.is_empty() {
        return;
    }
    let release = match uname() {
        Ok(name) => name.release().to_string_lossy().into_owned(),
        Err(error) => return log::error(&format!("modules not loaded: uname: {error}")),
    };
    let base = Path::new("/lib/modules").join(release);
    let text = match fs::read_to_string(base.join("modules.dep")) {
        Ok(text) => text,
        Err(error) => {
            return log::error(&format!(
                "modules not loaded: {}/modules.dep: {error}",
                base.display()
            ));
        }
    };
    let table = Table::parse(&text);
    let order = table.load_order(names);
    for name in order.unknown {
        log::error(&format!("module {name} is not in this image"));
    }
    for file in order.files {
        match insert(&base.join(file)) {
            Ok(()) => log::info(&format!("module {file} loaded")),
            Err(error) => log::error(&format!("module {file}: {error}")),
        }
    }
}

/// No module can be loaded after this until power-off.
pub(crate) fn close_the_door() {
    match fs::write("/proc/sys/kernel/modules_disabled", "1") {
        // A kernel without modules has no such file.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log::warn(&format!("kernel.modules_disabled: {error}"));
        }
        _ => {}
    }
}

fn insert(path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    match finit_module(file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `modules.dep`: a module's file, and the files that it needs, nearest first.
#[derive(Debug, Default)]
struct Table<'a> {
    by_name: HashMap<String, (&'a str, Vec<&'a str>)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Order<'a> {
    files: Vec<&'a str>,
    unknown: Vec<&'a str>,
}

impl<'a> Table<'a> {
    fn parse(text: &'a str) -> Self {
        let entries = text.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            Some((
                name_of(file)?,
                (file.trim(), needs.split_whitespace().collect()),
            ))
        });
        Self {
            by_name: entries.collect(),
        }
    }

    /// What to load, in order: every file once, after everything that it needs. `depmod` lists all of a module's needs
    /// in its own line, the farthest last, so the list backwards is an order that works.
    fn load_order(&self, names: &'a [String]) -> Order<'a> {
        let mut order = Order::default();
        let mut seen = HashSet::new();
        for name in names {
            let Some((file, needs)) = self.by_name.get(&normal(name)) else {
                order.unknown.push(name);
                continue;
            };
            for file in needs.iter().rev().chain([file]) {
                if seen.insert(*file) {
                    order.files.push(file);
                }
            }
        }
        order
    }
}

/// `kernel/drivers/scsi/sd-mod.ko.xz` is the module `sd_mod`.
fn name_of(file: &str) -> Option<String> {
    let base = file.trim().rsplit('/').next()?;
    let stem = base.find(".ko").map(|end| &base[..end])?;
    (!stem.is_empty()).then(|| normal(stem))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko kernel/lib/crc16.ko\n\
        kernel/fs/jbd2/jbd2.ko:\nkernel/fs/mbcache.ko:\nkernel/lib/crc16.ko:\n\
        kernel/drivers/nvme/host/nvme-core.ko:\n\
        kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko\n";

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn needs_come_first_and_once() {
        let table = Table::parse(DEP);
        let wanted = names(&["nvme", "ext4", "nvme_core", "nvme-core", "jbd2"]);
        let order = table.load_order(&wanted);
        assert_eq!(
            order.files,
            [
                "kernel/drivers/nvme/host/nvme-core.ko",
                "kernel/drivers/nvme/host/nvme.ko",
                "kernel/lib/crc16.ko",
                "kernel/fs/mbcache.ko",
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/fs/ext4/ext4.ko",
            ]
        );
        assert!(order.unknown.is_empty());
    }

    #[test]
    fn unknown_modules_are_named() {
        let wanted = names(&["zfs"]);
        assert_eq!(Table::parse(DEP).load_order(&wanted).unknown, ["zfs"]);
    }

    proptest! {
        #[test]
        fn any_table_is_survived(text in "\\PC*", name in "[a-z_-]{0,8}") {
            let wanted = vec![name];
            let _order = Table::parse(&text).load_order(&wanted);
        }
    }
}
