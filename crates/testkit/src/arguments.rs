//! The QEMU command line that a described machine becomes, and its joined initramfs.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::accel::Accel;
use crate::builder::{DiskBus, OnReset, VmBuilder};
use crate::error::{Error, Result};

/// Temporary files and ports of one start.
#[derive(Debug)]
pub(crate) struct Resources<'a> {
    pub(crate) accel: Accel,
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: Option<&'a Path>,
    pub(crate) console: &'a Path,
    pub(crate) qmp: &'a Path,
    pub(crate) disks: &'a [PathBuf],
    /// For each card, a host port for each of its forwards.
    pub(crate) ports: &'a [Vec<u16>],
}

impl VmBuilder {
    /// The QEMU command line, without the program.
    pub(crate) fn arguments(&self, resources: &Resources<'_>) -> Result<Vec<String>> {
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
        add(&[
            "-nodefaults",
            "-display",
            "none",
            "-vga",
            "none",
            "-machine",
            "q35",
        ]);
        match &self.icount {
            // which excludes one thread for each CPU
            Some(icount) => add(&[
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max",
                "-icount",
                icount,
            ]),
            None => add(&resources.accel.arguments()),
        }
        add(&["-m", &format!("{}M", self.memory_mib), "-smp", &self.smp()?]);
        if self.numa_nodes > 1 {
            for node in 0..self.numa_nodes {
                let mib = self.memory_mib / self.numa_nodes;
                let share = self.cpus / self.numa_nodes;
                let (first, last) = (node * share, node * share + share - 1);
                add(&[
                    "-object",
                    &format!("memory-backend-ram,id=mem{node},size={mib}M"),
                ]);
                let numa = format!("node,nodeid={node},cpus={first}-{last},memdev=mem{node}");
                add(&["-numa", &numa]);
            }
        }
        add(&[
            "-kernel",
            &text(resources.kernel),
            "-append",
            &self.cmdline.to_string(),
        ]);
        if let Some(initrd) = resources.initrd {
            add(&["-initrd", &text(initrd)]);
        }
        // We listen and QEMU connects, so not one byte of the console can be missed.
        for (id, path) in [("console", resources.console), ("qmp", resources.qmp)] {
            add(&[
                "-chardev",
                &format!("socket,id={id},path={},server=off", text(path)),
            ]);
        }
        add(&[
            "-serial",
            "chardev:console",
            "-mon",
            "chardev=qmp,mode=control",
        ]);
        add(&["-device", "virtio-rng-pci"]);
        for (index, (disk, file)) in self.disks.iter().zip(resources.disks).enumerate() {
            let file = text(file).replace(',', ",,");
            add(&[
                "-drive",
                &format!("if=none,id=disk{index},format=raw,file={file}"),
            ]);
            let device = match disk.bus {
                DiskBus::Virtio => format!("virtio-blk-pci,drive=disk{index}"),
                DiskBus::Nvme => format!("nvme,drive=disk{index},serial=disk{index}"),
                DiskBus::Ahci => format!("ide-hd,drive=disk{index},bus=ide.{index}"),
            };
            add(&["-device", &device]);
        }
        let none = Vec::new();
        for (index, nic) in self.nics.iter().enumerate() {
            let ports = resources.ports.get(index).unwrap_or(&none);
            args.extend(nic.arguments(index, ports));
        }
        if self.on_reset == OnReset::End {
            args.push("-no-reboot".into());
        }
        if let Some(seed) = self.seed {
            args.extend(["-seed".into(), seed.to_string()]);
        }
        if let Some(uuid) = &self.uuid {
            args.extend(["-uuid".into(), uuid.clone()]);
        }
        args.extend(self.extra.iter().cloned());
        Ok(args)
    }

