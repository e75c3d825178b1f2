//! The thread that samples: on the housekeeping CPUs only, behind all that measures.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use collect::{Asked, Series, Tool, Zero};
use nix::unistd::gettid;
use tokio::sync::oneshot;

use super::place::Place;
use super::source::{Source, Texts};
use super::{Outcome, Outcomes, monotonic_ns};

/// A thread at work. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Collector {
    stop: Sender<()>,
    answer: oneshot::Receiver<Vec<Seen>>,
}

/// What it has seen of one tool.
#[derive(Debug)]
pub(super) struct Seen {
    tool: Tool,
    series: Series,
}

/// One tool at work.
struct Watched {
    tool: Tool,
    source: Source,
    series: Series,
    interval: Duration,
    due: Instant,
    /// Samples that were due and not taken.
    late: u64,
}

impl Collector {
    /// Returns when it has taken its first samples, or why it cannot be.
    pub(super) fn start(place: Place, tools: Vec<(Asked, Source)>) -> Result<Self, String> {
        let (stop, stopped) = channel();
        let (sender, answer) = oneshot::channel();
        let (ready, placed) = channel();
        let work = move || {
            if let Err(why) = stay_on_housekeeping(&place) {
                // nobody waits any more: then it is not needed either
                ready.send(Err(why)).ok();
                return;
            }
            let mut all: Vec<Watched> = tools.into_iter().map(Watched::begin).collect();
            for one in &mut all {
                one.sample(&place);
            }
            ready.send(Ok(())).ok();
            sample(&place, &mut all, &stopped);
            let seen = all.into_iter().map(|one| one.end(&place));
            sender.send(seen.collect()).ok();
        };
        std::thread::Builder::new()
            .name("collect".into())
            .spawn(work)
            .map_err(|error| format!("no thread for it: {error}"))?;
        match placed.recv() {
            Ok(placed) => placed.map(|()| Self { stop, answer }),
            Err(_) => Err("the thread that was to collect it died".into()),
        }
    }

    /// Ends it: what each of its tools came to. `None`: nobody saw when the program began.
    pub(super) async fn end(self, run: u32, zero: Option<Zero>) -> Outcomes {
        drop(self.stop);
        let Ok(seen) = self.answer.await else {
            return Vec::new(); // it died: whoever asked says so
        };
        let outcome = |seen: Seen| {
            let Seen { tool, series } = seen;
            let first = Zero {
                at_ns: series.first_ns().unwrap_or_default(),
                window_ns: None,
            };
            let outcome = Outcome::Collected {
                text: series.encode(run, zero.unwrap_or(first)),
                samples: series.samples(),
                dropped: series.dropped(),
                lost: series.lost(),
            };
            (tool, outcome)
        };
        seen.into_iter().map(outcome).collect()
    }
}

/// The calling thread. The agent's threads are there already; it is made sure of.
fn stay_on_housekeeping(place: &Place) -> Result<(), String> {
    let own = u32::try_from(gettid().as_raw()).unwrap_or_default();
    if place.housekeeping.is_empty() {
        return Err("there is no housekeeping CPU to collect from".into());
    }
    let set = place.tree.set_affinity(own, &place.housekeeping);
    set.map_err(|error| {
        format!(
            "its thread cannot be kept on the housekeeping CPUs {}: {error}",
            place.housekeeping
        )
    })
}

/// Until it is told to stop.
fn sample(place: &Place, all: &mut [Watched], stopped: &Receiver<()>) {
    loop {
        let now = Instant::now();
        let next = all.iter().map(|one| one.due).min().unwrap_or(now);
        match stopped.recv_timeout(next.saturating_duration_since(now)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        for one in all.iter_mut().filter(|one| one.due <= Instant::now()) {
            one.sample(place);
        }
    }
}

impl Watched {
    fn begin((asked, source): (Asked, Source)) -> Self {
        let mut series = Series::new(asked.tool.as_str(), asked.interval);
        for why in &source.lost {
            series.lose(why.clone());
        }
        Self {
            tool: asked.tool,
            source,
            series,
            interval: asked.interval,
            due: Instant::now(),
            late: 0,
        }
    }

    fn sample(&mut self, place: &Place) {
        let begun = Instant::now();
        let at_ns = monotonic_ns();
        let texts = self.look(place);
        self.series.add(at_ns, self.source.readings(&texts));
        // at least as long as was spent is left to others
        let now = Instant::now();
        let earliest = now + (now - begun);
        self.due += self.interval;
        while self.due < earliest {
            self.due += self.interval;
            self.late += 1;
        }
    }

    fn end(mut self, place: &Place) -> Seen {
        let at_ns = monotonic_ns();
        let texts = self.look(place);
        self.series.finish(at_ns, self.source.readings(&texts));
        if self.late > 0 {
            let late = self.late;
            self.series.lose(format!(
                "{late} samples were not taken: the housekeeping CPUs were busy"
            ));
        }
        Seen {
            tool: self.tool,
            series: self.series,
        }
    }

    fn look(&mut self, place: &Place) -> Texts {
        let mut texts = self.source.read(place);
        for why in std::mem::take(&mut texts.lost) {
            self.series.miss(why);
        }
        texts
    }
}
