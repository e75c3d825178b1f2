//! Paths in containers.

use std::collections::BTreeSet;

use api::metric::ARTIFACTS;

use crate::declare::{Fault, short};

/// Longest path, bytes: the kernel's `PATH_MAX`, its NUL counted.
const PATH: usize = 4095;

/// Absolute, and plain: it means the same whatever it is appended to.
///
/// # Errors
/// What is wrong with it, and what to do instead.
pub fn check_path(path: &str) -> Result<(), (&'static str, &'static str)> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err((
            "is not absolute",
            "begin it with `/`: a container's working directory is not looked at",
        ));
    };
    if path.len() > PATH || path.contains('\0') {
        return Err((
            "is longer than 4095 bytes or has a NUL character",
            "shorten it",
        ));
    }
    match rest
        .split('/')
        .find(|part| matches!(*part, "" | "." | ".."))
    {
        None => Ok(()),
        Some("") => Err((
            "has an empty part",
            "leave the extra slash out; all of a container (`/`) cannot be taken",
        )),
        Some(_) => Err(("has `.` or `..` in it", "write it without them")),
    }
}

/// Whether these can be taken from a container.
///
/// # Errors
/// The first [`Fault`].
pub fn artifacts(paths: &[String]) -> Result<(), Fault> {
    if paths.len() > ARTIFACTS {
        return Err(Fault::new(
            "",
            format!("{} artifacts, and {ARTIFACTS} are the limit", paths.len()),
            "write them into one folder, and declare that",
        ));
    }
    let mut known = BTreeSet::new();
    for (index, path) in paths.iter().enumerate() {
        let at = format!("/{index}");
        check_path(path).map_err(|(why, next)| {
            Fault::new(&at, format!("artifact {:?} {why}", short(path)), next)
        })?;
        if !known.insert(path) {
            let why = format!("artifact {:?} is declared twice", short(path));
            return Err(Fault::new(at, why, "leave one of them out"));
        }
    }
    Ok(())
}
