//! The control page, mapped.

use core::ffi::CStr;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::Release;

use gate::page::{self, Page, State};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::thread::futex;

use crate::message;

/// Maps the page for the life of the process; the file is closed again. Exits if that fails or if
/// the page is not one of ours.
pub(crate) fn open_or_exit(path: &CStr) -> &'static Page {
    let page = match map(path) {
        Ok(page) => page,
        Err(errno) => {
            let reason = message::Reason::of(errno);
            let [words, number] = reason.text();
            message::fail(
                gate::exit::NOT_RUN,
                &[b"open ", path.to_bytes(), b": ", words, number],
            )
        }
    };
    if !page.orders.valid() {
        message::fail(
            gate::exit::NOT_RUN,
            &[
                path.to_bytes(),
                b" is no control page of this gate's version",
            ],
        );
    }
    page
}

fn map(path: &CStr) -> Result<&'static Page> {
    let file = open(
        path,
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )?;
    // beyond the end of a file there is only SIGBUS
    if fstat(&file)?.st_size.cast_unsigned() < page::SIZE as u64 {
        return Err(Errno::INVAL);
    }
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let address = unsafe {
        mmap(
            null_mut(),
            page::SIZE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )?
    };
    // SAFETY: the mapping is aligned, large enough and never unmapped; any bytes are a valid `Page`
    // and all its fields are atomic, so that others may change them.
    Ok(unsafe { &*address.cast::<Page>() })
}

/// Says how far we are, and wakes the agent.
pub(crate) fn tell(page: &Page, state: State) {
    page.report.state.store(state as u32, Release);
    // an agent that is not there is not woken, which is as well
    futex::wake(&page.report.state, futex::Flags::empty(), u32::MAX >> 1).ok();
}
