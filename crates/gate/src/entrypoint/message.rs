//! The last words of the gate, on the stderr of the container.

use rustix::io::Errno;

use crate::syscall;

/// Longest message; the rest of an overlong program name is cut off.
const LENGTH: usize = 1024;

/// One line in one write, then the end.
pub(crate) fn fail(code: u8, parts: &[&[u8]]) -> ! {
    let mut line = [0; LENGTH];
    let mut length = 0;
    let all = [b"stillmetal-gate: ".as_slice()]
        .into_iter()
        .chain(parts.iter().copied());
    // the last byte is kept for the end of the line
    for (byte, place) in all.flatten().zip(&mut line[..LENGTH - 1]) {
        *place = *byte;
        length += 1;
    }
    line[length] = b'\n';
    // SAFETY: the descriptor is used for this one call; if it is closed the call fails.
    let stderr = unsafe { rustix::stdio::stderr() };
    // without a stderr the exit code must do
    rustix::io::write(stderr, &line[..=length]).ok();
    syscall::exit(code)
}

/// A number in decimal.
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(mut number: u64) -> Self {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b"0123456789"[(number % 10) as usize];
            start = place;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Why something failed, in words or at least as a number.
pub(crate) struct Reason {
    words: &'static [u8],
    number: Option<Decimal>,
}

impl Reason {
    pub(crate) fn new(words: &'static str) -> Self {
        Self {
            words: words.as_bytes(),
            number: None,
        }
    }

    /// Words for those that a user can do something about.
    pub(crate) fn of(errno: Errno) -> Self {
        Self::new(match errno {
            Errno::PERM => "operation not permitted",
            Errno::NOENT => "no such file or directory",
            Errno::IO => "input/output error",
            Errno::TOOBIG => "argument list too long",
            Errno::NOEXEC => "exec format error",
            Errno::NOMEM => "cannot allocate memory",
            Errno::ACCESS => "permission denied",
            Errno::NOTDIR => "not a directory",
            Errno::ISDIR => "is a directory",
            Errno::INVAL => "invalid argument",
            Errno::TXTBSY => "text file busy",
            Errno::NAMETOOLONG => "file name too long",
            Errno::LOOP => "too many levels of symbolic links",
            other => {
                return Self {
                    words: b"errno ",
                    number: Some(Decimal::new(other.raw_os_error().unsigned_abs().into())),
                };
            }
        })
    }

    /// Both parts for a message.
    pub(crate) fn text(&self) -> [&[u8]; 2] {
        let number = self.number.as_ref().map(Decimal::text);
        [self.words, number.unwrap_or_default()]
    }
}
