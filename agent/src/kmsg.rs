//! The agent's log on the appliance: the kernel's ring buffer, beside init's lines and the
//! kernel's own, so that one timeline (`dmesg`, the console) tells the whole story.

use std::fs::OpenOptions;
use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The kernel cuts records near 1 KiB.
const RECORD_BYTES: usize = 900;

/// Opens `/dev/kmsg` anew for each record: a record is one `write(2)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kmsg;

/// One record being put together.
#[derive(Debug)]
pub(crate) struct Record {
    priority: u8,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Kmsg {
    type Writer = Record;

    fn make_writer(&'a self) -> Record {
        Record {
            priority: 6,
            text: Vec::new(),
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Record {
        let priority = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        Record {
            priority,
            text: Vec::new(),
        }
    }
}

impl Write for Record {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        for line in text.lines() {
            // control characters from outside must not forge a line or drive a terminal
            let mut line: String = line
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            while line.len() > RECORD_BYTES {
                line.pop();
            }
            let record = format!("<{}>stillmetal-agent: {line}\n", self.priority);
            // nowhere is left to report a failure of the log itself
            drop(
                OpenOptions::new()
                    .write(true)
                    .open("/dev/kmsg")
                    .and_then(|mut kmsg| kmsg.write_all(record.as_bytes())),
            );
        }
    }
}
