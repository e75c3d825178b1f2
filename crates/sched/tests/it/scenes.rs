//! Scenes, most of them from other schedulers' bug lists.

use std::collections::BTreeSet;

use sched::{
    Booking, Health, JobId, Node, NodeId, Phase, Reason, Refused, Scheduler, Selector, Settings,
    Unbookable, Unknown,
};

use crate::lab::{accept, jobs, lab, node, part, queue, request, start};

fn why(lab: &Scheduler, now: u64, job: JobId) -> (Vec<Reason>, Option<u64>) {
    let why = lab.why(now, job).unwrap();
    (why.reasons, why.could_start)
}

/// LAVA-1285: a job of three boards held two while the third was not good, and two such jobs waited
/// for each other's for ever.
#[test]
fn a_gang_holds_nothing_while_one_of_its_nodes_is_missing() {
    let mut lab = lab(3);
    let mut sick = lab.node(NodeId(2)).unwrap().clone();
    sick.health = Health::Quarantined {
        cause: "no answer".into(),
    };
    lab.set_node(NodeId(2), sick.clone()).unwrap();
    let gang = lab.submit(0, request("ann", 3, 4, 100)).unwrap();
    let other = lab.submit(1, request("ann", 3, 4, 100)).unwrap();
    let pair = lab.submit(2, request("bob", 2, 4, 100)).unwrap();
    assert_eq!(jobs(&start(&mut lab, 3)), [pair]);
    let (reasons, could_start) = why(&lab, 4, gang);
    assert_eq!(could_start, None);
    let [
        Reason::NotReady {
            wanted: 3,
            ready: 2,
            others,
            ..
        },
    ] = &reasons[..]
    else {
        panic!("{reasons:?}");
    };
    assert_eq!(others[0].0, "node2");
    sick.health = Health::Ready;
    lab.set_node(NodeId(2), sick).unwrap();
    assert_eq!(why(&lab, 5, gang).1, Some(103), "when the pair is over");
    assert_eq!(start(&mut lab, 5), []);
    let Some(Phase::Running { attempt, .. }) = lab.phase(pair).cloned() else {
        panic!("the pair runs");
    };
    lab.ended(6, attempt).unwrap();
    assert_eq!(jobs(&start(&mut lab, 7)), [gang]);
    assert_eq!(why(&lab, 8, other).0, [Reason::Held { by: vec![gang] }]);
}

#[test]
fn narrow_jobs_fill_the_gap_before_a_wide_one_and_never_delay_it() {
    let mut lab = impatient(2);
    let long = lab.submit(0, request("ann", 1, 4, 100)).unwrap();
    assert_eq!(jobs(&start(&mut lab, 0)), [long]);
    let wide = lab.submit(1, request("ann", 2, 4, 50)).unwrap();
    let too_long = lab.submit(2, request("bob", 1, 1, 99)).unwrap();
    let short = lab.submit(3, request("bob", 1, 1, 50)).unwrap();
    assert_eq!(jobs(&start(&mut lab, 4)), [short]);
    assert_eq!(why(&lab, 5, wide).1, Some(100));
    let (reasons, could_start) = why(&lab, 5, too_long);
    assert!(reasons.contains(&Reason::Reserved { by: vec![wide] }));
    assert_eq!(could_start, Some(150));
}

fn impatient(nodes: u32) -> Scheduler {
    let mut lab = Scheduler::new(Settings {
        patience: 0,
        ..Settings::default()
    });
    lab.set_queue("default", queue(0));
    for number in 0..nodes {
        lab.add_node(node(&format!("node{number}"), 4, 1));
    }
    lab
}

fn end(lab: &mut Scheduler, now: u64, job: JobId) {
    let Some(Phase::Running { attempt, .. }) = lab.phase(job).cloned() else {
        panic!("{job} runs");
    };
    lab.ended(now, attempt).unwrap();
}

