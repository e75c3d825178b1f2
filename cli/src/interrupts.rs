//! Control-C and its like, counted: a first one may mean something else than a second one.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Counts them, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Interrupts {
    count: watch::Receiver<u32>,
    listening: JoinHandle<()>,
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Interrupts {
    /// From now on they do not end this process.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (counter, count) = watch::channel(0);
        let listening = tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    signal = interrupt.recv() => signal,
                    signal = terminate.recv() => signal,
                };
                if signal.is_none() {
                    return;
                }
                counter.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { count, listening })
    }

    /// Whether there was one.
    pub(crate) fn any(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Waits until there were `count` in all.
    pub(crate) async fn reach(&self, count: u32) {
        let reached = self.count.clone().wait_for(|it| *it >= count).await.is_ok();
        if !reached {
            // nobody listens any more: it will not come
            std::future::pending().await
        }
    }
}
