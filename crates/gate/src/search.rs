//! Finding the program as the container runtime does: the rules of Go's `exec.LookPath`, which
//! runc applies inside the container.
//!
//! The one difference: a candidate of `PATH` is not cleaned lexically beyond the slash at the end
//! of its directory (`/a/../b` stays as it is).

use core::ffi::CStr;

use crate::exit;

/// Linux' `PATH_MAX`, with the zero byte.
pub const PATH_MAX: usize = 4096;

/// Why nothing can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchError {
    /// The name is a path, and that file was refused with this errno.
    Refused(i32),
    /// No directory of `PATH` has it.
    NotInPath,
    /// A directory of `PATH` has it, but it cannot be executed, and no later one has it.
    Denied,
    /// The first hit is in a directory of `PATH` that is not absolute.
    Relative,
}

const ENOENT: i32 = 2;
const EACCES: i32 = 13;

/// Exit code for a file that was refused with `errno`.
#[must_use]
pub fn exit_code(errno: i32) -> u8 {
    if errno == ENOENT {
        exit::NOT_FOUND
    } else {
        exit::NOT_EXECUTABLE
    }
}

impl SearchError {
    /// What the gate exits with.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Refused(errno) => exit_code(errno),
            Self::NotInPath | Self::Relative => exit::NOT_FOUND,
            Self::Denied => exit::NOT_EXECUTABLE,
        }
    }
}

/// The file to execute for `name`. `path` is the value of `PATH`; `probe` tells the errno why a
/// file cannot be executed; `buffer` may hold the answer.
///
/// # Errors
///
/// If there is no such file; see [`SearchError`].
pub fn find<'a>(
    name: &'a CStr,
    path: &[u8],
    buffer: &'a mut [u8; PATH_MAX],
    mut probe: impl FnMut(&CStr) -> Result<(), i32>,
) -> Result<&'a CStr, SearchError> {
    if name.to_bytes().contains(&b'/') {
        return probe(name).map(|()| name).map_err(SearchError::Refused);
    }
    // Go splits an empty PATH into nothing, not into one empty directory
    if path.is_empty() {
        return Err(SearchError::NotInPath);
    }
    let mut missing = SearchError::NotInPath;
    let mut hit = None;
    for directory in path.split(|byte| *byte == b':') {
        let Some(candidate) = join(directory, name, buffer) else {
            continue;
        };
        match probe(candidate) {
            Ok(()) if directory.starts_with(b"/") => {
                hit = Some(candidate.count_bytes());
                break;
            }
            Ok(()) => return Err(SearchError::Relative),
            Err(EACCES) => missing = SearchError::Denied,
            Err(_) => {}
        }
    }
    let length = hit.ok_or(missing)?;
    CStr::from_bytes_with_nul(&buffer[..=length]).map_err(|_| missing)
}

/// `directory/name` in `buffer`, unless it is too long for any file.
fn join<'a>(directory: &[u8], name: &CStr, buffer: &'a mut [u8; PATH_MAX]) -> Option<&'a CStr> {
    let directory = match directory {
        [] => b".",
        [front @ .., b'/'] => front,
        whole => whole,
    };
    let name = name.to_bytes_with_nul();
    let (front, rest) = buffer.split_at_mut_checked(directory.len())?;
    let (slash, rest) = rest.split_first_mut()?;
    let end = rest.get_mut(..name.len())?;
    front.copy_from_slice(directory);
    *slash = b'/';
    end.copy_from_slice(name);
    CStr::from_bytes_with_nul(&buffer[..directory.len() + 1 + name.len()]).ok()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::String;
    use std::vec::Vec;

    /// A world of two good files, one that cannot be executed, and nothing else.
    fn look(name: &CStr, path: &str) -> Result<String, SearchError> {
        let mut buffer = [0; PATH_MAX];
        find(name, path.as_bytes(), &mut buffer, |file| {
            match file.to_bytes() {
                b"/bin/good" | b"/sbin/good" | b"/sbin/late" | b"./good" | b"rel/good" => Ok(()),
                b"/bin/late" | b"/bin/locked" => Err(EACCES),
                b"/bin/" => Err(21),
                _ => Err(ENOENT),
            }
        })
        .map(|found| String::from(found.to_str().unwrap()))
    }

    #[test]
    fn a_slash_means_no_search() {
        assert_eq!(look(c"./good", "/bin").as_deref(), Ok("./good"));
        assert_eq!(look(c"/bin/no", "/bin"), Err(SearchError::Refused(ENOENT)));
        assert_eq!(look(c"/bin/locked", ""), Err(SearchError::Refused(EACCES)));
    }

    #[test]
    fn the_first_executable_of_path_is_taken() {
        assert_eq!(look(c"good", "/no:/sbin:/bin").as_deref(), Ok("/sbin/good"));
        assert_eq!(look(c"good", "/no:/bin/").as_deref(), Ok("/bin/good"));
        assert_eq!(look(c"late", "/bin:/sbin").as_deref(), Ok("/sbin/late"));
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        assert_eq!(look(c"no", "/bin:/sbin"), Err(SearchError::NotInPath));
        assert_eq!(look(c"good", ""), Err(SearchError::NotInPath));
        assert_eq!(look(c"", "/bin"), Err(SearchError::NotInPath));
        assert_eq!(look(c"locked", "/bin:/sbin"), Err(SearchError::Denied));
        assert_eq!(look(c"good", ":/bin"), Err(SearchError::Relative));
        assert_eq!(look(c"good", "rel:/bin"), Err(SearchError::Relative));
    }

    #[test]
    fn a_name_too_long_for_a_file_is_not_found() {
        let long: Vec<u8> = [[b'x'; PATH_MAX].as_slice(), &[0]].concat();
        let long = CStr::from_bytes_with_nul(&long).unwrap();
        assert_eq!(look(long, "/bin"), Err(SearchError::NotInPath));
    }

    #[test]
    fn exit_codes_are_those_of_docker_run() {
        let codes = [
            SearchError::Refused(ENOENT),
            SearchError::Refused(EACCES),
            SearchError::NotInPath,
            SearchError::Denied,
        ]
        .map(SearchError::exit_code);
        assert_eq!(codes, [127, 126, 127, 126]);
    }
}