/// One that is earlier in the order, and was to start later, took the place of one that was told so.
#[test]
fn who_could_start_early_keeps_off_what_others_after_it_have_reserved() {
    let mut lab = impatient(3);
    for _ in 0..3 {
        lab.submit(0, request("ann", 1, 4, 100)).unwrap();
    }
    let running = jobs(&start(&mut lab, 0));
    let widest = lab.submit(1, request("ann", 3, 4, 10)).unwrap();
    let wide = lab.submit(2, request("ann", 2, 4, 30)).unwrap();
    assert_eq!(start(&mut lab, 2), []);
    assert_eq!(lab.reserved(wide), Some(110));
    end(&mut lab, 60, running[0]);
    let brief = lab.submit(60, request("bob", 1, 4, 15)).unwrap();
    let narrow = lab.submit(60, request("bob", 1, 4, 20)).unwrap();
    assert_eq!(jobs(&start(&mut lab, 60)), [brief]);
    assert_eq!(lab.reserved(narrow), Some(75));
    end(&mut lab, 62, running[1]);
    end(&mut lab, 62, brief);
    assert_eq!(jobs(&start(&mut lab, 62)), [narrow]);
    assert_eq!(lab.reserved(widest), Some(100));
    assert_eq!(lab.reserved(wide), Some(110));
}

#[test]
fn the_first_in_order_moves_up_when_others_end_early() {
    let mut lab = impatient(2);
    for _ in 0..2 {
        lab.submit(0, request("ann", 1, 4, 1_000)).unwrap();
    }
    let running = jobs(&start(&mut lab, 0));
    let wide = lab.submit(1, request("ann", 2, 4, 50)).unwrap();
    assert_eq!(start(&mut lab, 1), []);
    assert_eq!(lab.reserved(wide), Some(1_000));
    end(&mut lab, 10, running[0]);
    let narrow = lab.submit(10, request("bob", 1, 4, 100)).unwrap();
    assert_eq!(jobs(&start(&mut lab, 10)), [narrow]);
    end(&mut lab, 20, running[1]);
    lab.submit(20, request("bob", 1, 4, 500)).unwrap();
    assert_eq!(start(&mut lab, 20), []);
    assert_eq!(lab.reserved(wide), Some(110));
}

#[test]
fn a_late_look_moves_back_what_is_behind_by_as_much_only() {
    let mut lab = lab(1);
    lab.set_queue("other", queue(0));
    let runs = lab.submit(0, request("ann", 1, 4, 100)).unwrap();
    start(&mut lab, 0);
    let first = lab.submit(1, request("ann", 1, 4, 10)).unwrap();
    let mut other = request("ann", 1, 4, 10);
    other.queue = "other".into();
    let second = lab.submit(2, other).unwrap();
    start(&mut lab, 2);
    assert_eq!(lab.reserved(first), Some(100));
    assert_eq!(lab.reserved(second), Some(110));
    // even where the order changed
    lab.set_queue("other", queue(1));
    end(&mut lab, 100, runs);
    assert_eq!(jobs(&start(&mut lab, 103)), [first]);
    assert_eq!(lab.reserved(second), Some(113));
}

#[test]
fn a_wide_job_starts_though_urgent_narrow_ones_never_cease() {
    let mut lab = lab(3);
    lab.set_queue("urgent", queue(1));
    let mut urgent = request("bob", 1, 4, 60_000);
    urgent.queue = "urgent".into();
    let wide = lab.submit(0, request("ann", 3, 4, 10)).unwrap();
    // two come for each that ends
    let mut running = Vec::new();
    let patience = Settings::default().patience;
    for now in (0..=patience + urgent.limit).step_by(20_000) {
        for _ in 0..2 {
            lab.submit(now, urgent.clone()).unwrap();
        }
        running.retain(|(end, attempt)| {
            if *end == now {
                lab.ended(now, *attempt).unwrap();
            }
            *end > now
        });
        let offers = start(&mut lab, now);
        if jobs(&offers).contains(&wide) {
            return;
        }
        running.extend(offers.iter().map(|it| (now + urgent.limit, it.attempt)));
    }
    panic!("the wide job starves");
}

#[test]
fn a_choosy_part_gets_the_node_that_only_it_needs() {
    let mut lab = lab(2);
    let mut fast = node("fast", 4, 1);
    fast.class = "fast".into();
    lab.set_node(NodeId(0), fast).unwrap();
    let mut wish = request("ann", 1, 4, 10);
    let mut choosy = part(1, 4);
    choosy.selector.class = Some("f*".into());
    wish.parts.push(choosy);
    lab.submit(0, wish).unwrap();
    let offers = lab.schedule(0);
    let nodes: Vec<(usize, u32)> = offers[0]
        .slots
        .iter()
        .map(|slot| (slot.part, slot.node.0))
        .collect();
    assert_eq!(nodes, [(0, 1), (1, 0)]);
}

