//! What kind of interrupt a line of `/proc/interrupts` counts.

/// The kinds that gates tell apart. Names: `arch/x86/kernel/irq.c`, `arch/arm64/kernel/smp.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interrupt {
    /// `LOC`; on ARM the numbered line of `arch_timer`.
    Timer,
    /// `RES`
    Reschedule,
    /// `CAL`
    Call,
    /// `IWI`
    IrqWork,
    /// `TLB`; x86 only, and counted under `CAL` too when remote.
    TlbShootdown,
    /// `NMI`
    Nmi,
    /// `PMI`
    PerfMonitor,
    /// `TRM`
    Thermal,
    /// `THR`
    Threshold,
    /// `DFR`
    DeferredError,
    /// `MCE`
    MachineCheck,
    /// `MCP`: the kernel's own look, every 300 s.
    MachineCheckPoll,
    /// A numbered line.
    Device,
    /// Any other name: nothing that a job causes.
    Other,
}

impl Interrupt {
    /// The kind of a named line, as [`CpuWindow::interrupts`](crate::CpuWindow::interrupts) names it.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        match name {
            "LOC" => Self::Timer,
            "RES" => Self::Reschedule,
            "CAL" => Self::Call,
            "IWI" => Self::IrqWork,
            "TLB" => Self::TlbShootdown,
            "NMI" => Self::Nmi,
            "PMI" => Self::PerfMonitor,
            "TRM" => Self::Thermal,
            "THR" => Self::Threshold,
            "DFR" => Self::DeferredError,
            "MCE" => Self::MachineCheck,
            "MCP" => Self::MachineCheckPoll,
            _ => match name.split_once(' ').map(|(_, text)| text) {
                Some("Rescheduling interrupts") => Self::Reschedule,
                Some("Function call interrupts") => Self::Call,
                Some("IRQ work interrupts") => Self::IrqWork,
                _ => Self::Other,
            },
        }
    }

    /// The kind of a numbered line by its text.
    #[must_use]
    pub fn of_device(text: &str) -> Self {
        if text.split(' ').next_back() == Some("arch_timer") {
            Self::Timer
        } else {
            Self::Device
        }
    }

    /// Words for a sentence: "3 ... interrupts".
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Timer => "timer interrupts",
            Self::Reschedule => "rescheduling interrupts",
            Self::Call => "function call interrupts",
            Self::IrqWork => "IRQ work interrupts",
            Self::TlbShootdown => "TLB shootdowns",
            Self::Nmi => "non-maskable interrupts",
            Self::PerfMonitor => "performance monitoring interrupts",
            Self::Thermal => "thermal event interrupts",
            Self::Threshold => "error threshold interrupts",
            Self::DeferredError => "deferred error interrupts",
            Self::MachineCheck => "machine checks",
            Self::MachineCheckPoll => "machine check polls",
            Self::Device => "device interrupts",
            Self::Other => "interrupts",
        }
    }

    /// What most often is behind it.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Timer => "the tick ran; is a second task runnable there, or a quota set?",
            Self::Reschedule => "a task was woken on this CPU from another one",
            Self::Call => {
                "another CPU made this one run a function, as a TLB flush or a static key does"
            }
            Self::IrqWork => {
                "work was queued to this CPU in interrupt context, as RCU and tracing do"
            }
            Self::TlbShootdown => "another thread of the same address space unmapped memory",
            Self::Nmi => "a watchdog or a profiler is on",
            Self::PerfMonitor => "a profiler is on",
            Self::Thermal => "the CPU became too hot or cooled down again",
            Self::Threshold | Self::DeferredError | Self::MachineCheck => {
                "the hardware reported an error; see the kernel log"
            }
            Self::MachineCheckPoll => "the kernel looks for errors every 300 s",
            Self::Device => "its affinity includes this CPU",
            Self::Other => "nothing that a job does explains it",
        }
    }
}
