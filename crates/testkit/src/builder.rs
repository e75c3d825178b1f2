//! The description of a virtual machine. Nothing here knows what boots: our image, or the Debian it is compared with.

use std::path::PathBuf;

use crate::accel::Accel;
use crate::cmdline::Cmdline;
use crate::error::Error;
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
    pub(crate) icount: Option<String>,
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
    pub(crate) uuid: Option<String>,
    pub(crate) extra: Vec<String>,
    pub(crate) init_marker: Option<String>,
    pub(crate) logs_dir: Option<PathBuf>,
}

impl VmBuilder {
    /// A machine with 2 CPUs and 1 GiB, no disk, no network, no kernel yet. The name is that of
    /// its console log.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            accel: None,
            icount: None,
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
            uuid: None,
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

    /// Gives the guest a clock that counts its own instructions (QEMU's `-icount`, such as
    /// `shift=3,sleep=off`): what it sees of time then has nothing to do with how busy the host is.
    /// Always emulated, and all CPUs by one thread.
    #[must_use]
    pub fn icount(mut self, options: &str) -> Self {
        self.accel = Some(Accel::Tcg);
        self.icount = Some(options.into());
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

    /// The machine's identity: the UUID of its SMBIOS system table.
    #[must_use]
    pub fn uuid(mut self, uuid: &str) -> Self {
        self.uuid = Some(uuid.into());
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
}
