//! Random histories with refusals, lost nodes and crashes. `PROPTEST_CASES` sets how many.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sched::{
    Attempt, Booking, Health, JobId, NodeId, Phase, Request, Scheduler, Selector, Settings, Time,
};

use crate::lab::{GIB, check, node, queue};

#[derive(Debug, Clone)]
enum Event {
    Submit(Request),
    Schedule,
    /// The n-th attempt that is under way: one node of it accepts.
    Accept(usize, usize),
    GiveUp(usize),
    End(usize),
    Cancel(usize),
    Health(u32, u8),
    Book(Booking),
    Unbook,
    Pass(u64),
    Crash,
}

const NODES: u32 = 5;

fn requests() -> impl Strategy<Value = Request> {
    let parts = prop::collection::vec((1..4_u32, 1..4_u32, 0..4_u64, 0..3_u8, 0..3_u8), 1..3);
    (0..3_u8, 0..2_u8, parts, any::<bool>(), 1..100_u64, 1..4_u32).prop_map(
        |(user, queue, parts, share, limit, attempts)| Request {
            queue: format!("queue{queue}"),
            user: format!("user{user}"),
            parts: parts
                .into_iter()
                .map(|(count, cpus, memory, class, device)| sched::Part {
                    count,
                    cpus,
                    memory: memory * GIB,
                    devices: match device {
                        0 => vec!["eth*".into()],
                        _ => Vec::new(),
                    },
                    selector: Selector {
                        class: (class == 0).then(|| "large".into()),
                        ..Selector::default()
                    },
                })
                .collect(),
            share,
            limit,
            attempts,
        },
    )
}

/// From and until count from the time at which it is made.
fn bookings() -> impl Strategy<Value = Booking> {
    let nodes = prop::collection::btree_set((0..NODES).prop_map(NodeId), 1..3);
    (nodes, 0..3_u8, 0..50_u64, 1..50_u64).prop_map(|(nodes, user, from, length)| Booking {
        nodes,
        users: [format!("user{user}")].into(),
        from,
        until: from + length,
    })
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => requests().prop_map(Event::Submit),
        4 => Just(Event::Schedule),
        8 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Event::Accept(a, b)),
        1 => any::<usize>().prop_map(Event::GiveUp),
        3 => any::<usize>().prop_map(Event::End),
        1 => any::<usize>().prop_map(Event::Cancel),
        1 => (0..NODES, 0..4_u8).prop_map(|(node, health)| Event::Health(node, health)),
        1 => bookings().prop_map(Event::Book),
        1 => Just(Event::Unbook),
        2 => (1..60_u64).prop_map(Event::Pass),
        1 => Just(Event::Crash),
    ]
}

fn settings(patience: Time) -> Settings {
    Settings {
        patience,
        reservations: 2,
        depth: 4,
        half_life: 1_000,
        offer: 30,
    }
}

fn lab(settings: Settings) -> Scheduler {
    let mut lab = Scheduler::new(settings);
    lab.set_queue("queue0", queue(0));
    lab.set_queue("queue1", queue(5));
    for number in 0..NODES {
        let mut node = node(&format!("node{number}"), 3, 1 + number % 2);
        node.share = number % 2 == 0;
        if number > 2 {
            node.class = "large".into();
            node.devices = ["eth0", "eth1"].map(String::from).into();
        }
        lab.add_node(node);
    }
    lab
}

fn attempts(lab: &Scheduler, known: &BTreeMap<JobId, Request>) -> Vec<(Attempt, bool)> {
    known
        .keys()
        .filter_map(|id| match lab.phase(*id)? {
            Phase::Waiting => None,
            Phase::Offered { offer, .. } => Some((offer.attempt, false)),
            Phase::Running { attempt, .. } => Some((*attempt, true)),
        })
        .collect()
}

fn pick<T: Clone>(all: &[T], number: usize) -> Option<T> {
    all.get(number.checked_rem(all.len())?).cloned()
}

