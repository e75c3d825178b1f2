//! What the compiler expects of a C library, as single instructions: a loop in Rust would be
//! compiled into a call of the very function it is in.

use core::arch::asm;
use core::ffi::{c_int, c_void};

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void {
    // SAFETY: the direction flag is clear by the ABI; the caller vouches for both places.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") count => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut c_void, byte: c_int, count: usize) -> *mut c_void {
    // SAFETY: as in `memcpy`.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("eax") byte, inout("rcx") count => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int {
    let differ: c_int;
    // SAFETY: as in `memcpy`. `xor` leaves "equal" behind for a count of zero.
    unsafe {
        asm!("xor eax, eax", "repe cmpsb", "setne al",
            inout("rdi") one => _, inout("rsi") other => _, inout("rcx") count => _,
            out("eax") differ, options(nostack, readonly));
    }
    differ
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const c_void) -> usize {
    let left: usize;
    // SAFETY: as in `memcpy`; the scan stops behind the zero byte.
    unsafe {
        asm!("repne scasb", inout("rdi") text => _, in("al") 0_u8, inout("rcx") usize::MAX => left,
            options(nostack, readonly));
    }
    usize::MAX - left - 1
}
