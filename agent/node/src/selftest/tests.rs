//! Who may run a self-test, and what is left of one that was killed.

use ::host::Tree;
use ::host::fakes::{CgroupRules, FakeMsrs, FakeTree};

use super::*;
use crate::placement::Placer;
use crate::placement::containers::{Containers, ContainersError, Seen};
use crate::placement::ledger::Pool;
use futures_util::future::BoxFuture;

struct NoEngine;

impl Containers for NoEngine {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Seen>, ContainersError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn inspect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Seen, ContainersError>> {
        Box::pin(async move { Err(ContainersError::NoSuch { id: id.into() }) })
    }

    fn kill<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), ContainersError>> {
        Box::pin(async { Ok(()) })
    }
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

struct Bench {
    tree: FakeTree,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            tree: CgroupRules::new(cpus("0-3"), cpus("0"), CpuSet::new()).tree(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// An agent that has just started.
    fn agent(&self) -> SelfTester {
        let tree: Arc<dyn Tree> = Arc::new(self.tree.clone());
        let placer = Placer::open(
            &self.folder.path().join("claims"),
            Arc::clone(&tree),
            Arc::new(NoEngine),
            crate::since_boot,
            Token::random,
        )
        .unwrap();
        placer.set_facts(
            policy::NodeFacts::default(),
            Pool {
                isolated: cpus("2-3"),
                nodes: BTreeMap::from([(0, cpus("0-3"))]),
                ..Pool::default()
            },
        );
        SelfTester::new(Parts {
            msrs: Arc::new(FakeMsrs::default()),
            placer: Arc::new(placer),
            tree,
            client: crate::engine::client::EngineClient::new(&self.folder.path().join("engine")),
            run_dir: self.folder.path().to_owned(),
            agent: "/nowhere/stillmetal-agent".into(),
            tasks: tokio_util::task::TaskTracker::new(),
            stop: tokio_util::sync::CancellationToken::new(),
            report: Arc::default(),
            plan: Arc::default(),
            unproven: None,
            join_dir: self.folder.path().join("join"),
        })
    }

    fn partitions(&self) -> usize {
        cgroups::partitions(&self.tree).len()
    }
}

fn query(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    owned.collect()
}

#[test]
fn a_query_is_understood_or_refused() {
    let wanted = Wanted::from_query(&query(&[
        ("cpu", "2"),
        ("force", "true"),
        ("format", "text"),
    ]));
    assert_eq!(
        wanted.unwrap(),
        Wanted {
            cpu: Some(2),
            company: Company::Accept
        }
    );
    assert_eq!(Wanted::from_query(&query(&[])).unwrap(), Wanted::default());
    for pair in [("cpu", "2,3"), ("cpu", ""), ("force", "yes"), ("cpus", "2")] {
        let denial = Wanted::from_query(&query(&[pair])).unwrap_err();
        assert_eq!(denial.status, 400, "{pair:?}");
        assert!(denial.message.contains(pair.0), "{}", denial.message);
    }
}

#[tokio::test]
async fn before_tuning_has_finished_there_is_nothing_to_test() {
    let bench = Bench::new();
    let agent = bench.agent();
    let denial = agent.run(&Wanted::default()).await.unwrap_err();
    assert_eq!(denial.status, 503);
    assert!(!agent.is_running(), "the next one may run");
    assert_eq!(agent.last().unwrap_err().status, 404);
}

#[tokio::test]
async fn a_claim_of_a_killed_self_test_is_freed_at_the_next_start() {
    let bench = Bench::new();
    let killed = bench.agent();
    let wish = Wish::Exact(cpus("2"));
    let claimed = killed.parts.placer.claim_own(wish, Holder::SelfTest).await;
    claimed.unwrap();
    let wish = Wish::Exact(cpus("3"));
    let process = killed.parts.placer.claim_process(wish, "7").await;
    process.unwrap();
    assert_eq!(bench.partitions(), 2);

    let agent = bench.agent();
    agent.parts.placer.reconcile().await;
    assert_eq!(agent.parts.placer.claims().len(), 2, "the ledger remembers");
    agent.clear_up();
    let left = agent.parts.placer.claims();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].1.cpus, cpus("3"), "of others nothing is touched");
    assert_eq!(bench.partitions(), 1);
    let again = bench.agent();
    assert_eq!(again.parts.placer.claims().len(), 1, "nor is it on disk");
}
