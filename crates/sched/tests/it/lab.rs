//! A small lab.

use std::collections::{BTreeMap, BTreeSet};

use cpulist::CpuSet;
use sched::{
    Domain, Health, JobId, Node, NodeId, Offer, Part, Phase, Queue, Request, Scheduler, Selector,
    Settings, Slot, Time,
};

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn node(name: &str, cpus_each: u32, domains: u32) -> Node {
    let domain = |number: u32| Domain {
        cpus: (0..cpus_each)
            .map(|cpu| 1 + number * cpus_each + cpu)
            .collect(),
        memory: 4 * GIB,
    };
    Node {
        name: name.to_owned(),
        health: Health::Ready,
        class: "small".to_owned(),
        labels: BTreeMap::new(),
        domains: (0..domains).map(domain).collect(),
        devices: BTreeSet::new(),
        isolated: true,
        tick: Some(quiet::TickMode::NohzFull),
        share: false,
    }
}

pub(crate) fn queue(priority: i32) -> Queue {
    Queue {
        priority,
        capacity: 1_000_000,
        users: None,
        limit: u64::MAX,
        draining: false,
    }
}

pub(crate) fn request(user: &str, count: u32, cpus: u32, limit: u64) -> Request {
    Request {
        queue: "default".to_owned(),
        user: user.to_owned(),
        parts: vec![part(count, cpus)],
        share: false,
        limit,
        attempts: 3,
    }
}

pub(crate) fn part(count: u32, cpus: u32) -> Part {
    Part {
        count,
        cpus,
        memory: 0,
        devices: Vec::new(),
        selector: Selector::default(),
    }
}

/// So many nodes of 4 CPUs and one queue.
pub(crate) fn lab(nodes: u32) -> Scheduler {
    let mut lab = Scheduler::new(Settings::default());
    lab.set_queue("default", queue(0));
    for number in 0..nodes {
        lab.add_node(node(&format!("node{number}"), 4, 1));
    }
    lab
}

/// All nodes of an offer accept.
pub(crate) fn accept(lab: &mut Scheduler, now: Time, offer: &Offer) {
    for slot in &offer.slots {
        lab.accept(now, offer.attempt, slot.node).unwrap();
    }
    assert!(matches!(
        lab.phase(offer.attempt.job),
        Some(Phase::Running { .. })
    ));
}

/// Schedules, and everything offered runs.
pub(crate) fn start(lab: &mut Scheduler, now: Time) -> Vec<Offer> {
    let offers = lab.schedule(now);
    for offer in &offers {
        accept(lab, now, offer);
    }
    offers
}

pub(crate) fn jobs(offers: &[Offer]) -> Vec<JobId> {
    offers.iter().map(|offer| offer.attempt.job).collect()
}

/// Slots of all jobs that have any, with whether the job shares.
pub(crate) fn placed(lab: &Scheduler, known: &BTreeMap<JobId, Request>) -> Vec<(JobId, Slot)> {
    let mut all = Vec::new();
    for id in known.keys() {
        let slots = match lab.phase(*id) {
            Some(Phase::Offered { offer, .. }) => &offer.slots,
            Some(Phase::Running { slots, .. }) => slots,
            _ => continue,
        };
        all.extend(slots.iter().map(|slot| (*id, slot.clone())));
    }
    all
}

/// What must hold at every moment.
pub(crate) fn check(lab: &Scheduler, known: &BTreeMap<JobId, Request>) {
    let mut by_node: BTreeMap<NodeId, Vec<(JobId, Slot)>> = BTreeMap::new();
    let mut places: BTreeMap<JobId, Vec<Slot>> = BTreeMap::new();
    for (job, slot) in placed(lab, known) {
        by_node
            .entry(slot.node)
            .or_default()
            .push((job, slot.clone()));
        places.entry(job).or_default().push(slot);
    }
    for (id, here) in &by_node {
        let node = lab.node(*id).unwrap();
        let mut taken = CpuSet::new();
        let mut devices = BTreeSet::new();
        for (job, slot) in here {
            assert!(
                taken.is_disjoint(&slot.cpus),
                "job {job} shares CPUs of {id}"
            );
            taken = taken.union(&slot.cpus);
            for device in &slot.devices {
                assert!(devices.insert(device.clone()), "{device} is given twice");
                assert!(node.devices.contains(device));
            }
        }
        for domain in &node.domains {
            let inside = here
                .iter()
                .filter(|(_, slot)| slot.cpus.is_subset(&domain.cpus));
            let memory: u64 = inside.map(|(_, slot)| slot.memory).sum();
            assert!(memory <= domain.memory, "memory of {id} is given twice");
        }
        let alone = here.len() == 1 || (node.share && here.iter().all(|(job, _)| known[job].share));
        assert!(alone, "neighbours on {id} that do not share: {here:?}");
    }
    for (job, slots) in &places {
        let request = &known[job];
        let nodes: BTreeSet<NodeId> = slots.iter().map(|slot| slot.node).collect();
        assert_eq!(nodes.len(), slots.len(), "job {job} twice on one node");
        for (index, part) in request.parts.iter().enumerate() {
            let mine: Vec<&Slot> = slots.iter().filter(|slot| slot.part == index).collect();
            assert_eq!(
                mine.len(),
                part.count as usize,
                "job {job} is placed as a whole"
            );
            for slot in mine {
                let node = lab.node(slot.node).unwrap();
                assert_eq!(slot.cpus.len(), part.cpus as usize);
                assert_eq!(slot.devices.len(), part.devices.len());
                assert!(part.selector.matches(node), "job {job} on {}", node.name);
                let domains = node.domains.iter();
                assert!(
                    domains
                        .filter(|it| slot.cpus.is_subset(&it.cpus))
                        .count()
                        .eq(&1)
                );
            }
        }
    }
}
