//! Runs a closure as process 1 of fresh namespaces.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Runs `body` as PID 1 with its own mounts (fresh /proc and /run) and network. Panics here if it panics there, or does
/// not end in time; `meanwhile` gets its PID as seen from outside.
pub(crate) fn as_pid_one(deadline: Duration, body: impl FnOnce(), meanwhile: impl FnOnce(Pid)) {
    // The next child of this thread is the first process of the new PID namespace.
    unshare(CloneFlags::CLONE_NEWPID).expect("unshare needs root");
    // SAFETY: the child runs only the closure and ends with `_exit`; it takes no lock that another thread of the test
    // process could hold, except the allocator's, which glibc makes usable after fork.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let passed = catch_unwind(AssertUnwindSafe(|| {
                isolate();
                body();
            }));
            // SAFETY: ends this process at once, without the test harness's exit handlers.
            unsafe { nix::libc::_exit(i32::from(passed.is_err())) }
        }
    };
    meanwhile(child);
    let status = wait(child, deadline);
    assert_eq!(
        status,
        Some(WaitStatus::Exited(child, 0)),
        "see the panic message above"
    );
}

fn isolate() {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).unwrap();
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    std::fs::create_dir_all("/run/stillmetal").unwrap();
}

fn wait(child: Pid, patience: Duration) -> Option<WaitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            WaitStatus::StillAlive => {
                // Process 1 of the namespace takes everything in it along.
                kill(child, Signal::SIGKILL).unwrap();
                waitpid(child, None).unwrap();
                return None;
            }
            status => return Some(status),
        }
    }
}

/// Polls until `check` gives something.
pub(crate) fn eventually<T>(
    what: &str,
    patience: Duration,
    mut check: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command line of plain words to its successful end.
pub(crate) fn sh(line: &str) {
    let mut words = line.split_whitespace();
    let status = Command::new(words.next().unwrap())
        .args(words)
        .status()
        .unwrap();
    assert!(status.success(), "{line}: {status}");
}
