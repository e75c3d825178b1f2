//! `stillmetal-gate`: holds a finished container until the node is quiet, then becomes its program.
//!
//! No standard library, no C library, no allocation, no thread, no signal handler: the program must
//! find the process exactly as the container runtime made it, and nothing may wake up late.
#![no_std]
#![no_main]
// the start of a process and its raw argument vectors; each block says why it is sound
#![allow(unsafe_code)]

mod canary;
mod clock;
mod control;
mod hold;
mod memory;
mod message;
mod program;
mod syscall;

use core::arch::naked_asm;
use core::ffi::{CStr, c_char};

/// What the kernel put on the stack. Lives as long as the process, as does everything it points to.
pub(crate) struct Vectors {
    /// Ends with a null pointer.
    pub(crate) argv: &'static [*const c_char],
    /// Ends with a null pointer; passed on as it is.
    pub(crate) envp: *const *const c_char,
}

impl Vectors {
    /// The argument, unless there are fewer.
    pub(crate) fn argument(&self, index: usize) -> Option<&'static CStr> {
        let pointer = *self.argv.get(index)?;
        // SAFETY: the kernel's strings end with a zero byte and are never unmapped or changed.
        (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) })
    }

    /// The value of an environment variable, given as `NAME=`; the first one counts.
    pub(crate) fn variable(&self, prefix: &[u8]) -> Option<&'static [u8]> {
        let mut next = self.envp;
        loop {
            // SAFETY: `next` is at or before the null pointer that ends the vector.
            let pointer = unsafe { *next };
            if pointer.is_null() {
                return None;
            }
            // SAFETY: as in `argument`.
            let entry: &'static CStr = unsafe { CStr::from_ptr(pointer) };
            if let Some(value) = entry.to_bytes().strip_prefix(prefix) {
                return Some(value);
            }
            // SAFETY: that was not the null pointer, so there is one more.
            next = unsafe { next.add(1) };
        }
    }
}

/// Where the kernel starts us (x86-64 psABI, 3.4.1): the stack pointer is at `argc` and aligned.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "mov rdi, rsp", "call {begin}", "ud2", begin = sym begin)
}

/// # Safety
///
/// `stack` is the initial stack of the process.
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: by the ABI `argc` is followed by that many pointers and a null pointer, then by the
    // environment, a null pointer and the auxiliary vector.
    let vectors = unsafe {
        let count = *stack;
        let argv = stack.add(1).cast::<*const c_char>();
        let envp = argv.add(count + 1);
        rustix::param::init(envp.cast_mut().cast());
        Vectors {
            argv: core::slice::from_raw_parts(argv, count + 1),
            envp,
        }
    };
    let canary = vectors
        .argument(0)
        .is_some_and(|name| name.to_bytes() == gate::CANARY_NAME.as_bytes());
    if canary {
        canary::run(&vectors)
    } else {
        hold::run(&vectors)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    message::fail(gate::exit::NOT_RUN, &[b"bug: the gate panicked"])
}
