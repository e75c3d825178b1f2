//! Random histories: whatever happens, in whatever order, each job that was taken comes to one end,
//! and nothing that ended well is lost.

use std::collections::BTreeSet;

use api::fleet::NodeChange;
use api::job::{JobState, OnLoss};
use api::work::PartOutcome;
use proptest::prelude::*;

use super::world::{World, id, request};

/// What may happen.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Submit { nodes: u32, cpus: u32, fails: bool },
    Cancel(usize),
    Commit,
    Collect,
    Hear(usize),
    Obey(usize),
    Refuse(usize),
    Work(usize, PartOutcome),
    Connect(usize),
    Disconnect(usize),
    Reboot(usize),
    Drain(usize, bool),
    RestartController,
    Wait(u64),
}

const NODES: usize = 3;

fn outcomes() -> impl Strategy<Value = PartOutcome> {
    prop_oneof![
        6 => Just(PartOutcome::Done),
        1 => Just(PartOutcome::Failed),
        1 => Just(PartOutcome::Noisy),
        1 => Just(PartOutcome::TimedOut),
    ]
}

fn happenings() -> impl Strategy<Value = Happening> {
    let node = 0..NODES;
    prop_oneof![
        6 => (1..=3_u32, 1..=2_u32, any::<bool>())
            .prop_map(|(nodes, cpus, fails)| Happening::Submit { nodes, cpus, fails }),
        1 => (0..20_usize).prop_map(Happening::Cancel),
        20 => Just(Happening::Commit),
        8 => Just(Happening::Collect),
        20 => node.clone().prop_map(Happening::Hear),
        20 => node.clone().prop_map(Happening::Obey),
        1 => node.clone().prop_map(Happening::Refuse),
        20 => (node.clone(), outcomes()).prop_map(|(node, outcome)| Happening::Work(node, outcome)),
        8 => node.clone().prop_map(Happening::Connect),
        2 => node.clone().prop_map(Happening::Disconnect),
        1 => node.clone().prop_map(Happening::Reboot),
        1 => (node, any::<bool>()).prop_map(|(node, drain)| Happening::Drain(node, drain)),
        2 => Just(Happening::RestartController),
        3 => (1..100_000_u64).prop_map(Happening::Wait),
    ]
}

fn happens(world: &mut World, happening: Happening) {
    match happening {
        Happening::Submit { nodes, cpus, fails } => {
            let mut wanted = request();
            wanted.place.nodes = nodes;
            wanted.place.cpus = cpus;
            wanted.place.share = true;
            if fails {
                wanted.on_loss = OnLoss::Fail;
            }
            world.submit(wanted);
        }
        Happening::Cancel(number) => {
            let ids: Vec<_> = world.core.jobs().map(|job| job.status.id).collect();
            if let Some(id) = ids.get(number) {
                world.core.cancel(world.now, "u", *id, None);
                world.decide();
            }
        }
        Happening::Commit => world.commit(),
        Happening::Collect => world.collect(),
        Happening::Hear(number) => world.hear(number),
        Happening::Obey(number) => world.obey(number, false),
        Happening::Refuse(number) => world.obey(number, true),
        Happening::Work(number, outcome) => world.work(number, outcome),
        Happening::Connect(number) => world.connect(number),
        Happening::Disconnect(number) => world.disconnect(number),
        Happening::Reboot(number) => world.reboot(number),
        Happening::Drain(number, draining) => drain(world, number, draining),
        Happening::RestartController => world.restart_controller(),
        Happening::Wait(millis) => world.wait(millis),
    }
}

fn drain(world: &mut World, number: usize, draining: bool) {
    let change = NodeChange {
        draining: Some(draining),
        healthy: (!draining).then_some(true),
        ..NodeChange::default()
    };
    world
        .core
        .change_node(world.now, "admin", &id(number), &change);
    world.decide();
}

proptest! {
    // half of the usual number (PROPTEST_CASES), because each is long
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 2,
        ..ProptestConfig::default()
    })]

    #[test]
    fn each_job_comes_to_one_end(history in prop::collection::vec(happenings(), 1..400)) {
        let mut world = World::new(NODES);
        for happening in history {
            happens(&mut world, happening);
        }
        // and now nothing is in the way any more
        for _ in 0..12 {
            for number in 0..NODES {
                world.connect(number);
                drain(&mut world, number, false);
            }
            world.settle(PartOutcome::Done);
            world.wait(120_000);
        }
        world.settle(PartOutcome::Done);

        prop_assert!(world.core.jobs().next().is_none(), "{:?}", world.core.jobs().next());
        for id in &world.acknowledged {
            let status = &world.disk.jobs[id].status;
            prop_assert!(status.state.is_over(), "{status:?}");
            prop_assert!(status.ended_ms.is_some());
            let whole = status.parts.iter().all(|part| {
                let ending = part.ending.as_ref();
                ending.is_some_and(|it| it.documents == part.documents)
            });
            if status.state == JobState::Done {
                prop_assert!(whole && !status.parts.is_empty(), "a result is lost: {status:?}");
            }
        }
        // nodes keep nothing that nobody wants
        for node in &world.nodes {
            prop_assert!(node.held.is_empty(), "{:?}", node.held);
        }
        // evidence is of attempts that do not count
        for orphan in &world.disk.orphans {
            let status = &world.disk.jobs[&orphan.key.job].status;
            let counts = status.fence == Some(orphan.key.fence) && status.state == JobState::Done;
            prop_assert!(!counts, "{orphan:?} {status:?}");
        }
        let fences: Vec<_> = world.disk.jobs.values().filter_map(|it| it.status.fence).collect();
        let distinct: BTreeSet<_> = fences.iter().collect();
        prop_assert_eq!(distinct.len(), fences.len(), "two jobs with one fence");
    }
}
