//! `controller.gang`: how fast the scheduler decides, with many nodes and many gangs that wait. It is pure:
//! nothing else is measured with it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sched::{Domain, Health, Node, Part, Queue, Request, Scheduler, Selector, Settings};

use crate::bench::figure::Figure;

pub(super) const ID: &str = "controller.gang";

const NODES: u32 = 1_000;
const GANGS: u32 = 10_000;
const USERS: u64 = 20;

/// The same each time (SplitMix64, Steele et al. 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn node(number: u32) -> Node {
    Node {
        name: format!("bench{number}"),
        health: Health::Ready,
        class: "server".into(),
        labels: [].into(),
        domains: vec![Domain {
            cpus: "1-15".parse().unwrap_or_default(),
            memory: 64 << 30,
        }],
        devices: [].into(),
        isolated: true,
        tick: None,
        share: false,
    }
}

fn gang(numbers: &mut Numbers) -> Request {
    Request {
        queue: "default".into(),
        user: format!("user{}", numbers.below(USERS)),
        parts: vec![Part {
            count: u32::try_from(2 + numbers.below(15)).unwrap_or(2),
            cpus: u32::try_from(1 + numbers.below(15)).unwrap_or(1),
            memory: 0,
            devices: Vec::new(),
            selector: Selector {
                isolated: true,
                ..Selector::default()
            },
        }],
        share: false,
        limit: 60_000 * (1 + numbers.below(60)),
        attempts: 1,
    }
}

/// All gangs wait at the beginning; each ends after half of its limit or later.
pub(super) fn figures(busy: f64) -> anyhow::Result<Vec<Figure>> {
    let mut numbers = Numbers(1);
    let mut lab = Scheduler::new(Settings::default());
    lab.set_queue(
        "default",
        Queue {
            priority: 0,
            capacity: 1_000_000,
            users: None,
            limit: u64::MAX,
            draining: false,
        },
    );
    for number in 0..NODES {
        lab.add_node(node(number));
    }
    let mut limits = std::collections::BTreeMap::new();
    for _ in 0..GANGS {
        let request = gang(&mut numbers);
        let limit = request.limit;
        limits.insert(lab.submit(0, request)?, limit);
    }
    let mut running = BinaryHeap::new();
    let (mut now, mut decided, mut looks) = (0, 0_u32, 0_u32);
    let mut took = Duration::ZERO;
    let mut longest = Duration::ZERO;
    while decided < GANGS {
        let began = Instant::now();
        let offers = lab.schedule(now);
        let look = began.elapsed();
        (took, longest, looks) = (took + look, longest.max(look), looks + 1);
        for offer in offers {
            decided += 1;
            for slot in &offer.slots {
                lab.accept(now, offer.attempt, slot.node)?;
            }
            let limit = limits.get(&offer.attempt.job).context("a job of ours")?;
            let ends = now + limit / 2 + numbers.below(limit / 2);
            running.push(Reverse((ends, offer.attempt.job, offer.attempt)));
        }
        if decided < GANGS {
            let Reverse((ends, _, attempt)) = running.pop().context("something runs")?;
            now = ends;
            lab.ended(now, attempt)?;
        }
    }
    ensure!(looks > 0, "it was never asked");
    let rate = f64::from(decided) / took.as_secs_f64();
    Ok(vec![
        Figure::new(
            ID,
            "gangs of 2 to 16 of 1,000 nodes placed per second of deciding, 10,000 waiting at the beginning",
            "1/s",
            "≥ 1,000",
            busy,
        )
        .values(rate, None)
        .met(rate >= 1_000.0)
        .note(format!(
            "{looks} looks, one after each end; the longest took {:.0} ms",
            longest.as_secs_f64() * 1000.0
        )),
    ])
}
