use super::*;

/// A machine whose writes succeed until they are told not to.
struct Scene {
    state: State,
    now: Duration,
    full: bool,
    written: Vec<Change>,
}

impl Scene {
    fn new() -> Self {
        Self::of(Contents::default()).0
    }

    fn of(contents: Contents) -> (Self, Vec<Effect>) {
        let now = Duration::from_secs(1000);
        let (state, effects) = State::restore(contents, now);
        let mut scene = Self {
            state,
            now,
            full: false,
            written: Vec::new(),
        };
        let effects = scene.settle(effects);
        (scene, effects)
    }

    fn welcomed() -> Self {
        let mut scene = Self::new();
        scene.greet(&[]);
        scene
    }

    fn greet(&mut self, keep: &[Key]) -> (Vec<Held>, Vec<Effect>) {
        let mut effects = self.state.connected();
        let Some(Say::Hello(held)) = self.state.say() else {
            panic!("no greeting");
        };
        effects.extend(self.order(Order::Welcome {
            keep: keep.to_vec(),
            heartbeat_seconds: 10,
        }));
        (held, self.settle(effects))
    }

    fn order(&mut self, order: Order) -> Vec<Effect> {
        let effects = self.state.order(order, self.now);
        self.settle(effects)
    }

    fn assign(&mut self, assignment: Assignment) -> Vec<Effect> {
        self.order(Order::Assign(Box::new(assignment)))
    }

    /// Does the writes; what is left is for whoever does the work.
    fn settle(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut left = Vec::new();
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Write(change) => {
                    let result = if self.full {
                        Err("no room".to_owned())
                    } else {
                        Ok(())
                    };
                    let then = self.state.wrote(&change, result, self.now);
                    then.into_iter().rev().for_each(|one| queue.push_front(one));
                    self.written.push(change);
                }
                other => left.push(other),
            }
        }
        left
    }

    fn prepared(&mut self, key: Key) -> Vec<Effect> {
        let effects = self.state.prepared(key);
        self.settle(effects)
    }

    fn over(&mut self, key: Key, result: Result<Ending, Refused>) -> Vec<Effect> {
        let effects = self.state.over(key, result);
        self.settle(effects)
    }

    fn tick(&mut self, after: u64) -> Vec<Effect> {
        self.now += Duration::from_secs(after);
        let effects = self.state.tick(self.now);
        self.settle(effects)
    }

    /// All that can be said now.
    fn say(&mut self) -> Vec<Report> {
        let mut said = Vec::new();
        while let Some(Say::Report(report)) = self.state.say() {
            said.push(report);
        }
        said
    }

    /// Taken, prepared and begun.
    fn running(key: Key) -> Self {
        let mut scene = Self::welcomed();
        scene.assign(assignment(key));
        assert_eq!(scene.prepared(key), [Effect::Begin(key)]);
        assert_eq!(scene.say().len(), 2);
        scene
    }
}

fn stage(key: Key, stage: Stage) -> Report {
    Report::Stage {
        key,
        stage,
        detail: None,
    }
}

fn ended(key: Key, ending: Ending) -> Report {
    Report::Ended {
        key,
        ending: Box::new(ending),
    }
}

