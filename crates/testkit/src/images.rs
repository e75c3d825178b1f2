//! Container images for tests, made by the image tool from locked Debian packages, and that tool.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{Invocation, own_program};
use crate::error::{Error, Result};
use crate::places;

/// The name that [`busybox`] gets in an engine.
pub const BUSYBOX: &str = "busybox:latest";
/// The name that [`stress_ng`] gets in an engine.
pub const STRESS_NG: &str = "stress-ng:latest";

/// Making an image may have to fetch packages first.
const WITHIN: Duration = Duration::from_secs(600);

/// The project's image tool, ready for its arguments: `STILLMETAL_IMAGE_TOOL`, else the one that
/// cargo built.
///
/// # Errors
/// [`Error::Missing`].
pub fn image_tool() -> Result<Invocation> {
    let missing = |what, path: &Path, hint| Error::Missing {
        what,
        path: path.into(),
        hint,
    };
    let name = "stillmetal-image";
    let program = own_program("STILLMETAL_IMAGE_TOOL", name).ok_or_else(|| {
        missing(
            "the image tool",
            Path::new(name),
            "build it with `cargo build -p stillmetal-image`",
        )
    })?;
    let sources = places::workspace_dir().ok_or_else(|| {
        missing(
            "the sources",
            Path::new("."),
            "run from inside the repository",
        )
    })?;
    Ok(Invocation::new(program)
        .arg_path("--data", &sources.join("image"))
        .within(WITHIN))
}

/// An archive for `docker load`: Debian's static busybox with a link for each applet.
///
/// # Errors
/// [`Error::Missing`], [`Error::CommandFailed`].
pub fn busybox() -> Result<PathBuf> {
    let recipe = [
        "--from-package",
        "busybox-static",
        "--bin",
        "usr/bin/busybox",
        "--cmd",
        "sh",
    ];
    docker_image(BUSYBOX, &recipe)
}

/// An archive for `docker load`: Debian's stress-ng, and what it is linked with, as entrypoint.
///
/// # Errors
/// As [`busybox`].
pub fn stress_ng() -> Result<PathBuf> {
    let program = ["--from-package", "stress-ng", "--bin", "usr/bin/stress-ng"];
    docker_image(
        STRESS_NG,
        &[&program[..], &["--entrypoint", "stress-ng"]].concat(),
    )
}

/// Any image: its name and tag, and the recipe in words of `stillmetal-image docker-image`. The
/// tool keeps what it has made once.
///
/// # Errors
/// As [`busybox`].
pub fn docker_image(name: &str, recipe: &[&str]) -> Result<PathBuf> {
    let folder = places::build_dir().join("images");
    std::fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    let out = folder.join(format!("{}.tar", name.replace(['/', ':'], "-")));
    image_tool()?
        .args(["docker-image", "--name", name])
        .args(recipe)
        .arg_path("--out", &out)
        .run_ok()?;
    Ok(out)
}
