//! The system calls that rustix does not offer.

use core::arch::asm;
use core::ffi::{CStr, c_char};

use rustix::io::{Errno, Result};

const EXECVE: usize = 59;
const EXIT_GROUP: usize = 231;

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