#[test]
fn what_one_node_refuses_is_withdrawn_from_all_and_late_words_count_nothing() {
    let mut lab = lab(2);
    let job = lab.submit(0, request("ann", 2, 4, 10)).unwrap();
    let first = lab.schedule(0).remove(0);
    assert_eq!(lab.accept(1, first.attempt, NodeId(0)), Ok(false));
    assert_eq!(lab.give_up(first.attempt), Ok(true));
    assert_eq!(lab.phase(job), Some(&Phase::Waiting));
    let second = lab.schedule(2).remove(0);
    assert!(second.attempt.fence > first.attempt.fence);
    let stale = Unknown::Stale(first.attempt);
    assert_eq!(lab.accept(3, first.attempt, NodeId(1)), Err(stale));
    assert_eq!(lab.ended(3, first.attempt), Err(stale));
    assert_eq!(
        lab.accept(3, second.attempt, NodeId(7)),
        Err(Unknown::Node(NodeId(7)))
    );
    // nobody answers: the deadline passes, and the third is the last
    let third = lab.schedule(second.deadline).remove(0);
    assert_eq!(third.attempt.number, 3);
    assert_eq!(lab.give_up(third.attempt), Ok(false));
    assert_eq!(lab.phase(job), None);
}

#[test]
fn a_run_over_its_limit_keeps_its_cpus() {
    let mut lab = lab(1);
    let late = lab.submit(0, request("ann", 1, 4, 10)).unwrap();
    start(&mut lab, 0);
    let next = lab.submit(0, request("ann", 1, 4, 10)).unwrap();
    assert_eq!(start(&mut lab, 1_000_000), []);
    assert_eq!(
        why(&lab, 1_000_000, next).0,
        [Reason::Held { by: vec![late] }]
    );
}

#[test]
fn users_take_turns_and_priorities_go_first() {
    let mut lab = lab(1);
    lab.set_queue("urgent", queue(1));
    for time in 0..3 {
        lab.submit(time, request("ann", 1, 4, 10)).unwrap();
    }
    lab.submit(3, request("bob", 1, 4, 10)).unwrap();
    let mut urgent = request("ann", 1, 4, 10);
    urgent.queue = "urgent".into();
    lab.submit(4, urgent).unwrap();
    let mut order = Vec::new();
    for time in 10..15 {
        let offer = start(&mut lab, time * 100).remove(0);
        order.push(offer.attempt.job.0);
        lab.ended(time * 100 + 10, offer.attempt).unwrap();
    }
    assert_eq!(order, [5, 4, 1, 2, 3]);
}

#[test]
fn neighbours_only_where_all_sides_share() {
    let mut lab = lab(1);
    let mut wish = request("ann", 1, 2, 10);
    wish.share = true;
    lab.submit(0, wish.clone()).unwrap();
    lab.submit(0, wish.clone()).unwrap();
    assert_eq!(start(&mut lab, 0).len(), 1, "the node does not");
    let mut shared = node("node0", 4, 1);
    shared.share = true;
    lab.set_node(NodeId(0), shared).unwrap();
    assert_eq!(start(&mut lab, 1).len(), 1);
    wish.share = false;
    lab.submit(2, wish).unwrap();
    assert_eq!(start(&mut lab, 3).len(), 0);
}

#[test]
fn devices_are_given_by_glob_and_once() {
    let mut lab = lab(1);
    let mut with = node("node0", 4, 1);
    with.share = true;
    with.devices = ["eth1", "eth2", "nvme0"].map(String::from).into();
    lab.set_node(NodeId(0), with).unwrap();
    let mut wish = request("ann", 1, 1, 10);
    wish.share = true;
    wish.parts[0].devices = vec!["eth*".into(), "eth1".into()];
    lab.submit(0, wish.clone()).unwrap();
    wish.parts[0].devices = vec!["nvme*".into()];
    let second = lab.submit(0, wish.clone()).unwrap();
    wish.parts[0].devices = vec!["eth?".into()];
    let third = lab.submit(0, wish).unwrap();
    let offers = lab.schedule(0);
    assert_eq!(offers[0].slots[0].devices, ["eth2", "eth1"]);
    assert_eq!(jobs(&offers)[1], second);
    assert!(lab.phase(third) == Some(&Phase::Waiting));
}

