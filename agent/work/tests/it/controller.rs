//! The controller's end of a control stream.

use std::time::Duration;

use api::work::{Ending, Held, Key, Order, Report, Stage};
use stillmetal_work::Worker;
use stillmetal_work::frame::{FrameError, FrameReader, write_frame};
use stillmetal_work::worker::SessionError;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// In paused time this passes only when nothing else can happen.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct Controller {
    reader: FrameReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
    pub(crate) session: JoinHandle<Result<(), SessionError>>,
}

impl Controller {
    pub(crate) fn connect(worker: &Worker) -> Self {
        Self::connect_with(worker, 64 * 1024)
    }

    pub(crate) fn connect_with(worker: &Worker, room: usize) -> Self {
        let (here, there) = tokio::io::duplex(room);
        let worker = worker.clone();
        let session = tokio::spawn(async move { worker.serve(there).await });
        let (reader, writer) = tokio::io::split(here);
        Self {
            reader: FrameReader::new(reader),
            writer,
            session,
        }
    }

    /// Connected, greeted and welcomed; what it holds is kept.
    pub(crate) async fn welcomed(worker: &Worker) -> (Self, Vec<Held>) {
        let mut controller = Self::connect(worker);
        let held = controller.hello().await;
        let keep = held.iter().map(|held| held.key).collect();
        controller.welcome(keep).await;
        (controller, held)
    }

    pub(crate) async fn hello(&mut self) -> Vec<Held> {
        match self.report().await {
            Report::Hello { held, .. } => held,
            other => panic!("no greeting: {other:?}"),
        }
    }

    pub(crate) async fn welcome(&mut self, keep: Vec<Key>) {
        self.order(&Order::Welcome {
            keep,
            heartbeat_seconds: 10,
        })
        .await
        .unwrap();
    }

    pub(crate) async fn order(&mut self, order: &Order) -> Result<(), FrameError> {
        write_frame(&mut self.writer, order).await
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        tokio::io::AsyncWriteExt::write_all(&mut self.writer, bytes)
            .await
            .unwrap();
    }

    /// The next report but heartbeats.
    pub(crate) async fn report(&mut self) -> Report {
        loop {
            match self.anything().await {
                Report::Heartbeat {} => {}
                report => return report,
            }
        }
    }

    pub(crate) async fn anything(&mut self) -> Report {
        let report = timeout(PATIENCE, self.reader.next::<Report>()).await;
        report.expect("a report").unwrap().expect("no end")
    }

    /// Whether nothing at all comes for that long.
    pub(crate) async fn is_silent(&mut self, long: Duration) -> bool {
        timeout(long, self.reader.next::<Report>()).await.is_err()
    }

    pub(crate) async fn stage(&mut self) -> Stage {
        match self.report().await {
            Report::Stage { stage, .. } => stage,
            other => panic!("no stage: {other:?}"),
        }
    }

    /// The next report's stage, if it has one.
    pub(crate) async fn stage_or_else(&mut self) -> Option<Stage> {
        match self.report().await {
            Report::Stage { stage, .. } => Some(stage),
            _ => None,
        }
    }

    /// Leaves without a word.
    pub(crate) fn cut(self) -> JoinHandle<Result<(), SessionError>> {
        self.session
    }

    pub(crate) async fn ended(&mut self) -> (Key, Ending) {
        loop {
            match self.report().await {
                Report::Ended { key, ending } => return (key, *ending),
                Report::Stage { .. } | Report::Accepted { .. } => {}
                other => panic!("no ending: {other:?}"),
            }
        }
    }
}
