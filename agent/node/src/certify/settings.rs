//! Priority and addresses of a job, set on its gate before the program begins.
//!
//! From outside: a container has neither the capabilities nor, below the engine's seccomp filter,
//! the system calls for it. The flag for fixed addresses is inherited: the runtime sets it before it
//! makes the container (`inherit_fixed_addresses`).
//!
//! `unsafe` is for sched_setscheduler(2) and personality(2): neither nix nor rustix have them.
#![allow(unsafe_code)]

use std::io;

use host::Tree;
use host::threads::stat_field;
use nix::libc;
use policy::{Certify, Scheduling};
use quiet::{Settings, Switch};
use rustix::process::{Pid, setpriority_process};

/// `linux/personality.h`.
const ADDR_NO_RANDOMIZE: libc::c_ulong = libc::ADDR_NO_RANDOMIZE as libc::c_ulong;
/// personality(2) with this answers and changes nothing.
const ASK: libc::c_ulong = 0xffff_ffff;
/// Policies by number: sched(7).
const POLICIES: [&str; 7] = [
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
];

/// Sets what was asked for on a process of one thread, and says what is not as it should be.
pub(crate) fn apply(tree: &dyn Tree, pid: u32, asked: &Certify) -> (Settings, Vec<String>) {
    let mut troubles = Vec::new();
    if let Err(error) = schedule(pid, asked.scheduling) {
        troubles.push(format!(
            "{}: the kernel refused it: {error}",
            words(asked.scheduling)
        ));
    }
    let found = read(tree, pid);
    let (policy, priority, nice) = match asked.scheduling {
        Scheduling::Normal { nice } => (POLICIES[0], 0, Some(i32::from(nice))),
        Scheduling::Fifo { priority } => (POLICIES[1], u32::from(priority), None),
    };
    let scheduled = found.policy.as_deref() == Some(policy)
        && found.rt_priority == Some(priority)
        && (nice.is_none() || found.nice == nice);
    if !scheduled && troubles.is_empty() {
        troubles.push(format!(
            "{} was asked for, and the kernel says {found:?}",
            words(asked.scheduling)
        ));
    }
    if asked.fixed_addresses && found.aslr != Some(Switch::Off) {
        troubles.push("fixed addresses were asked for, and the job has not got them".into());
    }
    (found, troubles)
}

/// Whatever this process becomes has fixed addresses, and so has what that makes.
///
/// # Errors
/// The kernel's.
pub fn inherit_fixed_addresses() -> io::Result<()> {
    // SAFETY: takes a number, changes nothing.
    let now = unsafe { libc::personality(ASK) };
    let now = libc::c_ulong::try_from(now).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: takes a number; the flag acts on programs executed later.
    if unsafe { libc::personality(now | ADDR_NO_RANDOMIZE) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn schedule(pid: u32, wanted: Scheduling) -> io::Result<()> {
    let number = i32::try_from(pid).map_err(io::Error::other)?;
    match wanted {
        Scheduling::Normal { nice } => Ok(setpriority_process(Pid::from_raw(number), nice.into())?),
        Scheduling::Fifo { priority } => real_time(number, libc::SCHED_FIFO, priority),
    }
}

/// The calling thread before all that has no such priority itself, in turn with its like. What it
/// starts does not inherit that. Without the right to it, it measures all the same.
pub(super) fn go_first() {
    if let Err(error) = real_time(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1) {
        tracing::debug!(%error, "a thread that measures has no priority");
    }
}

/// A thread; 0 is the caller.
fn real_time(thread: i32, policy: libc::c_int, priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: priority.into(),
    };
    // SAFETY: the parameters live until the call is over, which only reads them.
    match unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn read(tree: &dyn Tree, pid: u32) -> Settings {
    let stat = tree.read(&format!("/proc/{pid}/stat")).unwrap_or_default();
    let personality = tree.read(&format!("/proc/{pid}/personality")).ok();
    let personality =
        personality.and_then(|text| libc::c_ulong::from_str_radix(text.trim(), 16).ok());
    // fields: proc_pid_stat(5)
    let policy: Option<usize> = stat_field(&stat, 41);
    Settings {
        aslr: personality.map(|flags| match flags & ADDR_NO_RANDOMIZE {
            0 => Switch::On,
            _ => Switch::Off,
        }),
        policy: policy.and_then(|number| Some((*POLICIES.get(number)?).to_owned())),
        rt_priority: stat_field(&stat, 40),
        nice: stat_field(&stat, 19),
    }
}

fn words(scheduling: Scheduling) -> String {
    match scheduling {
        Scheduling::Normal { nice } => format!("nice value {nice}"),
        Scheduling::Fifo { priority } => format!("SCHED_FIFO {priority}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::RealTree;
    use quiet::JobClass;

    #[test]
    fn a_process_gets_its_nice_value_and_it_is_read_back() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let tree = RealTree::live();
        let mut asked = Certify::of(JobClass::Compute);
        asked.scheduling = Scheduling::Normal { nice: 7 };
        let (found, troubles) = apply(&tree, child.id(), &asked);
        assert_eq!(
            (found.nice, found.policy.as_deref(), found.rt_priority),
            (Some(7), Some("SCHED_OTHER"), Some(0))
        );
        assert_eq!(troubles, Vec::<String>::new());
        asked.fixed_addresses = true;
        let (found, troubles) = apply(&tree, child.id(), &asked);
        assert_eq!(found.aslr, Some(Switch::On));
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        let (found, troubles) = apply(&tree, child.id(), &asked);
        assert_eq!(found, Settings::default());
        assert!(troubles[0].contains("refused"), "{troubles:?}");
    }
}
