//! The container's own program: found before the wait, so that a typo is told at once.

use core::ffi::CStr;

use gate::page::{Page, State};
use gate::search::{self, PATH_MAX, SearchError};
use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use crate::message::{self, Reason};
use crate::{Vectors, control, syscall};

/// The file to execute, or the end.
pub(crate) fn find_or_exit<'a>(
    vectors: &Vectors,
    page: &Page,
    buffer: &'a mut [u8; PATH_MAX],
) -> &'a CStr {
    let Some(name) = vectors.argument(1) else {
        control::tell(page, State::Failed);
        message::fail(gate::exit::NOT_FOUND, &[b"no program was given"]);
    };
    let path = vectors.variable(b"PATH=").unwrap_or_default();
    search::find(name, path, buffer, probe).unwrap_or_else(|error| {
        let reason = match error {
            SearchError::Refused(errno) => Reason::of(Errno::from_raw_os_error(errno)),
            SearchError::Denied => Reason::of(Errno::ACCESS),
            SearchError::NotInPath => Reason::new("executable file not found in $PATH"),
            SearchError::Relative => {
                Reason::new("cannot run executable found relative to current directory")
            }
        };
        refuse(page, name, error.exit_code(), &reason)
    })
}

/// Becomes the program, or says why not.
pub(crate) fn execute(vectors: &Vectors, page: &Page, file: &CStr) -> ! {
    // SAFETY: the kernel's own vectors; `find_or_exit` saw that there is an argument behind ours.
    let errno = unsafe { syscall::execve(file, vectors.argv.as_ptr().add(1), vectors.envp) };
    let code = search::exit_code(errno.raw_os_error());
    refuse(page, file, code, &Reason::of(errno))
}

fn refuse(page: &Page, name: &CStr, code: u8, reason: &Reason) -> ! {
    control::tell(page, State::Failed);
    let [words, number] = reason.text();
    message::fail(
        code,
        &[b"exec: \"", name.to_bytes(), b"\": ", words, number],
    )
}

/// The errno why the file cannot be executed: the rules of Go's `findExecutable`.
fn probe(file: &CStr) -> Result<(), i32> {
    let mode = stat(file).map_err(Errno::raw_os_error)?.st_mode;
    if FileType::from_raw_mode(mode).is_dir() {
        return Err(Errno::ISDIR.raw_os_error());
    }
    match accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS) {
        // a seccomp filter older than the system call; the mode is the next best
        Err(Errno::NOSYS | Errno::PERM) if mode & 0o111 != 0 => Ok(()),
        Err(Errno::NOSYS | Errno::PERM) => Err(Errno::ACCESS.raw_os_error()),
        other => other.map_err(Errno::raw_os_error),
    }
}
