use std::fs;

use api::work::PartOutcome;

use super::*;
use crate::executor::Task;
use crate::fences::Standing;
use crate::state::tests::{assignment, key};

fn record(key: Key) -> Record {
    Record {
        assignment: Arc::new(assignment(key)),
        taken_at: Duration::new(12, 345),
    }
}

/// What both kinds keep; `again` is the journal as the next agent opens it.
async fn contract(journal: &dyn Journal, again: &dyn Fn() -> Box<dyn Journal>) {
    assert_eq!(again().load().await.unwrap(), Contents::default());
    let (one, two) = (key(1, 1, 10), key(2, 3, 11));
    journal.write(Change::Take(record(one))).await.unwrap();
    journal.write(Change::Take(record(two))).await.unwrap();
    let found = again().load().await.unwrap();
    let taken = |key, stage, ending| Found {
        record: record(key),
        stage,
        ending,
    };
    assert_eq!(
        found.attempts,
        [taken(one, None, None), taken(two, None, None)]
    );
    assert_eq!(found.fences.standing(key(1, 1, 9)), Standing::Older(10));

    for stage in [Stage::Preparing, Stage::Measuring, Stage::Packing] {
        journal.write(Change::Stage(one, stage)).await.unwrap();
        let found = again().load().await.unwrap();
        assert_eq!(found.attempts[0], taken(one, Some(stage), None));
    }
    let document = journal.folder(one).put("result.json", "{}").await.unwrap();
    let mut ending = Task::ending(PartOutcome::Failed, Some("it exited with 3".into()));
    ending.documents = vec![document];
    let ending = Arc::new(ending);
    let end = Change::End(one, Arc::clone(&ending));
    journal.write(end).await.unwrap();
    let found = again().load().await.unwrap();
    let over = taken(one, Some(Stage::Packing), Some(ending));
    assert_eq!(found.attempts, [over, taken(two, None, None)]);
    let content = again().folder(one).open("result.json").await.unwrap();
    assert_eq!(content.bytes(), 2);

    let mut fences = found.fences.clone();
    fences.close(one);
    let forget = Change::Forget(one, fences.clone());
    journal.write(forget.clone()).await.unwrap();
    let found = again().load().await.unwrap();
    assert_eq!(found.attempts, [taken(two, None, None)]);
    assert_eq!(found.fences.standing(one), Standing::Closed);
    assert!(again().folder(one).open("result.json").await.is_err());
    // forgotten already
    journal.write(forget).await.unwrap();
    let late = journal.write(Change::Stage(one, Stage::Packing)).await;
    assert!(matches!(late, Err(JournalError::Unknown { key }) if key == one));

    fences.close(key(7, 1, 99));
    journal.write(Change::Fences(fences)).await.unwrap();
    let found = again().load().await.unwrap();
    assert_eq!(found.fences.standing(key(7, 1, 98)), Standing::Older(99));
}

#[tokio::test]
async fn both_kinds_keep_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let open = || Directory::open(&root.path().join("work")).unwrap();
    contract(&open(), &|| Box::new(open())).await;
    let memory = Memory::new();
    contract(&memory, &|| Box::new(memory.clone())).await;
}

#[tokio::test]
async fn remains_of_a_killed_agent_are_no_attempts() {
    let root = tempfile::tempdir().unwrap();
    let journal = Directory::open(root.path()).unwrap();
    let (held, torn, forgotten) = (key(1, 1, 1), key(2, 1, 2), key(3, 1, 3));
    journal.write(Change::Take(record(held))).await.unwrap();
    journal.folder(held).note("series", "1").await.unwrap();
    // killed while it was written down, and while it was forgotten
    let dir = |key| root.path().join(crate::attempt::name(key));
    fs::create_dir(dir(torn)).unwrap();
    fs::write(dir(torn).join(".assignment.json"), "{\"assig").unwrap();
    fs::create_dir_all(dir(forgotten).join("documents")).unwrap();
    fs::write(dir(forgotten).join("stage"), "\"packing\"").unwrap();
    // and files that are nobody's
    fs::write(root.path().join(".fences.json"), "{").unwrap();
    fs::write(dir(held).join(".ending.json"), "{\"outcome\"").unwrap();
    let found = journal.load().await.unwrap();
    assert_eq!(found.attempts.len(), 1);
    assert_eq!(found.attempts[0].ending, None);
    assert!(!dir(torn).exists() && !dir(forgotten).exists());
    assert_eq!(
        journal.folder(held).noted("series").await.unwrap().unwrap(),
        "1"
    );
    // it can be taken now
    journal.write(Change::Take(record(torn))).await.unwrap();
    assert_eq!(journal.load().await.unwrap().attempts.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_read_is_left_for_people_and_its_attempt_is_not_taken_again() {
    let root = tempfile::tempdir().unwrap();
    let journal = Directory::open(root.path()).unwrap();
    let (sound, broken, strange) = (key(1, 1, 1), key(2, 1, 2), key(3, 1, 3));
    for key in [sound, broken, strange] {
        journal.write(Change::Take(record(key))).await.unwrap();
    }
    let file = |key| root.path().join(crate::attempt::name(key));
    fs::write(file(broken).join("assignment.json"), "{}").unwrap();
    fs::copy(
        file(sound).join("assignment.json"),
        file(strange).join("assignment.json"),
    )
    .unwrap();
    fs::write(root.path().join("fences.json"), "garbage").unwrap();
    let found = journal.load().await.unwrap();
    assert_eq!(found.attempts.len(), 1);
    assert!(file(broken).exists() && file(strange).exists());
    assert_eq!(found.fences.standing(key(2, 0, 1)), Standing::Older(2));
}

#[tokio::test]
async fn an_assignment_that_cannot_be_written_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("work");
    let journal = Directory::open(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    let error = journal.write(Change::Take(record(key(1, 1, 1)))).await;
    let text = crate::chain(&error.unwrap_err());
    assert!(text.contains("work/1-1-1"), "{text}");
    fs::create_dir(&path).unwrap();
    assert_eq!(journal.load().await.unwrap(), Contents::default());

    let memory = Memory::new();
    memory.set_full(true);
    let full = memory.write(Change::Take(record(key(1, 1, 1)))).await;
    assert!(matches!(full, Err(JournalError::Full)));
    memory.set_full(false);
    assert_eq!(memory.load().await.unwrap(), Contents::default());
}