#[test]
fn queues_refuse_what_they_do_not_take() {
    let mut lab = lab(1);
    let mut small = queue(0);
    small.capacity = 1;
    small.users = Some(["ann".to_owned()].into());
    small.limit = 5;
    lab.set_queue("small", small.clone());
    let mut wish = request("bob", 1, 1, 10);
    wish.queue = "small".into();
    let refused = lab.submit(0, wish.clone()).unwrap_err();
    assert!(matches!(refused, Refused::NotAllowed { .. }), "{refused}");
    wish.user = "ann".into();
    let job = lab.submit(0, wish.clone()).unwrap();
    let refused = lab.submit(0, wish.clone()).unwrap_err();
    assert!(
        matches!(refused, Refused::Full { capacity: 1, .. }),
        "{refused}"
    );
    start(&mut lab, 0);
    lab.submit(0, wish.clone()).unwrap();
    let (_, could_start) = why(&lab, 0, JobId(2));
    assert_eq!(could_start, Some(5), "the queue's limit");
    small.draining = true;
    lab.set_queue("small", small);
    assert!(matches!(
        lab.submit(0, wish.clone()),
        Err(Refused::Draining { .. })
    ));
    assert_eq!(
        why(&lab, 0, JobId(2)).0,
        [Reason::QueueDraining {
            queue: "small".into()
        }]
    );
    wish.queue = "none".into();
    assert!(matches!(lab.submit(0, wish), Err(Refused::NoQueue { .. })));
    let nothing = request("ann", 0, 1, 10);
    assert_eq!(lab.submit(0, nothing), Err(Refused::Nothing));
    assert_eq!(lab.cancel(JobId(9)), Err(Unknown::Job(JobId(9))));
    assert!(lab.cancel(job).unwrap().is_some(), "it has its place");
}

#[test]
fn why_tells_what_can_never_be() {
    let mut lab = lab(2);
    let large = lab.submit(0, request("ann", 1, 5, 10)).unwrap();
    assert_eq!(why(&lab, 0, large).0, [Reason::TooLarge { part: 0 }]);
    let many = lab.submit(0, request("ann", 3, 1, 10)).unwrap();
    let reason = Reason::NoSuchNodes {
        part: 0,
        wanted: 3,
        matching: 2,
    };
    assert_eq!(why(&lab, 0, many).0, [reason]);
    let mut picky = request("ann", 1, 1, 10);
    picky.parts[0].selector = Selector {
        labels: [("rack".to_owned(), "r*".to_owned())].into(),
        ..Selector::default()
    };
    let picky = lab.submit(0, picky).unwrap();
    assert!(matches!(
        why(&lab, 0, picky).0[..],
        [Reason::NoSuchNodes { matching: 0, .. }]
    ));
    let fine = lab.submit(0, request("ann", 1, 1, 10)).unwrap();
    assert_eq!(why(&lab, 0, fine), (vec![Reason::CanStart], Some(0)));
    let offer = lab.schedule(0).remove(0);
    accept(&mut lab, 0, &offer);
    assert_eq!(why(&lab, 0, fine).0, [Reason::Placed]);
}

#[test]
fn why_tells_that_only_isolation_is_missing() {
    let mut lab = lab(2);
    for number in 0..2 {
        let ordinary = Node {
            isolated: false,
            ..node(&format!("node{number}"), 4, 1)
        };
        lab.set_node(NodeId(number), ordinary).unwrap();
    }
    let mut wish = request("ann", 1, 1, 10);
    wish.parts[0].selector.isolated = true;
    let quiet = lab.submit(0, wish.clone()).unwrap();
    let reason = Reason::NotIsolated {
        part: 0,
        wanted: 1,
        matching: 0,
        others: vec!["node0".to_owned(), "node1".to_owned()],
    };
    assert_eq!(why(&lab, 0, quiet).0, [reason]);
    // isolation is not what keeps it from these
    wish.parts[0].selector.node = Some("elsewhere".to_owned());
    let elsewhere = lab.submit(0, wish).unwrap();
    assert!(matches!(
        why(&lab, 0, elsewhere).0[..],
        [Reason::NoSuchNodes { matching: 0, .. }]
    ));
}