fn set_health(lab: &mut Scheduler, node: u32, health: Health) {
    let mut changed = lab.node(NodeId(node)).unwrap().clone();
    changed.health = health;
    lab.set_node(NodeId(node), changed).unwrap();
}

/// What happens; every answer must be sound.
fn happen(lab: &mut Scheduler, known: &mut BTreeMap<JobId, Request>, now: &mut Time, event: Event) {
    let under_way = attempts(lab, known);
    match event {
        Event::Submit(request) => {
            let id = lab.submit(*now, request.clone()).unwrap();
            known.insert(id, request);
        }
        Event::Schedule => {
            for offer in lab.schedule(*now) {
                for slot in &offer.slots {
                    let node = lab.node(slot.node).unwrap();
                    assert_eq!(node.health, Health::Ready, "offered on {}", node.name);
                    let request = &known[&offer.attempt.job];
                    let until = *now + request.limit;
                    for (_, booking) in lab.bookings() {
                        let apart = booking.until <= *now || until <= booking.from;
                        let others = booking.nodes.contains(&slot.node)
                            && !booking.users.contains(&request.user);
                        assert!(apart || !others, "booked for others: {booking:?}");
                    }
                }
            }
        }
        Event::Accept(attempt, node) => {
            let offered: Vec<_> = under_way.iter().filter(|(_, runs)| !runs).collect();
            if let Some((attempt, _)) = pick(&offered, attempt)
                && let Some(Phase::Offered { offer, .. }) = lab.phase(attempt.job)
                && let Some(slot) = pick(&offer.slots, node)
            {
                lab.accept(*now, *attempt, slot.node).unwrap();
            }
        }
        Event::GiveUp(attempt) => {
            if let Some((attempt, _)) = pick(&under_way, attempt) {
                lab.give_up(attempt).unwrap();
                lab.accept(*now, attempt, NodeId(0)).unwrap_err();
            }
        }
        Event::End(attempt) => {
            let running: Vec<_> = under_way.iter().filter(|(_, runs)| *runs).collect();
            if let Some((attempt, _)) = pick(&running, attempt) {
                lab.ended(*now, *attempt).unwrap();
                lab.ended(*now, *attempt).unwrap_err();
            }
        }
        Event::Cancel(job) => {
            let ids: Vec<JobId> = known.keys().copied().collect();
            if let Some(id) = pick(&ids, job)
                && let Ok(Some(attempt)) = lab.cancel(id)
            {
                lab.ended(*now, attempt).unwrap();
            }
        }
        Event::Health(node, health) => {
            let health = match health {
                0 | 1 => Health::Ready,
                2 => Health::Draining,
                _ => Health::Lost,
            };
            set_health(lab, node, health);
        }
        Event::Book(mut booking) => {
            booking.from += *now;
            booking.until += *now;
            // refused if it cannot be kept
            lab.book(*now, booking).ok();
        }
        Event::Unbook => {
            let first = lab.bookings().next().map(|(id, _)| id);
            if let Some(id) = first {
                lab.unbook(id).unwrap();
            }
        }
        Event::Pass(time) => *now += time,
        Event::Crash => {
            let text = serde_json::to_string(lab).unwrap();
            let again: Scheduler = serde_json::from_str(&text).unwrap();
            assert_eq!(&again, lab);
            *lab = again;
        }
    }
}

/// Everything comes to an end: with all nodes ready and nothing new, each job that the lab can hold
/// runs.
fn drain(lab: &mut Scheduler, known: &BTreeMap<JobId, Request>, now: &mut Time) {
    for node in 0..NODES {
        set_health(lab, node, Health::Ready);
    }
    // all bookings are over
    *now += 100;
    // those that were under way end; a round for each job that waits is enough, and one more
    for _ in 0..=known.len() {
        *now += 40;
        lab.schedule(*now);
        for (attempt, runs) in attempts(lab, known) {
            if !runs {
                let Some(Phase::Offered { offer, .. }) = lab.phase(attempt.job).cloned() else {
                    continue;
                };
                for slot in offer.slots {
                    lab.accept(*now, attempt, slot.node).unwrap();
                }
            }
            check(lab, known);
            lab.ended(*now, attempt).unwrap();
        }
    }
    only_what_cannot_be_is_left(lab, known, *now);
}

