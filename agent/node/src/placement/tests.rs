//! Placement against an engine and a kernel that are fakes with state: partitions follow the
//! containers' lives, and a killed agent finds everything again.

use std::collections::BTreeMap;
use std::sync::Mutex;

use host::fakes::{CgroupRules, FakeTree};

use super::containers::Seen;
use super::*;

const NOW: fn() -> Duration = crate::since_boot;

#[derive(Default)]
struct FakeEngine {
    containers: Mutex<BTreeMap<String, Seen>>,
    killed: Mutex<Vec<String>>,
}

impl FakeEngine {
    fn put(&self, name: &str, cgroup_parent: &str, alive: bool) {
        let seen = Seen {
            id: format!("{name}-id"),
            name: name.into(),
            cgroup_parent: cgroup_parent.into(),
            claim: None,
            alive,
        };
        self.containers.lock().unwrap().insert(name.into(), seen);
    }

    fn remove(&self, name: &str) {
        self.containers.lock().unwrap().remove(name);
    }
}

impl Containers for FakeEngine {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Seen>, ContainersError>> {
        Box::pin(async { Ok(self.containers.lock().unwrap().values().cloned().collect()) })
    }

    fn inspect<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, Result<Seen, ContainersError>> {
        Box::pin(async move {
            let containers = self.containers.lock().unwrap();
            containers
                .values()
                .find(|seen| seen.name == id_or_name || seen.id == id_or_name)
                .cloned()
                .ok_or_else(|| ContainersError::NoSuch {
                    id: id_or_name.into(),
                })
        })
    }

    fn kill<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ContainersError>> {
        Box::pin(async move {
            self.killed.lock().unwrap().push(id.to_owned());
            Ok(())
        })
    }
}

struct Bench {
    tree: FakeTree,
    engine: Arc<FakeEngine>,
    records: tempfile::TempDir,
    boot_isolated: CpuSet,
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

impl Bench {
    fn new() -> Self {
        Self::with_isolcpus("")
    }

    fn with_isolcpus(list: &str) -> Self {
        let boot_isolated = cpus(list);
        let tree = CgroupRules::new(cpus("0-3"), cpus("0"), boot_isolated.clone()).tree();
        Self {
            boot_isolated,
            tree,
            engine: Arc::default(),
            records: tempfile::tempdir().unwrap(),
        }
    }

    /// An agent that starts now: a second one finds what the first left.
    fn agent(&self) -> Placer {
        let tree: Arc<dyn Tree> = Arc::new(self.tree.clone());
        let engine: Arc<dyn Containers> = Arc::<FakeEngine>::clone(&self.engine);
        let placer = Placer::open(self.records.path(), tree, engine, NOW, Token::random).unwrap();
        placer.set_facts(
            NodeFacts {
                isolated: cpus("1-3"),
                housekeeping: cpus("0"),
                unfit: None,
            },
            Pool {
                isolated: cpus("1-3"),
                boot_isolated: self.boot_isolated.clone(),
                nodes: BTreeMap::from([(0, cpus("0-3"))]),
            },
        );
        placer
    }