    fn smp(&self) -> Result<String> {
        let (cpus, threads, sockets) = (self.cpus, self.threads_per_core, self.numa_nodes);
        if cpus == 0 || threads == 0 || sockets == 0 || !cpus.is_multiple_of(threads * sockets) {
            return Err(self.invalid(format!(
                "{cpus} CPUs are not a multiple of {sockets} NUMA nodes with {threads} threads a core"
            )));
        }
        let cores = cpus / threads / sockets;
        Ok(format!(
            "cpus={cpus},sockets={sockets},cores={cores},threads={threads}"
        ))
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Joins initramfs archives. The kernel takes one after another if each starts at a multiple of
/// four bytes (Documentation/driver-api/early-userspace/buffer-format.rst).
pub(crate) fn join(parts: &[PathBuf], into: &Path) -> Result<()> {
    let mut out = std::fs::File::create(into).map_err(Error::file("create", into))?;
    for part in parts {
        let mut source = std::fs::File::open(part).map_err(Error::file("open", part))?;
        let bytes = std::io::copy(&mut source, &mut out).map_err(Error::file("copy", part))?;
        let padding = usize::try_from(bytes.next_multiple_of(4) - bytes).unwrap_or_default();
        out.write_all(&[0; 4][..padding])
            .map_err(Error::file("write", into))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Cmdline;
    use crate::net::Nic;

    fn line(builder: &VmBuilder, disks: &[PathBuf], ports: &[Vec<u16>]) -> String {
        let resources = Resources {
            accel: Accel::Tcg,
            kernel: Path::new("/k"),
            initrd: Some(Path::new("/i")),
            console: Path::new("/t/c"),
            qmp: Path::new("/t/q"),
            disks,
            ports,
        };
        builder.arguments(&resources).unwrap().join(" ")
    }

    #[test]
    fn the_smallest_machine() {
        let builder = VmBuilder::new("x").cmdline(Cmdline::parse("console=ttyS0 panic=-1"));
        assert_eq!(
            line(&builder, &[], &[]),
            "-nodefaults -display none -vga none -machine q35 -accel tcg,thread=multi -cpu max \
             -m 1024M -smp cpus=2,sockets=1,cores=2,threads=1 -kernel /k \
             -append console=ttyS0 panic=-1 -initrd /i \
             -chardev socket,id=console,path=/t/c,server=off \
             -chardev socket,id=qmp,path=/t/q,server=off -serial chardev:console \
             -mon chardev=qmp,mode=control -device virtio-rng-pci -no-reboot"
        );
    }

    #[test]
    fn a_big_machine() {
        let builder = VmBuilder::new("x")
            .cpus(8)
            .threads_per_core(2)
            .numa_nodes(2)
            .memory_mib(2048)
            .empty_disk(DiskBus::Virtio, 1 << 20)
            .disk(DiskBus::Nvme, "/d")
            .nic(Nic::silent())
            .nic(Nic::user().forward(2376))
            .on_reset(OnReset::Restart)
            .seed(7)
            .uuid("5ac4f8a2-0000-4000-8000-000000000001")
            .qemu_args(["-rtc", "base=2030-01-01"]);
        let text = line(
            &builder,
            &["/t/d0".into(), "/d".into()],
            &[vec![], vec![4000]],
        );
        for part in [
            "-smp cpus=8,sockets=2,cores=2,threads=2",
            "-object memory-backend-ram,id=mem1,size=1024M -numa node,nodeid=1,cpus=4-7,memdev=mem1",
            "-drive if=none,id=disk0,format=raw,file=/t/d0 -device virtio-blk-pci,drive=disk0",
            "-device nvme,drive=disk1,serial=disk1",
            "hostfwd=tcp:127.0.0.1:4000-:2376",
            "-seed 7 -uuid 5ac4f8a2-0000-4000-8000-000000000001 -rtc base=2030-01-01",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("-no-reboot"));
    }

    #[test]
    fn a_clock_of_instructions_is_single_threaded() {
        let text = line(&VmBuilder::new("x").icount("shift=3,sleep=off"), &[], &[]);
        let wanted = "-accel tcg,thread=single -cpu max -icount shift=3,sleep=off -m";
        assert!(text.contains(wanted), "{text}");
        assert!(!text.contains("thread=multi"), "{text}");
    }

    #[test]
    fn impossible_topologies_are_refused() {
        for builder in [
            VmBuilder::new("x").cpus(3).threads_per_core(2),
            VmBuilder::new("x").cpus(0),
            VmBuilder::new("x").cpus(3).numa_nodes(2),
        ] {
            assert!(matches!(builder.smp(), Err(Error::Describe { .. })));
        }
    }

    #[test]
    fn joined_archives_are_aligned() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let out = folder.path().join("out");
        join(
            &[file("a", "12345"), file("b", "1234"), file("c", "1")],
            &out,
        )
        .unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), b"12345\0\0\x0012341\0\0\0");
    }
}
