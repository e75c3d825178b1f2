//! Waits for a job's end: by the controller's events, and by asking now and then in case none comes.

use std::pin::pin;
use std::time::Duration;

use api::job::{JobId, JobState, JobStatus};
use client::{Bytes, Client, Download, Error, EventFilter, EventStream, LogStream};
use tokio::time::Instant;

use super::narrate::Narrator;
use crate::interrupts::Interrupts;
use crate::job::print;
use crate::progress::Progress;

/// What a job waits for changes without an event of its own.
const ASK_WHILE_QUEUED: Duration = Duration::from_secs(5);
/// Only in case an event was missed.
const ASK_LATER: Duration = Duration::from_secs(30);
/// What it wrote last comes right behind its end.
const DRAIN: Duration = Duration::from_secs(30);

/// A job that is over.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) job: JobStatus,
    pub(crate) printed: Printed,
}

/// How much of what its first part wrote is printed already, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

/// One job on its way.
pub(crate) struct Follow<'a> {
    pub(crate) client: &'a Client,
    pub(crate) progress: &'a Progress,
    /// Prints what it writes, as it writes it.
    pub(crate) streams: bool,
}

impl Follow<'_> {
    /// Follows a job until it is over; the first interrupt asks the controller to end it.
    pub(crate) async fn to_the_end(
        &self,
        mut job: JobStatus,
        interrupts: &Interrupts,
    ) -> anyhow::Result<End> {
        let id = job.id;
        let mut events = Events::of(self.client, id);
        let mut narrator = Narrator::default();
        let mut logs = Logs::default();
        let mut cancelling = pin!(self.cancel_when_interrupted(id, interrupts));
        let mut cancelled = false;
        loop {
            self.tell(&job, &mut narrator).await;
            if job.state.is_over() {
                logs.drain(self.progress).await?;
                let printed = logs.printed;
                return Ok(End { job, printed });
            }
            if self.streams && job.state >= JobState::Measuring {
                logs.open(self.client, &job, self.progress).await;
            }
            let ask = match job.state {
                JobState::Queued => ASK_WHILE_QUEUED,
                _ => ASK_LATER,
            };
            let ask_at = Instant::now() + ask;
            loop {
                tokio::select! {
                    () = &mut cancelling, if !cancelled => {
                        cancelled = true;
                        break;
                    }
                    () = events.next() => break,
                    printed = logs.next(self.progress) => printed?,
                    () = tokio::time::sleep_until(ask_at) => break,
                }
            }
            job = self.client.job_status(id).await?;
        }
    }

    async fn cancel_when_interrupted(&self, id: JobId, interrupts: &Interrupts) {
        interrupts.reach(1).await;
        self.progress
            .line("interrupted: asking the controller to end it; once more leaves it alone");
        let reason = Some("interrupted by its submitter");
        match self.client.cancel(id, reason).await {
            Ok(_) => {}
            // it ended meanwhile, which the next look shows
            Err(error) if error.problem().is_some_and(|it| it.status == 409) => {}
            Err(error) => {
                let error = anyhow::Error::from(error);
                let line = format!("it could not be cancelled: {error:#}");
                self.progress.line(&line);
            }
        }
    }

    /// Says what is new.
    async fn tell(&self, job: &JobStatus, narrator: &mut Narrator) {
        if let Some(line) = narrator.job(job) {
            self.progress.line(&line);
        }
        self.progress
            .now(&format!("job {}: {}", job.id, narrator.now()));
        if job.state == JobState::Queued && !job.cancelling {
            // it may have started meanwhile; then there is nothing to tell
            if let Ok(why) = self.client.why(job.id).await {
                for line in narrator.why(&why) {
                    self.progress.line(&line);
                }
            }
        }
    }
}

/// A job's events; silent for good when the controller gives none.
struct Events(Option<EventStream>);

impl Events {
    fn of(client: &Client, id: JobId) -> Self {
        Self(Some(client.follow_events(EventFilter {
            after: Some(0),
            job: Some(id),
            node: None,
        })))
    }

    /// Something happened.
    async fn next(&mut self) {
        if let Some(stream) = &mut self.0 {
            match stream.next().await {
                Ok(_) => return,
                // asking now and then does as well
                Err(_) => self.0 = None,
            }
        }
        std::future::pending().await
    }
}

/// What a job writes while it runs: of its first part, as several would be mixed up.
#[derive(Debug, Default)]
struct Logs {
    stdout: Option<Download>,
    stderr: Option<Download>,
    opened: bool,
    printed: Printed,
}

impl Logs {
    /// Begins, once. What cannot be streamed is printed at the end.
    async fn open(&mut self, client: &Client, job: &JobStatus, progress: &Progress) {
        let Some(part) = job.parts.first().filter(|_| !self.opened) else {
            return;
        };
        self.opened = true;
        let node = Some(part.node.as_str());
        for (stream, log) in [
            (LogStream::Stdout, &mut self.stdout),
            (LogStream::Stderr, &mut self.stderr),
        ] {
            match client.follow_logs(job.id, stream, node).await {
                Ok(download) => *log = Some(download),
                Err(error) => not_followed(stream, error, progress),
            }
        }
    }

    /// Prints the next piece. May be dropped while it waits, and loses nothing.
    async fn next(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let (stream, piece) = tokio::select! {
            piece = piece(&mut self.stdout) => (LogStream::Stdout, piece),
            piece = piece(&mut self.stderr) => (LogStream::Stderr, piece),
        };
        let (log, printed) = match stream {
            LogStream::Stdout => (&mut self.stdout, &mut self.printed.stdout),
            LogStream::Stderr => (&mut self.stderr, &mut self.printed.stderr),
        };
        match piece {
            Ok(Some(piece)) => {
                *printed += piece.len() as u64;
                progress.aside(|| print(stream, &piece))?;
            }
            Ok(None) => *log = None,
            Err(error) => {
                *log = None;
                not_followed(stream, error, progress);
            }
        }
        Ok(())
    }

    /// Prints what is still on its way.
    async fn drain(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let deadline = Instant::now() + DRAIN;
        while self.stdout.is_some() || self.stderr.is_some() {
            match tokio::time::timeout_at(deadline, self.next(progress)).await {
                Ok(printed) => printed?,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

fn not_followed(stream: LogStream, error: Error, progress: &Progress) {
    let error = anyhow::Error::from(error);
    progress.line(&format!("{stream} is printed at the end: {error:#}"));
}

async fn piece(log: &mut Option<Download>) -> Result<Option<Bytes>, Error> {
    match log {
        Some(log) => log.chunk().await,
        None => std::future::pending().await,
    }
}
