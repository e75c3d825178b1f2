//! QEMU's machine protocol: one JSON value a line; answers in order, events in between.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::wait::Deadline;

/// How long QEMU may take to answer; under emulation on a busy host that can be seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest line of an answer.
const MAX_LINE_BYTES: u64 = 4 << 20;
/// Events kept.
const MAX_EVENTS: usize = 1000;

#[derive(Debug, Default)]
struct Events {
    seen: VecDeque<Value>,
    closed: bool,
}

type Shared = Arc<(Mutex<Events>, Condvar)>;

/// A QMP connection.
#[derive(Debug)]
pub struct Qmp {
    vm: String,
    /// Taken for the length of one exchange.
    exchange: Mutex<(UnixStream, mpsc::Receiver<Value>)>,
    events: Shared,
}

fn events(shared: &Shared) -> MutexGuard<'_, Events> {
    // A panic while holding the lock leaves the list as it was.
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Qmp {
    /// Takes over a fresh connection and leaves negotiation mode.
    pub(crate) fn open(vm: &str, stream: UnixStream) -> Result<Self> {
        let failed = |action| {
            let vm = vm.to_owned();
            move |source| Error::Qmp { vm, action, source }
        };
        let reader = stream.try_clone().map_err(failed("share the socket"))?;
        let (sender, answers) = mpsc::channel();
        let shared = Shared::default();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("qmp {vm}"))
            .spawn(move || read(reader, &sender, &theirs))
            .map_err(failed("start the reader"))?;
        let qmp = Self {
            vm: vm.into(),
            exchange: Mutex::new((stream, answers)),
            events: shared,
        };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its `return` value.
    ///
    /// # Errors
    /// [`Error::Qmp`] when the connection fails or QEMU does not answer,
    /// [`Error::QmpRefused`] when it answers with an error.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let failed = |action, source| Error::Qmp {
            vm: self.vm.clone(),
            action,
            source,
        };
        let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        exchange
            .0
            .write_all(line.as_bytes())
            .map_err(|source| failed("send", source))?;
        let answer = exchange.1.recv_timeout(ANSWER_WITHIN).map_err(|why| {
            let kind = match why {
                mpsc::RecvTimeoutError::Timeout => io::ErrorKind::TimedOut,
                mpsc::RecvTimeoutError::Disconnected => io::ErrorKind::UnexpectedEof,
            };
            failed("wait for the answer", io::Error::from(kind))
        })?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err(Error::QmpRefused {
                vm: self.vm.clone(),
                command: command.into(),
                answer: answer["error"]["desc"]
                    .as_str()
                    .unwrap_or("no reason")
                    .into(),
            }),
        }
    }

    /// The first event with this name, seen already or within the time given.
    #[must_use]
    pub fn wait_event(&self, name: &str, within: Duration) -> Option<Value> {
        let deadline = Deadline::after(within);
        let mut state = events(&self.events);
        loop {
            if let Some(event) = state.seen.iter().find(|event| event["event"] == name) {
                return Some(event.clone());
            }
            let left = deadline.remaining();
            if state.closed || left.is_zero() {
                return None;
            }
            let waited = self.events.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn read(stream: UnixStream, answers: &mpsc::Sender<Value>, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
        {
            // The end, or a broken connection: QEMU is gone either way.
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        // The greeting has none of these keys; a line that is not JSON would be a QEMU bug, and
        // whoever waits for it sees the missing answer.
        let Ok(value) = serde_json::from_slice::<Value>(&line) else {
            continue;
        };
        if value.get("event").is_some() {
            let mut state = events(shared);
            if state.seen.len() == MAX_EVENTS {
                state.seen.pop_front();
            }
            state.seen.push_back(value);
            shared.1.notify_all();
        } else if (value.get("return").is_some() || value.get("error").is_some())
            && answers.send(value).is_err()
        {
            break;
        }
    }
    events(shared).closed = true;
    shared.1.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays QEMU: greets, then answers each command by what `script` makes of it.
    fn fake(script: impl Fn(&str) -> Vec<Value> + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            writeln!(out, "{}", json!({"QMP": {"version": {}}})).unwrap();
            for line in BufReader::new(theirs).lines() {
                let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
                let command = asked["execute"].as_str().unwrap();
                if command == "quit" {
                    break;
                }
                for answer in script(command) {
                    writeln!(out, "{answer}").unwrap();
                }
            }
        });
        ours
    }

    #[test]
    fn answers_events_and_refusals() {
        let stream = fake(|command| match command {
            "query-status" => vec![
                json!({"event": "RESUME"}),
                json!({"return": {"status": "running"}}),
            ],
            "nonsense" => vec![json!({"error": {"class": "x", "desc": "no such command"}})],
            _ => vec![json!({"return": {}})],
        });
        let qmp = Qmp::open("fake", stream).unwrap();
        assert_eq!(
            qmp.execute("query-status", json!({})).unwrap()["status"],
            "running"
        );
        assert!(qmp.wait_event("RESUME", Duration::from_secs(5)).is_some());
        assert!(
            qmp.wait_event("SHUTDOWN", Duration::from_millis(20))
                .is_none()
        );
        let error = qmp.execute("nonsense", json!({})).unwrap_err();
        assert!(matches!(&error, Error::QmpRefused { answer, .. } if answer == "no such command"));
        assert!(matches!(
            qmp.execute("quit", json!({})),
            Err(Error::Qmp { .. })
        ));
    }
}