    fn partition(&self, cgroup_parent: &str) -> Option<String> {
        self.tree.get(&format!(
            "/sys/fs/cgroup{cgroup_parent}/cpuset.cpus.partition"
        ))
    }
}

fn pin(list: &str) -> Pin {
    Pin {
        cpus: CpuChoice::Exact(cpus(list)),
        mems: None,
        asked_cpuset_cpus: list.into(),
        asked_cpuset_mems: String::new(),
        certify: None,
    }
}

/// What the proxy does for `docker run`.
async fn run(bench: &Bench, agent: &Placer, name: &str, list: &str) -> Result<String, Denial> {
    let claimed = agent.claim(&pin(list), Some(name)).await?;
    bench.engine.put(name, &claimed.cgroup_parent, false);
    agent.created(&claimed.token, &format!("{name}-id")).await;
    agent.starting(name).await?;
    bench.engine.put(name, &claimed.cgroup_parent, true);
    agent.started(name).await;
    Ok(claimed.cgroup_parent)
}

#[tokio::test]
async fn a_partition_lives_as_long_as_its_container() {
    let bench = Bench::new();
    let agent = bench.agent();
    let parent = run(&bench, &agent, "one", "1").await.unwrap();
    assert_eq!(bench.partition(&parent).as_deref(), Some("isolated"));
    bench.engine.put("one", &parent, false);
    agent.reconcile().await;
    assert_eq!(bench.partition(&parent), None);
    bench.engine.remove("one");
    agent.reconcile().await;
    assert!(agent.claims().is_empty());
    assert_eq!(std::fs::read_dir(bench.records.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn several_cpus_get_a_partition_that_balances() {
    let bench = Bench::new();
    let parent = run(&bench, &bench.agent(), "two", "1-2").await.unwrap();
    assert_eq!(bench.partition(&parent).as_deref(), Some("root"));
}

#[tokio::test]
async fn a_taken_cpu_is_refused_until_the_holder_ends_without_any_event() {
    let bench = Bench::new();
    let agent = bench.agent();
    let parent = run(&bench, &agent, "one", "1").await.unwrap();
    let denial = run(&bench, &agent, "late", "1-2").await.unwrap_err();
    assert_eq!(denial.status, 409);
    assert!(
        denial.message.contains("container one"),
        "{}",
        denial.message
    );
    bench.engine.put("one", &parent, false);
    run(&bench, &agent, "late", "1-2").await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_the_cpus_between_stop_and_start() {
    let bench = Bench::new();
    let agent = bench.agent();
    let parent = run(&bench, &agent, "one", "1").await.unwrap();
    agent.starting("one").await.unwrap();
    bench.engine.put("one", &parent, false);
    agent.reconcile().await;
    assert_eq!(bench.partition(&parent).as_deref(), Some("isolated"));
    assert_eq!(
        run(&bench, &agent, "thief", "1").await.unwrap_err().status,
        409
    );
    bench.engine.put("one", &parent, true);
    agent.started("one").await;
    assert_eq!(bench.partition(&parent).as_deref(), Some("isolated"));
}

#[tokio::test]
async fn a_new_agent_finds_the_claims_of_a_killed_one() {
    let bench = Bench::new();
    let parent = run(&bench, &bench.agent(), "one", "1").await.unwrap();
    let successor = bench.agent();
    successor.reconcile().await;
    assert_eq!(bench.partition(&parent).as_deref(), Some("isolated"));
    let denial = run(&bench, &successor, "late", "1").await.unwrap_err();
    assert!(
        denial.message.contains("container one"),
        "{}",
        denial.message
    );
    let mut inspect = serde_json::json!({"HostConfig": {"CgroupParent": parent, "CpusetCpus": ""}});
    successor.restore_view(&mut inspect);
    assert_eq!(inspect["HostConfig"]["CpusetCpus"], "1");
    assert_eq!(inspect["HostConfig"]["CgroupParent"], "");
}

#[tokio::test]
async fn a_lost_record_is_read_off_the_cgroup() {
    let bench = Bench::new();
    run(&bench, &bench.agent(), "one", "1").await.unwrap();
    for entry in std::fs::read_dir(bench.records.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let successor = bench.agent();
    successor.reconcile().await;
    assert_eq!(
        run(&bench, &successor, "late", "1")
            .await
            .unwrap_err()
            .status,
        409
    );
}

#[tokio::test]
async fn an_orphaned_partition_goes_away() {
    let bench = Bench::new();
    let parent = run(&bench, &bench.agent(), "one", "1").await.unwrap();
    bench.engine.remove("one");
    bench.agent().reconcile().await;
    assert_eq!(bench.partition(&parent), None);
}

#[tokio::test]
async fn a_container_that_came_back_on_taken_cpus_is_killed() {
    let bench = Bench::new();
    let agent = bench.agent();
    let parent = run(&bench, &agent, "old", "1").await.unwrap();
    bench.engine.put("old", &parent, false);
    agent.reconcile().await;
    run(&bench, &agent, "new", "1").await.unwrap();
    // the engine restarted it by its own policy
    bench.engine.put("old", &parent, true);
    agent.reconcile().await;
    assert_eq!(*bench.engine.killed.lock().unwrap(), ["old-id"]);
}

#[tokio::test]
async fn an_unfit_node_refuses_pins_and_says_why() {
    let bench = Bench::new();
    let agent = bench.agent();
    agent.set_facts(
        NodeFacts {
            unfit: Some("no isolated CPU".into()),
            ..NodeFacts::default()
        },
        Pool::default(),
    );
    let denial = agent.claim(&pin("1"), None).await.unwrap_err();
    assert_eq!(denial.status, 409);
    assert!(
        denial.message.contains("no isolated CPU"),
        "{}",
        denial.message
    );
}

#[tokio::test]
async fn a_host_process_holds_its_cpus_like_a_container() {
    let bench = Bench::new();
    let agent = bench.agent();
    let (token, got) = agent.claim_process(Wish::Count(2), "7").await.unwrap();
    assert_eq!(got, cpus("1-2"));
    let denial = run(&bench, &agent, "late", "2").await.unwrap_err();
    assert!(
        denial.message.contains("host process 7"),
        "{}",
        denial.message
    );
    agent.reconcile().await;
    assert_eq!(
        agent.claims().len(),
        1,
        "reconciling with the engine leaves processes alone"
    );
    agent.release(&token);
    run(&bench, &agent, "late", "2").await.unwrap();
}

#[tokio::test]
async fn a_cpu_of_isolcpus_is_claimed_alone_and_without_a_partition() {
    let bench = Bench::with_isolcpus("2-3");
    let agent = bench.agent();
    let parent = run(&bench, &agent, "one", "2").await.unwrap();
    assert_eq!(bench.partition(&parent).as_deref(), Some("member"));
    let second = run(&bench, &agent, "two", "2").await.unwrap_err();
    assert_eq!(second.status, 409, "{}", second.message);
    let several = run(&bench, &agent, "three", "2-3").await.unwrap_err();
    assert_eq!(several.status, 409);
    assert!(
        several.message.contains("never spreads"),
        "{}",
        several.message
    );
    let parent = run(&bench, &agent, "four", "1").await.unwrap();
    assert_eq!(bench.partition(&parent).as_deref(), Some("isolated"));
}
