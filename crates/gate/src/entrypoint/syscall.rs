//! The system calls that rustix does not offer.

use core::arch::asm;
use core::ffi::{CStr, c_char};

use rustix::io::{Errno, Result};

const EXECVE: usize = 59;
const PERSONALITY: usize = 135;
const SCHED_SETSCHEDULER: usize = 144;
const EXIT_GROUP: usize = 231;

const ADDR_NO_RANDOMIZE: usize = 0x004_0000;
/// `personality()` with this answers and changes nothing.
const ASK: usize = 0xffff_ffff;
const SCHED_FIFO: usize = 1;

/// # Safety
///
/// The arguments must be what the system call expects.
unsafe fn call(number: usize, arguments: [usize; 3]) -> Result<usize> {
    let answer: isize;
    // SAFETY: the kernel changes rax, rcx and r11 only, and memory as the caller vouches.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    usize::try_from(answer).map_err(|_| {
        // errors are -4095 to -1
        Errno::from_raw_os_error(i32::try_from(-answer).unwrap_or(i32::MAX))
    })
}

pub(crate) fn exit(code: u8) -> ! {
    loop {
        // SAFETY: takes a number.
        unsafe { call(EXIT_GROUP, [code.into(), 0, 0]) }.ok();
    }
}

/// Becomes another program; comes back only with the reason why not.
///
/// # Safety
///
/// Both vectors end with a null pointer, all others in them point to strings.
pub(crate) unsafe fn execve(
    file: &CStr,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> Errno {
    // SAFETY: the caller vouches for the vectors; `file` ends with a zero byte.
    let answer = unsafe {
        call(
            EXECVE,
            [file.as_ptr() as usize, argv as usize, envp as usize],
        )
    };
    answer.err().unwrap_or(Errno::NOEXEC)
}

/// The next program gets the same addresses each time.
pub(crate) fn no_aslr() -> Result<()> {
    // SAFETY: takes a number.
    let persona = unsafe { call(PERSONALITY, [ASK, 0, 0]) }?;
    // SAFETY: takes a number.
    unsafe { call(PERSONALITY, [persona | ADDR_NO_RANDOMIZE, 0, 0]) }.map(|_| ())
}

/// Runs before every process of the normal classes.
pub(crate) fn fifo(priority: u32) -> Result<()> {
    // SAFETY: `struct sched_param` is one int, which lives until the call is over.
    unsafe {
        call(
            SCHED_SETSCHEDULER,
            [0, SCHED_FIFO, &raw const priority as usize],
        )
    }
    .map(|_| ())
}