fn booking(nodes: impl IntoIterator<Item = u32>, from: u64, until: u64) -> Booking {
    Booking {
        nodes: nodes.into_iter().map(NodeId).collect(),
        users: ["ann".to_owned()].into(),
        from,
        until,
    }
}

#[test]
fn a_booked_node_is_for_its_users_only_and_others_are_gone_before_it_begins() {
    let mut lab = lab(1);
    let id = lab.book(0, booking([0], 100, 200)).unwrap();
    let long = lab.submit(0, request("bob", 1, 4, 150)).unwrap();
    let short = lab.submit(1, request("bob", 1, 4, 99)).unwrap();
    let offers = start(&mut lab, 1);
    assert_eq!(jobs(&offers), [short]);
    assert_eq!(lab.next_look(1), Some(100));
    // at once, so that nobody has used more than others
    lab.ended(1, offers[0].attempt).unwrap();
    let (reasons, could_start) = why(&lab, 50, long);
    let nodes = vec!["node0".to_owned()];
    assert_eq!(reasons, [Reason::Booked { nodes }]);
    assert_eq!(could_start, Some(200));
    // she may stay beyond her booking, but not in the way of one who was there before her
    let too_long = lab.submit(60, request("ann", 1, 4, 81)).unwrap();
    let anns = lab.submit(60, request("ann", 1, 4, 80)).unwrap();
    assert_eq!(jobs(&start(&mut lab, 120)), [anns]);
    assert_eq!(why(&lab, 120, too_long).1, Some(350));
    assert_eq!(lab.unbook(id).map(|it| it.until), Some(200));
}

#[test]
fn a_booking_is_over_by_itself() {
    let mut lab = lab(1);
    lab.book(0, booking([0], 0, 200)).unwrap();
    let job = lab.submit(0, request("bob", 1, 4, 10)).unwrap();
    assert_eq!(start(&mut lab, 199), []);
    assert_eq!(jobs(&start(&mut lab, 200)), [job]);
    assert_eq!(lab.bookings().count(), 0);
}

#[test]
fn bookings_that_cannot_be_kept_are_refused() {
    let mut lab = lab(2);
    let held = lab.submit(0, request("bob", 1, 4, 50)).unwrap();
    let node = start(&mut lab, 0)[0].slots[0].node;
    let other = 1 - node.0;
    let refused = Unbookable::Held {
        node,
        job: held,
        until: 50,
    };
    assert_eq!(lab.book(1, booking([0, 1], 49, 60)), Err(refused));
    let first = lab.book(1, booking([0, 1], 50, 60)).unwrap();
    let refused = Unbookable::Booked {
        node: NodeId(other),
        booking: first,
    };
    assert_eq!(lab.book(1, booking([other], 59, 61)), Err(refused));
    lab.book(1, booking([other], 60, 61)).unwrap();
    for nothing in [
        booking([], 0, 9),
        booking([0], 9, 9),
        booking([0], 0, 1),
        Booking {
            users: BTreeSet::new(),
            ..booking([0], 70, 80)
        },
    ] {
        assert_eq!(lab.book(1, nothing), Err(Unbookable::Nothing));
    }
    let unknown = Err(Unknown::Node(NodeId(7)).into());
    assert_eq!(lab.book(1, booking([0, 7], 80, 90)), unknown);
    assert_eq!(lab.bookings().count(), 2);
}

#[test]
fn who_asks_for_a_tick_mode_gets_a_node_of_it() {
    let mut lab = lab(2);
    let mut ticking = node("node1", 4, 1);
    ticking.tick = Some(quiet::TickMode::Tick);
    lab.set_node(NodeId(1), ticking).unwrap();
    let mut wish = request("ann", 1, 4, 10);
    wish.parts[0].selector.tick = Some(quiet::TickMode::Tick);
    lab.submit(0, wish.clone()).unwrap();
    let second = lab.submit(0, wish).unwrap();
    assert_eq!(start(&mut lab, 0)[0].slots[0].node, NodeId(1));
    assert_eq!(lab.phase(second), Some(&Phase::Waiting));
}
