//! The part of the node: a `/dev` of its own with gate and control file, and the agent's orders.
//!
//! Data goes through the file, as the agent does it; the mapping is only an address for futexes.
// a mapping of the control file cannot be had without
#![allow(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use gate::page::{self, Orders, Report, State};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nothing here takes that long, and nothing waits longer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    control: File,
    command: &'static AtomicU32,
    state: &'static AtomicU32,
}

/// Nanoseconds of the clock that the page uses.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicRaw);
    u64::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)).unwrap()
}

pub(crate) fn later(after: Duration) -> u64 {
    now() + u64::try_from(after.as_nanos()).unwrap()
}

/// Orders that outlast every test.
pub(crate) fn hold() -> Orders {
    Orders::new(later(PATIENCE))
}

impl Node {
    /// In a mount namespace of this thread: what it starts from now on lives there, too.
    pub(crate) fn new(orders: &Orders) -> Self {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(
            none,
            "/dev",
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )
        .unwrap();
        std::fs::create_dir("/dev/.stillmetal").unwrap();
        let built = std::env::var_os("STILLMETAL_GATE").expect("set by scripts/test-root");
        std::fs::copy(built, gate::GATE_PATH).unwrap();
        let control = File::create_new(gate::CONTROL_PATH).unwrap();
        // the gate runs as the user of the container
        control
            .set_permissions(PermissionsExt::from_mode(0o666))
            .unwrap();
        control.set_len(page::SIZE as u64).unwrap();
        drop(control);
        let control = File::options()
            .read(true)
            .write(true)
            .open(gate::CONTROL_PATH)
            .unwrap();
        control
            .write_all_at(&orders.to_bytes(), page::ORDERS_OFFSET as u64)
            .unwrap();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                page::SIZE,
                access,
                MapFlags::SHARED,
                &control,
                0,
            )
        };
        let mapped = mapped.unwrap().cast::<u8>();
        // SAFETY: both offsets are aligned, inside the mapping, which is never unmapped, and others
        // change these words only as atomics.
        let (command, state) = unsafe {
            (
                &*mapped.add(page::COMMAND_OFFSET).cast::<AtomicU32>(),
                &*mapped.add(page::STATE_OFFSET).cast::<AtomicU32>(),
            )
        };
        Self {
            control,
            command,
            state,
        }
    }

    pub(crate) fn control(&self) -> &File {
        &self.control
    }

    pub(crate) fn report(&self) -> Report {
        let mut bytes = [0; page::REPORT_SIZE];
        self.control
            .read_exact_at(&mut bytes, page::REPORT_OFFSET as u64)
            .unwrap();
        Report::from_bytes(&bytes)
    }

    pub(crate) fn order(&self, command: page::Command) {
        let word = (command as u32).to_le_bytes();
        self.control
            .write_all_at(&word, page::COMMAND_OFFSET as u64)
            .unwrap();
        futex::wake(self.command, futex::Flags::empty(), 1).unwrap();
    }

    pub(crate) fn release_at(&self, instant: u64) {
        self.control
            .write_all_at(&instant.to_le_bytes(), page::RELEASE_OFFSET as u64)
            .unwrap();
    }

    /// Lets go at once.
    pub(crate) fn release(&self) {
        self.release_at(now());
        self.order(page::Command::Spin);
    }

    pub(crate) fn state(&self) -> State {
        State::try_from(self.state.load(Relaxed)).unwrap()
    }

    /// Waits to be woken with that state.
    pub(crate) fn reach(&self, state: State) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.state();
            if seen == state {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "still {seen:?}, not {state:?}");
            let timeout = Timespec::try_from(left).unwrap();
            futex::wait(
                self.state,
                futex::Flags::empty(),
                seen as u32,
                Some(&timeout),
            )
            .ok();
        }
    }
}

/// The program with nothing of our environment.
pub(crate) fn command(program: &str, argv: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(argv).env_clear().env("PATH", "/usr/bin:/bin");
    // /dev/null is not there
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The gate before `argv`.
pub(crate) fn gated(argv: &[&str]) -> Command {
    command(gate::GATE_PATH, argv)
}

/// Waits for the end.
pub(crate) fn finish(mut child: Child) -> Output {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the program does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().unwrap()
}

/// The exit code, and what was said on both streams.
pub(crate) fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}
