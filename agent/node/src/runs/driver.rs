//! Takes one series to its end, from its beginning or from where an earlier agent left it.

use std::sync::Arc;

use api::run::{Attempt, RunRequest, RunState, RunStatus};
use policy::Role;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Made, Measured};
use super::series::{Next, figures, next};
use super::watcher::Watcher;
use super::{OUTPUT_BYTES, Parts, Seat, metrics, resume};

/// One series.
pub(super) struct Driver {
    pub(super) parts: Parts,
    pub(super) role: Role,
    pub(super) seat: Seat,
    pub(super) status: watch::Sender<RunStatus>,
    pub(super) cancel: CancellationToken,
    pub(super) watcher: Arc<dyn Watcher>,
}

/// Why it is over.
enum End {
    State(RunState),
    Cancelled,
    Error(String),
}

impl Driver {
    /// From its first container, which was made and not started.
    pub(super) async fn drive(self, made: Made) {
        let (made, end) = self.go_on(made).await;
        self.finish(&made, end).await;
    }

    /// From a container that an earlier agent made, and perhaps started; `over`: its run has been
    /// taken into account.
    pub(super) async fn resume(self, made: Made, over: bool) {
        let (made, end) = if !over {
            self.go_on_from(made).await
        } else if let Next::End(state) = self.next() {
            (made, End::State(state))
        } else {
            self.next_after(made).await
        };
        self.finish(&made, end).await;
    }

    async fn go_on_from(&self, made: Made) -> (Made, End) {
        let request = self.request();
        let found = resume::find(&self.parts, &made, self.number(), &request, &self.cancel);
        let measured = match found.await {
            Ok(resume::Found::Fresh) => return self.go_on(made).await,
            Ok(resume::Found::NeverBegan) => {
                // the same run once more: nothing of it has happened
                return match self.following(&made, made.next).await {
                    Ok(made) => self.go_on(made).await,
                    Err(why) => (made, End::Error(why)),
                };
            }
            Ok(resume::Found::Over(measured)) => *measured,
            Err(why) => return (made, End::Error(why)),
        };
        match self.settle(measured).await {
            Some(end) => (made, end),
            None => self.next_after(made).await,
        }
    }

    async fn next_after(&self, made: Made) -> (Made, End) {
        match self.following(&made, self.next()).await {
            Ok(made) => self.go_on(made).await,
            Err(why) => (made, End::Error(why)),
        }
    }

    /// Run after run.
    async fn go_on(&self, mut made: Made) -> (Made, End) {
        loop {
            let series = self.status.borrow().clone();
            if let Err(why) = self.watcher.starting(&series, &made).await {
                return (made, self.ended_early(why));
            }
            let request = self.request();
            let measured = attempt::measure(
                &self.parts,
                &made,
                self.number(),
                &request,
                &self.cancel,
                &*self.watcher,
            );
            let end = match measured.await {
                Ok(measured) => self.settle(measured).await,
                Err(why) => Some(self.ended_early(why)),
            };
            if let Some(end) = end {
                return (made, end);
            }
            made = match self.following(&made, self.next()).await {
                Ok(made) => made,
                Err(why) => return (made, End::Error(why)),
            };
        }
    }

    fn ended_early(&self, why: String) -> End {
        if self.cancel.is_cancelled() {
            End::Cancelled
        } else {
            End::Error(why)
        }
    }

    /// Takes a run into account; `None`: the series goes on.
    async fn settle(&self, measured: Measured) -> Option<End> {
        let mut run = measured.run;
        let kept: usize = {
            let status = self.status.borrow();
            let written = |run: &Attempt| run.stdout.len() + run.stderr.len();
            status.attempts.iter().map(written).sum()
        };
        if kept + run.stdout.len() + run.stderr.len() > OUTPUT_BYTES {
            (run.stdout, run.stderr) = (String::new(), String::new());
            run.truncated = true;
        }
        let certificate = measured.certificate.as_deref();
        let mut kept = Vec::new();
        if !measured.tools.is_empty() {
            (run.tools, kept) = self.watcher.keep_tools(run.number, measured.tools).await;
        }
        let paths = self.request().artifacts;
        if !measured.cut && !paths.is_empty() {
            let collected = self.watcher.collect(&run, &paths).await;
            kept.extend(collected.documents);
            run.artifacts = collected.names;
            metrics::judge(&mut run, collected.lack);
        }
        let kept = self.watcher.over(&run, certificate, kept).await;
        self.status.send_modify(|status| {
            status.attempts.push(run);
            (status.duration_ns, status.left_out) = figures(&status.attempts);
            status.metrics = metrics::figures(&status.request.metrics, &status.attempts);
        });
        if measured.cut {
            return Some(End::Cancelled);
        }
        if let Err(why) = kept {
            return Some(End::Error(why));
        }
        match self.next() {
            Next::End(state) => Some(End::State(state)),
            Next::Warmup | Next::Repetition(_) if self.cancel.is_cancelled() => {
                Some(End::Cancelled)
            }
            Next::Warmup | Next::Repetition(_) => None,
        }
    }

    /// The container of the next run, in place of the last one.
    async fn following(&self, last: &Made, next: Next) -> Result<Made, String> {
        attempt::remove(&self.parts, last).await;
        let series = self.status.borrow().clone();
        let made = attempt::make(
            &self.parts,
            self.role,
            (&series.id, self.number()),
            &series.request,
            &series.image,
            next,
            &self.seat,
            Some(last),
        );
        made.await.map_err(|denial| denial.message)
    }

    async fn finish(&self, made: &Made, end: End) {
        self.watcher.leaving(made).await;
        attempt::remove(&self.parts, made).await;
        self.parts.placer.let_go(&made.token).await;
        self.parts.tools.settle().await;
        self.status.send_modify(|status| match end {
            End::State(state) => status.state = state,
            End::Cancelled => status.state = RunState::Cancelled,
            End::Error(why) => {
                status.state = RunState::Error;
                status.error = Some(why);
            }
        });
    }

    fn next(&self) -> Next {
        let status = self.status.borrow();
        next(&status.request, &status.attempts)
    }

    fn request(&self) -> RunRequest {
        self.status.borrow().request.clone()
    }

    /// Of the next run, or the present one.
    fn number(&self) -> u32 {
        u32::try_from(self.status.borrow().attempts.len()).unwrap_or(u32::MAX) + 1
    }
}