fn only_what_cannot_be_is_left(lab: &Scheduler, known: &BTreeMap<JobId, Request>, now: Time) {
    for id in known.keys() {
        let Some(phase) = lab.phase(*id) else {
            continue;
        };
        assert_eq!(phase, &Phase::Waiting);
        let why = lab.why(now, *id).unwrap();
        assert_eq!(why.could_start, None, "{id} starves: {why:?}");
        let alone = why.reasons;
        assert!(
            alone.iter().all(|reason| matches!(
                reason,
                sched::Reason::TooLarge { .. }
                    | sched::Reason::NoSuchNodes { .. }
                    | sched::Reason::NotIsolated { .. }
            )),
            "{alone:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_cpu_is_given_twice_and_nothing_starves(
        events in prop::collection::vec(events(), 1..80)
    ) {
        let mut lab = lab(settings(200));
        let mut known = BTreeMap::new();
        let mut now = 0;
        for event in events {
            happen(&mut lab, &mut known, &mut now, event);
            check(&lab, &known);
        }
        drain(&mut lab, &known, &mut now);
    }

    /// No start that was told is moved back, whatever ends early and however the order changes, unless a
    /// job without a reservation comes before it: so either all are there from the begin, or those that
    /// come are the last in the order. Nodes that are lost and runs over their limits are left out, since
    /// no order of decisions could keep a promise then.
    #[test]
    fn a_reserved_start_is_never_delayed(
        all_at_once in any::<bool>(),
        jobs in prop::collection::vec((requests(), 0..30_u64, 1..=100_u64), 1..20),
    ) {
        let patience = if all_at_once { Time::MAX } else { 0 };
        let mut lab = lab(Settings { reservations: jobs.len(), ..settings(patience) });
        let (mut known, mut takes) = (BTreeMap::new(), BTreeMap::new());
        let mut told: BTreeMap<JobId, Time> = BTreeMap::new();
        let mut comes = jobs.into_iter().peekable();
        let (mut now, mut last) = (0, 0);
        loop {
            while let Some((request, _, percent)) = comes.next_if(|(_, after, _)| {
                all_at_once || last + after <= now
            }) {
                let took = (request.limit * percent / 100).max(1);
                let id = lab.submit(now, request.clone()).unwrap();
                known.insert(id, request);
                takes.insert(id, took);
                last = now;
            }
            for offer in lab.schedule(now) {
                let start = told.remove(&offer.attempt.job);
                prop_assert!(start.is_none_or(|start| now <= start), "told {start:?}, not {now}");
                crate::lab::accept(&mut lab, now, &offer);
            }
            check(&lab, &known);
            for id in known.keys() {
                let start = lab.reserved(*id);
                let before = told.get(id).copied();
                let kept = before.is_none_or(|before| start.is_some_and(|start| start <= before));
                prop_assert!(kept, "{id} at {now}: told {before:?}, now {start:?}");
                told.extend(start.map(|start| (*id, start)));
            }
            let running = |id: &JobId| match lab.phase(*id)? {
                Phase::Running { attempt, since, .. } => Some((since + takes[id], *attempt)),
                _ => None,
            };
            let ends: Vec<(Time, Attempt)> = known.keys().filter_map(running).collect();
            let comes = comes.peek().map(|(_, after, _)| last + after);
            let times = ends.iter().map(|(end, _)| *end).chain(comes).chain(lab.next_look(now));
            let Some(next) = times.min() else {
                break;
            };
            now = next;
            for (_, attempt) in ends.into_iter().filter(|(end, _)| *end <= now) {
                lab.ended(now, attempt).unwrap();
            }
        }
        prop_assert!(told.is_empty(), "told and never started: {told:?}");
        only_what_cannot_be_is_left(&lab, &known, now);
    }
}
