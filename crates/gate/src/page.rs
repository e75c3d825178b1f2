//! The control page: the first bytes of a file that agent and gate share.
//!
//! Each side writes one half only. Instants are nanoseconds of `CLOCK_MONOTONIC_RAW`. The two futex
//! words are shared between processes (no `FUTEX_PRIVATE_FLAG`).
//!
//! The file stays visible in the container, so the benchmark can write or truncate it: a truncated
//! mapping kills whoever reads it. The agent therefore writes [`Orders::to_bytes`] and reads
//! [`Report::from_bytes`] with `pwrite` and `pread`, believes nothing that it reads, and uses a
//! mapping only as the address for futex calls, which answer `EFAULT` instead.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// Bytes of the control file.
pub const SIZE: usize = 4096;
/// First word of every control page: `gate` in memory.
pub const MAGIC: u32 = u32::from_le_bytes(*b"gate");
/// Changes with the layout; a gate refuses every other.
pub const VERSION: u32 = 1;

/// The whole layout. Each half has its own cache line, so that a canary's counters do not take the
/// line away that it watches.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Page {
    pub orders: Orders,
    pub report: Report,
}

const _: () = assert!(size_of::<Page>() <= SIZE && align_of::<Page>() <= SIZE);
const _: () = assert!(cfg!(target_endian = "little"));

/// What the agent writes.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Orders {
    pub magic: AtomicU32,
    pub version: AtomicU32,
    /// A [`Command`]; futex word of the gate.
    pub command: AtomicU32,
    /// 0; aligns the instants.
    pub reserved: AtomicU32,
    /// When the program is to start; 0 while that is not known.
    pub release_ns: AtomicU64,
    /// When the gate stops waiting; 0 is long past.
    pub deadline_ns: AtomicU64,
    /// A canary counts what took longer than this.
    pub gap_threshold_ns: AtomicU64,
}

/// What the gate writes.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Report {
    /// A [`State`]; futex word of the agent.
    pub state: AtomicU32,
    reserved: AtomicU32,
    /// When the gate let go, right before `execve`.
    pub exec_ns: AtomicU64,
    /// Canary: interruptions longer than the threshold, the longest, and all together.
    pub gaps: AtomicU64,
    pub gap_max_ns: AtomicU64,
    pub gap_sum_ns: AtomicU64,
    /// Canary: times round the loop.
    pub loops: AtomicU64,
}

/// Bytes of [`Orders`], at [`ORDERS_OFFSET`] of the file.
pub const ORDERS_SIZE: usize = size_of::<Orders>();
/// Bytes of [`Report`], at [`REPORT_OFFSET`] of the file.
pub const REPORT_SIZE: usize = size_of::<Report>();
/// Offsets in the file, for `pread`, `pwrite` and futex calls.
pub const ORDERS_OFFSET: usize = core::mem::offset_of!(Page, orders);
pub const REPORT_OFFSET: usize = core::mem::offset_of!(Page, report);
pub const COMMAND_OFFSET: usize = core::mem::offset_of!(Page, orders.command);
pub const RELEASE_OFFSET: usize = core::mem::offset_of!(Page, orders.release_ns);
pub const STATE_OFFSET: usize = core::mem::offset_of!(Page, report.state);

/// How far the gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    New = 0,
    /// The program was found, the gate sleeps.
    Waiting = 1,
    /// A gate waits for its instant; a canary watches.
    Spinning = 2,
    /// `execve` is the very next call. Nobody is woken for this one: poll.
    Executing = 3,
    /// The program will not run; the exit code and stderr say why.
    Failed = 4,
}

/// What the gate is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Command {
    Hold = 0,
    Spin = 1,
    GiveUp = 2,
}

/// A word of the page that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord(pub u32);

impl TryFrom<u32> for State {
    type Error = UnknownWord;

    fn try_from(word: u32) -> Result<Self, UnknownWord> {
        [
            Self::New,
            Self::Waiting,
            Self::Spinning,
            Self::Executing,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| *state as u32 == word)
        .ok_or(UnknownWord(word))
    }
}

impl Orders {
    /// Orders to hold until `deadline_ns`; the other fields are 0 and may be set before use.
    #[must_use]
    pub fn new(deadline_ns: u64) -> Self {
        Self {
            magic: MAGIC.into(),
            version: VERSION.into(),
            deadline_ns: deadline_ns.into(),
            ..Self::default()
        }
    }

