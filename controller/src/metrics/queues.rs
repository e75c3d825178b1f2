//! Queues and the jobs that went through them.

use std::time::Duration;

use api::job::JobState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::recent::RecentMax;
use super::unit;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    queue: String,
    outcome: &'static str,
}

/// From what a computer does at once to a day.
const SECONDS: [f64; 17] = [
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0,
    10_000.0, 30_000.0, 86_400.0,
];

fn long() -> Histogram {
    Histogram::new(SECONDS)
}

/// How long something took, by queue.
#[derive(Debug, Clone)]
struct Time {
    all: Family<Queue, Histogram>,
    longest: Family<Queue, RecentMax>,
}

impl Time {
    fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let time = Self {
            all: Family::new_with_constructor(long),
            longest: Family::default(),
        };
        let all = time.all.clone();
        registry.register_with_unit(format!("queue_{name}"), help, Unit::Seconds, all);
        registry.register_with_unit(
            format!("queue_{name}_max"),
            format!("The longest of the last five to ten minutes: {help}"),
            Unit::Seconds,
            time.longest.clone(),
        );
        time
    }

    fn observe(&self, queue: &Queue, time: Duration) {
        let seconds = time.as_secs_f64();
        self.all.get_or_create(queue).observe(seconds);
        self.longest.get_or_create(queue).observe(seconds);
    }

    fn remove(&self, queue: &Queue) {
        self.all.remove(queue);
        self.longest.remove(queue);
    }
}

#[derive(Debug)]
pub(super) struct Queues {
    waiting: Family<Queue, Gauge>,
    running: Family<Queue, Gauge>,
    all: Family<Queue, Gauge>,
    submitted: Family<Queue, Counter>,
    ended: Family<Ended, Counter>,
    disconnects: Family<Queue, Counter>,
    requeues: Family<Queue, Counter>,
    wait: Time,
    run: Time,
    total: Time,
    passes: Histogram,
}

/// How the ends of a job are called here.
pub(super) const ENDS: [JobState; 6] = [
    JobState::Done,
    JobState::Failed,
    JobState::Noisy,
    JobState::TimedOut,
    JobState::Cancelled,
    JobState::Lost,
];

fn outcome(state: JobState) -> &'static str {
    match state {
        JobState::Done => "success",
        JobState::Failed => "failure",
        JobState::Noisy => "noisy",
        JobState::TimedOut => "timed_out",
        JobState::Cancelled => "cancelled",
        JobState::Lost => "lost",
        JobState::Queued
        | JobState::Assigned
        | JobState::Preparing
        | JobState::Measuring
        | JobState::Collecting => "none",
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Queues {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let queues = Self {
            waiting: Family::default(),
            running: Family::default(),
            all: Family::default(),
            submitted: Family::default(),
            ended: Family::default(),
            disconnects: Family::default(),
            requeues: Family::default(),
            wait: Time::register(
                registry,
                "wait",
                "From a job's submission until it had its last place, or its end without one",
            ),
            run: Time::register(registry, "run", "From a job's last place until its end"),
            total: Time::register(registry, "total", "From a job's submission until its end"),
            passes: Histogram::new(exponential_buckets(0.000_01, 4.0, 10)),
        };
        let jobs = || unit("jobs");
        let gauges = [
            (
                "queue_waiting",
                "Jobs that wait for a place now",
                &queues.waiting,
            ),
            (
                "queue_running",
                "Jobs that have a place now",
                &queues.running,
            ),
            ("queue_all", "Jobs that are not over now", &queues.all),
        ];
        for (name, help, family) in gauges {
            registry.register_with_unit(name, help, jobs(), family.clone());
        }
        registry.register_with_unit(
            "queue_submitted",
            "Jobs that the queue took",
            jobs(),
            queues.submitted.clone(),
        );
        registry.register_with_unit(
            "queue_ended",
            "Jobs that are over, by outcome",
            jobs(),
            queues.ended.clone(),
        );
        registry.register(
            "queue_disconnects",
            "Nodes that were lost while they worked on a job of the queue",
            queues.disconnects.clone(),
        );
        registry.register_with_unit(
            "queue_requeued",
            "Jobs that went back to the queue",
            jobs(),
            queues.requeues.clone(),
        );
        registry.register_with_unit(
            "scheduler_pass",
            "How long the scheduler looked for places",
            Unit::Seconds,
            queues.passes.clone(),
        );
        queues
    }

    /// All series of a queue exist from its first mention: a counter that appears with its first
    /// event hides that event from `rate`.
    fn known(&self, name: &str) -> Queue {
        let queue = Queue {
            queue: name.to_owned(),
        };
        if self.waiting.get(&queue).is_some() {
            return queue;
        }
        for gauge in [&self.running, &self.all] {
            drop(gauge.get_or_create(&queue));
        }
        for counter in [&self.submitted, &self.disconnects, &self.requeues] {
            drop(counter.get_or_create(&queue));
        }
        for state in ENDS {
            drop(self.ended.get_or_create(&Ended {
                queue: name.to_owned(),
                outcome: outcome(state),
            }));
        }
        for time in [&self.wait, &self.run, &self.total] {
            drop(time.all.get_or_create(&queue));
            drop(time.longest.get_or_create(&queue));
        }
        drop(self.waiting.get_or_create(&queue));
        queue
    }

    pub(super) fn now(&self, name: &str, waiting: usize, running: usize) {
        let queue = self.known(name);
        self.waiting.get_or_create(&queue).set(signed(waiting));
        self.running.get_or_create(&queue).set(signed(running));
        let all = signed(waiting.saturating_add(running));
        self.all.get_or_create(&queue).set(all);
    }

    pub(super) fn removed(&self, name: &str) {
        let queue = Queue {
            queue: name.to_owned(),
        };
        for gauge in [&self.waiting, &self.running, &self.all] {
            gauge.remove(&queue);
        }
        for counter in [&self.submitted, &self.disconnects, &self.requeues] {
            counter.remove(&queue);
        }
        for state in ENDS {
            self.ended.remove(&Ended {
                queue: name.to_owned(),
                outcome: outcome(state),
            });
        }
        for time in [&self.wait, &self.run, &self.total] {
            time.remove(&queue);
        }
    }

    pub(super) fn submitted(&self, name: &str) {
        self.submitted.get_or_create(&self.known(name)).inc();
    }

    pub(super) fn ended(&self, name: &str, state: JobState, wait: Duration, run: Option<Duration>) {
        let queue = self.known(name);
        let ended = Ended {
            queue: name.to_owned(),
            outcome: outcome(state),
        };
        self.ended.get_or_create(&ended).inc();
        self.wait.observe(&queue, wait);
        if let Some(run) = run {
            self.run.observe(&queue, run);
        }
        let total = wait.saturating_add(run.unwrap_or_default());
        self.total.observe(&queue, total);
    }

    pub(super) fn disconnected(&self, name: &str) {
        self.disconnects.get_or_create(&self.known(name)).inc();
    }

    pub(super) fn requeued(&self, name: &str) {
        self.requeues.get_or_create(&self.known(name)).inc();
    }

    pub(super) fn scheduled(&self, took: Duration) {
        self.passes.observe(took.as_secs_f64());
    }
}
