//! Scenes with a known end.

use api::fleet::NodeState;
use api::job::{JobState, OnLoss};
use api::work::{Order, PartOutcome, Report, Stage};

use super::world::{World, certificate, connected, id, request};

/// Until the node's only work is there.
fn until(world: &mut World, number: usize, stage: Stage) {
    for _ in 0..50 {
        while !world.steps.is_empty() {
            world.commit();
        }
        world.obey(number, false);
        world.hear(number);
        if world.nodes[number]
            .held
            .values()
            .any(|work| work.stage == stage)
        {
            return;
        }
        world.work(number, PartOutcome::Done);
        world.wait(1);
    }
    panic!("never came to {stage:?}");
}

#[test]
fn a_job_runs_and_its_result_is_kept() {
    let mut world = connected(1);
    let job = world.submit(request());
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!(status.state, JobState::Done);
    assert_eq!(status.attempts, 1);
    assert_eq!(status.parts[0].documents[0].name, "result.json");
    assert!(world.nodes[0].held.is_empty(), "acknowledged");
}

#[test]
fn nothing_is_sent_before_it_is_durable() {
    let mut world = connected(1);
    world.submit(request());
    assert!(world.nodes[0].inbox.is_empty());
    world.commit();
    assert!(!world.nodes[0].inbox.is_empty());
}

#[test]
fn a_measurement_outlives_the_controller() {
    let mut world = connected(1);
    let job = world.submit(request());
    until(&mut world, 0, Stage::Measuring);
    while !world.steps.is_empty() {
        world.commit();
    }
    world.restart_controller();
    // it ends while nobody is there to hear it
    world.work(0, PartOutcome::Done);
    world.work(0, PartOutcome::Done);
    world.wait(3_600_000);
    world.connect(0);
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!((status.state, status.attempts), (JobState::Done, 1));
}

#[test]
fn a_node_that_is_silent_while_it_measures_has_lost_nothing() {
    let mut world = connected(1);
    let job = world.submit(request());
    until(&mut world, 0, Stage::Measuring);
    world.hear(0);
    world.disconnect(0);
    world.wait(3_000_000);
    world.work(0, PartOutcome::Done);
    world.work(0, PartOutcome::Done);
    world.connect(0);
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!((status.state, status.attempts), (JobState::Done, 1));
}

#[test]
fn what_a_rebooted_node_had_is_run_again_elsewhere() {
    let mut world = connected(2);
    let job = world.submit(request());
    until(&mut world, 0, Stage::Measuring);
    drain_reports(&mut world);
    world.reboot(0);
    world.connect(0);
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!((status.state, status.attempts), (JobState::Done, 2));
}

fn drain_reports(world: &mut World) {
    while !world.nodes[0].outbox.is_empty() {
        world.hear(0);
    }
    while !world.steps.is_empty() {
        world.commit();
    }
}

#[test]
fn a_job_that_must_not_be_repeated_is_lost_with_its_node() {
    let mut world = connected(1);
    let mut wanted = request();
    wanted.on_loss = OnLoss::Fail;
    let job = world.submit(wanted);
    until(&mut world, 0, Stage::Preparing);
    drain_reports(&mut world);
    world.reboot(0);
    world.connect(0);
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!(status.state, JobState::Lost);
    assert!(
        status
            .reason
            .as_ref()
            .unwrap()
            .contains("bench0 came back without it")
    );
}

#[test]
fn a_result_of_a_given_up_attempt_is_evidence() {
    let mut world = connected(2);
    let job = world.submit(request());
    until(&mut world, 0, Stage::Preparing);
    drain_reports(&mut world);
    world.disconnect(0);
    world.wait(61_000);
    // the second node has it now; the first ends its own nevertheless
    for _ in 0..5 {
        world.work(0, PartOutcome::Done);
    }
    world.settle(PartOutcome::Done);
    world.connect(0);
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!((status.state, status.attempts), (JobState::Done, 2));
    assert_eq!(status.parts[0].node, id(1));
    assert_eq!(world.disk.orphans.len(), 1);
    assert_eq!(world.disk.orphans[0].key.attempt, 1);
    assert!(world.nodes[0].held.is_empty());
}

#[test]
fn cancelling_works_when_the_node_is_gone() {
    let mut world = connected(1);
    let job = world.submit(request());
    until(&mut world, 0, Stage::Measuring);
    drain_reports(&mut world);
    world.disconnect(0);
    world
        .core
        .cancel(world.now, "u", job, Some("enough"))
        .unwrap();
    world.decide();
    while !world.steps.is_empty() {
        world.commit();
    }
    let status = &world.disk.jobs[&job].status;
    assert_eq!(status.state, JobState::Cancelled);
    assert_eq!(status.reason.as_deref(), Some("cancelled by u: enough"));
    world.connect(0);
    for _ in 0..5 {
        world.hear(0);
        world.commit();
        world.obey(0, false);
    }
    assert!(
        world.nodes[0].held.is_empty(),
        "ended on its return, before anything new"
    );
}

