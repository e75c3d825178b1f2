//! Bookings and health checks.

use api::fleet::{NodeChange, NodeState};
use api::health::HealthCheck;
use api::job::{JobId, JobState};
use api::work::PartOutcome;

use super::world::{World, connected, id, request};
use crate::lifecycle::{Booking, Check};

const HOUR: u64 = 3_600_000;

fn booking(world: &World, user: &str, from: u64, length: u64) -> Booking {
    Booking {
        nodes: [id(0)].into(),
        users: [user.to_owned()].into(),
        from_ms: world.now + from,
        until_ms: world.now + from + length,
        made_by: "admin".into(),
    }
}

fn book(world: &mut World, booking: Booking) -> u64 {
    let made = world.core.book(world.now, booking).unwrap().id;
    world.decide();
    while !world.steps.is_empty() {
        world.commit();
    }
    made
}

fn state(world: &World, job: JobId) -> JobState {
    world.disk.jobs[&job].status.state
}

#[test]
fn a_booked_node_is_for_its_users_also_after_a_restart() {
    let mut world = connected(1);
    let wish = booking(&world, "somebody", 0, HOUR);
    let number = book(&mut world, wish.clone());
    world.restart_controller();
    world.connect(0);
    let job = world.submit(request());
    world.settle(PartOutcome::Done);
    assert_eq!(state(&world, job), JobState::Queued);
    let why = world.core.why(world.now, job).unwrap();
    assert!(why.text[0].contains("booked for others: bench0"), "{why:?}");
    assert_eq!(world.core.bookings()[0].id, number);

    world.wait(HOUR);
    world.settle(PartOutcome::Done);
    assert_eq!(state(&world, job), JobState::Done);
    assert!(world.core.bookings().is_empty(), "it is over");
    let later = booking(&world, "u", 0, HOUR);
    let next = book(&mut world, later);
    assert!(next > number, "numbers are not given twice");
}

#[test]
fn a_booking_that_is_cancelled_keeps_nobody_waiting() {
    let mut world = connected(1);
    let wish = booking(&world, "somebody", 0, HOUR);
    let number = book(&mut world, wish);
    let job = world.submit(request());
    world.settle(PartOutcome::Done);
    assert_eq!(state(&world, job), JobState::Queued);
    assert!(world.core.unbook(world.now, "admin", number).is_some());
    assert!(world.core.unbook(world.now, "admin", number).is_none());
    world.decide();
    world.settle(PartOutcome::Done);
    assert_eq!(state(&world, job), JobState::Done);
}

fn check(world: &mut World, every_seconds: u64) {
    let check = Check {
        check: HealthCheck {
            every_seconds,
            job: request(),
        },
        image: None,
        user: "admin".into(),
    };
    world.core.set_health_check(world.now, "admin", Some(check));
    world.decide();
}

/// Jobs that were ever submitted.
fn jobs(world: &World) -> Vec<JobId> {
    world.disk.jobs.keys().copied().collect()
}

fn node_state(world: &World) -> NodeState {
    world.core.node_views()[0].state.clone()
}

#[test]
fn a_node_is_checked_when_it_is_due() {
    let mut world = connected(1);
    check(&mut world, 3600);
    world.settle(PartOutcome::Done);
    let first = jobs(&world);
    assert_eq!(first.len(), 1);
    let status = &world.disk.jobs[&first[0]].status;
    assert_eq!(
        (status.state, status.user.as_str()),
        (JobState::Done, "admin")
    );
    assert_eq!(status.request.place.node.as_deref(), Some(id(0).as_str()));
    assert!(world.core.health().nodes[0].passed_ms.is_some());

    world.wait(HOUR / 2);
    world.settle(PartOutcome::Done);
    assert_eq!(jobs(&world).len(), 1, "not due");
    world.restart_controller();
    world.connect(0);
    world.settle(PartOutcome::Done);
    assert_eq!(
        jobs(&world).len(),
        1,
        "a restart of the controller says nothing of the node"
    );
    world.wait(HOUR / 2);
    world.settle(PartOutcome::Done);
    assert_eq!(jobs(&world).len(), 2, "due again");

    world.reboot(0);
    world.connect(0);
    world.settle(PartOutcome::Done);
    world.wait(1_000);
    world.settle(PartOutcome::Done);
    assert_eq!(jobs(&world).len(), 3, "it booted");
}

#[test]
fn a_node_that_fails_its_check_is_in_quarantine_with_the_cause() {
    for outcome in [
        PartOutcome::Failed,
        PartOutcome::Noisy,
        PartOutcome::TimedOut,
    ] {
        let mut world = connected(1);
        check(&mut world, 3600);
        world.settle(outcome);
        let NodeState::Quarantined { cause } = node_state(&world) else {
            panic!("{outcome:?}: {:?}", node_state(&world));
        };
        assert!(
            cause.contains("its health check, job 1, ended as"),
            "{cause}"
        );
        let job = world.submit(request());
        world.wait(HOUR * 2);
        world.settle(PartOutcome::Done);
        assert_eq!(state(&world, job), JobState::Queued, "nobody is sent there");
        assert_eq!(jobs(&world).len(), 2, "nor is it checked");

        let change = NodeChange {
            healthy: Some(true),
            ..NodeChange::default()
        };
        assert!(world.core.change_node(world.now, "admin", &id(0), &change));
        world.wait(1_000);
        world.settle(PartOutcome::Done);
        assert_eq!(node_state(&world), NodeState::Ready);
        assert_eq!(jobs(&world).len(), 3, "an operator's word is checked");
    }
}

#[test]
fn a_node_that_is_lost_or_has_no_time_has_not_failed() {
    let mut world = connected(1);
    let mut wish = request();
    wish.limits.queued_seconds = Some(10);
    let other = booking(&world, "somebody", 0, HOUR);
    book(&mut world, other);
    let check = Check {
        check: HealthCheck {
            every_seconds: 3600,
            job: wish,
        },
        image: None,
        user: "admin".into(),
    };
    world.core.set_health_check(world.now, "admin", Some(check));
    world.decide();
    world.wait(11_000);
    world.settle(PartOutcome::Done);
    assert_eq!(state(&world, JobId(1)), JobState::TimedOut);
    assert_eq!(node_state(&world), NodeState::Ready);
}

#[test]
fn a_check_that_its_queue_does_not_take_is_not_tried_at_every_look() {
    let mut world = connected(1);
    assert!(world.core.remove_queue(world.now, "admin", "default"));
    check(&mut world, 60);
    let refusals = |world: &mut World| {
        let mut seen = 0;
        for _ in 0..30 {
            world.now += 1_000;
            world.core.passed(world.now);
            let step = world.core.take_step();
            let events = step.events.iter();
            seen += events
                .filter(|it| it.kind == "health-check.refused")
                .count();
        }
        seen
    };
    assert_eq!(refusals(&mut world), 0, "it was refused a moment ago");
    assert_eq!(refusals(&mut world), 1);
}

#[test]
fn no_check_no_jobs() {
    let mut world = connected(1);
    check(&mut world, 60);
    world.settle(PartOutcome::Done);
    world.core.set_health_check(world.now, "admin", None);
    world.decide();
    world.wait(HOUR);
    world.settle(PartOutcome::Done);
    assert_eq!(jobs(&world).len(), 1);
}
