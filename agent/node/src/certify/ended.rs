//! Notices the end of everything in a cgroup, by the kernel's own word for it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use host::cgroup::ROOT;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `cgroup.events` of one cgroup, kept open.
pub(crate) struct Ended {
    events: File,
}

impl Ended {
    /// # Errors
    /// The file system's, when the cgroup does not exist.
    pub(crate) fn watch(cgroup: &str) -> io::Result<Self> {
        let events = File::open(Path::new(ROOT).join(cgroup).join("cgroup.events"))?;
        Ok(Self { events })
    }

    /// True as soon as nothing runs in it any more; false after `patience`.
    pub(crate) fn within(&self, patience: Duration) -> bool {
        // the first look also arms the notification (kernfs: a read, then a poll)
        if self.is_empty() {
            return true;
        }
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut watched = [PollFd::new(self.events.as_fd(), PollFlags::POLLPRI)];
        // however the wait ended, what counts is what the file says then
        let _ended: nix::Result<i32> = poll(&mut watched, timeout);
        self.is_empty()
    }

    fn is_empty(&self) -> bool {
        let mut text = [0; 256];
        match self.events.read_at(&mut text, 0) {
            Ok(length) => text[..length]
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"populated 0"),
            // ENODEV: the cgroup itself is gone
            Err(_) => true,
        }
    }
}
