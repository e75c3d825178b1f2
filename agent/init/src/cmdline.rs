//! The kernel command line: what the operator asked for at boot. Pure; total over every input.
//!
//! Rules are the kernel's own (`lib/cmdline.c: next_arg`): words are separated by white space outside double quotes, a
//! quoted value loses its quotes, `-` and `_` are the same in a name, and of duplicates the last one wins. A value that
//! cannot be used is a warning, never an error: the node must come up and say what was wrong.
//!
//! Nothing secret can be here: every container can read `/proc/cmdline`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

mod controller;
pub(crate) mod ip;
mod words;

pub use controller::{BadAddress, ControllerAddress, DEFAULT_PORT};
pub use ip::{IpConfig, StaticAddress};
pub use words::{Word, words};

/// The longest delay before the failure policy acts: longer ones are a typing error that would look like a hang.
const MAX_ONFAIL_DELAY_SECONDS: u64 = 3600;
const MAX_MODULES: usize = 64;

/// What to do when booting cannot go on, or init panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFail {
    /// A netbooted node comes back with a fresh image: the default.
    Reboot,
    Poweroff,
    /// Stay, with the message on the console, until ctrl-alt-del or the power button.
    Hold,
}

/// What to do with the hardware siblings of job CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Smt {
    Keep,
    Off,
}

/// Everything that the boot and the agent take from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootConfig {
    pub hostname: Option<String>,
    pub ip: IpConfig,
    pub ntp: Option<IpAddr>,
    pub onfail: OnFail,
    pub onfail_delay: Duration,
    pub modules: Vec<String>,
    /// Replaces the built-in minimum: tests boot with little memory.
    pub memory_min_mib: Option<u64>,
    pub smt: Smt,
    /// The node dials there and takes work from it.
    pub controller: Option<ControllerAddress>,
    /// Hash of the controller's authority, `sha256:` and 64 small hexadecimal digits.
    pub controller_ca: Option<String>,
    /// Test hook: init panics after its mounts.
    pub panic_test: bool,
    /// What could not be used, in words for the operator.
    pub warnings: Vec<String>,
}

impl Default for BootConfig {
    fn default() -> Self {
        Self {
            hostname: None,
            ip: IpConfig::Dhcp { device: None },
            ntp: None,
            onfail: OnFail::Reboot,
            onfail_delay: Duration::from_secs(10),
            modules: Vec::new(),
            memory_min_mib: None,
            smt: Smt::Off,
            controller: None,
            controller_ca: None,
            panic_test: false,
            warnings: Vec::new(),
        }
    }
}

impl BootConfig {
    /// Reads the running kernel's command line.
    ///
    /// # Errors
    /// When `/proc/cmdline` cannot be read.
    pub fn read() -> std::io::Result<Self> {
        Ok(Self::parse(&String::from_utf8_lossy(&std::fs::read(
            "/proc/cmdline",
        )?)))
    }

    /// Parses a command line. Unknown parameters are somebody else's and are passed over, except unknown `stillmetal.*`
    /// ones, which are most likely typing errors and are named in the warnings.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let mut config = Self::default();
        let mut ip_hostname = None;
        for word in words(line) {
            let value = word.value.as_deref().unwrap_or("");
            match word.key.as_str() {
                "ip" => match ip::parse(value) {
                    Ok((ip, hostname)) => {
                        config.ip = ip;
                        ip_hostname = hostname;
                    }
                    Err(why) => config
                        .warnings
                        .push(format!("ip={value}: {why}; using DHCP")),
                },
                "stillmetal.hostname" => config.set_hostname(value),
                "stillmetal.ntp" => match value.parse() {
                    Ok(address) => config.ntp = Some(address),
                    Err(_) => config.unusable(&word, "an IP address"),
                },
                "stillmetal.onfail" => match value {
                    "reboot" => config.onfail = OnFail::Reboot,
                    "poweroff" => config.onfail = OnFail::Poweroff,
                    "hold" => config.onfail = OnFail::Hold,
                    _ => config.unusable(&word, "reboot, poweroff or hold"),
                },
                "stillmetal.onfail_delay" => match value.parse::<u64>() {
                    Ok(seconds) if seconds <= MAX_ONFAIL_DELAY_SECONDS => {
                        config.onfail_delay = Duration::from_secs(seconds);
                    }
                    _ => config.unusable(&word, "seconds, at most 3600"),
                },
                "stillmetal.modules" => config.set_modules(&word, value),
                "stillmetal.memory_min" => match value.parse() {
                    Ok(mib) => config.memory_min_mib = Some(mib),
                    Err(_) => config.unusable(&word, "a number of MiB"),
                },
                "stillmetal.smt" => match value {
                    "keep" => config.smt = Smt::Keep,
                    "off" => config.smt = Smt::Off,
                    _ => config.unusable(&word, "keep or off"),
                },
                "stillmetal.controller" => match value.parse() {
                    Ok(address) => config.controller = Some(address),
                    Err(_) => config.unusable(&word, "HOST:PORT"),
                },
                "stillmetal.ca" => match controller::pin(value) {
                    Some(pin) => config.controller_ca = Some(pin),
                    None => config.unusable(&word, "sha256: and 64 hexadecimal digits"),
                },
                "stillmetal.panic_test" => config.panic_test = value == "1",
                key if key.starts_with("stillmetal.") => {
                    config.warnings.push(format!("{key}: unknown parameter"));
                }
                _ => {}
            }
        }
        // The dedicated parameter is the more deliberate of the two.
        if config.hostname.is_none()
            && let Some(name) = ip_hostname
        {
            config.set_hostname(&name);
        }
        config
    }

    fn unusable(&mut self, word: &Word, wanted: &str) {
        let value = word.value.as_deref().unwrap_or("");
        self.warnings
            .push(format!("{}={value}: wanted {wanted}; ignored", word.key));
    }

    fn set_hostname(&mut self, name: &str) {
        if is_hostname(name) {
            self.hostname = Some(name.to_owned());
        } else {
            self.warnings
                .push(format!("host name {name:?} is not usable; ignored"));
        }
    }

    fn set_modules(&mut self, word: &Word, value: &str) {
        self.modules.clear();
        for name in value.split(',').filter(|name| !name.is_empty()) {
            let plain = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            if !plain || self.modules.len() >= MAX_MODULES {
                self.unusable(word, "a list of at most 64 module names");
                return;
            }
            self.modules.push(name.to_owned());
        }
    }
}

/// A name within Linux's limit of 64 bytes.
pub(crate) fn is_hostname(name: &str) -> bool {
    name.len() <= 63 && is_domain(name)
}

/// Names as RFC 1123 allows them.
pub(crate) fn is_domain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// An address that a host may have: not `0.0.0.0/8`, loopback, multicast or broadcast.
pub(crate) fn is_host_address(address: Ipv4Addr) -> bool {
    address.octets()[0] != 0
        && !address.is_loopback()
        && !address.is_multicast()
        && !address.is_broadcast()
}

#[cfg(test)]
mod tests;
