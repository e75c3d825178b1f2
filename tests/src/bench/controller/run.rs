//! Work that is really done, as plainly as it can be: the program is started, and waited for.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use api::job::JobId;
use api::work::{Ending, PartOutcome, Stage};
use futures_util::future::BoxFuture;
use stillmetal_work::executor::Refused;
use stillmetal_work::{Executor, Task};
use tokio::process::Command;
use tokio::sync::mpsc;

/// Starts programs, and tells when it has.
#[derive(Debug)]
pub(super) struct Runs {
    pub(super) started: mpsc::UnboundedSender<(JobId, Instant)>,
}

impl Runs {
    async fn program(&self, task: &Task) -> Ending {
        let request = &task.assignment().request;
        let words = request.command.as_deref().unwrap_or_default();
        let Some((program, arguments)) = words.split_first() else {
            return Task::ending(PartOutcome::Error, Some("no command".into()));
        };
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let ended = match child {
            Ok(mut child) => {
                // nobody listens where only the end counts
                self.started.send((task.key().job, Instant::now())).ok();
                child.wait().await
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(status) if status.success() => Ending {
                exit_code: status.code(),
                ..Task::ending(PartOutcome::Done, None)
            },
            Ok(status) => Task::ending(PartOutcome::Failed, Some(status.to_string())),
            Err(error) => Task::ending(PartOutcome::Error, Some(error.to_string())),
        }
    }
}

impl Executor for Runs {
    fn run(self: Arc<Self>, task: Task) -> BoxFuture<'static, Result<Ending, Refused>> {
        Box::pin(async move {
            let given_up = || Ok(Task::ending(PartOutcome::Cancelled, Some(task.why())));
            if task.ready().await.is_err() || task.measuring().await.is_err() {
                return given_up();
            }
            let ending = self.program(&task).await;
            task.packing().await;
            Ok(ending)
        })
    }

    fn adopt(self: Arc<Self>, _task: Task, _stage: Stage) -> BoxFuture<'static, Ending> {
        Box::pin(async {
            let why = "nothing is adopted here".to_owned();
            Task::ending(PartOutcome::Error, Some(why))
        })
    }
}
