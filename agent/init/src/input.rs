//! The power button: ACPI reports it as a key on an input device.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

const EV_KEY: u16 = 0x01;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;
/// `struct input_event` on 64-bit: two times, type, code, value.
const EVENT_BYTES: usize = 24;
/// A machine with more has buttons among the first.
const MAX_DEVICES: usize = 32;

/// The input devices that exist now. Init never waits for more: a keyboard plugged in later is not a power button.
pub(crate) fn open_all() -> Vec<File> {
    let Ok(entries) = fs::read_dir("/dev/input") else {
        return Vec::new();
    };
    let events = entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("event"));
    let open = |path| {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
    };
    events
        .filter_map(|entry| open(entry.path()).ok())
        .take(MAX_DEVICES)
        .collect()
}

/// What reading a device brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Nothing,
    PowerKey,
    /// Unplugged: to be closed, or it would be ready for ever.
    Gone,
}

pub(crate) fn read(device: &mut File) -> Reading {
    let mut buffer = [0; EVENT_BYTES * 64];
    match device.read(&mut buffer) {
        Ok(0) => Reading::Gone,
        Ok(length) if power_pressed(&buffer[..length]) => Reading::PowerKey,
        Ok(_) => Reading::Nothing,
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Reading::Nothing,
            _ => Reading::Gone,
        },
    }
}

fn power_pressed(bytes: &[u8]) -> bool {
    bytes.chunks_exact(EVENT_BYTES).any(|event| {
        let kind = u16::from_ne_bytes([event[16], event[17]]);
        let code = u16::from_ne_bytes([event[18], event[19]]);
        let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        (kind, code, value) == (EV_KEY, KEY_POWER, PRESSED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![7; 16];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        assert!(power_pressed(
            &[event(0, 0, 0), event(EV_KEY, KEY_POWER, 1)].concat()
        ));
        assert!(!power_pressed(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!power_pressed(&event(EV_KEY, 30, 1)));
        assert!(!power_pressed(&event(EV_KEY, KEY_POWER, 1)[..20]));
        assert!(!power_pressed(&[]));
    }
}