    /// Whether somebody of this version wrote them.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.magic.load(Relaxed) == MAGIC && self.version.load(Relaxed) == VERSION
    }

    /// The bytes for the file at [`ORDERS_OFFSET`].
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ORDERS_SIZE] {
        let mut bytes = [0; ORDERS_SIZE];
        let mut rest = &mut bytes[..];
        put(&mut rest, self.magic.load(Relaxed).to_le_bytes());
        put(&mut rest, self.version.load(Relaxed).to_le_bytes());
        put(&mut rest, self.command.load(Relaxed).to_le_bytes());
        put(&mut rest, self.reserved.load(Relaxed).to_le_bytes());
        put(&mut rest, self.release_ns.load(Relaxed).to_le_bytes());
        put(&mut rest, self.deadline_ns.load(Relaxed).to_le_bytes());
        put(&mut rest, self.gap_threshold_ns.load(Relaxed).to_le_bytes());
        bytes
    }
}

impl Report {
    /// The report in the bytes of the file at [`REPORT_OFFSET`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8; REPORT_SIZE]) -> Self {
        let mut rest = &bytes[..];
        Self {
            state: u32::from_le_bytes(take(&mut rest)).into(),
            reserved: u32::from_le_bytes(take(&mut rest)).into(),
            exec_ns: u64::from_le_bytes(take(&mut rest)).into(),
            gaps: u64::from_le_bytes(take(&mut rest)).into(),
            gap_max_ns: u64::from_le_bytes(take(&mut rest)).into(),
            gap_sum_ns: u64::from_le_bytes(take(&mut rest)).into(),
            loops: u64::from_le_bytes(take(&mut rest)).into(),
        }
    }
}

/// Puts the next field; there is no padding between fields.
fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    if let Some((place, behind)) = core::mem::take(rest).split_first_chunk_mut() {
        *place = field;
        *rest = behind;
    }
}

/// Takes the next field; there is no padding between fields.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let Some((field, behind)) = rest.split_first_chunk() else {
        return [0; N];
    };
    *rest = behind;
    *field
}

#[cfg(test)]
mod tests {
    use super::*;

    use core::mem::offset_of;

    #[test]
    fn the_layout_is_fixed() {
        assert_eq!((ORDERS_OFFSET, REPORT_OFFSET), (0, 64));
        assert_eq!((ORDERS_SIZE, REPORT_SIZE), (64, 64));
        assert_eq!((COMMAND_OFFSET, RELEASE_OFFSET, STATE_OFFSET), (8, 16, 64));
        assert_eq!(offset_of!(Page, orders.deadline_ns), 24);
        assert_eq!(offset_of!(Page, orders.gap_threshold_ns), 32);
        assert_eq!(offset_of!(Page, report.exec_ns), 72);
        assert_eq!(offset_of!(Page, report.loops), 104);
    }

    #[test]
    fn bytes_are_those_of_the_layout() {
        let orders = Orders {
            command: 2.into(),
            release_ns: 4.into(),
            gap_threshold_ns: 8.into(),
            ..Orders::new(5)
        };
        let bytes = orders.to_bytes();
        assert_eq!(&bytes[..4], b"gate");
        let at = |offset: usize| bytes[offset];
        assert_eq!(at(COMMAND_OFFSET), 2);
        assert_eq!(at(RELEASE_OFFSET), 4);
        assert_eq!(at(offset_of!(Orders, deadline_ns)), 5);
        assert_eq!(at(offset_of!(Orders, gap_threshold_ns)), 8);

        let mut bytes = [0; REPORT_SIZE];
        bytes[offset_of!(Report, state)] = 3;
        bytes[offset_of!(Report, exec_ns)] = 9;
        bytes[offset_of!(Report, loops) + 7] = 1;
        let report = Report::from_bytes(&bytes);
        assert_eq!(
            State::try_from(report.state.into_inner()),
            Ok(State::Executing)
        );
        assert_eq!(report.exec_ns.into_inner(), 9);
        assert_eq!(report.loops.into_inner(), 1 << 56);
    }

    #[test]
    fn other_versions_and_words_are_told_apart() {
        assert!(Orders::new(0).valid());
        assert!(!Orders::default().valid());
        assert_eq!(State::try_from(5), Err(UnknownWord(5)));
    }
}