fn refusal(said: &[Report]) -> &str {
    match said {
        [Report::Refused { why, .. }] => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_assignment_is_written_down_prepared_accepted_and_begun() {
    let key = key(1, 1, 5);
    let mut scene = Scene::welcomed();
    let run = scene.assign(assignment(key));
    assert_eq!(run, [Effect::Run(Arc::new(assignment(key)))]);
    assert!(matches!(scene.written[0], Change::Take(_)));
    assert_eq!(scene.say(), [], "not accepted before it is prepared");
    assert_eq!(scene.prepared(key), [Effect::Begin(key)]);
    let begun = Change::Stage(key, Stage::Preparing);
    assert_eq!(scene.written[1], begun, "known before it begins");
    let said = scene.say();
    assert_eq!(
        said,
        [Report::Accepted { key }, stage(key, Stage::Preparing)]
    );
    assert_eq!(scene.over(key, Ok(done())), []);
    assert_eq!(scene.say(), [ended(key, done())]);
    assert_eq!(scene.say(), [], "told once on a stream");
    scene.order(Order::Acknowledge { key });
    assert_eq!(scene.state.views().count(), 0);
    assert!(matches!(scene.written.last(), Some(Change::Forget(..))));
}

#[test]
fn the_same_assignment_again_is_accepted_again_and_not_begun_again() {
    let key = key(1, 1, 5);
    let mut scene = Scene::running(key);
    assert_eq!(scene.assign(assignment(key)), []);
    assert_eq!(scene.say(), [Report::Accepted { key }]);
    assert_eq!(scene.order(Order::Begin { key }), []);
    scene.over(key, Ok(done()));
    scene.say();
    assert_eq!(scene.assign(assignment(key)), []);
    assert_eq!(
        scene.say(),
        [Report::Accepted { key }, ended(key, done())],
        "with its ending"
    );
    // also once it is forgotten
    scene.order(Order::Acknowledge { key });
    assert_eq!(scene.assign(assignment(key)), []);
    assert!(refusal(&scene.say()).contains("over on this node"));
}

#[test]
fn lower_fences_are_refused_also_after_a_restart() {
    let mut scene = Scene::running(key(1, 3, 9));
    for order in [
        Order::Assign(Box::new(assignment(key(1, 2, 8)))),
        Order::Begin { key: key(1, 2, 8) },
    ] {
        assert_eq!(scene.order(order), []);
        assert!(refusal(&scene.say()).contains("lower than 9"));
    }
    let other = assignment(key(2, 1, 3));
    assert_eq!(
        scene.assign(other.clone()),
        [Effect::Run(Arc::new(other))],
        "fences are a job's"
    );
    scene.over(key(1, 3, 9), Ok(done()));
    scene.order(Order::Acknowledge { key: key(1, 3, 9) });
    let Some(Change::Forget(_, fences)) = scene.written.last() else {
        panic!("{:?}", scene.written);
    };
    let contents = Contents {
        attempts: Vec::new(),
        fences: fences.clone(),
    };
    let (mut scene, _) = Scene::of(contents);
    scene.greet(&[]);
    scene.assign(assignment(key(1, 2, 8)));
    assert!(refusal(&scene.say()).contains("lower than 9"));
    scene.assign(assignment(key(1, 3, 9)));
    assert!(refusal(&scene.say()).contains("over"));
}

#[test]
fn what_is_refused_or_unknown_does_not_come_back() {
    let key = key(4, 1, 7);
    let mut scene = Scene::welcomed();
    scene.assign(assignment(key));
    assert_eq!(scene.over(key, Err(Refused::here("CPU 1 is taken"))), []);
    assert_eq!(refusal(&scene.say()), "CPU 1 is taken");
    assert_eq!(scene.assign(assignment(key)), []);
    refusal(&scene.say());

    let never = super::key(5, 1, 8);
    for order in [
        Order::Begin { key: never },
        Order::Cancel {
            key: never,
            why: String::new(),
        },
        Order::Assign(Box::new(assignment(never))),
    ] {
        assert_eq!(scene.order(order), []);
        refusal(&scene.say());
    }
    scene.order(Order::Acknowledge { key: never });
    assert_eq!(scene.say(), []);
}

#[test]
fn one_that_waits_begins_when_it_is_told_and_only_once() {
    let key = key(1, 1, 1);
    let mut scene = Scene::welcomed();
    scene.assign(Assignment {
        wait_for_begin: true,
        ..assignment(key)
    });
    assert_eq!(scene.prepared(key), []);
    assert_eq!(scene.say(), [Report::Accepted { key }]);
    assert_eq!(scene.order(Order::Begin { key }), [Effect::Begin(key)]);
    assert_eq!(scene.order(Order::Begin { key }), []);
}

#[test]
fn a_full_disk_refuses_an_assignment_and_recovers() {
    let mut scene = Scene::welcomed();
    scene.full = true;
    assert_eq!(scene.assign(assignment(key(1, 1, 1))), []);
    assert!(refusal(&scene.say()).contains("no room"));
    assert_eq!(scene.state.views().count(), 0);
    scene.full = false;
    assert_eq!(scene.assign(assignment(key(1, 2, 2))).len(), 1);
}

#[test]
fn what_cannot_be_written_down_is_not_begun_and_an_ending_is_tried_again() {
    let key = key(1, 1, 1);
    let mut scene = Scene::welcomed();
    scene.assign(assignment(key));
    scene.full = true;
    let effects = scene.prepared(key);
    assert!(
        matches!(&effects[..], [Effect::Cancel(_, why)] if why.contains("no room")),
        "{effects:?}"
    );
    scene.over(key, Ok(cancelled()));
    let said = scene.say();
    let [Report::Accepted { .. }, Report::Ended { ending, .. }] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(ending.outcome, PartOutcome::Error);
    let tries = scene.written.len();
    scene.tick(9);
    assert_eq!(scene.written.len(), tries);
    scene.full = false;
    scene.tick(1);
    assert!(matches!(scene.written[tries..], [Change::End(..)]));
    assert_eq!(scene.state.due(), None);
}

#[test]
fn a_cancel_is_passed_on_wherever_it_stands() {
    let cancel = |key| Order::Cancel {
        key,
        why: "not wanted".into(),
    };
    let key = key(1, 1, 1);
    for steps in 0..5 {
        let mut scene = Scene::welcomed();
        scene.assign(Assignment {
            wait_for_begin: true,
            ..assignment(key)
        });
        if steps > 0 {
            scene.prepared(key);
        }
        if steps > 1 {
            scene.order(Order::Begin { key });
        }
        if steps > 2 {
            scene.state.measuring(key);
        }
        if steps > 3 {
            scene.say();
            scene.state.said(&stage(key, Stage::Measuring));
        }
        let effects = scene.order(cancel(key));
        assert_eq!(effects, [Effect::Cancel(key, "not wanted".into())]);
        assert_eq!(scene.order(cancel(key)), [], "once");
        scene.over(key, Ok(cancelled()));
        let said = scene.say();
        let Some(Report::Ended { ending, .. }) = said.last() else {
            panic!("{steps}: {said:?}");
        };
        assert_eq!(ending.outcome, PartOutcome::Cancelled);
        assert_eq!(ending.reason.as_deref(), Some("not wanted"));
        assert_eq!(scene.order(cancel(key)), []);
    }
}

#[test]
fn what_ended_by_itself_before_its_cancel_keeps_its_outcome() {
    let key = key(1, 1, 1);
    let mut scene = Scene::running(key);
    scene.order(Order::Cancel {
        key,
        why: "late".into(),
    });
    scene.over(key, Ok(done()));
    assert_eq!(scene.say(), [ended(key, done())]);
}

#[test]
fn of_lease_and_limit_the_shorter_holds() {
    for (lease, total, expected, word) in [
        (100, None, 100, "lease of 100 s"),
        (100, Some(200), 100, "lease of 100 s"),
        (100, Some(12), 12, "limit of 12 s"),
    ] {
        let key = key(1, 1, 1);
        let mut assignment = assignment(key);
        assignment.lease_seconds = lease;
        assignment.request.limits.total_seconds = total;
        let mut scene = Scene::welcomed();
        scene.assign(assignment);
        scene.prepared(key);
        assert_eq!(scene.tick(expected - 1), []);
        let effects = scene.tick(1);
        assert!(
            matches!(&effects[..], [Effect::Cancel(_, why)] if why.contains(word)),
            "{effects:?}"
        );
        scene.over(key, Ok(cancelled()));
        let said = scene.say();
        let Some(Report::Ended { ending, .. }) = said.last() else {
            panic!("{said:?}");
        };
        assert_eq!(ending.outcome, PartOutcome::TimedOut);
        assert_eq!(scene.state.due(), None);
    }
}

#[test]
fn a_program_that_writes_nothing_is_ended_and_one_that_does_not_run_is_not() {
    let key = key(1, 1, 1);
    let mut assignment = assignment(key);
    assignment.request.limits.output_seconds = Some(10);
    let mut scene = Scene::welcomed();
    scene.assign(assignment);
    scene.prepared(key);
    assert_eq!(scene.tick(100), [], "none runs");
    scene.state.output(key, Output::Seen, scene.now);
    assert_eq!(scene.tick(100), [], "none runs that has to");
    scene.state.output(key, Output::Expected, scene.now);
    assert_eq!(scene.tick(9), []);
    scene.state.output(key, Output::Seen, scene.now);
    assert_eq!(scene.tick(9), []);
    scene.state.output(key, Output::Over, scene.now);
    assert_eq!(scene.tick(100), []);
    scene.state.output(key, Output::Expected, scene.now);
    let effects = scene.tick(10);
    assert!(
        matches!(&effects[..], [Effect::Cancel(_, why)] if why.contains("wrote nothing for 10 s")),
        "{effects:?}"
    );
    scene.over(key, Ok(cancelled()));
    let said = scene.say();
    let Some(Report::Ended { ending, .. }) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!(ending.outcome, PartOutcome::TimedOut);
}

#[test]
fn measuring_is_told_first_and_then_nothing_unasked() {
    let (one, two) = (key(1, 1, 1), key(2, 1, 2));
    let mut scene = Scene::running(one);
    scene.assign(assignment(two));
    scene.prepared(two);
    scene.say();
    let effects = scene.state.measuring(one);
    assert_eq!(
        scene.settle(effects),
        [],
        "not before the controller was told"
    );
    assert!(!scene.state.silent());
    assert_eq!(scene.say(), [stage(one, Stage::Measuring)]);
    let effects = scene.state.said(&stage(one, Stage::Measuring));
    assert_eq!(effects, [Effect::Measure(one)]);
    assert!(scene.state.silent());
    assert_eq!(scene.state.heartbeat(), None);
    scene.over(two, Ok(done()));
    assert_eq!(scene.say(), []);
    // what is asked is answered
    scene.assign(assignment(two));
    assert_eq!(scene.say(), [Report::Accepted { key: two }]);
    let effects = scene.state.stage(one, Stage::Packing, None);
    scene.settle(effects);
    assert!(!scene.state.silent());
    assert_eq!(
        scene.say(),
        [stage(one, Stage::Packing), ended(two, done())]
    );
    assert_eq!(scene.state.heartbeat(), Some(Duration::from_secs(10)));
}

#[test]
fn without_anybody_to_tell_it_measures_at_once() {
    let one = key(1, 1, 1);
    let mut scene = Scene::running(one);
    scene.state.disconnected();
    let effects = scene.state.measuring(one);
    assert_eq!(scene.settle(effects), [Effect::Measure(one)]);
    let (held, _) = scene.greet(&[one]);
    let stage = Stage::Measuring;
    assert_eq!(held, [Held { key: one, stage }]);
    assert_eq!(scene.say(), []);

    // or when whoever was to be told leaves
    let mut scene = Scene::running(one);
    let effects = scene.state.measuring(one);
    assert_eq!(scene.settle(effects), []);
    assert_eq!(scene.state.disconnected(), [Effect::Measure(one)]);
}

#[test]
fn one_that_shares_its_node_keeps_nobody_silent() {
    let one = key(1, 1, 1);
    let mut shared = assignment(one);
    shared.request.place.share = true;
    let mut scene = Scene::welcomed();
    scene.assign(shared);
    scene.prepared(one);
    scene.state.measuring(one);
    scene.say();
    scene.state.said(&stage(one, Stage::Measuring));
    assert!(!scene.state.silent());
}

#[test]
fn an_ending_is_told_after_each_greeting_until_it_is_acknowledged() {
    let key = key(1, 1, 1);
    let mut scene = Scene::running(key);
    scene.over(key, Ok(done()));
    for _ in 0..200 {
        let (held, _) = scene.greet(&[key]);
        let stage = Stage::Ended;
        assert_eq!(held, [Held { key, stage }]);
        assert_eq!(scene.say(), [ended(key, done())]);
        scene.state.disconnected();
    }
    scene.greet(&[key]);
    scene.order(Order::Acknowledge { key });
    assert_eq!(scene.greet(&[]).0, []);
}

#[test]
fn nothing_that_runs_is_forgotten_by_an_acknowledgement() {
    let key = key(1, 1, 1);
    let mut scene = Scene::running(key);
    assert_eq!(scene.order(Order::Acknowledge { key }), []);
    scene.over(key, Ok(done()));
    assert_eq!(scene.say(), [ended(key, done())]);
}

#[test]
fn what_the_controller_does_not_keep_ends_before_anything_new_is_taken() {
    let (old, new) = (key(1, 1, 1), key(2, 1, 2));
    let mut scene = Scene::running(old);
    let (_, effects) = scene.greet(&[]);
    assert!(matches!(&effects[..], [Effect::Cancel(key, _)] if *key == old));
    assert_eq!(scene.assign(assignment(new)), []);
    assert_eq!(scene.assign(assignment(new)), [], "twice is once");
    assert_eq!(scene.say(), []);
    let effects = scene.over(old, Ok(done()));
    assert_eq!(effects, [Effect::Run(Arc::new(assignment(new)))]);
    scene.prepared(new);
    let said = scene.say();
    assert_eq!(said[0], Report::Accepted { key: new });
    assert_eq!(scene.state.views().count(), 1, "the old one is forgotten");
}

#[test]
fn nothing_is_taken_before_the_controller_has_answered() {
    let key = key(1, 1, 1);
    let mut scene = Scene::new();
    scene.state.connected();
    assert_eq!(scene.assign(assignment(key)), []);
    assert!(matches!(scene.state.say(), Some(Say::Hello(_))));
    assert_eq!(scene.state.say(), None);
    let effects = scene.order(Order::Welcome {
        keep: Vec::new(),
        heartbeat_seconds: 1,
    });
    assert_eq!(effects.len(), 1);
    // what waited on a stream that ended is not taken
    let mut scene = Scene::new();
    scene.state.connected();
    scene.assign(assignment(key));
    assert_eq!(scene.greet(&[]).1, []);
    assert_eq!(scene.assign(assignment(key)).len(), 1, "given again");
}

#[test]
fn a_newer_attempt_waits_until_the_older_one_has_ended() {
    let (old, new) = (key(1, 1, 1), key(1, 2, 2));
    let mut scene = Scene::running(old);
    let effects = scene.assign(assignment(new));
    assert!(matches!(&effects[..], [Effect::Cancel(key, _)] if *key == old));
    assert_eq!(scene.order(Order::Begin { key: old }), []);
    assert!(refusal(&scene.say()).contains("lower than 2"));
    let effects = scene.over(old, Ok(cancelled()));
    assert_eq!(effects, [Effect::Run(Arc::new(assignment(new)))]);
    // its result is evidence, and kept
    let said = scene.say();
    assert!(
        matches!(&said[..], [Report::Ended { key, .. }] if *key == old),
        "{said:?}"
    );
    scene.order(Order::Acknowledge { key: old });
    assert_eq!(scene.state.views().count(), 1);
}

#[test]
fn what_was_overtaken_while_it_waited_is_not_taken() {
    let (old, waits, newer) = (key(1, 1, 1), key(2, 1, 2), key(2, 2, 3));
    let mut scene = Scene::running(old);
    scene.greet(&[]);
    scene.assign(assignment(waits));
    scene.order(Order::Begin { key: newer });
    assert!(refusal(&scene.say()).contains("not on this node"));
    assert_eq!(scene.over(old, Ok(done())), []);
    assert!(refusal(&scene.say()).contains("lower than 3"));
}

#[test]
fn a_cancel_reaches_what_still_waits() {
    let (old, new) = (key(1, 1, 1), key(2, 1, 2));
    let mut scene = Scene::running(old);
    scene.greet(&[]);
    scene.assign(assignment(new));
    scene.order(Order::Cancel {
        key: new,
        why: String::new(),
    });
    assert!(refusal(&scene.say()).contains("cancelled before"));
    assert_eq!(scene.over(old, Ok(done())), []);
    assert_eq!(scene.state.views().count(), 0);
}

#[test]
fn after_a_restart_what_was_begun_is_adopted_and_what_was_not_is_prepared() {
    let (begun, kept, over) = (key(1, 1, 1), key(2, 1, 2), key(3, 1, 3));
    let found = |key, stage, ending: Option<Ending>| crate::journal::Found {
        record: Record {
            assignment: Arc::new(assignment(key)),
            taken_at: Duration::from_secs(5000),
        },
        stage,
        ending: ending.map(Arc::new),
    };
    let contents = Contents {
        attempts: vec![
            found(begun, Some(Stage::Measuring), None),
            found(kept, None, None),
            found(over, Some(Stage::Packing), Some(done())),
        ],
        fences: Fences::default(),
    };
    let (mut scene, effects) = Scene::of(contents.clone());
    let adopted = Effect::Adopt(Arc::new(assignment(begun)), Stage::Measuring);
    assert_eq!(effects, [adopted]);
    assert!(scene.state.silent(), "it may be measuring still");
    // a time after now is of before the reboot: the lease begins anew
    assert_eq!(scene.state.due(), Some(Duration::from_secs(1000 + 3600)));
    let (held, effects) = scene.greet(&[begun, kept, over]);
    assert_eq!(held.len(), 3);
    assert_eq!(effects, [Effect::Run(Arc::new(assignment(kept)))]);
    assert_eq!(scene.over(begun, Ok(done())), []);
    let said = scene.say();
    assert_eq!(said, [ended(begun, done()), ended(over, done())]);
    // it was told that it is here: it cannot be refused any more
    scene.over(kept, Err(Refused::anywhere("no image")));
    let said = scene.say();
    let [Report::Ended { ending, .. }] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(ending.reason.as_deref(), Some("no image"));

    let (mut scene, _) = Scene::of(contents);
    let (_, effects) = scene.greet(&[]);
    assert_eq!(effects.len(), 1, "{effects:?}");
    assert_eq!(scene.state.views().count(), 1, "the one that has to end");
}

#[test]
fn a_peer_that_does_not_read_is_not_listened_to_for_ever() {
    let mut scene = Scene::welcomed();
    for job in 0.. {
        if !scene.state.takes_orders() {
            break;
        }
        assert!(job < 1000);
        scene.order(Order::Begin {
            key: key(job, 1, 1),
        });
    }
    assert_eq!(scene.say().len(), ANSWERS);
    assert!(scene.state.takes_orders());
}

#[test]
fn long_texts_are_cut() {
    let key = key(1, 1, 1);
    let mut scene = Scene::running(key);
    let reason = Some("ä".repeat(10_000));
    scene.over(key, Ok(Task::ending(PartOutcome::Failed, reason)));
    let said = scene.say();
    let [Report::Ended { ending, .. }] = &said[..] else {
        panic!("{said:?}");
    };
    assert!(ending.reason.as_ref().unwrap().len() < TEXT + 8);
}

#[test]
fn an_ending_that_no_frame_holds_is_told_as_an_error() {
    for (documents, outcome) in [(4100, PartOutcome::Done), (20_000, PartOutcome::Error)] {
        let key = key(1, 1, 1);
        let mut scene = Scene::running(key);
        let mut ending = done();
        ending.documents = (0..documents)
            .map(|number| api::work::Document {
                name: format!("certificate-{number}.json"),
                bytes: 1_000_000,
                sha256: "0".repeat(64),
            })
            .collect();
        scene.over(key, Ok(ending));
        let said = scene.say();
        let [Report::Ended { ending, .. }] = &said[..] else {
            panic!("{said:?}");
        };
        assert_eq!(ending.outcome, outcome, "{documents}");
        assert!(crate::frame::encode(&said[0]).is_ok());
    }
}