#[test]
fn a_gang_begins_when_all_have_accepted_and_ends_when_one_fails() {
    let mut world = connected(2);
    let mut wanted = request();
    wanted.place.nodes = 2;
    let job = world.submit(wanted);
    world.commit();
    world.obey(0, false);
    world.hear(0);
    world.commit();
    for _ in 0..4 {
        world.work(0, PartOutcome::Done);
    }
    let waiting = world.nodes[0].held.values().next().unwrap().stage;
    assert_eq!(waiting, Stage::Accepted, "it waits for the other one");
    until(&mut world, 1, Stage::Preparing);
    until(&mut world, 1, Stage::Packing);
    world.work(1, PartOutcome::Failed);
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!(status.state, JobState::Failed);
    let outcomes: Vec<_> = status
        .parts
        .iter()
        .map(|part| part.ending.as_ref().unwrap().outcome)
        .collect();
    assert!(outcomes.contains(&PartOutcome::Failed), "{outcomes:?}");
}

#[test]
fn what_no_node_would_take_is_tried_once() {
    let mut world = connected(2);
    let job = world.submit(request());
    world.commit();
    let why = "--privileged is refused".to_owned();
    let Some(Order::Assign(assignment)) = world.nodes[0].inbox.pop_front() else {
        panic!("nothing was assigned");
    };
    let key = assignment.key;
    world.nodes[0].outbox.push_back(Report::Refused {
        key,
        why,
        elsewhere: false,
    });
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!((status.state, status.attempts), (JobState::Failed, 1));
    assert!(status.reason.as_ref().unwrap().contains("--privileged"));
    let nodes = world.core.node_views();
    assert!(nodes.iter().all(|node| node.state == NodeState::Ready));
}

#[test]
fn a_node_on_which_nothing_succeeds_is_sent_no_more() {
    let mut world = connected(1);
    for number in 1..=3 {
        let quarantine = &world.core.node(&id(0)).unwrap().quarantine;
        assert_eq!(*quarantine, None, "after {number}");
        let job = world.submit(request());
        world.settle(PartOutcome::Error);
        assert_eq!(world.disk.jobs[&job].status.state, JobState::Failed);
        if number == 1 {
            // a success in between, and it begins anew
            world.submit(request());
            world.settle(PartOutcome::Done);
            let job = world.submit(request());
            world.settle(PartOutcome::Error);
            assert_eq!(world.disk.jobs[&job].status.state, JobState::Failed);
        }
    }
    let cause = world.core.node(&id(0)).unwrap().quarantine.clone().unwrap();
    assert!(cause.contains("3 jobs in a row"), "{cause}");
}

#[test]
fn a_node_that_refuses_is_not_asked_again_at_once() {
    let mut world = connected(2);
    let job = world.submit(request());
    world.commit();
    world.obey(0, true);
    world.settle(PartOutcome::Done);
    let status = &world.disk.jobs[&job].status;
    assert_eq!((status.state, status.attempts), (JobState::Done, 2));
    assert_eq!(status.parts[0].node, id(1));
}

#[test]
fn waiting_has_an_end() {
    let mut world = connected(1);
    world.disconnect(0);
    let mut wanted = request();
    wanted.limits.queued_seconds = Some(5);
    let job = world.submit(wanted);
    world.wait(4_000);
    assert!(world.core.job(job).is_some());
    let why = world.core.why(world.now, job).unwrap();
    assert!(why.text[0].contains("bench0 is not connected"), "{why:?}");
    world.wait(1_001);
    while !world.steps.is_empty() {
        world.commit();
    }
    assert_eq!(world.state(job), JobState::TimedOut);
}

#[test]
fn a_node_that_does_not_end_what_it_should_is_sent_no_more() {
    let mut world = connected(1);
    let job = world.submit(request());
    until(&mut world, 0, Stage::Measuring);
    drain_reports(&mut world);
    world.core.cancel(world.now, "u", job, None).unwrap();
    world.decide();
    world.wait(61_000);
    while !world.steps.is_empty() {
        world.commit();
    }
    assert_eq!(world.state(job), JobState::Cancelled);
    let cause = world.core.node(&id(0)).unwrap().quarantine.clone().unwrap();
    assert!(cause.contains("did not end job"), "{cause}");
}

#[test]
fn two_machines_with_one_hostname_have_two_names() {
    let mut world = World::new(1);
    let machine = world.core.node(&id(0)).unwrap().machine.clone();
    let former = world.core.admit(world.now, &id(1), machine, certificate(1));
    assert!(former.is_empty());
    assert_eq!(world.core.node(&id(1)).unwrap().name, "bench0-2");
    assert_eq!(world.core.node_named("bench0").unwrap().id, id(0));
}

#[test]
fn all_certificates_of_a_node_are_revoked_together() {
    let mut world = World::new(1);
    assert!(world.core.renew(world.now, &id(0), certificate(7)));
    let all = world.core.revoke(world.now, "admin", &id(0)).unwrap();
    assert_eq!(all, [certificate(0), certificate(7)]);
    assert!(
        !world.core.renew(world.now, &id(0), certificate(8)),
        "revoked"
    );
    assert!(!world.core.may_return(&id(0)));
}

#[test]
fn a_new_key_of_a_node_ends_the_older_ones() {
    let mut world = World::new(1);
    let machine = world.core.node(&id(0)).unwrap().machine.clone();
    let former = world.core.admit(world.now, &id(0), machine, certificate(5));
    assert_eq!(former, [certificate(0)]);
    assert_eq!(
        world.core.node(&id(0)).unwrap().certificate,
        Some(certificate(5))
    );
}
