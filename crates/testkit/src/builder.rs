//! The description of a virtual machine and the QEMU command line it becomes. Nothing here knows
//! what boots: our image, or the Debian it is compared with.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::accel::Accel;
use crate::cmdline::Cmdline;
use crate::error::{Error, Result};
use crate::net::Nic;

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBus {
    /// virtio-blk.
    Virtio,
    /// NVMe.
    Nvme,
    /// SATA on the board's AHCI controller.
    Ahci,
}

/// What a guest's reset does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReset {
    /// QEMU ends.
    End,
    /// The machine starts again.
    Restart,
}

#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) bus: DiskBus,
    pub(crate) contents: DiskContents,
}

#[derive(Debug, Clone)]
pub(crate) enum DiskContents {
    /// A sparse temporary file of this many bytes.
    Empty(u64),
    /// A raw file that the caller keeps.
    File(PathBuf),
}

/// Description of a virtual machine.
#[derive(Debug, Clone)]
pub struct VmBuilder {
    pub(crate) name: String,
    pub(crate) accel: Option<Accel>,
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initrds: Vec<PathBuf>,
    pub(crate) cmdline: Cmdline,
    pub(crate) cpus: u32,
    pub(crate) threads_per_core: u32,
    pub(crate) memory_mib: u32,
    pub(crate) numa_nodes: u32,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) on_reset: OnReset,
    pub(crate) seed: Option<u32>,
    pub(crate) extra: Vec<String>,
    pub(crate) init_marker: Option<String>,
    pub(crate) logs_dir: Option<PathBuf>,
}

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
    /// A machine with 2 CPUs and 1 GiB, no disk, no network, no kernel yet. The name is that of
    /// its console log.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            accel: None,
            kernel: None,
            initrds: Vec::new(),
            cmdline: Cmdline::default(),
            cpus: 2,
            threads_per_core: 1,
            memory_mib: 1024,
            numa_nodes: 1,
            disks: Vec::new(),
            nics: Vec::new(),
            on_reset: OnReset::End,
            seed: None,
            extra: Vec::new(),
            init_marker: None,
            logs_dir: None,
        }
    }

    /// Another name, for a variant of a described machine.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Forces an accelerator; otherwise [`crate::accel::probe`] decides.
    #[must_use]
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = Some(accel);
        self
    }

    /// The kernel (bzImage).
    #[must_use]
    pub fn kernel(mut self, path: impl Into<PathBuf>) -> Self {
        self.kernel = Some(path.into());
        self
    }

    /// Adds an initramfs; several are joined in order.
    #[must_use]
    pub fn initrd(mut self, path: impl Into<PathBuf>) -> Self {
        self.initrds.push(path.into());
        self
    }

    /// Replaces the kernel command line.
    #[must_use]
    pub fn cmdline(mut self, cmdline: Cmdline) -> Self {
        self.cmdline = cmdline;
        self
    }

    /// Sets words of the kernel command line (see [`Cmdline::set`]).
    #[must_use]
    pub fn param(mut self, words: &str) -> Self {
        self.cmdline = self.cmdline.set(words);
        self
    }

    /// Removes a word of the kernel command line.
    #[must_use]
    pub fn without_param(mut self, key: &str) -> Self {
        self.cmdline = self.cmdline.remove(key);
        self
    }

    /// Logical CPUs, hyper-threads included.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// Hyper-threads of each core.
    #[must_use]
    pub fn threads_per_core(mut self, count: u32) -> Self {
        self.threads_per_core = count;
        self
    }

    /// Memory in all.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// NUMA nodes, each a socket with an equal share of CPUs and memory.
    #[must_use]
    pub fn numa_nodes(mut self, count: u32) -> Self {
        self.numa_nodes = count;
        self
    }

    /// Adds an empty disk, gone with the machine.
    #[must_use]
    pub fn empty_disk(mut self, bus: DiskBus, bytes: u64) -> Self {
        self.disks.push(Disk {
            bus,
            contents: DiskContents::Empty(bytes),
        });
        self
    }

    /// Adds a raw file as disk.
    #[must_use]
    pub fn disk(mut self, bus: DiskBus, path: impl Into<PathBuf>) -> Self {
        self.disks.push(Disk {
            bus,
            contents: DiskContents::File(path.into()),
        });
        self
    }

    /// Adds a network card.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Removes all network cards.
    #[must_use]
    pub fn without_nics(mut self) -> Self {
        self.nics.clear();
        self
    }

    /// What a guest's reset does ([`OnReset::End`] unless told).
    #[must_use]
    pub fn on_reset(mut self, action: OnReset) -> Self {
        self.on_reset = action;
        self
    }

    /// Makes QEMU's own random choices repeatable.
    #[must_use]
    pub fn seed(mut self, seed: u32) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Adds raw QEMU arguments.
    #[must_use]
    pub fn qemu_args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, args: I) -> Self {
        self.extra.extend(args.into_iter().map(Into::into));
        self
    }

    /// The console line by which [`VmBuilder::boot`] knows that the first user process runs.
    #[must_use]
    pub fn init_marker(mut self, text: &str) -> Self {
        self.init_marker = Some(text.into());
        self
    }

    /// Where the console log goes instead of [`crate::places::logs_dir`].
    #[must_use]
    pub fn logs_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.logs_dir = Some(path.into());
        self
    }

    pub(crate) fn invalid(&self, why: impl Into<String>) -> Error {
        Error::Describe {
            vm: self.name.clone(),
            why: why.into(),
        }
    }

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
        add(&resources.accel.arguments());
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
            "-seed 7 -rtc base=2030-01-01",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("-no-reboot"));
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
