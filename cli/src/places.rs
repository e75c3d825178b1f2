//! Where this program keeps what it must remember (XDG base directories).

use std::ffi::OsString;
use std::path::PathBuf;

const NAME: &str = "stillmetal";

/// The environment names no place.
#[derive(Debug, thiserror::Error)]
#[error("find the home directory: neither {variable} nor HOME holds an absolute path")]
pub(crate) struct NoHome {
    variable: &'static str,
}

/// Contexts: `$XDG_CONFIG_HOME/stillmetal`.
pub(crate) fn config_dir() -> Result<PathBuf, NoHome> {
    place("XDG_CONFIG_HOME", ".config", |name| std::env::var_os(name))
}

/// What runs: `$XDG_STATE_HOME/stillmetal`.
pub(crate) fn state_dir() -> Result<PathBuf, NoHome> {
    place("XDG_STATE_HOME", ".local/state", |name| {
        std::env::var_os(name)
    })
}

/// The standard wants relative paths ignored.
fn place(
    variable: &'static str,
    below_home: &str,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, NoHome> {
    let absolute = |name| {
        let path = environment(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)));
    Ok(base.ok_or(NoHome { variable })?.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_says() {
        let of = |variables: &[(&str, &str)]| {
            let look = |name: &str| {
                let found = variables.iter().find(|(it, _)| *it == name);
                found.map(|(_, value)| OsString::from(value))
            };
            place("XDG_CONFIG_HOME", ".config", look).ok()
        };
        let both = [("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(of(&both), Some("/x/stillmetal".into()));
        let relative = [("XDG_CONFIG_HOME", "x"), ("HOME", "/h")];
        assert_eq!(of(&relative), Some("/h/.config/stillmetal".into()));
        assert_eq!(of(&[("HOME", "")]), None);
    }
}
